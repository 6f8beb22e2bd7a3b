/**
 * The lock functions with lockdep on: each tells lockdep first, then does what the plain one does.
 *
 * Another implementation of the same interfaces, chosen when the kernel is composed (`prove_locking=on`); without it
 * none of this is on any path. The compound forms are made here of their parts, since lockdep has to see the lock
 * taken after interrupts or softirqs went off, and given back before they come on.
 *
 *   LDP-9  lockdep hears of an acquisition before the lock can be waited for, of a release before somebody else has it
 */

import type { BottomHalves } from "./bottom_half.ts";
import { type ContextTracking, SOFTIRQ_DISABLE_OFFSET, SOFTIRQ_MASK } from "./context.ts";
import { LD_SHARED, LD_SLEEPS, LD_TRY, type Lockdep } from "./lockdep.ts";
import type { Mutexes } from "./mutex.ts";
import type { Rwlocks } from "./rwlock.ts";
import type { Spinlocks } from "./spinlock.ts";
import type { Task } from "./task.ts";
import type { Context, MaySleep, PhysAddr, Sleeping } from "./types.ts";

/** Interrupts that come on are told to lockdep before they do. */
export function proveContexts(plain: ContextTracking, lockdep: Lockdep): ContextTracking {
  return {
    ...plain,
    localIrqRestore(ctx, flags) {
      if (flags !== 0 && plain.irqsDisabled(ctx)) lockdep.hardirqsOn(ctx);
      plain.localIrqRestore(ctx, flags);
    },
    localIrqEnable(ctx) {
      if (plain.irqsDisabled(ctx)) lockdep.hardirqsOn(ctx);
      plain.localIrqEnable(ctx);
    },
  };
}

type Take = (ctx: Context, lock: PhysAddr) => void;

type Try = (ctx: Context, lock: PhysAddr) => boolean;

/** Take, give back and try of one mode of a lock, each told to lockdep; `mode` is 0 or LD_SHARED. */
function told(lockdep: Lockdep, mode: number, lock: Take, unlock: Take, tryLock: Try) {
  return {
    lock(ctx: Context, at: PhysAddr): void {
      lockdep.acquire(ctx, at, mode);
      lock(ctx, at);
    },
    unlock(ctx: Context, at: PhysAddr): void {
      lockdep.release(ctx, at);
      unlock(ctx, at);
    },
    tryLock(ctx: Context, at: PhysAddr): boolean {
      const isTaken = tryLock(ctx, at);
      if (isTaken) lockdep.acquire(ctx, at, mode | LD_TRY);
      return isTaken;
    },
  };
}

/** The irqsave and bh forms of a lock that is taken by `take` and given back by `give`. */
function formsOf(contexts: ContextTracking, bottomHalves: BottomHalves, take: Take, give: Take) {
  return {
    irqsave(ctx: Context, lock: PhysAddr): number {
      const flags = contexts.localIrqSave(ctx);
      take(ctx, lock);
      return flags;
    },
    irqrestore(ctx: Context, lock: PhysAddr, flags: number): void {
      give(ctx, lock);
      contexts.localIrqRestore(ctx, flags);
    },
    bh(ctx: Context, lock: PhysAddr): void {
      bottomHalves.localBhDisable(ctx);
      take(ctx, lock);
    },
    bhEnd(ctx: Context, lock: PhysAddr): void {
      give(ctx, lock);
      bottomHalves.localBhEnable(ctx);
    },
  };
}

export function proveSpinlocks(plain: Spinlocks, contexts: ContextTracking, lockdep: Lockdep): Spinlocks {
  const spin = told(lockdep, 0, plain.spinLock, plain.spinUnlock, plain.spinTryLock);
  const bottomHalves = {
    ...plain.bottomHalves,
    localBhEnable(ctx: Context): void {
      const isLast = (contexts.preemptCount(ctx) & SOFTIRQ_MASK) === SOFTIRQ_DISABLE_OFFSET;
      if (isLast) lockdep.softirqsOn(ctx);
      plain.bottomHalves.localBhEnable(ctx);
    },
  };
  const forms = formsOf(contexts, bottomHalves, spin.lock, spin.unlock);
  return {
    ...plain,
    bottomHalves,
    init(lock, name) {
      lockdep.initLock(contexts.taskContext(0), lock, name);
      plain.init(lock, name);
    },
    spinLock: spin.lock,
    spinUnlock: spin.unlock,
    spinTryLock: spin.tryLock,
    spinLockIrqsave: forms.irqsave,
    spinUnlockIrqrestore: forms.irqrestore,
    spinLockIrq: (ctx, lock) => void forms.irqsave(ctx, lock),
    spinUnlockIrq: (ctx, lock) => forms.irqrestore(ctx, lock, 1),
    spinLockBh: forms.bh,
    spinUnlockBh: forms.bhEnd,
  };
}

