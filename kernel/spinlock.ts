/**
 * Spinlocks: one word of RAM each, 0 when free, else the holder's CPU + 1.
 *
 * The word is taken with one compare-and-swap after a plain look (a failed CAS costs more than a load). Taking a lock
 * switches preemption off. Which form to use follows from who else takes the lock:
 *
 *   taken by …            in a task                 in a softirq              in a hard interrupt
 *   tasks only            spinLock                  –                         –
 *   tasks and softirqs    spinLockBh                spinLock                  –
 *   anything and irqs     spinLockIrqsave (or Irq)  spinLockIrqsave (or Irq)  spinLock
 *
 * `spinLockIrq` switches interrupts on again at the unlock, whatever they were: only for code that is never called
 * with them off. `spinLockBh` keeps softirqs off this CPU; what was raised meanwhile runs at the unlock.
 *
 * All CPUs of this machine are executed by one host thread, and kernel code between two scheduling points runs to
 * completion. So a lock that is found taken can never be released by waiting: the holder is this very CPU (recursion,
 * or an interrupt on top of the holder), or a CPU that sleeps with the lock. Both are bugs and are reported instead
 * of spinning for ever. A machine of host threads passes an `onContention` that really spins.
 *
 *   SPL-1  the word is 0 or 1 + the CPU that will release it
 *   SPL-2  only the holder unlocks
 *   SPL-3  preempt_count is ≥ 1 while a lock is held
 *   SPL-4  each form leaves interrupt flag and preempt_count as its partner found them; irq leaves interrupts on
 *
 * Real kernels: Linux kernel/locking/spinlock.c. Its queued spinlocks are fair; there is no queue here to be fair to.
 */

import type { Machine } from "./arch/machine.ts";
import { type BottomHalfSwitch, createBottomHalfSwitch } from "./bottom_half.ts";
import { bug } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { Context, PhysAddr } from "./types.ts";

export interface Spinlocks {
  /** Makes the word at `lock` a free lock; `name` is its class for lockdep. A zeroed word needs no init. */
  init(lock: PhysAddr, name: string): void;
  spinLock(ctx: Context, lock: PhysAddr): void;
  spinUnlock(ctx: Context, lock: PhysAddr): void;
  /** Takes the lock if it is free; true on success. Never waits. */
  spinTryLock(ctx: Context, lock: PhysAddr): boolean;
  /** Also switches interrupts off; returns the flags for the unlock. */
  spinLockIrqsave(ctx: Context, lock: PhysAddr): number;
  spinUnlockIrqrestore(ctx: Context, lock: PhysAddr, flags: number): void;
  /** Also switches interrupts off; the unlock switches them on. */
  spinLockIrq(ctx: Context, lock: PhysAddr): void;
  spinUnlockIrq(ctx: Context, lock: PhysAddr): void;
  /** Also keeps softirqs off this CPU. Not in a hard interrupt. */
  spinLockBh(ctx: Context, lock: PhysAddr): void;
  spinUnlockBh(ctx: Context, lock: PhysAddr): void;
  isLocked(lock: PhysAddr): boolean;
  /** The pair behind the bh forms of all locks; boot connects softirqs to it. */
  readonly bottomHalves: BottomHalfSwitch;
}

/** What to do about a taken lock: return to try again, or throw. */
export type OnContention = (ctx: Context, lock: PhysAddr, holderCpu: number) => void;

export const reportLockup: OnContention = (ctx, lock, holderCpu) => {
  if (holderCpu === ctx.cpu) bug("spinlock: recursion on lock, CPU", lock, ctx.cpu);
  bug("spinlock: lockup on lock, CPU, held by CPU", lock, ctx.cpu, holderCpu);
};

export function createSpinlocks(
  machine: Machine,
  contexts: ContextTracking,
  onContention: OnContention = reportLockup,
): Spinlocks {
  const { port } = machine;
  const { preemptDisable, preemptEnable, localIrqSave, localIrqRestore } = contexts;
  const bottomHalves = createBottomHalfSwitch(contexts);
  const { localBhDisable, localBhEnable } = bottomHalves;

  const tryTake = (ctx: Context, lock: PhysAddr): boolean =>
    port.ld32(lock) === 0 && port.cas(lock, 0, ctx.cpu + 1) === 0;

  const take = (ctx: Context, lock: PhysAddr): void => {
    while (!tryTake(ctx, lock)) {
      const holder = port.ldAtomic(lock);
      if (holder !== 0) onContention(ctx, lock, holder - 1);
    }
  };
  const release = (ctx: Context, lock: PhysAddr): void => {
    if (port.ld32(lock) !== ctx.cpu + 1) bug("SPL-2: unlock of a lock that this CPU does not hold", lock, ctx.cpu);
    port.stAtomic(lock, 0);
  };

  return {
    init: (lock) => port.stAtomic(lock, 0),
    spinLock(ctx, lock) {
      preemptDisable(ctx);
      take(ctx, lock);
    },
    spinUnlock(ctx, lock) {
      release(ctx, lock);
      preemptEnable(ctx);
    },
    spinTryLock(ctx, lock) {
      preemptDisable(ctx);
      if (tryTake(ctx, lock)) return true;
      preemptEnable(ctx);
      return false;
    },
    spinLockIrqsave(ctx, lock) {
      const flags = localIrqSave(ctx);
      preemptDisable(ctx);
      take(ctx, lock);
      return flags;
    },
    spinUnlockIrqrestore(ctx, lock, flags) {
      release(ctx, lock);
      preemptEnable(ctx);
      localIrqRestore(ctx, flags);
    },
    spinLockIrq(ctx, lock) {
      localIrqSave(ctx);
      preemptDisable(ctx);
      take(ctx, lock);
    },
    spinUnlockIrq(ctx, lock) {
      release(ctx, lock);
      preemptEnable(ctx);
      localIrqRestore(ctx, 1);
    },
    spinLockBh(ctx, lock) {
      localBhDisable(ctx);
      preemptDisable(ctx);
      take(ctx, lock);
    },
    spinUnlockBh(ctx, lock) {
      release(ctx, lock);
      preemptEnable(ctx);
      localBhEnable(ctx);
    },
    isLocked: (lock) => port.ldAtomic(lock) !== 0,
    bottomHalves,
  };
}
