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
 *   TPORT-1  a word that two CPUs write is written under a lock, or by these four operations
 *   TPORT-2  a lock is released by stAtomic, never by st32: a plain store orders nothing
 *
 * Cost (2026, Node 20): an `Atomics` call 7-9 ns, a plain access as in RawPort. RawPort's atomics are plain, so a
 * machine run by one thread does not pay for this.
 * Source: ECMA-262, "Memory Model"; the Linux counterpart is Documentation/memory-barriers.txt.
 */

import type { MemoryPort, RamBuffer } from "./port.ts";

export class ThreadPort implements MemoryPort {
  readonly sizeBytes: number;
  private readonly u8: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly u32: Uint32Array;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;

  /** `ram` must be shared: threads that each have an ArrayBuffer have no memory in common. */
  constructor(ram: RamBuffer) {
    if (!(ram instanceof SharedArrayBuffer)) throw new Error("thread_port: RAM is not shared");
    this.sizeBytes = ram.byteLength;
    this.u8 = new Uint8Array(ram);
    this.u16 = new Uint16Array(ram);
    this.u32 = new Uint32Array(ram);
    this.i32 = new Int32Array(ram);
    this.f64 = new Float64Array(ram);
  }

  ld8(addr: number): number {
    return this.u8[addr] as number;
  }
  ld16(addr: number): number {
    return this.u16[addr >>> 1] as number;
  }
  ld32(addr: number): number {
    return this.u32[addr >>> 2] as number;
  }
  ldF64(addr: number): number {
    return this.f64[addr >>> 3] as number;
  }
  st8(addr: number, value: number): void {
    this.u8[addr] = value;
  }
  st16(addr: number, value: number): void {
    this.u16[addr >>> 1] = value;
  }
  st32(addr: number, value: number): void {
    this.u32[addr >>> 2] = value;
  }
  stF64(addr: number, value: number): void {
    this.f64[addr >>> 3] = value;
  }
  ldAtomic(addr: number): number {
    return Atomics.load(this.i32, addr >>> 2) >>> 0;
  }
  stAtomic(addr: number, value: number): void {
    Atomics.store(this.i32, addr >>> 2, value | 0);
  }
  cas(addr: number, expected: number, desired: number): number {
    return Atomics.compareExchange(this.i32, addr >>> 2, expected | 0, desired | 0) >>> 0;
  }
  fetchAdd(addr: number, delta: number): number {
    return Atomics.add(this.i32, addr >>> 2, delta | 0) >>> 0;
  }
  copy(dst: number, src: number, bytes: number): void {
    this.u8.copyWithin(dst, src, src + bytes);
  }
  fill(addr: number, byte: number, bytes: number): void {
    if (((addr | bytes) & 3) === 0) {
      const word = (byte | (byte << 8) | (byte << 16) | (byte << 24)) >>> 0;
      this.u32.fill(word, addr >>> 2, (addr >>> 2) + (bytes >>> 2));
    } else {
      this.u8.fill(byte, addr, addr + bytes);
    }
  }
  writeBytes(addr: number, source: Uint8Array): void {
    this.u8.set(source, addr);
  }
  readBytes(addr: number, bytes: number): Uint8Array {
    return this.u8.slice(addr, addr + bytes);
  }
}
