/**
 * The guard port: a memory port that knows which bytes a device owns, and tells when a CPU touches them.
 *
 * On a machine whose caches snoop, a CPU that reads a buffer while the device still writes it sees something, often the
 * right thing, and the bug ships. This port makes the bug visible at the first access: between map (or syncForDevice)
 * and unmap (or syncForCpu) the DMA layer marks the memory; each load or store of the CPU that meets a mark is reported
 * with what was done and to whom the memory is lent. The access itself happens: the port looks, it does not change.
 *
 *   mapped TO_DEVICE        the CPU may load, not store
 *   mapped FROM_DEVICE      neither; after syncForCpu it may load
 *   mapped BIDIRECTIONAL    neither, until syncForCpu
 *
 *   GRD-1  a CPU access is reported iff it touches a marked byte in a way that the mark forbids
 *   GRD-2  marks are exact to the byte: a neighbour on the same cache line may be used (D3: not enforced)
 *   GRD-3  without marks every access is the inner port's
 *
 * A counter per cache line answers "no mark here" with one load; only then the ranges of that page are looked at. Marks
 * of one owner do not overlap: marking again replaces. Host state: an observer, like a logic analyser on the bus.
 * Devices do not come by here: their way is the DMA bus.
 */

import type { MemoryPort } from "./port.ts";

export const DENY_LOAD = 1;
export const DENY_STORE = 2;

export interface GuardViolation {
  /** Number that the memory was lent under: the address of a struct device. */
  readonly owner: number;
  readonly addr: number;
  readonly bytes: number;
  readonly isStore: boolean;
  /** What the owner said of it, for the report. */
  readonly note: string;
}

export interface CpuGuard {
  /** Marks `[start, start + bytes)` as lent to `owner`: what the CPU may not do there (DENY_…). */
  own(owner: number, start: number, bytes: number, deny: number, note: string): void;
  /** Takes the owner's marks off that range. */
  release(owner: number, start: number, bytes: number): void;
  /** Takes all of an owner's marks off. */
  releaseAll(owner: number): void;
  onViolation(hook: (violation: GuardViolation) => void): void;
  nrViolations(): number;
  /** Marked bytes of all owners. */
  nrOwnedBytes(): number;
}

interface Mark {
  readonly owner: number;
  readonly start: number;
  readonly end: number;
  readonly deny: number;
  readonly note: string;
}

const LINE_SHIFT = 6;
const PAGE_SHIFT = 12;
const PAGE_BYTES = 4096;

export class GuardPort implements MemoryPort {
  readonly sizeBytes: number;
  readonly guard: CpuGuard;
  private readonly inner: MemoryPort;
  /** Marks that touch each cache line. */
  private readonly lines: Uint16Array;
  /** Marks by page; a mark never leaves its page. */
  private readonly marks = new Map<number, Mark[]>();
  private report: (violation: GuardViolation) => void = () => {};
  private nrViolations = 0;
  private isReporting = false;

