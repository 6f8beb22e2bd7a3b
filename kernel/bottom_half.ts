/**
 * The pair that keeps softirqs off this CPU, for the locks that need it before softirqs exist.
 *
 * Locks are made first of all, softirqs after interrupts and tasks. Until those are connected the pair only counts in
 * preempt_count (C1: 0x200); afterwards enabling also runs what was raised meanwhile (kernel/softirq.ts).
 *
 *   BH-1  while disabled, no softirq handler starts on this CPU; the disables nest
 */

import { type ContextTracking, SOFTIRQ_DISABLE_OFFSET } from "./context.ts";
import type { Context } from "./types.ts";

export interface BottomHalves {
  localBhDisable(ctx: Context): void;
  localBhEnable(ctx: Context): void;
}

export interface BottomHalfSwitch extends BottomHalves {
  /** From now on this pair does it. Boot only. */
  connect(pair: BottomHalves): void;
}

export function createBottomHalfSwitch(contexts: ContextTracking): BottomHalfSwitch {
  let pair: BottomHalves = {
    localBhDisable: (ctx) => contexts.add(ctx, SOFTIRQ_DISABLE_OFFSET),
    localBhEnable: (ctx) => contexts.subtract(ctx, SOFTIRQ_DISABLE_OFFSET),
  };
  return {
    localBhDisable: (ctx) => pair.localBhDisable(ctx),
    localBhEnable: (ctx) => pair.localBhEnable(ctx),
    connect(connected) {
      pair = connected;
    },
  };
}
