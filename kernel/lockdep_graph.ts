/**
 * The graph of lock classes: an edge A → B says that somebody took B while he held A.
 *
 * An edge has up to four kinds, by how A was held (E exclusive, S shared) and how B was taken (N: may wait for any
 * holder, R: a recursive reader, who waits for writers only). They are the bits of one byte in a square matrix in RAM.
 *
 * Not every cycle is a deadlock: a recursive reader does not wait for another reader. Where a path comes to a lock as a
 * reader (…R) and leaves it as a shared holder (S…), nobody waits, and the path is no path. Walks keep that in mind:
 * the state of a walk is (class, has it come by R edges only).
 *
 *   LDP-G1  the matrix has a bit if and only if such an acquisition has been seen
 *   LDP-G2  a walk finds a class if and only if a path of classes without "R then S" leads to it
 *
 * Source: the reasoning at the head of Linux kernel/locking/lockdep.c (strong paths), Documentation/locking/
 * lockdep-design.rst.
 */

import type { MemoryPort } from "./arch/port.ts";

export const MAX_CLASSES = 128;
/** Static memory: one byte for each pair of classes. */
export const LOCK_GRAPH_BYTES = MAX_CLASSES * MAX_CLASSES;

const DEP_EN = 1;
const DEP_ER = 2;
const DEP_SN = 4;
const DEP_SR = 8;

export const depKind = (isHeldShared: boolean, isTakenRecursively: boolean): number => {
  if (isHeldShared) return isTakenRecursively ? DEP_SR : DEP_SN;
  return isTakenRecursively ? DEP_ER : DEP_EN;
};

/** Looks at a class on the way; `isWeak`: the way to it is by readers (forwards) or shared holders (backwards) only. */
export type Visit = (cls: number, isWeak: boolean) => boolean;

export interface LockGraph {
  /** Remembers an edge; false if it was known. */
  add(from: number, to: number, kind: number): boolean;
  has(from: number, to: number, kind: number): boolean;
  nrEdges(): number;
  /**
   * Walks along the edges from `start`, itself included, breadth first, until `visit` says true: the classes on the
   * way, `start` first; undefined if it never does. O(classes²).
   */
  forwards(start: number, isWeak: boolean, visit: Visit): readonly number[] | undefined;
  /** The same against the edges. */
  backwards(start: number, isWeak: boolean, visit: Visit): readonly number[] | undefined;
}

export function createLockGraph(port: MemoryPort, base: number): LockGraph {
  const cell = (from: number, to: number): number => base + from * MAX_CLASSES + to;
  let nrEdges = 0;

  /** Kinds of the edge by which a walk may go on, given how it came; 0 for none. */
  const goesForward = (kinds: number, isWeak: boolean): number => (isWeak ? kinds & (DEP_EN | DEP_ER) : kinds);
  const goesBackward = (kinds: number, isWeak: boolean): number => (isWeak ? kinds & (DEP_EN | DEP_SN) : kinds);

  const walk = (start: number, isWeak: boolean, visit: Visit, isForward: boolean): readonly number[] | undefined => {
    const from = new Map<number, number>();
    const stateOf = (cls: number, weak: boolean): number => cls * 2 + (weak ? 1 : 0);
    const queue = [stateOf(start, isWeak)];
    from.set(queue[0] as number, -1);
    for (let next = 0; next < queue.length; next++) {
      const state = queue[next] as number;
      const [cls, weak] = [state >>> 1, (state & 1) === 1];
      if (visit(cls, weak)) return pathTo(state, from);
      for (let other = 0; other < MAX_CLASSES; other++) {
        const kinds = port.ld8(isForward ? cell(cls, other) : cell(other, cls));
        const usable = isForward ? goesForward(kinds, weak) : goesBackward(kinds, weak);
        if (usable === 0) continue;
        const isStrong = (usable & (isForward ? DEP_EN | DEP_SN : DEP_EN | DEP_ER)) !== 0;
        const reached = stateOf(other, !isStrong);
        if (from.has(reached) || from.has(stateOf(other, false))) continue;
        from.set(reached, state);
        queue.push(reached);
      }
    }
    return undefined;
  };
  const pathTo = (state: number, from: ReadonlyMap<number, number>): readonly number[] => {
    const path: number[] = [];
    for (let at = state; at >= 0; at = from.get(at) as number) path.unshift(at >>> 1);
    return path;
  };

  return {
    add(from, to, kind) {
      const kinds = port.ld8(cell(from, to));
      if ((kinds & kind) !== 0) return false;
      if (kinds === 0) nrEdges++;
      port.st8(cell(from, to), kinds | kind);
      return true;
    },
    has: (from, to, kind) => (port.ld8(cell(from, to)) & kind) !== 0,
    nrEdges: () => nrEdges,
    forwards: (start, isWeak, visit) => walk(start, isWeak, visit, true),
    backwards: (start, isWeak, visit) => walk(start, isWeak, visit, false),
  };
}
