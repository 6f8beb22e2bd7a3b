/**
 * The front door of exploration for drivers of labs: the engine and searches that draw nothing, so no npm package.
 *
 * A driver runs in a child that has none; explore/index.ts brings scenarios and random programs with it.
 */

export { createDeepening } from "./dfs.ts";
export { createDice } from "./dice.ts";
export { createDpor } from "./dpor.ts";
export { createEngine, type Engine } from "./engine.ts";
export { formatSchedule } from "./schedule.ts";
export type { Strategy } from "./strategy.ts";
