/**
 * Shrinking: the shortest program that still breaks the same rule.
 *
 * Delta debugging over the operations, in batches: each round runs all candidates that leave out one of n pieces, and
 * goes on with the first that still fails with the same kind; n doubles when none does. Then pairs of operations, the
 * lab's own simplifications, and all of it once more. A candidate that refers to what it left out loses the referrer.
 *
 * The number of runs is bounded, so the time is; the result fails, it need not be the very smallest.
 *
 * Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", TSE 28(2), 2002.
 */

import { keepOps, type Observation, type Program } from "./program.ts";

/** Above that, pairs of operations are too many to try. */
const MAX_PAIR_OPS = 24;

export interface Failing<V> {
  readonly program: Program;
  readonly observation: Observation;
  readonly violation: V;
}

export interface ShrinkRequest<V> {
  run(programs: readonly Program[]): Promise<readonly Observation[]>;
  /** The violation if this is the failure looked for, else null. */
  fails(program: Program, observation: Observation): V | null;
  simpler(program: Program): readonly Program[];
  /** Last operation that matters. */
  lastOp(violation: V): number;
  readonly maxRuns: number;
}

/** Shrinks `start`, which fails. */
export async function shrink<V>(start: Failing<V>, request: ShrinkRequest<V>): Promise<Failing<V>> {
  let best = start;
  let runsLeft = request.maxRuns;

  const firstFailing = async (candidates: readonly Program[]): Promise<boolean> => {
    // More and more at a time: programs that search through orders are slow, and the first ones may do.
    for (let from = 0, size = 2; from < candidates.length && runsLeft > 0; from += size, size *= 2) {
      const programs = candidates.slice(from, from + Math.min(size, runsLeft));
      runsLeft -= programs.length;
      const observations = await request.run(programs);
      for (let i = 0; i < programs.length; i++) {
        const program = programs[i] as Program;
        const observation = observations[i] as Observation;
        const violation = request.fails(program, observation);
        if (violation === null) continue;
        best = { program, observation, violation };
        return true;
      }
    }
    return false;
  };

  const cutTail = async (): Promise<void> => {
    const end = request.lastOp(best.violation) + 1;
    if (end < best.program.ops.length) await firstFailing([keepOps(best.program, indices(end))]);
  };

  const dropPieces = async (): Promise<void> => {
    for (let pieces = 2; best.program.ops.length > 1 && runsLeft > 0; ) {
      const nrOps = best.program.ops.length;
      const size = Math.ceil(nrOps / pieces);
      const candidates: Program[] = [];
      for (let from = 0; from < nrOps; from += size) {
        candidates.push(
          keepOps(
            best.program,
            indices(nrOps).filter((i) => i < from || i >= from + size),
          ),
        );
      }
      if (await firstFailing(candidates)) {
        await cutTail();
        pieces = Math.max(2, Math.min(pieces - 1, best.program.ops.length));
      } else if (size === 1) return;
      else pieces = Math.min(pieces * 2, nrOps);
    }
  };

  const dropPairs = async (): Promise<void> => {
    for (;;) {
      const nrOps = best.program.ops.length;
      if (nrOps > MAX_PAIR_OPS) return;
      const pairs = indices(nrOps).flatMap((i) => indices(i).map((j) => [j, i] as const));
      const candidates = pairs.map(([a, b]) =>
        keepOps(
          best.program,
          indices(nrOps).filter((i) => i !== a && i !== b),
        ),
      );
      if (!(await firstFailing(candidates))) return;
    }
  };

  await cutTail();
  await dropPieces();
  await dropPairs();
  while (runsLeft > 0 && (await firstFailing(request.simpler(best.program)))) await cutTail();
  await dropPieces();
  await dropPairs();
  return best;
}

function indices(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
