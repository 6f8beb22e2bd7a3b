/**
 * Histories: what operations of several CPUs returned, and which of them came before which.
 *
 * An operation begins with its first access and ends with its last; it came before another if it had ended when that
 * one began. A history is *linearizable* if its operations can be put in a row, each at a moment between its begin and
 * its end, so that one CPU alone doing them in this row would have got the same results.
 *
 * Source: M. Herlihy, J. Wing, "Linearizability", TOPLAS 12(3), 1990; the search is J. Wing's and C. Gong's, 1993.
 */

import type { Json } from "./program.ts";

export interface HistoryOp {
  cpu: number;
  name: string;
  /** What was given, or how many were asked for. */
  arg: number;
  /** What was returned, or the name of its type where that is the wrong one. */
  result: number | string | readonly (number | string)[];
  /** Moments of the first and the last access; 0 if there was none. */
  first: number;
  last: number;
  nrAccesses: number;
}

/** A run that ended, as far as judging needs it. */
export interface RunHistory {
  readonly ops: readonly HistoryOp[];
  readonly schedule: string;
}

/** A run that did not end well. */
export interface BrokenRun {
  readonly failure: readonly [kind: string, message: string];
  readonly schedule: string;
  /** Operations that had begun and not ended. */
  readonly where: readonly HistoryOp[];
  readonly log: readonly number[];
}

/** What a driver handed out, or null if it is no such text. */
export function parseRun<H extends RunHistory>(text: Json | undefined): H | BrokenRun | null {
  if (typeof text !== "string") return null;
  try {
    const run: unknown = JSON.parse(text);
    const isRun = typeof run === "object" && run !== null && ("ops" in run || "failure" in run);
    return isRun ? (run as H | BrokenRun) : null;
  } catch {
    return null;
  }
}

/** Did operations follow one another, none beginning before the last one had ended? */
export function isSequential({ ops }: RunHistory): boolean {
  const sorted = ops.toSorted((a, b) => a.first - b.first);
  return sorted.every((op, i) => i === 0 || (sorted[i - 1] as HistoryOp).last < op.first);
}

/** What is free after `op`, or null if it cannot return this with so much free. */
export type Apply = (op: HistoryOp, free: ReadonlySet<number>) => ReadonlySet<number> | null;

/**
 * Can the operations be put in a row? `threads` have theirs in order; what is free must follow from which operations
 * are in the row, and not from their order.
 */
export function isLinearizable(
  threads: readonly (readonly HistoryOp[])[],
  free: ReadonlySet<number>,
  apply: Apply,
): boolean {
  const seen = new Set<string>();
  const extend = (at: readonly number[], now: ReadonlySet<number>): boolean => {
    const key = at.join();
    if (seen.has(key)) return false;
    seen.add(key);
    const heads = threads.map((list, t) => list[at[t] as number]);
    if (heads.every((op) => op === undefined)) return true;
    const firstEnd = Math.min(...heads.map((op) => op?.last ?? Number.POSITIVE_INFINITY));
    return heads.some((op, t) => {
      if (op === undefined || op.first > firstEnd) return false;
      const after = apply(op, now);
      if (after === null) return false;
      return extend(
        at.map((n, i) => (i === t ? n + 1 : n)),
        after,
      );
    });
  };
  return extend(
    threads.map(() => 0),
    free,
  );
}

/** A search in words: `312 orders tried, 7 different outcomes`. `nrRuns` and `isComplete` are claims. */
export function searchText(nrRuns: Json | undefined, isComplete: Json | undefined, nrOutcomes: number): string {
  const nr = typeof nrRuns === "number" ? nrRuns : 0;
  const rest = isComplete === true ? ", which are all" : "";
  const outcomes = `${nrOutcomes} different ${nrOutcomes === 1 ? "outcome" : "outcomes"}`;
  return `${nr} ${nr === 1 ? "order" : "orders"} tried${rest}; ${outcomes}`;
}