  constructor(inner: MemoryPort) {
    this.inner = inner;
    this.sizeBytes = inner.sizeBytes;
    this.lines = new Uint16Array((inner.sizeBytes >>> LINE_SHIFT) + 1);
    this.guard = {
      own: (owner, start, bytes, deny, note) => {
        this.release(owner, start, bytes);
        for (let at = start; at < start + bytes; ) {
          const end = Math.min(start + bytes, (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES);
          this.put({ owner, start: at, end, deny, note });
          at = end;
        }
      },
      release: (owner, start, bytes) => this.release(owner, start, bytes),
      releaseAll: (owner) => {
        for (const page of this.marks.keys()) this.release(owner, page * PAGE_BYTES, PAGE_BYTES);
      },
      onViolation: (hook) => {
        this.report = hook;
      },
      nrViolations: () => this.nrViolations,
      nrOwnedBytes: () => {
        let bytes = 0;
        for (const marks of this.marks.values()) for (const mark of marks) bytes += mark.end - mark.start;
        return bytes;
      },
    };
  }

  private count(mark: Mark, delta: number): void {
    for (let line = mark.start >>> LINE_SHIFT; line <= (mark.end - 1) >>> LINE_SHIFT; line++) {
      this.lines[line] = (this.lines[line] as number) + delta;
    }
  }

  private put(mark: Mark): void {
    if (mark.end <= mark.start) return;
    const page = mark.start >>> PAGE_SHIFT;
    const marks = this.marks.get(page);
    if (marks === undefined) this.marks.set(page, [mark]);
    else marks.push(mark);
    this.count(mark, 1);
  }

  /** Cuts `[start, start + bytes)` out of the owner's marks. */
  private release(owner: number, start: number, bytes: number): void {
    const end = start + bytes;
    for (let page = start >>> PAGE_SHIFT; page <= (end - 1) >>> PAGE_SHIFT; page++) {
      const marks = this.marks.get(page);
      if (marks === undefined) continue;
      const hit = marks.filter((mark) => mark.owner === owner && mark.start < end && mark.end > start);
      if (hit.length === 0) continue;
      const rest = marks.filter((mark) => !hit.includes(mark));
      if (rest.length === 0) this.marks.delete(page);
      else this.marks.set(page, rest);
      for (const mark of hit) {
        this.count(mark, -1);
        this.put({ ...mark, end: Math.min(mark.end, start) });
        this.put({ ...mark, start: Math.max(mark.start, end) });
      }
    }
  }

  /** GRD-1, after the line counter said that something is marked there. */
  private look(addr: number, bytes: number, deny: number): void {
    if (this.isReporting) return;
    for (let page = addr >>> PAGE_SHIFT; page <= (addr + bytes - 1) >>> PAGE_SHIFT; page++) {
      for (const mark of this.marks.get(page) ?? []) {
        if (mark.start >= addr + bytes || mark.end <= addr || (mark.deny & deny) === 0) continue;
        this.nrViolations++;
        this.isReporting = true;
        this.report({ owner: mark.owner, addr, bytes, isStore: deny === DENY_STORE, note: mark.note });
        this.isReporting = false;
        return;
      }
    }
  }

  private at(addr: number, bytes: number, deny: number): void {
    if ((this.lines[addr >>> LINE_SHIFT] as number) !== 0) this.look(addr, bytes, deny);
  }
  private range(addr: number, bytes: number, deny: number): void {
    for (let line = addr >>> LINE_SHIFT; bytes > 0 && line <= (addr + bytes - 1) >>> LINE_SHIFT; line++) {
      if ((this.lines[line] as number) === 0) continue;
      this.look(addr, bytes, deny);
      return;
    }
  }

  ld8(addr: number): number {
    this.at(addr, 1, DENY_LOAD);
    return this.inner.ld8(addr);
  }
  ld16(addr: number): number {
    this.at(addr, 2, DENY_LOAD);
    return this.inner.ld16(addr);
  }
  ld32(addr: number): number {
    this.at(addr, 4, DENY_LOAD);
    return this.inner.ld32(addr);
  }
  ldF64(addr: number): number {
    this.at(addr, 8, DENY_LOAD);
    return this.inner.ldF64(addr);
  }
  st8(addr: number, value: number): void {
    this.at(addr, 1, DENY_STORE);
    this.inner.st8(addr, value);
  }
  st16(addr: number, value: number): void {
    this.at(addr, 2, DENY_STORE);
    this.inner.st16(addr, value);
  }
  st32(addr: number, value: number): void {
    this.at(addr, 4, DENY_STORE);
    this.inner.st32(addr, value);
  }
  stF64(addr: number, value: number): void {
    this.at(addr, 8, DENY_STORE);
    this.inner.stF64(addr, value);
  }
  ldWord(word: number): number {
    return this.ld32(word * 4);
  }
  stWord(word: number, value: number): void {
    this.st32(word * 4, value);
  }
  ldAtomic(addr: number): number {
    this.at(addr, 4, DENY_LOAD);
    return this.inner.ldAtomic(addr);
  }
  stAtomic(addr: number, value: number): void {
    this.at(addr, 4, DENY_STORE);
    this.inner.stAtomic(addr, value);
  }
  cas(addr: number, expected: number, desired: number): number {
    this.at(addr, 4, DENY_STORE);
    return this.inner.cas(addr, expected, desired);
  }
  casBelow(addr: number, limit: number, desired: number): number {
    this.at(addr, 4, DENY_STORE);
    return this.inner.casBelow(addr, limit, desired);
  }
  fetchAdd(addr: number, delta: number): number {
    this.at(addr, 4, DENY_STORE);
    return this.inner.fetchAdd(addr, delta);
  }
  copy(dst: number, src: number, bytes: number): void {
    this.range(src, bytes, DENY_LOAD);
    this.range(dst, bytes, DENY_STORE);
    this.inner.copy(dst, src, bytes);
  }
  fill(addr: number, byte: number, bytes: number): void {
    this.range(addr, bytes, DENY_STORE);
    this.inner.fill(addr, byte, bytes);
  }
  writeBytes(addr: number, source: Uint8Array): void {
    this.range(addr, source.length, DENY_STORE);
    this.inner.writeBytes(addr, source);
  }
  readBytes(addr: number, bytes: number): Uint8Array {
    this.range(addr, bytes, DENY_LOAD);
    return this.inner.readBytes(addr, bytes);
  }
}
