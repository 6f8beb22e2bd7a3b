/**
 * Counting semaphores: so many tasks may pass, the next one sleeps.
 *
 * | offset | field | width | meaning                              |
 * |--------|-------|-------|--------------------------------------|
 * | 0      | count | u32   | how many may still pass without waiting |
 * | 8      | queue | 8     | wait queue, in order of arrival      |
 *
 * Unlike a mutex it has no owner: `up` may be called by anybody, also in an interrupt, and nobody inherits a priority.
 * With somebody waiting, `up` lets that one pass instead of raising the count, so that none who comes later overtakes.
 *
 *   SEM-1  passed − returned = initial − count; the count is never negative
 *   SEM-2  count > 0 only while nobody waits; waiters pass in order of arrival
 *   SEM-3  a waiter that a fatal signal unwinds has not passed: a permit handed to it goes to the next
 *
 * Real kernels: Linux kernel/locking/semaphore.c.
 */

import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import type { Task } from "./task.ts";
import { asPhys, type Context, type PhysAddr, type Sleeping } from "./types.ts";
import type { WaitQueues } from "./wait.ts";

export const SEMAPHORE_BYTES = 16;

const COUNT = 0;
const QUEUE = 8;

export interface Semaphores {
  /** Makes the SEMAPHORE_BYTES at `semaphore` one that `count` may pass, 0 ≤ count. */
  init(semaphore: PhysAddr, count: number): void;
  /** Passes, or sleeps until it may. Process context. */
  down(task: Task, semaphore: PhysAddr): Sleeping<unknown>;
  /** The same for at most `cycles`: false if it could not pass. Process context. */
  downTimeout(task: Task, semaphore: PhysAddr, cycles: number): Sleeping<boolean>;
  /** Passes if it may at once. Any context. */
  tryDown(ctx: Context, semaphore: PhysAddr): boolean;
  /** Lets one more pass. Any context. */
  up(ctx: Context, semaphore: PhysAddr): void;
  count(semaphore: PhysAddr): number;
}

export function createSemaphores(machine: Machine, contexts: ContextTracking, waits: WaitQueues): Semaphores {
  const { port, harts } = machine;
  const { clock } = harts;
  const queueOf = (semaphore: PhysAddr): PhysAddr => asPhys(semaphore + QUEUE);

  const tryPass = (semaphore: PhysAddr): boolean => {
    const count = port.ld32(semaphore + COUNT);
    if (count === 0) return false;
    port.st32(semaphore + COUNT, count - 1);
    return true;
  };
  const letPass = (semaphore: PhysAddr): void => {
    if (!waits.wakeOne(queueOf(semaphore))) port.st32(semaphore + COUNT, port.ld32(semaphore + COUNT) + 1);
  };

  const passUntil = (task: Task, semaphore: PhysAddr, untilCycles: number): Sleeping<boolean> => {
    contexts.mightSleep(task.ctx, "kernel/semaphore.ts:down");
    const turn = { take: () => tryPass(semaphore), passOn: () => letPass(semaphore), untilCycles };
    return waits.waitExclusive(queueOf(semaphore), task, turn);
  };
  const withoutInterrupts = <T>(ctx: Context, act: (semaphore: PhysAddr) => T, semaphore: PhysAddr): T => {
    const flags = contexts.localIrqSave(ctx);
    const result = act(semaphore);
    contexts.localIrqRestore(ctx, flags);
    return result;
  };

  return {
    init(semaphore, count) {
      port.st32(semaphore + COUNT, count);
      waits.init(queueOf(semaphore));
    },
    down: (task, semaphore) => passUntil(task, semaphore, Number.POSITIVE_INFINITY),
    downTimeout: (task, semaphore, cycles) => passUntil(task, semaphore, (clock[task.ctx.cpu] as number) + cycles),
    tryDown: (ctx, semaphore) => withoutInterrupts(ctx, tryPass, semaphore),
    up: (ctx, semaphore) => withoutInterrupts(ctx, letPass, semaphore),
    count: (semaphore) => port.ld32(semaphore + COUNT),
  };
}
