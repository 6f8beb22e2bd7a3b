/**
 * Spinlocks, reader-writer locks, sequence locks.
 *
 * Goal: SPL-1 … SPL-4, RW-1 … RW-4, SEQ-1 … SEQ-4. Method: a machine with two CPUs; each form of each lock in each
 * context where it is allowed, and the bugs that are reported instead of spinning; a random walk of rwlock operations
 * against a model.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import { SOFTIRQ_DISABLE_OFFSET } from "../../kernel/context.ts";
import { SEQLOCK_BYTES } from "../../kernel/seqlock.ts";
import { asPhys, type Context } from "../../kernel/types.ts";
import { bootTaskLevel } from "../support/task_level.ts";

const boot = () => {
  const t = bootTaskLevel({ nrCpus: 2 });
  const irqsOff = (): boolean => t.contexts.irqsDisabled(t.ctx);
  const depth = (): number => t.contexts.preemptCount(t.ctx);
  return { ...t, lock: t.alloc(8), other: t.contexts.taskContext(1), irqsOff, depth };
};

describe("spinlocks", () => {
  it("SPL-1, SPL-3 the word names the CPU, preemption is off meanwhile", () => {
    const t = boot();
    for (const ctx of [t.ctx, t.other]) {
      t.spinlocks.spinLock(ctx, t.lock);
      expect(t.machine.port.ld32(t.lock)).toBe(ctx.cpu + 1);
      expect(t.contexts.preemptCount(ctx)).toBe(1);
      t.spinlocks.spinUnlock(ctx, t.lock);
      expect(t.spinlocks.isLocked(t.lock)).toBe(false);
    }
    t.expectClean();
  });

  it.each([
    ["irqs on", 1],
    ["irqs off", 0],
  ])("SPL-4 irqsave and bh put back what they found: %s", (_name, before) => {
    const t = boot();
    t.machine.harts.irqOn[0] = before;
    const flags = t.spinlocks.spinLockIrqsave(t.ctx, t.lock);
    expect([t.irqsOff(), t.depth()]).toEqual([true, 1]);
    t.spinlocks.spinUnlockIrqrestore(t.ctx, t.lock, flags);
    expect([t.irqsOff(), t.depth()]).toEqual([before === 0, 0]);
    t.spinlocks.spinLockBh(t.ctx, t.lock);
    expect([t.irqsOff(), t.depth()]).toEqual([before === 0, SOFTIRQ_DISABLE_OFFSET + 1]);
    t.spinlocks.spinUnlockBh(t.ctx, t.lock);
    expect([t.irqsOff(), t.depth()]).toEqual([before === 0, 0]);
  });

  it("SPL-4 spinUnlockIrq switches interrupts on and takes what was pending", () => {
    const t = boot();
    t.spinlocks.spinLockIrq(t.ctx, t.lock);
    expect(t.irqsOff()).toBe(true);
    t.machine.irqChip.raise(0, 31);
    t.spinlocks.spinUnlockIrq(t.ctx, t.lock);
    expect([t.irqsOff(), t.machine.harts.pending[0]]).toEqual([false, 0]);
  });

  it("SPL-4 the bh forms go through the pair that boot connects", () => {
    const t = boot();
    const calls: string[] = [];
    t.spinlocks.bottomHalves.connect({
      localBhDisable: () => calls.push("disable"),
      localBhEnable: () => calls.push(`enable, locked: ${t.spinlocks.isLocked(t.lock)}`),
    });
    t.spinlocks.spinLockBh(t.ctx, t.lock);
    t.spinlocks.spinUnlockBh(t.ctx, t.lock);
    expect(calls).toEqual(["disable", "enable, locked: false"]);
  });

  it("SPL-2 an unlock by a CPU that does not hold it is a bug, and so is an unlock of a free lock", () => {
    const t = boot();
    expect(() => t.spinlocks.spinUnlock(t.ctx, t.lock)).toThrow("SPL-2");
    t.spinlocks.spinLock(t.ctx, t.lock);
    expect(() => t.spinlocks.spinUnlock(t.other, t.lock)).toThrow("SPL-2");
  });

  it("an interrupt on top of the holder is reported, not spun on; tryLock says no", () => {
    const t = boot();
    t.spinlocks.spinLock(t.ctx, t.lock);
    t.interrupt(0, (irq) => {
      expect(t.spinlocks.spinTryLock(irq, t.lock)).toBe(false);
      expect(t.contexts.preemptCount(irq)).toBe(0x1_0001);
      expect(() => t.spinlocks.spinLock(irq, t.lock)).toThrow("spinlock: recursion");
      t.contexts.preemptEnable(irq);
    });
    expect(() => t.spinlocks.spinLock(t.other, t.lock)).toThrow("spinlock: lockup");
  });
});

describe("reader-writer locks", () => {
  it("RW-3 readers nest, across CPUs and in an interrupt on top of a reader", () => {
    const t = boot();
    const { rwlocks, lock } = t;
    rwlocks.readLock(t.ctx, lock);
    rwlocks.readLock(t.ctx, lock);
    rwlocks.readLock(t.other, lock);
    t.interrupt(0, (irq) => {
      rwlocks.readLock(irq, lock);
      expect(rwlocks.nrReaders(lock)).toBe(4);
      rwlocks.readUnlock(irq, lock);
    });
    rwlocks.readUnlock(t.other, lock);
    rwlocks.readUnlock(t.ctx, lock);
    rwlocks.readUnlock(t.ctx, lock);
    expect(rwlocks.nrReaders(lock)).toBe(0);
    t.expectClean();
  });

  it("RW-1, RW-3 a writer excludes everybody; nobody changes sides", () => {
    const t = boot();
    const { rwlocks, lock } = t;
    rwlocks.writeLock(t.ctx, lock);
    expect(rwlocks.isWriteLocked(lock)).toBe(true);
    expect(rwlocks.readTryLock(t.other, lock)).toBe(false);
    expect(rwlocks.writeTryLock(t.other, lock)).toBe(false);
    expect(() => rwlocks.readLock(t.ctx, lock)).toThrow("rwlock: recursion");
    expect(() => rwlocks.readLock(t.other, lock)).toThrow("rwlock: lockup");
    rwlocks.writeUnlock(t.ctx, lock);
    rwlocks.readLock(t.other, lock);
    expect(() => rwlocks.writeLock(t.other, lock)).toThrow("readers that cannot leave");
  });

  it("RW-2 only a holder unlocks, in the way it locked", () => {
    const t = boot();
    const { rwlocks, lock } = t;
    expect(() => rwlocks.readUnlock(t.ctx, lock)).toThrow("RW-2");
    expect(() => rwlocks.writeUnlock(t.ctx, lock)).toThrow("RW-2");
    rwlocks.writeLock(t.ctx, lock);
    expect(() => rwlocks.readUnlock(t.ctx, lock)).toThrow("RW-2");
    expect(() => rwlocks.writeUnlock(t.other, lock)).toThrow("RW-2");
  });

  it("RW-4 the irqsave and bh forms put back what they changed", () => {
    const t = boot();
    const { rwlocks, lock } = t;
    for (const before of [1, 0]) {
      t.machine.harts.irqOn[0] = before;
      rwlocks.readUnlockIrqrestore(t.ctx, lock, rwlocks.readLockIrqsave(t.ctx, lock));
      const flags = rwlocks.writeLockIrqsave(t.ctx, lock);
      expect(t.irqsOff()).toBe(true);
      rwlocks.writeUnlockIrqrestore(t.ctx, lock, flags);
      expect([t.irqsOff(), t.depth()]).toEqual([before === 0, 0]);
    }
    rwlocks.readLockBh(t.ctx, lock);
    expect(t.depth()).toBe(SOFTIRQ_DISABLE_OFFSET + 1);
    rwlocks.readUnlockBh(t.ctx, lock);
    rwlocks.writeLockBh(t.ctx, lock);
    rwlocks.writeUnlockBh(t.ctx, lock);
    expect(t.depth()).toBe(0);
  });

  it("RW-1 random tries agree with a model of readers and writer", () => {
    const t = boot();
    const act = fc.record({ cpu: fc.constantFrom(0, 1), what: fc.constantFrom("r+", "r-", "w+", "w-") });
    fc.assert(
      fc.property(fc.array(act, { maxLength: 40 }), (acts) => {
        const lock = t.alloc(8);
        const readers = [0, 0];
        let writer = -1;
        for (const { cpu, what } of acts) {
          const ctx: Context = cpu === 0 ? t.ctx : t.other;
          const nrReaders = (readers[0] as number) + (readers[1] as number);
          if (what === "r+") {
            expect(t.rwlocks.readTryLock(ctx, lock)).toBe(writer < 0);
            if (writer < 0) readers[cpu]++;
          } else if (what === "w+") {
            const isFree = writer < 0 && nrReaders === 0;
            expect(t.rwlocks.writeTryLock(ctx, lock)).toBe(isFree);
            if (isFree) writer = cpu;
          } else if (what === "r-" && (readers[cpu] as number) > 0) {
            t.rwlocks.readUnlock(ctx, lock);
            readers[cpu]--;
          } else if (what === "w-" && writer === cpu) {
            t.rwlocks.writeUnlock(ctx, lock);
            writer = -1;
          }
          const now = (readers[0] as number) + (readers[1] as number);
          expect([t.rwlocks.nrReaders(lock), t.rwlocks.isWriteLocked(lock)]).toEqual([now, writer >= 0]);
        }
        for (const cpu of [0, 1]) {
          const ctx = cpu === 0 ? t.ctx : t.other;
          for (; (readers[cpu] as number) > 0; readers[cpu]--) t.rwlocks.readUnlock(ctx, lock);
          if (writer === cpu) t.rwlocks.writeUnlock(ctx, lock);
        }
      }),
    );
    t.expectClean();
  });
});

describe("sequence locks", () => {
  it("SEQ-1, SEQ-2 a read is repeated if and only if a write came between", () => {
    const t = boot();
    const sl = t.alloc(SEQLOCK_BYTES);
    const { seqlocks } = t;
    seqlocks.init(sl, "time");
    const quiet = seqlocks.readSeqbegin(t.ctx, sl);
    expect(seqlocks.readSeqretry(sl, quiet)).toBe(false);
    seqlocks.writeSeqlock(t.other, sl);
    expect(t.machine.port.ld32(sl)).toBe(1);
    expect(seqlocks.readSeqretry(sl, quiet)).toBe(true);
    seqlocks.writeSequnlock(t.other, sl);
    expect(seqlocks.readSeqretry(sl, quiet)).toBe(true);
    expect(seqlocks.readSeqbegin(t.ctx, sl)).toBe(2);
    seqlocks.writeSequnlockIrqrestore(t.ctx, sl, seqlocks.writeSeqlockIrqsave(t.ctx, sl));
    seqlocks.writeSeqlockBh(t.ctx, sl);
    seqlocks.writeSequnlockBh(t.ctx, sl);
    expect(seqlocks.readSeqbegin(t.ctx, sl)).toBe(6);
    t.expectClean();
  });

  it("SEQ-2 the sequence wraps at 2^32", () => {
    const t = boot();
    const sl = t.alloc(SEQLOCK_BYTES);
    t.machine.port.st32(sl, 0xffff_fffe);
    t.seqlocks.writeSeqlock(t.ctx, sl);
    t.seqlocks.writeSequnlock(t.ctx, sl);
    expect(t.seqlocks.readSeqbegin(t.ctx, sl)).toBe(0);
  });

  it("SEQ-3 a reader in an interrupt on top of a writer is reported; with irqsave there is none", () => {
    const t = boot();
    const sl = t.alloc(SEQLOCK_BYTES);
    t.seqlocks.writeSeqlock(t.ctx, sl);
    t.interrupt(0, (irq) => {
      expect(() => t.seqlocks.readSeqbegin(irq, sl)).toThrow("SEQ-3");
    });
    expect(() => t.seqlocks.readSeqbegin(t.other, sl)).toThrow(KernelBug);
    t.seqlocks.writeSequnlock(t.ctx, sl);
    t.interrupt(0, (irq) => {
      expect(t.seqlocks.readSeqbegin(irq, sl)).toBe(2);
    });
  });

  it("SEQ-4 a latch reader on top of the writer reads the copy that is not being changed", () => {
    const t = boot();
    const { port } = t.machine;
    const latch = t.alloc(8);
    const copies = t.alloc(16);
    const write = (value: number, during: () => void): void =>
      t.seqlocks.latchWrite(latch, (copy) => {
        port.st32(copies + copy * 8, value);
        during();
        port.st32(copies + copy * 8 + 4, value);
      });
    const read = (): readonly [number, number] => {
      for (;;) {
        const start = t.seqlocks.latchBegin(latch);
        const at = asPhys(copies + (start & 1) * 8);
        const seen = [port.ld32(at), port.ld32(at + 4)] as const;
        if (!t.seqlocks.latchRetry(latch, start)) return seen;
      }
    };
    write(1, () => {});
    const seen: (readonly [number, number])[] = [];
    write(2, () => t.interrupt(0, () => seen.push(read())));
    expect(seen).toEqual([
      [1, 1],
      [2, 2],
    ]);
    expect(read()).toEqual([2, 2]);
  });
});
