/**
 * An exploration: run after run under a strategy until one fails or none is left; then the failure made small.
 *
 *   explore(strategy)   ─▶ run … run ─▶ fails? ─▶ run again: the same? ─▶ shrink ─▶ trace ─▶ Finding
 *   replay(schedule)    ─▶ that one run, traced
 *
 * What a grader needs is in the Verdict: whether the search was complete, and of a failure the kind, the words, the
 * programs and the schedule that show it, and the run as columns.
 *
 *   XPL-1  every failure is run twice; one that does not come back is reported as nondeterminism
 *   XPL-2  the schedule of a finding, replayed with its programs, fails in the way the finding says
 */

import { createDfs } from "./dfs.ts";
import { createEngine, type ScheduleEvent } from "./engine.ts";
import { renderRun } from "./render.ts";
import type { Explorable } from "./scenario.ts";
import { createReplay, formatSchedule } from "./schedule.ts";
import { shrink } from "./shrink.ts";
import type { Strategy } from "./strategy.ts";
import type { Failure } from "./subject.ts";

export interface Finding extends Failure {
  /** Runs up to and including the one that failed. */
  readonly nrRuns: number;
  readonly programs: readonly string[];
  readonly schedule: string;
  /** Preemptions and interrupts in the schedule, and in the one that was found. */
  readonly nrEvents: number;
  readonly nrEventsFound: number;
  /** The run, as columns. */
  readonly lines: readonly string[];
}

export interface Verdict {
  readonly nrRuns: number;
  /** Accesses of all runs. */
  readonly nrSteps: number;
  /** Runs that the strategy gave up as equivalent to others. */
  readonly nrPruned: number;
  /** Every schedule that the strategy allows was run. */
  readonly isComplete: boolean;
  readonly finding: Finding | null;
}

export interface ExploreOptions {
  readonly strategy: Strategy;
  readonly maxRuns: number;
  /** Programs of the next run; absent: always the same. */
  readonly nextPrograms?: (() => readonly string[]) | undefined;
}

export interface Exploration {
  explore(options: ExploreOptions): Verdict;
  /** Of `nrRuns` runs, how many fail. */
  sample(strategy: Strategy, nrRuns: number): number;
  /** One run, whose choices are the events. */
  replay(events: readonly ScheduleEvent[]): Verdict;
}

export interface ExplorationSpec {
  readonly explorable: Explorable;
  /** Interrupts per CPU and run. */
  readonly irqs: number;
  readonly maxSteps?: number;
  /** Columns of a rendering. */
  readonly width?: number;
  /** Shrink failing schedules and programs; default true. */
  readonly isShrinking?: boolean;
  /** Report races and usages of locks, not only what comes of them; default true. */
  readonly isDetecting?: boolean;
}

const DEFAULT_MAX_STEPS = 20_000;
const DEFAULT_WIDTH = 100;
/** Runs that a search for shorter programs may take. */
const SEARCH_RUNS = 3_000;

export function createExploration(spec: ExplorationSpec): Exploration {
  const {
    explorable,
    irqs,
    maxSteps = DEFAULT_MAX_STEPS,
    width = DEFAULT_WIDTH,
    isShrinking = true,
    isDetecting = true,
  } = spec;
  const { subject } = explorable;
  const engine = createEngine(subject, { irqs, maxSteps, isDetecting });
  explorable.watchLocks(engine.lockUsed);

  const failsAs = (kind: string, strategy: Strategy): readonly ScheduleEvent[] | null =>
    engine.run(strategy).failure?.kind === kind ? engine.events() : null;

  const search = (kind: string, bound: number): readonly ScheduleEvent[] | null => {
    const dfs = createDfs(bound);
    for (let i = 0; i < SEARCH_RUNS; i++) {
      const events = failsAs(kind, dfs);
      if (events !== null) return events;
      if (!dfs.next()) return null;
    }
    return null;
  };

  const smallest = (failure: Failure, programs: readonly string[], events: readonly ScheduleEvent[]) => {
    const small = shrink(
      {
        tryEvents(candidate, fewer) {
          explorable.setPrograms(candidate);
          return failsAs(failure.kind, createReplay(fewer));
        },
        search(candidate, bound) {
          explorable.setPrograms(candidate);
          return search(failure.kind, bound);
        },
      },
      programs,
      events,
    );
    explorable.setPrograms(small.programs);
    return small;
  };

  /** Runs it once more, traced, and describes it; null if it does not fail. */
  const describe = (events: readonly ScheduleEvent[], nrRuns: number, nrEventsFound: number): Finding | null => {
    const { result, accesses } = engine.trace(createReplay(events));
    if (result.failure === null) return null;
    return {
      ...result.failure,
      nrRuns,
      programs: explorable.programs(),
      schedule: formatSchedule(events),
      nrEvents: events.length,
      nrEventsFound,
      lines: renderRun(subject, accesses, result.failure, { width }),
    };
  };

  const unstable = (failure: Failure, events: readonly ScheduleEvent[], nrRuns: number): Finding => ({
    kind: "nondeterminism",
    message: `a run failed (${failure.kind}: ${failure.message}) and, run again, did not: state outside RAM?`,
    nrRuns,
    programs: explorable.programs(),
    schedule: formatSchedule(events),
    nrEvents: events.length,
    nrEventsFound: events.length,
    lines: [],
  });

  const investigate = (failure: Failure, nrRuns: number): Finding => {
    const found = engine.events();
    const programs = explorable.programs();
    const again = engine.run(createReplay(found)).failure;
    if (again?.kind !== failure.kind || again.message !== failure.message) return unstable(failure, found, nrRuns);
    const { events } = isShrinking ? smallest(failure, programs, found) : { events: found };
    const finding = describe(events, nrRuns, found.length) ?? unstable(failure, events, nrRuns);
    explorable.setPrograms(programs);
    return finding;
  };

  return {
    explore({ strategy, maxRuns, nextPrograms }) {
      let nrRuns = 0;
      let nrSteps = 0;
      let nrPruned = 0;
      let finding: Finding | null = null;
      while (nrRuns < maxRuns) {
        if (nextPrograms !== undefined) explorable.setPrograms(nextPrograms());
        const { failure, steps, isStopped } = engine.run(strategy);
        nrRuns++;
        nrSteps += steps;
        if (isStopped) nrPruned++;
        if (failure !== null) {
          finding = investigate(failure, nrRuns);
          break;
        }
        if (!strategy.next()) break;
      }
      return { nrRuns, nrSteps, nrPruned, isComplete: strategy.isComplete(), finding };
    },
    sample(strategy, nrRuns) {
      let nrFailed = 0;
      for (let i = 0; i < nrRuns; i++) {
        if (engine.run(strategy).failure !== null) nrFailed++;
        strategy.next();
      }
      return nrFailed;
    },
    replay(events) {
      const finding = describe(events, 1, events.length);
      return { nrRuns: 1, nrSteps: 0, nrPruned: 0, isComplete: false, finding };
    },
  };
}
