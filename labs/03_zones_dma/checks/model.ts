/**
 * The naive model of lab 3: frames of the zones, the walk over them that the rules ask for, blocks of a pool.
 *
 * The driver's machine is made of the same `Frames`, so that the judge knows which block a zone gives.
 */

import { FRAME_BYTES, MAX_ORDER, MIN_BLOCK, NO_FRAME, SLOT_BYTES, type Zone } from "../given/api.ts";

export interface DmaConfig {
  /** start, end, min, low, ratio of each zone. */
  readonly zones: readonly (readonly [number, number, number, number, number])[];
  readonly slots: number;
}

export const ZONE_NAMES = ["DMA", "DMA32", "NORMAL"];
/** The bounce area is behind frame 0. */
export const BOUNCE_START = FRAME_BYTES;

export function zonesOf({ zones }: DmaConfig): Zone[] {
  const list: Zone[] = [];
  for (const [start, end, min, low, ratio] of zones) list[list.length] = { start, end, min, low, ratio };
  return list;
}

/** Frames of the zones: the lowest free block first. No built-in that loops: its elements would be the student's. */
export class Frames {
  readonly zones: readonly Zone[];
  readonly nrFrames: number;
  readonly #isOut: Uint8Array;
  /** Order plus one of the block that starts at a frame. */
  readonly #orderAt: Uint8Array;

  constructor(zones: readonly Zone[]) {
    this.zones = zones;
    this.nrFrames = zones[zones.length - 1]?.end ?? 0;
    this.#isOut = new Uint8Array(this.nrFrames);
    this.#orderAt = new Uint8Array(this.nrFrames);
  }

  isOut(frame: number): boolean {
    return this.#isOut[frame] === 1;
  }

  nrFree(zone: number): number {
    const { start, end } = this.zones[zone] ?? { start: 0, end: 0 };
    let nr = 0;
    for (let frame = start; frame < end; frame++) if (this.#isOut[frame] === 0) nr++;
    return nr;
  }

  /** First frame of the lowest free block, or NO_FRAME. */
  find(zone: number, order: number): number {
    const { start, end } = this.zones[zone] ?? { start: 0, end: 0 };
    if (!Number.isInteger(order) || order < 0 || order > MAX_ORDER) return NO_FRAME;
    const size = 1 << order;
    for (let frame = Math.ceil(start / size) * size; frame + size <= end; frame += size) {
      let nr = 0;
      while (nr < size && this.#isOut[frame + nr] === 0) nr++;
      if (nr === size) return frame;
    }
    return NO_FRAME;
  }

  take(zone: number, order: number): number {
    const frame = this.find(zone, order);
    if (frame === NO_FRAME) return NO_FRAME;
    this.#orderAt[frame] = order + 1;
    this.#mark(frame, order, 1);
    return frame;
  }

  /** False, and nothing has changed, for what is not out like that. */
  giveBack(zone: number, frame: number, order: number): boolean {
    const { start, end } = this.zones[zone] ?? { start: 0, end: 0 };
    if (!(frame >= start && frame < end) || this.#orderAt[frame] !== order + 1) return false;
    this.#orderAt[frame] = 0;
    this.#mark(frame, order, 0);
    return true;
  }

  #mark(frame: number, order: number, value: number): void {
    for (let i = frame; i < frame + (1 << order); i++) this.#isOut[i] = value;
  }
}

/** ZON-1. */
export function reserveOf(zones: readonly Zone[], zone: number, highest: number): number {
  const { ratio } = zones[zone] as Zone;
  const above = zones.slice(zone + 1, highest + 1).reduce((sum, { start, end }) => sum + end - start, 0);
  return ratio === 0 ? 0 : Math.floor(above / ratio);
}

export interface Request {
  readonly highest: number;
  readonly order: number;
  readonly isUrgent: boolean;
}

/** Frames that `zone` has to keep, in the first round or the second one. */
export function keepOf(zones: readonly Zone[], zone: number, { highest, isUrgent }: Request, isFirst: boolean): number {
  const { low, min } = zones[zone] as Zone;
  const mark = isFirst ? low : isUrgent ? min - Math.floor(min / 2) : min;
  return mark + reserveOf(zones, zone, highest);
}

export function isEnough(frames: Frames, zone: number, request: Request, isFirst: boolean): boolean {
  return frames.nrFree(zone) - ((1 << request.order) - 1) > keepOf(frames.zones, zone, request, isFirst);
}

export interface Outcome {
  /** −1: refused. */
  readonly zone: number;
  readonly isFirst: boolean;
}

/** Which zone serves a request. */
export function outcomeOf(frames: Frames, request: Request): Outcome {
  for (const isFirst of [true, false]) {
    for (let zone = request.highest; zone >= 0; zone--) {
      const hasBlock = frames.find(zone, request.order) !== NO_FRAME;
      if (hasBlock && isEnough(frames, zone, request, isFirst)) return { zone, isFirst };
    }
  }
  return { zone: -1, isFirst: false };
}

/** The highest zone that lies below `mask` as a whole, or −1. */
export function highestFor(zones: readonly Zone[], mask: number): number {
  return zones.findLastIndex(({ end }) => end * FRAME_BYTES - 1 <= mask);
}

// ── Pools ──────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface PoolLayout {
  readonly size: number;
  readonly align: number;
  readonly boundary: number;
  /** Where blocks start in a frame. */
  readonly offsets: readonly number[];
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= FRAME_BYTES && Math.log2(value) % 1 === 0;
}

/** The layout that follows from the arguments; null for those that make no sense. */
export function layoutOf(size: number, align: number, boundary: number): PoolLayout | null {
  if (!Number.isInteger(size) || size < 1 || size > FRAME_BYTES || !isPowerOfTwo(align)) return null;
  const block = Math.ceil(Math.max(size, MIN_BLOCK) / align) * align;
  const limit = boundary === 0 ? FRAME_BYTES : boundary;
  if (!isPowerOfTwo(limit) || block > limit) return null;
  const offsets: number[] = [];
  for (let window = 0; window < FRAME_BYTES; window += limit) {
    for (let at = window; at + block <= window + limit; at += block) offsets.push(at);
  }
  return { size: block, align, boundary: limit, offsets };
}

export function nrSlotsOf(size: number): number {
  return Math.ceil(size / SLOT_BYTES);
}
