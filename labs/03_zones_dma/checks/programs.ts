/**
 * Programs of lab 3: machines with few frames, and what is remembered while a program is made.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Arg, Op, Program } from "../../kit/program.ts";
import { FRAME_BYTES, SLOT_BYTES, TO_DEVICE } from "../given/api.ts";
import type { DmaConfig } from "./model.ts";

type ZoneRow = DmaConfig["zones"][number];

/** Zones of the given sizes, side by side behind the bounce area; marks and ratios that suit them. */
export function machineOf(
  sizes: readonly [number, number, number],
  slots = 4,
  marks: readonly (readonly [min: number, low: number, ratio: number])[] = [
    [1, 2, 8],
    [2, 3, 4],
    [2, 4, 0],
  ],
): DmaConfig {
  let start = 1 + Math.ceil((slots * SLOT_BYTES) / FRAME_BYTES);
  const zones = sizes.map((size, i): ZoneRow => {
    const [min, low, ratio] = marks[i] as readonly [number, number, number];
    start += size;
    return [start - size, start, min, low, ratio];
  });
  return { zones, slots };
}

/** Some machine. */
export function anyMachine(random: Prng): DmaConfig {
  const size = (most: number): number => 4 + random.below(most);
  const marks = [0, 1, 2].map((zone): [number, number, number] => {
    const min = 1 + random.below(3);
    return [min, min + 1 + random.below(2), zone === 2 || random.below(4) === 0 ? 0 : 3 + random.below(6)];
  });
  const middle = random.below(5) === 0 ? 0 : size(8);
  return machineOf([size(6), middle, size(10)], 2 * (1 + random.below(4)), marks);
}

/** The highest address of zone `zone`, which is the mask of a device that reaches just that. */
export function lastByteOf({ zones }: DmaConfig, zone: number): number {
  return (zones[zone] as ZoneRow)[1] * FRAME_BYTES - 1;
}

interface Live {
  readonly ref: number;
  /** Frames of a block, the pool of a block of a pool, bytes of a mapping. */
  readonly what: number;
  readonly direction: number;
}

/** A program under construction. */
export class Builder {
  readonly config: DmaConfig;
  readonly #ops: Op[] = [];
  readonly blocks: Live[] = [];
  readonly taken: Live[] = [];
  readonly mapped: Live[] = [];

  constructor(config: DmaConfig) {
    this.config = config;
  }

  op(...op: Op): number {
    this.#ops.push(op);
    return this.#ops.length - 1;
  }

  on(name: string, ref: number, ...args: Arg[]): number {
    return this.op(name, { ref }, ...args);
  }

  pages(highest: number, order: number, isUrgent = false): number {
    const ref = this.op("pages", highest, order, isUrgent);
    this.blocks.push({ ref, what: order, direction: 0 });
    return ref;
  }

  /** Gives the `index`-th block back. */
  back(index: number): void {
    const [block] = this.blocks.splice(index, 1);
    if (block !== undefined) this.on("back", block.ref, block.what);
  }

  /** Takes frame by frame: `nr` of them. */
  drain(highest: number, nr: number): void {
    for (let i = 0; i < nr; i++) this.pages(highest, 0);
  }

  take(pool: number): number {
    const ref = this.on("take", pool);
    this.taken.push({ ref, what: pool, direction: 0 });
    return ref;
  }

  takeSome(pool: number, nr: number): number[] {
    return Array.from({ length: nr }, () => this.take(pool));
  }

  /** Frees the `index`-th block of a pool. */
  put(index: number): void {
    const [block] = this.taken.splice(index, 1);
    if (block !== undefined) this.on("put", block.what, { ref: block.ref });
  }

  map(block: number, offset: number, size: number, direction: number, mask: number): number {
    const ref = this.on("mapPart", block, offset, size, direction, mask);
    this.mapped.push({ ref, what: size, direction });
    return ref;
  }

  /** The same with a frame by its number, which nobody has asked for. */
  mapFrame(frame: number, offset: number, size: number, mask: number): void {
    this.op("mapPart", frame, offset, size, TO_DEVICE, mask);
  }

  /** Ends the `index`-th mapping. */
  unmap(index: number): void {
    const [mapping] = this.mapped.splice(index, 1);
    if (mapping !== undefined) this.on("unmapPart", mapping.ref, mapping.what, mapping.direction);
  }

  unmapRef(ref: number): void {
    this.unmap(this.mapped.findIndex((mapping) => mapping.ref === ref));
  }

  build(): Program {
    return { config: this.config as unknown as Program["config"], ops: this.#ops };
  }
}
