/**
 * ExplorePort: the memory port under which the order of accesses of several CPUs is chosen, not met.
 *
 * Plain synchronous kernel code cannot be stopped between two accesses, and has to be: that is where another CPU, or an
 * interrupt, comes in. So stop it by throwing, and bring it back by running it again from its start with the results
 * that it saw the first time:
 *
 *   CPU 0   ld → 7   cas → 3   st   ld ✕ thrown out          … other CPUs run …
 *   log       7        3       0
 *   CPU 0   ld ← 7   cas ← 3   st ← ld → the next access is live again
 *
 * While the log lasts, an access takes its result from there and touches nothing; after that it is *live*: the gate
 * (explore/engine.ts) may throw SUSPENDED, or let it happen, and then its result is added to the log. What this asks
 * of kernel code: all state behind the port; given the results of accesses, the same accesses again; no `catch` that
 * keeps SUSPENDED, no access in a `finally` around one.
 *
 *   XPT-1  a replayed access changes nothing and returns what the live one returned
 *   XPT-2  rollback() puts every byte written since mark() back
 *   XPT-3  without a gate it is a bounds-checked port and logs nothing: for building and for checking a machine
 *
 * Cost (2026, Node 20): replayed access 2 ns, live access 20-60 ns with detectors.
 */

import { BadAccess, type MemoryPort, type RamBuffer } from "./port.ts";

/** What an access is. Kinds from ATOMIC_LOAD on are scheduling points. */
export const LOAD = 0;
export const STORE = 1;
export const ATOMIC_LOAD = 2;
export const ATOMIC_STORE = 3;
/** A compare-and-swap or addition, told before it is known whether it stores; ATOMIC_STORE follows if it does. */
export const ATOMIC_RMW = 4;
/** Waiting until a word has, or has no longer, a value. */
export const WAIT = 5;

/** Thrown through kernel code to stop it. Not an Error: making one would cost its stack trace. */
export const SUSPENDED: { readonly name: string } = { name: "suspended" };

/** Who decides about live accesses. */
export interface ExploreGate {
  /** An access beyond the fast replay: true if its result is in the log, false if it is live and may happen now. */
  arrive(kind: number, addr: number, bytes: number): boolean;
  /** Part of the access that is happening: the halves of a copy, the store of a compare-and-swap. */
  touch(kind: number, addr: number, bytes: number): void;
  /** As arrive, for a CPU that goes on when the word equals `value` (`isEqual`), or does not. */
  arriveWaiting(addr: number, value: number, isEqual: boolean, isLock: boolean): boolean;
  /** The live access is done; `value` is its result, or what was stored. */
  done(value: number): void;
}

export class ExplorePort implements MemoryPort {
  declare readonly sizeBytes: number;
  declare private readonly u8: Uint8Array;
  declare private readonly u16: Uint16Array;
  declare private readonly u32: Uint32Array;
  declare private readonly f64: Float64Array;
  /** Results of the running CPU's accesses, and how far it is; `stop`: where the fast replay ends. Gate only. */
  log: Float64Array = new Float64Array(0);
  pos = 0;
  stop = 0;
  private gate: ExploreGate | null = null;
  private blobs: Uint8Array[] = [];
  private undo: Uint32Array = new Uint32Array(1024);
  private nrUndo = 0;
  private isJournaling = false;
  private patience = Number.POSITIVE_INFINITY;

  constructor(ram: RamBuffer) {
    this.sizeBytes = ram.byteLength;
    this.u8 = new Uint8Array(ram);
    this.u16 = new Uint16Array(ram);
    this.u32 = new Uint32Array(ram);
    this.f64 = new Float64Array(ram);
  }

  /** From now on accesses go through `gate`; null: they happen at once. */
  setGate(gate: ExploreGate | null): void {
    this.gate = gate;
  }
  /** The state that rollback() comes back to. */
  mark(): void {
    this.isJournaling = true;
    this.nrUndo = 0;
  }
  rollback(): void {
    const { u32, undo } = this;
    for (let i = this.nrUndo - 2; i >= 0; i -= 2) u32[undo[i] as number] = undo[i + 1] as number;
    this.nrUndo = 0;
    this.blobs.length = 0;
  }
  /** A word as it is now, past gate and log: for who judges, never for kernel code. */
  peek(addr: number): number {
    return this.u32[addr >>> 2] as number;
  }

