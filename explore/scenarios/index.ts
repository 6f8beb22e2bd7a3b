/**
 * The scenarios that ship, in the order in which they are listed.
 */

import type { Scenario } from "../scenario.ts";
import { depotLocked } from "./depot_locked.ts";
import { depotLockfree } from "./depot_lockfree.ts";
import { dmaMap } from "./dma_map.ts";
import { magazine, magazineLockfree } from "./magazine.ts";
import { pcp } from "./pcp.ts";
import { waitQueue } from "./wait_queue.ts";

export const SCENARIOS: readonly Scenario[] = [
  depotLockfree,
  depotLocked,
  magazine,
  magazineLockfree,
  pcp,
  dmaMap,
  waitQueue,
];
