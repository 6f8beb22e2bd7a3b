/**
 * Sequence locks: readers take nothing; they look, and look again if a writer was there.
 *
 *   writer:  writeSeqlock; change the data; writeSequnlock          sequence odd while it writes
 *   reader:  do { start = readSeqbegin; copy the data } while (readSeqretry(start))
 *
 *   | offset | field    | meaning                                                                  |
 *   |--------|----------|--------------------------------------------------------------------------|
 *   | 0      | sequence | even: nobody writes; two more after each write (mod 2^32)                |
 *   | 4      | lock     | spinlock word of the writers                                             |
 *
 * Writers exclude each other by the spinlock and never wait for readers. Data that is only copied may be guarded so;
 * pointers that a writer frees may not.
 *
 * A reader waits until the sequence is even. An interrupt on top of a writer of its own CPU would wait for ever: the
 * writer cannot go on before the interrupt returns. So a writer whose data is read in interrupts uses the irqsave
 * form; where it does not, the reader is reported. Every odd sequence is such a bug in a machine of one host thread
 * (spinlock.ts says why).
 *
 * The latch is for readers that cannot be kept away even so, an NMI: the data exists twice, and while the writer
 * changes one copy the sequence sends readers to the other.
 *
 *   | latch: offset | field    | meaning                                                           |
 *   |---------------|----------|-------------------------------------------------------------------|
 *   | 0             | sequence | its lowest bit is the copy to read                                |
 *
 *   SEQ-1  the sequence is odd exactly while a writer holds the lock
 *   SEQ-2  readSeqretry is true if and only if a write began or ended since readSeqbegin
 *   SEQ-3  a reader on top of a writer of its CPU is reported and does not spin
 *   SEQ-4  a latch reader never waits and never sees a copy that is being changed, without a retry
 *
 * Real kernels: Linux include/linux/seqlock.h (seqlock_t, seqcount_latch_t).
 */

import type { Machine } from "./arch/machine.ts";
import { bug } from "./bug.ts";
import type { OnContention, Spinlocks } from "./spinlock.ts";
import { asPhys, type Context, type PhysAddr } from "./types.ts";

export const SEQLOCK_BYTES = 8;
export const SEQ_LATCH_BYTES = 4;

const SEQ_LOCK = 4;

export interface Seqlocks {
  /** Makes the 8 bytes at `seqlock` one that nobody writes; `name` is the lock's class for lockdep. */
  init(seqlock: PhysAddr, name: string): void;
  /** Begins a read: the number for readSeqretry. Any context. */
  readSeqbegin(ctx: Context, seqlock: PhysAddr): number;
  /** True when what was read since `start` may be half of one state and half of another. */
  readSeqretry(seqlock: PhysAddr, start: number): boolean;
  writeSeqlock(ctx: Context, seqlock: PhysAddr): void;
  writeSequnlock(ctx: Context, seqlock: PhysAddr): void;
  writeSeqlockIrqsave(ctx: Context, seqlock: PhysAddr): number;
  writeSequnlockIrqrestore(ctx: Context, seqlock: PhysAddr, flags: number): void;
  writeSeqlockBh(ctx: Context, seqlock: PhysAddr): void;
  writeSequnlockBh(ctx: Context, seqlock: PhysAddr): void;
  /** Changes both copies of latched data, one after the other. Writers exclude each other by a lock of their own. */
  latchWrite(latch: PhysAddr, update: (copy: 0 | 1) => void): void;
  /** The number for latchRetry; its lowest bit is the copy to read. Any context, also on top of a writer. */
  latchBegin(latch: PhysAddr): number;
  latchRetry(latch: PhysAddr, start: number): boolean;
}

const reportStuckReader: OnContention = (ctx, seqlock, holderCpu) => {
  if (holderCpu === ctx.cpu) bug("SEQ-3: reader on top of the writer it waits for, seqlock, CPU", seqlock, ctx.cpu);
  bug("seqlock: reader waits for a writer that does not run, seqlock, CPU, writer", seqlock, ctx.cpu, holderCpu);
};

export function createSeqlocks(
  machine: Machine,
  spinlocks: Spinlocks,
  onContention: OnContention = reportStuckReader,
): Seqlocks {
  const { port } = machine;
  const lockOf = (seqlock: PhysAddr): PhysAddr => asPhys(seqlock + SEQ_LOCK);
  const step = (seqlock: PhysAddr): void => {
    port.stAtomic(seqlock, (port.ld32(seqlock) + 1) >>> 0);
  };

  return {
    init(seqlock, name) {
      port.stAtomic(seqlock, 0);
      spinlocks.init(lockOf(seqlock), name);
    },
    readSeqbegin(ctx, seqlock) {
      let start = port.ldAtomic(seqlock);
      while ((start & 1) !== 0) {
        onContention(ctx, seqlock, port.ld32(lockOf(seqlock)) - 1);
        start = port.ldAtomic(seqlock);
      }
      return start;
    },
    readSeqretry: (seqlock, start) => port.ldAtomic(seqlock) !== start,
    writeSeqlock(ctx, seqlock) {
      spinlocks.spinLock(ctx, lockOf(seqlock));
      step(seqlock);
    },
    writeSequnlock(ctx, seqlock) {
      step(seqlock);
      spinlocks.spinUnlock(ctx, lockOf(seqlock));
    },
    writeSeqlockIrqsave(ctx, seqlock) {
      const flags = spinlocks.spinLockIrqsave(ctx, lockOf(seqlock));
      step(seqlock);
      return flags;
    },
    writeSequnlockIrqrestore(ctx, seqlock, flags) {
      step(seqlock);
      spinlocks.spinUnlockIrqrestore(ctx, lockOf(seqlock), flags);
    },
    writeSeqlockBh(ctx, seqlock) {
      spinlocks.spinLockBh(ctx, lockOf(seqlock));
      step(seqlock);
    },
    writeSequnlockBh(ctx, seqlock) {
      step(seqlock);
      spinlocks.spinUnlockBh(ctx, lockOf(seqlock));
    },
    latchWrite(latch, update) {
      step(latch); // readers go to copy 1
      update(0);
      step(latch); // readers go to copy 0
      update(1);
    },
    latchBegin: (latch) => port.ldAtomic(latch),
    latchRetry: (latch, start) => port.ldAtomic(latch) !== start,
  };
}
