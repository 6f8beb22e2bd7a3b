/**
 * The memory port for machines whose CPUs are threads of the host: plain accesses plain, atomics as `Atomics`.
 *
 *      thread 0 = CPU 0        thread 1 = CPU 1        each with its own copy of the kernel's code and closures
 *      ThreadPort ──────┐  ┌────── ThreadPort
 *                       ▼  ▼
 *              one SharedArrayBuffer = RAM             everything that changes
 *
 * Why plain accesses may stay plain. The memory model of JavaScript orders an `Atomics` operation that reads a word
 * after the one that wrote what it reads ("synchronizes with"), and everything that a thread did before its write
 * comes before everything that the other thread does after its read. A spinlock is taken by a compare-and-swap and
 * released by an atomic store of the same word; so whoever takes it next sees all plain stores made under it. Data
 * that one CPU alone touches needs nothing. What is read with neither (the first look at a lock word, the free pages
 * of a zone at a watermark check, the head of a depot) may be old: such a read is a hint, and is repeated under the
 * lock or by the compare-and-swap that follows. An aligned word of up to 32 bits is never torn; f64 counters are per
 * CPU or under a lock.
 *
 *   TPORT-1  a word that two CPUs write is written under a lock, or by these five operations
 *   TPORT-2  a lock is released by stAtomic, never by st32: a plain store orders nothing
 *
 * Cost (2026, Node 20): an `Atomics` call 7-9 ns, a plain access as in RawPort. RawPort's atomics are plain, so a
 * machine run by one thread does not pay for this.
 * Source: ECMA-262, "Memory Model"; the Linux counterpart is Documentation/memory-barriers.txt.
 */

import { type RamBuffer, RawPort } from "./port.ts";

export class ThreadPort extends RawPort {
  private readonly i32: Int32Array;

  /** `ram` must be shared: threads that each have an ArrayBuffer have no memory in common. */
  constructor(ram: RamBuffer) {
    if (!(ram instanceof SharedArrayBuffer)) throw new Error("thread_port: RAM is not shared");
    super(ram);
    this.i32 = new Int32Array(ram);
  }

  override ldAtomic(addr: number): number {
    return Atomics.load(this.i32, addr >>> 2) >>> 0;
  }
  override stAtomic(addr: number, value: number): void {
    Atomics.store(this.i32, addr >>> 2, value | 0);
  }
  override cas(addr: number, expected: number, desired: number): number {
    return Atomics.compareExchange(this.i32, addr >>> 2, expected | 0, desired | 0) >>> 0;
  }
  override casBelow(addr: number, limit: number, desired: number): number {
    for (;;) {
      const seen = this.ld32(addr);
      if (seen >= limit || this.cas(addr, seen, desired) === seen) return seen;
    }
  }
  override fetchAdd(addr: number, delta: number): number {
    return Atomics.add(this.i32, addr >>> 2, delta | 0) >>> 0;
  }
}
