/**
 * Goal: the ports, that of thread machines above all, and waiting for a lock that another thread holds (SPIN-1 … SPIN-3).
 * Method: one thread that plays both CPUs: the "other" one acts in the host's hooks, while the first one sleeps.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createMachine, type Machine } from "../../kernel/arch/machine.ts";
import { BadAccess, RawPort } from "../../kernel/arch/port.ts";
import { ThreadPort } from "../../kernel/arch/thread_port.ts";
import { createContextTracking } from "../../kernel/context.ts";
import { createKernelImage } from "../../kernel/image.ts";
import { createPerCpu } from "../../kernel/percpu.ts";
import { createPrintk } from "../../kernel/printk.ts";
import { createSpinWait, type SpinHost } from "../../kernel/spin_wait.ts";
import { createSpinlocks } from "../../kernel/spinlock.ts";
import type { PhysAddr } from "../../kernel/types.ts";

const MIB = 1024 * 1024;
const hasSharedMemory = typeof SharedArrayBuffer === "function";
if (!hasSharedMemory) process.stderr.write("test/parallel/thread_port: skipped: no SharedArrayBuffer here\n");

function createWorld(hooks: Partial<SpinHost> = {}) {
  const ram = new SharedArrayBuffer(8 * MIB);
  const machine: Machine = createMachine({ nrCpus: 2, ramBytes: 8 * MIB, seed: "1", port: "threads", ram });
  const image = createKernelImage();
  const percpu = createPerCpu();
  const printk = createPrintk(machine, image);
  const contexts = createContextTracking(machine, image, percpu, printk);
  let time = 0;
  const host: SpinHost = { now: () => ++time, onSleep: () => {}, onStuck: () => {}, patienceMs: 1e9, ...hooks };
  const wait = createSpinWait(ram, host);
  const spinlocks = createSpinlocks(machine, contexts, wait.onContention);
  const lock = image.bss("test_lock", 8, 8);
  percpu.setup(image.bss("percpu", percpu.unitBytes() * 2, 64), 2);
  return { machine, contexts, spinlocks, lock, wait };
}

it.each(["raw", "bounds", "inject", "guard"] as const)("casBelow stores below the limit only, port %s", (kind) => {
  const { port } = createMachine({ nrCpus: 1, ramBytes: 8 * MIB, seed: "1", port: kind });
  port.st32(64, 0xfff0_0000);
  expect([port.casBelow(64, 0xfff0_0000, 7), port.ld32(64)]).toEqual([0xfff0_0000, 0xfff0_0000]);
  expect([port.casBelow(64, 0xfff0_0001, 7), port.ld32(64)]).toEqual([0xfff0_0000, 7]);
});

it.each(["raw", "bounds", "inject", "guard"] as const)("ldWord and stWord are ld32 and st32, port %s", (kind) => {
  const { port } = createMachine({ nrCpus: 1, ramBytes: 8 * MIB, seed: "1", port: kind });
  for (const word of [0, 1, 1023, 0x7_0000]) {
    port.stWord(word, 0x8000_0000 + word);
    expect([port.ldWord(word), port.ld32(word * 4)]).toEqual([0x8000_0000 + word, 0x8000_0000 + word]);
  }
  if (kind === "raw") return;
  for (const word of [-1, 0.5, 2 ** 30, Number.NaN]) {
    expect(() => port.ldWord(word)).toThrow(BadAccess);
    expect(() => port.stWord(word, 1)).toThrow(BadAccess);
  }
});

describe.skipIf(!hasSharedMemory)("ThreadPort", () => {
  it("does what RawPort does, operation by operation", () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    const addr = fc.integer({ min: 0, max: 15 }).map((i) => i * 8);
    const operation = fc.oneof(
      fc.tuple(fc.constantFrom("st8", "st16", "st32", "stAtomic", "fetchAdd"), addr, word, word),
      fc.tuple(fc.constantFrom("cas", "casBelow", "copy", "fill", "stF64"), addr, word, word),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
        const [raw, threads] = [new RawPort(new SharedArrayBuffer(256)), new ThreadPort(new SharedArrayBuffer(256))];
        for (const [name, at, a, b] of operations) {
          for (const port of [raw, threads]) {
            if (name === "cas") port.cas(at, (port.ld32(at) ^ (a & 1)) >>> 0, b);
            else if (name === "casBelow") port.casBelow(at, a, b);
            else if (name === "copy") port.copy(at, b % 128, a % 128);
            else if (name === "fill") port.fill(at + (a % 8), b & 0xff, a % 64);
            else if (name === "fetchAdd") port.fetchAdd(at, a | 0);
            else port[name as "st8"](at, name === "st8" ? a & 0xff : name === "st16" ? a & 0xffff : a);
          }
          expect(threads.readBytes(0, 256)).toEqual(raw.readBytes(0, 256));
          expect([threads.ldAtomic(at), threads.ld32(at), threads.ld16(at), threads.ld8(at)]).toEqual([
            raw.ldAtomic(at),
            raw.ld32(at),
            raw.ld16(at),
            raw.ld8(at),
          ]);
        }
        expect([threads.cas(8, 1, 2), threads.fetchAdd(16, -1)]).toEqual([raw.cas(8, 1, 2), raw.fetchAdd(16, -1)]);
      }),
      { numRuns: 200 },
    );
  });

  it("refuses RAM that no other thread can see, and RAM of the wrong size", () => {
    expect(() => new ThreadPort(new ArrayBuffer(8 * MIB))).toThrow("not shared");
    const ram = new SharedArrayBuffer(4 * MIB);
    expect(() => createMachine({ nrCpus: 1, ramBytes: 8 * MIB, seed: "1", port: "threads", ram })).toThrow("bytes");
  });
});

describe.skipIf(!hasSharedMemory)("spin_wait", () => {
  it("SPIN-1 a waiter goes on when the holder has released, and the meeting is counted", () => {
    let release: () => void = () => {};
    const { contexts, spinlocks, lock, wait, machine } = createWorld({ onSleep: () => release() });
    const [first, second] = [contexts.taskContext(0), contexts.taskContext(1)];
    spinlocks.spinLock(second, lock);
    release = () => spinlocks.spinUnlock(second, lock);
    spinlocks.spinLock(first, lock);
    expect(machine.port.ld32(lock)).toBe(1);
    expect([...wait.contended]).toEqual([[lock, 1]]);
    spinlocks.spinUnlock(first, lock);
    expect(spinlocks.isLocked(lock)).toBe(false);
  });

  it("SPIN-2 a lock that its own CPU holds is recursion", () => {
    const { contexts, spinlocks, lock } = createWorld();
    const ctx = contexts.taskContext(1);
    spinlocks.spinLock(ctx, lock);
    expect(() => spinlocks.spinLock(ctx, lock)).toThrow("recursion");
  });

  it("SPIN-3 after the host's patience it is told which lock, and who holds it", () => {
    const stuck: [PhysAddr, number][] = [];
    const { contexts, spinlocks, lock } = createWorld({
      patienceMs: 5,
      onStuck: (address, holder) => {
        stuck.push([address, holder]);
        throw new Error("given up");
      },
    });
    spinlocks.spinLock(contexts.taskContext(1), lock);
    expect(() => spinlocks.spinLock(contexts.taskContext(0), lock)).toThrow("given up");
    expect(stuck).toEqual([[lock, 1]]);
  });
});
