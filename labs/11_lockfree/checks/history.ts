/**
 * Histories of lab 11: operations on a freelist, and which rows of them can be (labs/kit/history.ts).
 */

import { type HistoryOp, isLinearizable as isRowPossible, type RunHistory } from "../../kit/history.ts";

export interface LockfreeConfig {
  /** Nodes 1 … free are free at the start. */
  readonly free: number;
  /** Nodes that each CPU holds at the start, numbered on from there. */
  readonly hold?: readonly number[];
  readonly firstTag?: number;
  readonly nrNodes?: number;
}

/** Operations are `push`, `pop`, `refill`. */
export interface History extends RunHistory {
  /** What pop gave when all had ended, up to its first 0. */
  readonly left: readonly (number | string)[];
  /** Accesses by six numbers: CPU, kind, word, two arguments, result. */
  readonly log: readonly number[];
}

/** The nodes that an operation gave to its CPU. A 0 is pop's word for none; a refill that gives none is empty. */
export function takenBy(op: HistoryOp): readonly (number | string)[] {
  if (op.name === "push" || op.result === 0) return [];
  return [op.result].flat();
}

/** Can the operations be put in a row? Which nodes are free follows from which operations are in it. */
export function isLinearizable(history: History, nrFree: number): boolean {
  const threads: HistoryOp[][] = [];
  for (const op of history.ops) (threads[op.cpu] ??= []).push(op);
  const start = new Set<number>(Array.from({ length: nrFree }, (_, i) => i + 1));
  return isRowPossible(
    threads.filter((list) => list !== undefined),
    start,
    apply,
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
