/**
 * A naive oracle for umalloc: a list of live blocks and what was written to them.
 *
 * After each call it is asserted that the block is aligned, big enough, overlaps no other, and that what it should
 * contain is there: its own bytes after realloc, zeros after calloc. Contents are a byte pattern from a serial number.
 */
import { expect } from "vitest";
import type { Umalloc } from "../../userland/umalloc.ts";
import type { FakeProcess } from "../support/fake_env.ts";

export interface Block {
  readonly p: number;
  readonly bytes: number;
  readonly serial: number;
}

export class HeapModel {
  readonly blocks: Block[] = [];
  readonly process: FakeProcess;
  readonly heap: Umalloc;
  nrFailed = 0;
  #serial = 0;

  constructor(process: FakeProcess, heap: Umalloc) {
    this.process = process;
    this.heap = heap;
  }

  malloc(bytes: number): Block | undefined {
    return this.#adopt(this.heap.malloc(bytes), bytes, 16);
  }

  calloc(count: number, size: number): Block | undefined {
    const block = this.#adopt(this.heap.calloc(count, size), count * size, 16, true);
    return block;
  }

  memalign(align: number, bytes: number): Block | undefined {
    return this.#adopt(this.heap.memalign(align, bytes), bytes, align);
  }

  realloc(index: number, bytes: number): Block | undefined {
    const old = this.blocks[index] as Block;
    this.verify(old);
    const p = this.heap.realloc(old.p, bytes);
    if (p === 0) {
      this.nrFailed++;
      this.verify(old);
      return undefined;
    }
    this.blocks.splice(index, 1);
    this.verify({ p, bytes: Math.min(old.bytes, bytes), serial: old.serial });
    return this.#adopt(p, bytes, 16);
  }

  free(index: number, heap: Umalloc = this.heap): void {
    const [block] = this.blocks.splice(index, 1) as [Block];
    this.verify(block);
    heap.free(block.p);
  }

  freeAll(): void {
    while (this.blocks.length > 0) this.free(this.blocks.length - 1);
  }

  verify(block: Block): void {
    // `toEqual` is slow on long arrays: it is for the message.
    const found = this.#read(block.p, block.bytes);
    const wanted = pattern(block.serial, block.bytes);
    if (Buffer.compare(found, wanted) !== 0) expect(found).toEqual(wanted);
  }

  verifyAll(): void {
    for (const block of this.blocks) this.verify(block);
    expect(this.heap.check()).toBeNull();
  }

  #read(p: number, bytes: number): Uint8Array {
    return bytes === 0 ? new Uint8Array(0) : this.process.env.mem.read(p, bytes);
  }

  #adopt(p: number, bytes: number, align: number, isZeroed = false): Block | undefined {
    if (p === 0) {
      this.nrFailed++;
      return undefined;
    }
    expect(p % align).toBe(0);
    const usable = this.heap.usableSize(p);
    expect(usable).toBeGreaterThanOrEqual(Math.max(1, bytes));
    for (const other of this.blocks) {
      const isApart = p + usable <= other.p || other.p + Math.max(1, other.bytes) <= p;
      if (!isApart) expect.fail(`0x${p.toString(16)} + ${usable} overlaps 0x${other.p.toString(16)} + ${other.bytes}`);
    }
    if (isZeroed) expect(this.#read(p, bytes).every((byte) => byte === 0)).toBe(true);
    const block = { p, bytes, serial: ++this.#serial };
    this.process.env.mem.write(p, pattern(block.serial, bytes));
    this.blocks.push(block);
    return block;
  }
}

const PERIOD = 65_521;
const TABLE = Uint8Array.from({ length: PERIOD + 2 ** 20 }, (_, i) => Math.imul(i % PERIOD, 0x9e37_79b1) >>> 24);

/** What block number `serial` contains: another place of one table for each. */
function pattern(serial: number, bytes: number): Uint8Array {
  const from = (serial * 1009) % PERIOD;
  return TABLE.subarray(from, from + bytes);
}
