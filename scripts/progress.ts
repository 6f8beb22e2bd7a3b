/**
 * Progress: how far a run is, on standard error.
 *
 * On a terminal one line that rewrites itself a few times a second; elsewhere a line every ten seconds, so that the
 * log of an unattended run shows life. Nothing of this reaches standard output.
 */

export interface Progress {
  /** `done` operations of `total` (0: unknown) at virtual time `cycles`. Cheap: prints when it is time to. */
  update(done: number, total: number, cycles: number): void;
  /** Wipes the line. */
  end(): void;
}

export const NO_PROGRESS: Progress = { update: () => {}, end: () => {} };

const TTY_INTERVAL_MS = 200;
const LOG_INTERVAL_MS = 10_000;

export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** Progress lines on `stream`; `clock` in milliseconds; `noun`: what is counted. */
export function createProgress(
  stream: ProgressStream,
  clock: () => number = () => performance.now(),
  noun = "operations",
): Progress {
  const isTty = stream.isTTY === true;
  const interval = isTty ? TTY_INTERVAL_MS : LOG_INTERVAL_MS;
  const start = clock();
  let next = start + interval;
  let isShown = false;
  return {
    update(done, total, cycles) {
      const now = clock();
      if (now < next) return;
      next = now + interval;
      const line = progressLine(done, total, noun, cycles, (now - start) / 1000);
      stream.write(isTty ? `\r${line}\x1b[K` : `${line}\n`);
      isShown = isTty;
    },
    end() {
      if (isShown) stream.write("\r\x1b[K");
      isShown = false;
    },
  };
}

function progressLine(done: number, total: number, noun: string, cycles: number, seconds: number): string {
  const rate = done / Math.max(seconds, 0.001);
  const virtual = cycles === 0 ? "" : `, ${(cycles / 1e6).toFixed(0)} ms virtual`;
  if (total === 0) return `running: ${done} ${noun}, ${rate.toFixed(0)}/s${virtual}`;
  const left = rate > 0 ? `, ${Math.max(0, Math.ceil((total - done) / rate))} s left` : "";
  return `running: ${done}/${total} ${noun}, ${rate.toFixed(0)}/s${left}${virtual}`;
}
