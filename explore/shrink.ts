/**
 * Shrinking: the fewest preemptions, and the fewest operations, that still fail in the same way.
 *
 * *Schedules.* A schedule is a list of events, and a replay leaves out those that do not come about, so any subset of
 * one is a schedule. Delta debugging tries halves, quarters, …, single events until none can be left out.
 *
 * *Programs.* Without an operation the accesses of its CPU have other numbers, and the old events mean something else:
 * each shorter program is searched anew, with a small bound and a small budget.
 *
 *   SHR-1  what is returned fails with the same kind of failure
 *   SHR-2  leaving out any one event of it does not (1-minimal), unless the budget ended
 *
 * Source: A. Zeller, R. Hildebrandt, IEEE TSE 2002 (ddmin).
 */

import type { ScheduleEvent } from "./engine.ts";

/** `list` without some of it, as long as `fails` holds; at most `budget` tries. */
export function ddmin<T>(
  list: readonly T[],
  fails: (candidate: readonly T[]) => boolean,
  budget: number,
): readonly T[] {
  let best = list;
  let left = budget;
  let parts = 2;
  while (best.length > 0 && left > 0) {
    const size = Math.max(1, Math.floor(best.length / parts));
    let isShorter = false;
    for (let from = 0; from < best.length && left > 0; ) {
      const candidate = [...best.slice(0, from), ...best.slice(from + size)];
      left--;
      if (fails(candidate)) {
        best = candidate;
        isShorter = true;
      } else from += size;
    }
    if (size === 1 && !isShorter) break;
    parts = isShorter ? Math.max(2, parts - 1) : Math.min(best.length, parts * 2);
  }
  return best;
}

export interface ShrinkHooks {
  /** Does a schedule fail in the same way, with these programs? The events of that run, or null. */
  tryEvents(programs: readonly string[], events: readonly ScheduleEvent[]): readonly ScheduleEvent[] | null;
  /** A schedule of at most `bound` preemptions that fails in the same way with these programs, or null. */
  search(programs: readonly string[], bound: number): readonly ScheduleEvent[] | null;
}

export interface Shrunk {
  readonly programs: readonly string[];
  readonly events: readonly ScheduleEvent[];
}

const MAX_TRIES = 2_000;
/** Searching for programs with more preemptions than this takes too long. */
const MAX_SEARCH_BOUND = 2;

export function shrink(hooks: ShrinkHooks, programs: readonly string[], events: readonly ScheduleEvent[]): Shrunk {
  const fewest = (of: readonly string[], from: readonly ScheduleEvent[]): readonly ScheduleEvent[] =>
    ddmin(from, (candidate) => hooks.tryEvents(of, candidate) !== null, MAX_TRIES);
  let best: Shrunk = { programs, events: fewest(programs, events) };
  const bound = Math.min(MAX_SEARCH_BOUND, Math.max(1, best.events.length));
  for (let cpu = 0; cpu < programs.length; cpu++) {
    ddmin(
      [...(programs[cpu] as string)],
      (letters) => {
        const candidate = best.programs.map((program, c) => (c === cpu ? letters.join("") : program));
        const found = hooks.search(candidate, bound);
        if (found !== null) best = { programs: candidate, events: found };
        return found !== null;
      },
      200,
    );
  }
  return { programs: best.programs, events: fewest(best.programs, best.events) };
}
