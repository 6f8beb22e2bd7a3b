/**
 * Reader-writer locks: many readers or one writer, one word of RAM.
 *
 *   0                    free
 *   1 … 0x7fff_ffff      so many readers hold it
 *   0x8000_0000 + 1 + c  CPU c writes
 *
 * A reader that finds readers goes in, whoever waits: so a reader may take the lock again that it holds, and so may an
 * interrupt on top of it. That is why tasks may read with `readLock` while an interrupt reads too, and only the
 * writer has to switch interrupts off. The price is known: as long as readers overlap, a writer never gets in. Where
 * that matters use a seqlock (writers never wait for readers) or a spinlock.
 *
 * As with spinlocks (spinlock.ts), a lock that is found taken can not be waited for in a machine of one host thread:
 * it is reported.
 *
 *   RW-1  the word is one of the three forms above; a writer excludes everybody
 *   RW-2  only a holder unlocks, in the way it locked
 *   RW-3  readers may nest, also in an interrupt; a reader may not become a writer, nor a writer a reader
 *   RW-4  preempt_count is ≥ 1 while the lock is held; each form puts back what its partner changed
 *
 * Real kernels: Linux kernel/locking/qrwlock.c; there, a reader in a task queues behind a waiting writer, a reader in
 * an interrupt does not.
 */

import type { Machine } from "./arch/machine.ts";
import { bug } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { OnContention, Spinlocks } from "./spinlock.ts";
import type { Context, PhysAddr } from "./types.ts";

/** Set in the word while somebody writes. */
const WRITER = 0x8000_0000;

export interface Rwlocks {
  /** Makes the word at `lock` a free lock; `name` is its class for lockdep. A zeroed word needs no init. */
  init(lock: PhysAddr, name: string): void;
  readLock(ctx: Context, lock: PhysAddr): void;
  readUnlock(ctx: Context, lock: PhysAddr): void;
  readTryLock(ctx: Context, lock: PhysAddr): boolean;
  writeLock(ctx: Context, lock: PhysAddr): void;
  writeUnlock(ctx: Context, lock: PhysAddr): void;
  writeTryLock(ctx: Context, lock: PhysAddr): boolean;
  readLockIrqsave(ctx: Context, lock: PhysAddr): number;
  readUnlockIrqrestore(ctx: Context, lock: PhysAddr, flags: number): void;
  writeLockIrqsave(ctx: Context, lock: PhysAddr): number;
  writeUnlockIrqrestore(ctx: Context, lock: PhysAddr, flags: number): void;
  readLockBh(ctx: Context, lock: PhysAddr): void;
  readUnlockBh(ctx: Context, lock: PhysAddr): void;
  writeLockBh(ctx: Context, lock: PhysAddr): void;
  writeUnlockBh(ctx: Context, lock: PhysAddr): void;
  nrReaders(lock: PhysAddr): number;
  isWriteLocked(lock: PhysAddr): boolean;
}

/** `holderCpu` is −1 for readers, who are not named in the word. */
const reportRwLockup: OnContention = (ctx, lock, holderCpu) => {
  if (holderCpu < 0) bug("rwlock: a writer finds readers that cannot leave, lock, CPU", lock, ctx.cpu);
  if (holderCpu === ctx.cpu) bug("rwlock: recursion on lock, CPU", lock, ctx.cpu);
  bug("rwlock: lockup on lock, CPU, written by CPU", lock, ctx.cpu, holderCpu);
};

export function createRwlocks(
  machine: Machine,
  contexts: ContextTracking,
  spinlocks: Spinlocks,
  onContention: OnContention = reportRwLockup,
): Rwlocks {
  const { port } = machine;
  const { preemptDisable, preemptEnable, localIrqSave, localIrqRestore } = contexts;
  const { localBhDisable, localBhEnable } = spinlocks.bottomHalves;

  const tryRead = (lock: PhysAddr): boolean => {
    const word = port.ld32(lock);
    return word < WRITER && port.cas(lock, word, word + 1) === word;
  };
  const tryWrite = (ctx: Context, lock: PhysAddr): boolean =>
    port.ld32(lock) === 0 && port.cas(lock, 0, WRITER + ctx.cpu + 1) === 0;
  const contended = (ctx: Context, lock: PhysAddr): void => {
    const word = port.ldAtomic(lock);
    if (word !== 0) onContention(ctx, lock, word < WRITER ? -1 : word - WRITER - 1);
  };

  const readLock = (ctx: Context, lock: PhysAddr): void => {
    preemptDisable(ctx);
    while (!tryRead(lock)) contended(ctx, lock);
  };
  const writeLock = (ctx: Context, lock: PhysAddr): void => {
    preemptDisable(ctx);
    while (!tryWrite(ctx, lock)) contended(ctx, lock);
  };
  const readUnlock = (ctx: Context, lock: PhysAddr): void => {
    const word = port.ld32(lock);
    if (word === 0 || word >= WRITER) bug("RW-2: read unlock of a lock that nobody reads", lock, ctx.cpu);
    port.fetchAdd(lock, -1);
    preemptEnable(ctx);
  };
  const writeUnlock = (ctx: Context, lock: PhysAddr): void => {
    if (port.ld32(lock) !== WRITER + ctx.cpu + 1) bug("RW-2: write unlock by a CPU that does not write", lock, ctx.cpu);
    port.stAtomic(lock, 0);
    preemptEnable(ctx);
  };
  const either = (ctx: Context, isTaken: boolean): boolean => {
    if (!isTaken) preemptEnable(ctx);
    return isTaken;
  };

  return {
    init: (lock) => port.stAtomic(lock, 0),
    readLock,
    readUnlock,
    readTryLock(ctx, lock) {
      preemptDisable(ctx);
      return either(ctx, tryRead(lock));
    },
    writeLock,
    writeUnlock,
    writeTryLock(ctx, lock) {
      preemptDisable(ctx);
      return either(ctx, tryWrite(ctx, lock));
    },
    readLockIrqsave(ctx, lock) {
      const flags = localIrqSave(ctx);
      readLock(ctx, lock);
      return flags;
    },
    readUnlockIrqrestore(ctx, lock, flags) {
      readUnlock(ctx, lock);
      localIrqRestore(ctx, flags);
    },
    writeLockIrqsave(ctx, lock) {
      const flags = localIrqSave(ctx);
      writeLock(ctx, lock);
      return flags;
    },
    writeUnlockIrqrestore(ctx, lock, flags) {
      writeUnlock(ctx, lock);
      localIrqRestore(ctx, flags);
    },
    readLockBh(ctx, lock) {
      localBhDisable(ctx);
      readLock(ctx, lock);
    },
    readUnlockBh(ctx, lock) {
      readUnlock(ctx, lock);
      localBhEnable(ctx);
    },
    writeLockBh(ctx, lock) {
      localBhDisable(ctx);
      writeLock(ctx, lock);
    },
    writeUnlockBh(ctx, lock) {
      writeUnlock(ctx, lock);
      localBhEnable(ctx);
    },
    nrReaders(lock) {
      const word = port.ldAtomic(lock);
      return word < WRITER ? word : 0;
    },
    isWriteLocked: (lock) => port.ldAtomic(lock) >= WRITER,
  };
}