  private save(word: number): void {
    if (!this.isJournaling) return;
    if (this.nrUndo + 2 > this.undo.length) {
      const larger = new Uint32Array(this.undo.length * 2);
      larger.set(this.undo);
      this.undo = larger;
    }
    this.undo[this.nrUndo] = word;
    this.undo[this.nrUndo + 1] = this.u32[word] as number;
    this.nrUndo += 2;
  }
  private saveRange(addr: number, bytes: number): void {
    for (let word = addr >>> 2; word < (addr + bytes + 3) >>> 2; word++) this.save(word);
  }

  private isReplayed(kind: number, addr: number, bytes: number): boolean {
    if (this.gate !== null) return this.gate.arrive(kind, addr, bytes);
    if (--this.patience < 0) throw new BadAccess("no end of a walk", addr);
    this.check(addr, bytes);
    return false;
  }
  /** At most so many accesses without a gate from now on: a walk over broken memory may go in circles. */
  limit(nrAccesses: number): void {
    this.patience = nrAccesses;
  }
  /** What the hardware refuses; `bytes` is the width of an access or the length of a range. */
  check(addr: number, bytes: number): void {
    // False for whatever is no whole number from 0 on, NaN and undefined too.
    if (addr >>> 0 !== addr || !(addr + bytes <= this.sizeBytes)) {
      throw new BadAccess("access outside RAM", addr);
    }
  }
  private aligned(addr: number, width: number): void {
    if ((addr & (width - 1)) !== 0) throw new BadAccess(`misaligned ${width}-byte access`, addr);
  }
  private record(value: number): number {
    if (this.gate === null) return value;
    this.log[this.pos++] = value;
    this.gate.done(value);
    return value;
  }

  ld8(addr: number): number {
    if (this.pos < this.stop || this.isReplayed(LOAD, addr, 1)) return this.log[this.pos++] as number;
    return this.record(this.u8[addr] as number);
  }
  ld16(addr: number): number {
    if (this.pos < this.stop || this.isReplayed(LOAD, addr, 2)) return this.log[this.pos++] as number;
    this.aligned(addr, 2);
    return this.record(this.u16[addr >>> 1] as number);
  }
  ld32(addr: number): number {
    if (this.pos < this.stop || this.isReplayed(LOAD, addr, 4)) return this.log[this.pos++] as number;
    this.aligned(addr, 4);
    return this.record(this.u32[addr >>> 2] as number);
  }
  ldF64(addr: number): number {
    if (this.pos < this.stop || this.isReplayed(LOAD, addr, 8)) return this.log[this.pos++] as number;
    this.aligned(addr, 8);
    return this.record(this.f64[addr >>> 3] as number);
  }
  st8(addr: number, value: number): void {
    if (this.pos < this.stop || this.isReplayed(STORE, addr, 1)) {
      this.pos++;
      return;
    }
    this.save(addr >>> 2);
    this.u8[addr] = value;
    this.record(value);
  }
  st16(addr: number, value: number): void {
    if (this.pos < this.stop || this.isReplayed(STORE, addr, 2)) {
      this.pos++;
      return;
    }
    this.aligned(addr, 2);
    this.save(addr >>> 2);
    this.u16[addr >>> 1] = value;
    this.record(value);
  }
  st32(addr: number, value: number): void {
    if (this.pos < this.stop || this.isReplayed(STORE, addr, 4)) {
      this.pos++;
      return;
    }
    this.aligned(addr, 4);
    this.save(addr >>> 2);
    this.u32[addr >>> 2] = value;
    this.record(value);
  }
  stF64(addr: number, value: number): void {
    if (this.pos < this.stop || this.isReplayed(STORE, addr, 8)) {
      this.pos++;
      return;
    }
    this.aligned(addr, 8);
    this.saveRange(addr, 8);
    this.f64[addr >>> 3] = value;
    this.record(value);
  }
  ldWord(word: number): number {
    return this.ld32(word * 4);
  }
  stWord(word: number, value: number): void {
    this.st32(word * 4, value);
  }
  ldAtomic(addr: number): number {
    if (this.pos < this.stop || this.isReplayed(ATOMIC_LOAD, addr, 4)) return this.log[this.pos++] as number;
    this.aligned(addr, 4);
    return this.record(this.u32[addr >>> 2] as number);
  }
  stAtomic(addr: number, value: number): void {
    if (this.pos < this.stop || this.isReplayed(ATOMIC_STORE, addr, 4)) {
      this.pos++;
      return;
    }
    this.aligned(addr, 4);
    this.save(addr >>> 2);
    this.u32[addr >>> 2] = value;
    this.record(value);
  }
  cas(addr: number, expected: number, desired: number): number {
    if (this.pos < this.stop || this.isReplayed(ATOMIC_RMW, addr, 4)) return this.log[this.pos++] as number;
    this.aligned(addr, 4);
    const old = this.u32[addr >>> 2] as number;
    if (old === expected) this.swap(addr, desired);
    return this.record(old);
  }
  casBelow(addr: number, limit: number, desired: number): number {
    if (this.pos < this.stop || this.isReplayed(ATOMIC_RMW, addr, 4)) return this.log[this.pos++] as number;
    this.aligned(addr, 4);
    const old = this.u32[addr >>> 2] as number;
    if (old < limit) this.swap(addr, desired);
    return this.record(old);
  }
  fetchAdd(addr: number, delta: number): number {
    if (this.pos < this.stop || this.isReplayed(ATOMIC_RMW, addr, 4)) return this.log[this.pos++] as number;
    this.aligned(addr, 4);
    const old = this.u32[addr >>> 2] as number;
    this.swap(addr, old + delta);
    return this.record(old);
  }
  private swap(addr: number, value: number): void {
    this.gate?.touch(ATOMIC_STORE, addr, 4);
    this.save(addr >>> 2);
    this.u32[addr >>> 2] = value;
  }

