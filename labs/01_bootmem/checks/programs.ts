/**
 * Programs of lab 1: machines as firmware describes them, and requests.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Op, Program } from "../../kit/program.ts";
import { RAM } from "../given/api.ts";

type Row = [start: number, end: number, type: number];
type Taken = [start: number, end: number];

/** Everything in these machines is a multiple of it, unless it is to be odd. */
export const GRAIN = 0x400;

/** A program under construction. */
export class Builder {
  readonly #map: Row[];
  readonly #reserved: Taken[] = [];
  readonly #ops: Op[] = [];

  constructor(map: Row[]) {
    this.#map = map;
  }

  reserve(start: number, end: number): this {
    this.#reserved.push([start, end]);
    return this;
  }

  op(...op: Op): this {
    this.#ops.push(op);
    return this;
  }

  alloc(size: number, align = 1): this {
    return this.op("alloc", size, align);
  }

  /** `n` requests of up to `most` bytes. */
  some(random: Prng, n: number, most = 0x1800): this {
    for (let i = 0; i < n; i++) this.alloc(1 + random.below(most), 1 << random.below(14));
    return this;
  }

  /** The end of booting: hand over, and look at the books. */
  end(): this {
    return this.op("handOver").op("usedBytes").op("reservedBytes").op("changedRow");
  }

  /** With the map's rows and the reserved ranges in another order. */
  shuffle(random: Prng): this {
    for (const rows of [this.#map, this.#reserved]) {
      for (let i = rows.length - 1; i > 0; i--) {
        const j = random.below(i + 1);
        const row = rows[i] as never;
        rows[i] = rows[j] as never;
        rows[j] = row;
      }
    }
    return this;
  }

  build(): Program {
    return { config: { map: this.#map, reserved: this.#reserved }, ops: this.#ops };
  }
}

/** One row of memory from `start` on. */
export function oneRow(start: number, bytes: number): Builder {
  return new Builder([[start, start + bytes, RAM]]);
}

/** Rows of memory in order, `bytes` each, with holes of `hole` bytes between them. */
export function rowsOf(nr: number, bytes: number, hole: number, from = 0x1000): Builder {
  return new Builder(
    Array.from({ length: nr }, (_, i) => [from + i * (bytes + hole), from + i * (bytes + hole) + bytes, RAM]),
  );
}

/** A map in order: memory and other things, which may touch (`touches`) or not. */
export function anyMap(random: Prng, nr: number, grain: number, touches: boolean): Row[] {
  const map: Row[] = [];
  let at = random.below(4) * grain;
  for (let row = 0; row < nr; row++) {
    const end = at + (1 + random.below(20)) * grain;
    map.push([at, end, row % 2 === 0 ? RAM : 1 + random.below(4)]);
    const before = map[row - 1];
    const isJoined = before !== undefined && before[1] === at && before[2] === RAM && map[row]?.[2] === RAM;
    // Memory touches memory only where that is wanted.
    if (isJoined && !touches) (map[row] as Row)[2] = 2;
    at = end + (random.below(3) === 0 ? 0 : (1 + random.below(6)) * grain);
  }
  return map;
}

/** `nr` reserved ranges anywhere below the end of `map`: they overlap, and lie over holes. */
export function reserveAny(builder: Builder, random: Prng, map: readonly Row[], nr: number, grain: number): Builder {
  const nrGrains = Math.max(2, Math.ceil((map.at(-1)?.[1] ?? grain) / grain));
  for (let i = 0; i < nr; i++) {
    const start = random.below(nrGrains) * grain;
    builder.reserve(start, start + (1 + random.below(8)) * grain);
  }
  return builder;
}
