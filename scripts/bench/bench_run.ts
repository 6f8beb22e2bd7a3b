/**
 * What both suites are told: how much to measure, and whether to go on.
 */

export interface BenchRun {
  readonly seed: string;
  /** Samples per figure; the median is shown. */
  readonly nrSamples: number;
  /** Timed operations of a sample. */
  readonly nrOps: number;
  /** Does `--filter` want the figure of this name? */
  wants(name: string): boolean;
  /** Says on standard error what is being measured. */
  progress(text: string): void;
  /** True after Ctrl-C, or when nobody reads the output any more. */
  isStopped(): boolean;
}
