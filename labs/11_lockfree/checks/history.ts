/**
 * Histories: what operations of several CPUs returned, and which of them came before which.
 *
 * An operation begins with its first access and ends with its last; it came before another if it had ended when that
 * one began. A history is *linearizable* if its operations can be put in a row, each at a moment between its begin and
 * its end, so that one CPU alone doing them in this row would have got the same results.
 *
 * Source: M. Herlihy, J. Wing, "Linearizability", TOPLAS 12(3), 1990; the search is J. Wing's and C. Gong's, 1993.
 */

import type { Json } from "../../kit/program.ts";

export interface LockfreeConfig {
  /** Nodes 1 … free are free at the start. */
  readonly free: number;
  /** Nodes that each CPU holds at the start, numbered on from there. */
  readonly hold?: readonly number[];
  readonly firstTag?: number;
  readonly nrNodes?: number;
}

export interface HistoryOp {
  cpu: number;
  /** `push`, `pop`, `refill`. */
  name: string;
  /** The node that is pushed, or how many are asked for. */
  arg: number;
  /** A node, nodes, or the name of the type of what was returned instead. */
  result: number | string | readonly (number | string)[];
  /** Moments of the first and the last access; 0 if there was none. */
  first: number;
  last: number;
  nrAccesses: number;
}

export interface History {
  readonly ops: readonly HistoryOp[];
  /** What pop gave when all had ended, up to its first 0. */
  readonly left: readonly (number | string)[];
  readonly schedule: string;
  /** Accesses by six numbers: CPU, kind, word, two arguments, result. */
  readonly log: readonly number[];
}

/** A run that did not end well. */
export interface BrokenRun {
  readonly failure: readonly [kind: string, message: string];
  readonly schedule: string;
  /** Operations that had begun and not ended. */
  readonly where: readonly HistoryOp[];
  readonly log: readonly number[];
}

/** What the driver handed out, or null if it is no such text. */
export function parseRun(text: Json | undefined): History | BrokenRun | null {
  if (typeof text !== "string") return null;
  try {
    const run: unknown = JSON.parse(text);
    const isRun = typeof run === "object" && run !== null && ("ops" in run || "failure" in run);
    return isRun ? (run as History | BrokenRun) : null;
  } catch {
    return null;
  }
}

/** Did operations follow one another, none beginning before the last one had ended? */
export function isSequential(history: History): boolean {
  const sorted = history.ops.toSorted((a, b) => a.first - b.first);
  return sorted.every((op, i) => i === 0 || (sorted[i - 1] as HistoryOp).last < op.first);
}

/** The nodes that an operation gave to its CPU. */
export function takenBy(op: HistoryOp): readonly (number | string)[] {
  if (op.name === "push") return [];
  return [op.result].flat().filter((node) => node !== 0);
}

/** Can the operations be put in a row? Which nodes are free follows from which operations are in it. */
export function isLinearizable(history: History, nrFree: number): boolean {
  const threads: HistoryOp[][] = [];
  for (const op of history.ops) (threads[op.cpu] ??= []).push(op);
  const lists = threads.filter((list) => list !== undefined);
  const seen = new Set<string>();
  const start = new Set<number>(Array.from({ length: nrFree }, (_, i) => i + 1));

  const extend = (at: readonly number[], free: ReadonlySet<number>): boolean => {
    const key = at.join();
    if (seen.has(key)) return false;
    seen.add(key);
    const heads = lists.map((list, t) => list[at[t] as number]);
    if (heads.every((op) => op === undefined)) return true;
    const firstEnd = Math.min(...heads.map((op) => op?.last ?? Number.POSITIVE_INFINITY));
    return heads.some((op, t) => {
      if (op === undefined || op.first > firstEnd) return false;
      const after = apply(op, free);
      return (
        after !== null &&
        extend(
          at.map((n, i) => (i === t ? n + 1 : n)),
          after,
        )
      );
    });
  };
  return extend(
    lists.map(() => 0),
    start,
  );
}

/** The free nodes after `op`, or null if it cannot return this with these free nodes. */
function apply(op: HistoryOp, free: ReadonlySet<number>): ReadonlySet<number> | null {
  if (op.name === "push") return new Set([...free, op.arg]);
  const taken = takenBy(op) as readonly number[];
  if (taken.length !== Math.min(op.arg, free.size) || taken.some((node) => !free.has(node))) return null;
  const after = new Set(free);
  for (const node of taken) after.delete(node);
  return after;
}
