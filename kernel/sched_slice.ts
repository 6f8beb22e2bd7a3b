/**
 * How long a slice is: until when the task that is about to run may go on before another CPU, a device or the host has
 * its turn.
 *
 * The host executes one CPU at a time. A slice that went on beyond what another CPU is about to do would show this CPU
 * a past that has not happened yet: so it ends near the first of them, and short slices keep all clocks together
 * (SCH-4).
 */

import type { Machine } from "./arch/machine.ts";
import { CYCLES_PER_TICK } from "./params.ts";
import type { Runqueues } from "./runqueue.ts";

/** Slice while other CPUs have work too: bounds how far clocks drift apart. */
const SLICE_SHARED = 100_000;
/** Shortest slice when a device is about to act: how late it may be noticed by a CPU that runs a program. */
export const SLICE_DEVICE = 2_000;
/** Slice of a lone CPU: one timer tick. */
const SLICE_ALONE = CYCLES_PER_TICK;

/** What the scheduler knows of the future. */
export interface SliceBounds {
  /** The first sleeper's moment, the earliest kernel timer's, and where the host wants to look; Infinity for none. */
  firstWake(): number;
  firstTimer(): number;
  hostDeadline(): number;
}

export interface Slices {
  nrBusyCpus(): number;
  /** Sets until when `cpu` runs what it is about to run; `alone`: no other CPU has work. */
  setHorizon(cpu: number, alone: boolean): void;
}

export function createSlices(
  machine: Machine,
  { nrRunning, urgency }: Pick<Runqueues, "nrRunning" | "urgency">,
  horizon: Float64Array,
  bounds: SliceBounds,
): Slices {
  const { irqChip, events } = machine;
  const { clock, timerDeadline, nrCpus } = machine.harts;

  const nrBusyCpus = (): number => {
    let busy = 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) if (nrRunning(cpu) > 0) busy++;
    return busy;
  };

  /**
   * When a CPU is next to take an interrupt or to go on with a real-time task. None runs far beyond that moment before
   * it has happened: what it sets off would find this CPU in its future.
   */
  const firstUrgent = (self: number): number => {
    let first = Number.POSITIVE_INFINITY;
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const when = cpu !== self && urgency(cpu) > 0 ? 0 : irqChip.heldUntil(cpu);
      first = Math.min(first, Math.max(when, clock[cpu] as number));
    }
    return first;
  };

  const setHorizon = (cpu: number, alone: boolean): void => {
    const now = clock[cpu] as number;
    if (timerDeadline[cpu] === Number.POSITIVE_INFINITY) timerDeadline[cpu] = now + CYCLES_PER_TICK;
    const wakeUp = bounds.firstWake();
    const slice = Math.min(now + (alone ? SLICE_ALONE : SLICE_SHARED), Math.max(wakeUp, now + SLICE_SHARED));
    const next = Math.min(events.nextTime(), bounds.firstTimer(), firstUrgent(cpu));
    const device = Math.max(next, now + SLICE_DEVICE);
    horizon[cpu] = Math.min(slice, device, Math.max(bounds.hostDeadline(), now + 1));
  };

  return { nrBusyCpus, setHorizon };
}
