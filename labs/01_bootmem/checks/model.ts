/**
 * What is free in a booting machine, kept naively: what the judge of lab 1 compares claims with.
 *
 * Nothing is stored but the tables and what was allocated. Every question is answered from all the addresses at which
 * something begins or ends: between two of them all bytes are alike.
 *
 *     map        ████████    ████████
 *     reserved      ▒▒▒▒▒▒▒▒▒
 *     used                      ▓▓
 *     pieces    |  |    |   ||  | |  |        each is asked: memory? reserved? used by whom?
 */

import { PAGE_SIZE, RAM } from "../given/api.ts";

export interface BootConfig {
  /** Rows of the firmware map: `[start, end, type]`. */
  readonly map: readonly (readonly [start: number, end: number, type: number])[];
  /** `[start, end]`. */
  readonly reserved: readonly (readonly [start: number, end: number])[];
}

export interface Owner {
  /** Index of the operation that allocated it. */
  readonly op: number;
  readonly start: number;
  readonly end: number;
}

/** Half-open range of bytes or of page frames. */
export type Range = readonly [start: number, end: number];

/** What all bytes of a piece are. */
export interface Piece {
  readonly start: number;
  readonly end: number;
  readonly isRam: boolean;
  readonly isReserved: boolean;
  readonly owner: Owner | undefined;
}

export class BootSpace {
  readonly config: BootConfig;
  readonly owners: Owner[] = [];
  /** Nothing is allocated below it any more. */
  cursor = 0;
  isOver = false;

  constructor(config: BootConfig) {
    this.config = config;
  }

  /** All pieces in [from, to), in order. */
  pieces(from: number, to: number): Piece[] {
    const { map, reserved } = this.config;
    const edges = new Set([from, to]);
    const addEdge = (at: number): void => {
      if (from < at && at < to) edges.add(at);
    };
    for (const [start, end] of [...map, ...reserved]) {
      addEdge(start);
      addEdge(end);
    }
    for (const { start, end } of this.owners) {
      addEdge(start);
      addEdge(end);
    }
    const sorted = [...edges].sort((a, b) => a - b);
    return sorted.slice(1).map((end, i) => {
      const start = sorted[i] as number;
      return {
        start,
        end,
        isRam: map.some(([first, last, type]) => type === RAM && first <= start && start < last),
        isReserved: reserved.some(([first, last]) => first <= start && start < last),
        owner: this.owners.find((owner) => owner.start <= start && start < owner.end),
      };
    });
  }

  get #all(): Piece[] {
    return this.pieces(0, 2 ** 32);
  }

  /** Free memory, in order; ranges that touch are one. */
  free(): Range[] {
    const ranges: Range[] = [];
    for (const piece of this.#all) {
      if (!isFree(piece)) continue;
      const last = ranges.at(-1);
      if (last !== undefined && last[1] === piece.start) ranges[ranges.length - 1] = [last[0], piece.end];
      else ranges.push([piece.start, piece.end]);
    }
    return ranges;
  }

  /** Where an allocation has to land, or −1. */
  lowest(size: number, align: number): number {
    if (this.isOver) return -1;
    for (const [start, end] of this.free()) {
      const address = Math.ceil(Math.max(start, this.cursor) / align) * align;
      if (address + size <= end) return address;
    }
    return -1;
  }

  take(op: number, start: number, size: number): void {
    this.owners.push({ op, start, end: start + size });
    this.cursor = start + size;
  }

  /** Page frames that are free as a whole, in order. */
  wholePages(): Range[] {
    return this.free()
      .map(([start, end]) => [Math.ceil(start / PAGE_SIZE), Math.floor(end / PAGE_SIZE)] as const)
      .filter(([first, end]) => first < end);
  }

  get ramBytes(): number {
    return bytesOf(this.#all.filter(({ isRam }) => isRam));
  }

  get reservedBytes(): number {
    return bytesOf(this.#all.filter(({ isRam, isReserved }) => isRam && isReserved));
  }

  get allocatedBytes(): number {
    return bytesOf(this.owners);
  }

  /** True if rows of memory meet somewhere inside [start, end). */
  hasSeam(start: number, end: number): boolean {
    return this.config.map.some(([first, , type]) => type === RAM && start < first && first < end);
  }
}

export function isFree({ isRam, isReserved, owner }: Piece): boolean {
  return isRam && !isReserved && owner === undefined;
}

function bytesOf(ranges: readonly { readonly start: number; readonly end: number }[]): number {
  return ranges.reduce((sum, { start, end }) => sum + end - start, 0);
}
