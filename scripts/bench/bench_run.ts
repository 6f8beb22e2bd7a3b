/**
 * What every suite is told: how much to measure, whether to go on, and where to say what is being done.
 */

export interface BenchRun {
  readonly seed: string;
  /** Samples per figure; the median is shown. */
  readonly nrSamples: number;
  /** Timed operations of a sample. */
  readonly nrOps: number;
  /** Does `--filter` want the figure of this name (its id, a blank, its title)? */
  wants(name: string): boolean;
  /** A figure begins: a line on standard error, or the one line of a terminal. */
  progress(figure: string): void;
  /** What of it is being measured: terminals only. */
  detail(text: string): void;
  /** True after Ctrl-C, or when nobody reads the output any more. */
  isStopped(): boolean;
}

/**
 * Does `filter` mean the figure called `name`? Words separated by commas, each an id (`A1`, with its variants `A1b`)
 * or a part of the name.
 */
export function matchesFilter(filter: string, name: string): boolean {
  const lower = name.toLowerCase();
  const [id = ""] = lower.split(" ");
  return filter
    .toLowerCase()
    .split(",")
    .map((word) => word.trim())
    .some((word) => {
      if (word === "") return false;
      if (/^[a-z]\d+$/.test(word)) return new RegExp(`^${word}[a-z]?$`).test(id);
      return lower.includes(word);
    });
}
