/**
 * The scenarios that ship, in the order in which they are listed.
 */

import type { Scenario } from "../scenario.ts";
import { depotLockfree } from "./depot_lockfree.ts";

export const SCENARIOS: readonly Scenario[] = [depotLockfree];