export function proveRwlocks(
  plain: Rwlocks,
  { bottomHalves }: Spinlocks,
  contexts: ContextTracking,
  lockdep: Lockdep,
): Rwlocks {
  const reading = told(lockdep, LD_SHARED, plain.readLock, plain.readUnlock, plain.readTryLock);
  const writing = told(lockdep, 0, plain.writeLock, plain.writeUnlock, plain.writeTryLock);
  const read = formsOf(contexts, bottomHalves, reading.lock, reading.unlock);
  const write = formsOf(contexts, bottomHalves, writing.lock, writing.unlock);
  return {
    ...plain,
    init(lock, name) {
      lockdep.initLock(contexts.taskContext(0), lock, name);
      plain.init(lock, name);
    },
    readLock: reading.lock,
    readUnlock: reading.unlock,
    readTryLock: reading.tryLock,
    writeLock: writing.lock,
    writeUnlock: writing.unlock,
    writeTryLock: writing.tryLock,
    readLockIrqsave: read.irqsave,
    readUnlockIrqrestore: read.irqrestore,
    writeLockIrqsave: write.irqsave,
    writeUnlockIrqrestore: write.irqrestore,
    readLockBh: read.bh,
    readUnlockBh: read.bhEnd,
    writeLockBh: write.bh,
    writeUnlockBh: write.bhEnd,
  };
}

export function proveMutexes(plain: Mutexes, contexts: ContextTracking, lockdep: Lockdep): Mutexes {
  function* lockProved(task: Task, mutex: PhysAddr, rest: Sleeping<void>): Sleeping<void> {
    lockdep.acquire(task.ctx, mutex, LD_SLEEPS, task.struct);
    let isTaken = false;
    try {
      yield* rest;
      isTaken = true;
    } finally {
      if (!isTaken) lockdep.release(task.ctx, mutex, task.struct);
    }
  }
  return {
    ...plain,
    init(mutex, name, flags) {
      lockdep.initLock(contexts.taskContext(0), mutex, name);
      plain.init(mutex, name, flags);
    },
    lock: (task, mutex) => lockProved(task, mutex, plain.lock(task, mutex)),
    tryLock(task, mutex) {
      const isTaken = plain.tryLock(task, mutex);
      if (isTaken) lockdep.acquire(task.ctx, mutex, LD_SLEEPS | LD_TRY, task.struct);
      return isTaken;
    },
    unlock(task, mutex) {
      lockdep.release(task.ctx, mutex, task.struct);
      plain.unlock(task, mutex);
    },
    taskEnds(task) {
      const nrHeld = plain.taskEnds(task);
      lockdep.taskEnds(task.struct);
      return nrHeld;
    },
  };
}

type Enter<Caller extends { readonly task: Task }> = (
  caller: Caller,
  nr: number,
  args: readonly number[],
) => MaySleep<number>;

/** LDP-7: looks after each system call. */
export function proveReturnToUser<Caller extends { readonly task: Task }>(
  plain: Enter<Caller>,
  lockdep: Lockdep,
): Enter<Caller> {
  function* afterwards(caller: Caller, rest: Sleeping<number>): Sleeping<number> {
    const result = yield* rest;
    lockdep.returnToUser(caller.task.ctx);
    return result;
  }
  return (caller, nr, args) => {
    const result = plain(caller, nr, args);
    if (typeof result === "object") return afterwards(caller, result);
    lockdep.returnToUser(caller.task.ctx);
    return result;
  };
}
