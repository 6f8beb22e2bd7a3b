/**
 * The front door of exploration: what graders, the command line and a browser may use.
 */

export { createDeepening } from "./dfs.ts";
export { createDpor } from "./dpor.ts";
export { createExploration, type Finding, type Verdict } from "./exploration.ts";
export {
  type Adequacy,
  createHunt,
  type HuntOptions,
  type HuntResult,
  hunt,
  irqsFor,
  measureAdequacy,
  mutantOf,
  programsFor,
  replaySchedule,
  STRATEGIES,
  type StrategyName,
} from "./hunt.ts";
export { createPct } from "./pct.ts";
export { formatPrograms, parsePrograms } from "./programs.ts";
export { asExplorable, bindPrograms, type Scenario, type ScenarioWorld } from "./scenario.ts";
export { SCENARIOS } from "./scenarios/index.ts";
export type { Strategy } from "./strategy.ts";
export type { Failure, FailureKind, Subject } from "./subject.ts";
export { createObjectWorld, createPageWorld } from "./world.ts";