  copy(dst: number, src: number, bytes: number): void {
    if (this.pos < this.stop || this.isReplayed(STORE, dst, bytes)) {
      this.pos++;
      return;
    }
    this.check(src, bytes);
    this.gate?.touch(LOAD, src, bytes);
    this.saveRange(dst, bytes);
    this.u8.copyWithin(dst, src, src + bytes);
    this.record(0);
  }
  fill(addr: number, byte: number, bytes: number): void {
    if (this.pos < this.stop || this.isReplayed(STORE, addr, bytes)) {
      this.pos++;
      return;
    }
    this.saveRange(addr, bytes);
    this.u8.fill(byte, addr, addr + bytes);
    this.record(byte);
  }
  writeBytes(addr: number, source: Uint8Array): void {
    if (this.pos < this.stop || this.isReplayed(STORE, addr, source.length)) {
      this.pos++;
      return;
    }
    this.saveRange(addr, source.length);
    this.u8.set(source, addr);
    this.record(0);
  }
  readBytes(addr: number, bytes: number): Uint8Array {
    if (this.pos < this.stop || this.isReplayed(LOAD, addr, bytes)) {
      return (this.blobs[this.log[this.pos++] as number] as Uint8Array).slice();
    }
    const found = this.u8.slice(addr, addr + bytes);
    if (this.gate !== null) this.record(this.blobs.push(found.slice()) - 1);
    return found;
  }

  /**
   * The CPU does nothing until the word equals `value` (`isEqual`) or differs from it: what a spin loop amounts to,
   * without its turns. `isLock`: the word is a spinlock, 0 or 1 + its holder. Without a gate nobody else runs: an
   * error if the word is not as wanted.
   */
  waitUntil(addr: number, value: number, isEqual: boolean, isLock = false): void {
    if (this.pos < this.stop) {
      this.pos++;
      return;
    }
    if (this.gate === null) {
      if ((this.peek(addr) === value) !== isEqual) throw new Error("explore_port: a wait that nobody can end");
      return;
    }
    if (this.gate.arriveWaiting(addr, value, isEqual, isLock)) {
      this.pos++;
      return;
    }
    this.record(value);
  }
}
