/**
 * The host's two output streams, and the end of them.
 *
 * A reader that has seen enough closes the pipe (`| head`): from then on what is written is dropped, the run stops at
 * the next consistent point, and nobody complains.
 */

import type { StopRequest } from "./run_workloads.ts";

export interface HostOutput {
  /** The result. */
  out(text: string): void;
  /** Messages and progress. */
  err(text: string): void;
  /** Why the host wants to stop. */
  readonly stop: StopRequest;
}

/** Output to the process's streams. Installs the handlers for closed pipes. */
export function createHostOutput(): HostOutput {
  const stop: StopRequest = { reason: "none" };
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE" && error.code !== "EIO") throw error;
      if (stream === process.stdout) stop.reason = "closed";
    });
  }
  return {
    stop,
    out(text) {
      if (stop.reason !== "closed" && text !== "") process.stdout.write(text);
    },
    err(text) {
      if (text !== "") process.stderr.write(text);
    },
  };
}

/**
 * Runs `work` with Ctrl-C turned into a stop request; a second Ctrl-C kills as usual. `onStop` is for work that would
 * not look at the request for a while.
 */
export async function stoppable<T>(stop: StopRequest, work: () => Promise<T>, onStop?: () => void): Promise<T> {
  const onInterrupt = (): void => {
    stop.reason = "interrupt";
    onStop?.();
  };
  process.once("SIGINT", onInterrupt);
  try {
    return await work();
  } finally {
    process.off("SIGINT", onInterrupt);
  }
}
