/**
 * The rules of the buddy in their plainest form: arrays, maps and searches, for mm/buddy*.ts to be compared with.
 *
 * A list is an array with its head first; a block is an entry of a map. Everything that the real one finds by a bit, a
 * link or an XOR is found here by looking at everything. Where a rule leaves no choice (B4, B6, B7, B9), the same block
 * has to come out. Rules: REFERENCE B1 to B9, buddy.ts theory 4 to 6.
 */

import { EBUSY, EINVAL } from "../../kernel/uapi/errno.ts";
import { ALLOC_CMA, ALLOC_NOFRAGMENT } from "../../mm/frame_allocator.ts";

const TOP = 10;
const PAGEBLOCK = 512;
const [UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, CMA, ISOLATE] = [0, 1, 2, 3, 4, 5];
const FALLBACK: Readonly<Record<number, readonly number[]>> = {
  [UNMOVABLE]: [RECLAIMABLE, MOVABLE],
  [MOVABLE]: [RECLAIMABLE, UNMOVABLE],
  [RECLAIMABLE]: [UNMOVABLE, MOVABLE],
};
const isOrdinary = (type: number): boolean => type === UNMOVABLE || type === MOVABLE || type === RECLAIMABLE;

interface Block {
  readonly start: number;
  readonly order: number;
  /** The list that it is on; −1: it is out. */
  readonly list: number;
}

export class NaiveBuddy {
  /** lists[type][order], head first. */
  readonly lists: number[][][] = Array.from({ length: 6 }, () => Array.from({ length: TOP + 1 }, () => []));
  readonly blocks = new Map<number, Block>();
  /** Pages that can be moved: what a claim counts as alike. */
  readonly movable = new Set<number>();
  readonly pageblocks = new Map<number, number>();
  leastFree = Number.POSITIVE_INFINITY;
  readonly #saved = new Map<number, number>();
  readonly #start: number;
  readonly #end: number;

  constructor(start: number, end: number) {
    this.#start = start;
    this.#end = end;
  }

  typeOf(pfn: number): number {
    return this.pageblocks.get(Math.floor(pfn / PAGEBLOCK)) ?? MOVABLE;
  }
  /** Does the pageblock lie in the zone with all its frames? */
  isWhole(blockStart: number): boolean {
    return blockStart >= this.#start && blockStart + PAGEBLOCK <= this.#end;
  }
  #retag(start: number, frames: number, type: number): void {
    for (let pfn = start; pfn < start + frames; pfn += PAGEBLOCK)
      this.pageblocks.set(Math.floor(pfn / PAGEBLOCK), type);
  }
  nrFree(wanted: (type: number) => boolean = (type) => type !== ISOLATE): number {
    let frames = 0;
    for (const { order, list } of this.blocks.values()) if (list >= 0 && wanted(list)) frames += 2 ** order;
    return frames;
  }

  // ── Lists ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #link(start: number, order: number, type: number, atTail = false): void {
    this.blocks.set(start, { start, order, list: type });
    const list = this.lists[type]?.[order] as number[];
    if (atTail) list.push(start);
    else list.unshift(start);
  }
  #unlink({ start, order, list }: Block): void {
    const from = this.lists[list]?.[order] as number[];
    from.splice(from.indexOf(start), 1);
    this.blocks.delete(start);
  }
  #free(start: number, order: number): Block | undefined {
    const block = this.blocks.get(start);
    return block !== undefined && block.order === order && block.list >= 0 ? block : undefined;
  }
  #freeAround(pfn: number): Block | undefined {
    return [...this.blocks.values()].find((b) => b.list >= 0 && b.start <= pfn && pfn < b.start + 2 ** b.order);
  }

  // ── Freeing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The other half, by the definition: the neighbour with which a block makes one that starts at a multiple of it. */
  static buddyOf(start: number, order: number): number {
    const size = 2 ** order;
    return start % (2 * size) === 0 ? start + size : start - size;
  }

  #merge(start: number, order: number, type: number): void {
    const other = order < TOP ? this.#free(NaiveBuddy.buddyOf(start, order), order) : undefined;
    const merges =
      other !== undefined && (order < 9 || other.list === type || (isOrdinary(type) && isOrdinary(other.list)));
    if (!merges) {
      const wouldStart = Math.min(start, NaiveBuddy.buddyOf(start, order));
      const isLikely =
        order < TOP - 1 && this.#free(NaiveBuddy.buddyOf(wouldStart, order + 1), order + 1) !== undefined;
      this.#link(start, order, type, isLikely);
      return;
    }
    this.#unlink(other);
    if (order >= 9) this.#retag(other.start, 2 ** order, type);
    this.#merge(Math.min(start, other.start), order + 1, type);
  }

  freeBlock(pfn: number, order: number): number {
    const block = this.blocks.get(pfn);
    if (block === undefined || block.list >= 0 || block.order !== order) return -EINVAL;
    this.blocks.delete(pfn);
    const types = new Set<number>();
    for (let part = pfn; part < pfn + 2 ** order; part += PAGEBLOCK) types.add(this.typeOf(part));
    if (types.size === 1) this.#merge(pfn, order, this.typeOf(pfn));
    else for (let part = pfn; part < pfn + 2 ** order; part += PAGEBLOCK) this.#merge(part, 9, this.typeOf(part));
    return 0;
  }

  // ── Allocating ───────────────────────────────────────────────────────────────────────────────────────────────────

  #cut(start: number, order: number, high: number, type: number): void {
    for (let o = high - 1; o >= order; o--) this.#link(start + 2 ** o, o, type);
  }
  #smallest(order: number, type: number): number {
    for (let o = order; o <= TOP; o++) {
      const start = this.lists[type]?.[o]?.[0];
      if (start === undefined) continue;
      this.#unlink(this.blocks.get(start) as Block);
      this.#cut(start, order, o, type);
      return start;
    }
    return 0;
  }
  #foreign(order: number, type: number): Block | undefined {
    for (const other of FALLBACK[type] ?? []) {
      const start = this.lists[other]?.[order]?.[0];
      if (start !== undefined) return this.blocks.get(start);
    }
    return undefined;
  }
  #moveFree(blockStart: number, type: number): void {
    const inside = [...this.blocks.values()].filter(
      (b) => b.list >= 0 && b.start >= blockStart && b.start < blockStart + PAGEBLOCK,
    );
    for (const block of inside.sort((a, b) => a.start - b.start)) {
      this.#unlink(block);
      this.#link(block.start, block.order, type);
    }
  }
  #claim(order: number, type: number, flags: number): number {
    for (let o = TOP; o >= ((flags & ALLOC_NOFRAGMENT) !== 0 ? Math.max(order, 9) : order); o--) {
      if (o < 4 && type === MOVABLE) return 0;
      const block = this.#foreign(o, type);
      if (block === undefined) continue;
      if (o >= 9) {
        this.#unlink(block);
        this.#retag(block.start, 2 ** o, type);
        this.#cut(block.start, order, o, type);
        return block.start;
      }
      const start = block.start - (block.start % PAGEBLOCK);
      if (!this.isWhole(start)) continue;
      const frames = Array.from({ length: PAGEBLOCK }, (_, i) => start + i);
      const free = frames.filter((pfn) => this.#freeAround(pfn) !== undefined).length;
      const moves = frames.filter((pfn) => this.movable.has(pfn)).length;
      const alike = type === MOVABLE ? moves : block.list === MOVABLE ? PAGEBLOCK - free - moves : 0;
      if (free + alike < PAGEBLOCK / 2) continue;
      this.#moveFree(start, type);
      this.#retag(start, PAGEBLOCK, type);
      const got = this.#smallest(order, type);
      if (got !== 0) return got;
    }
    return 0;
  }
  #steal(order: number, type: number): number {
    for (let o = order; o <= TOP; o++) {
      const block = this.#foreign(o, type);
      if (block === undefined) continue;
      this.#unlink(block);
      this.#cut(block.start, order, o, block.list);
      return block.start;
    }
    return 0;
  }

  allocBlock(order: number, type: number, flags: number): number {
    if (!Number.isInteger(order) || order < 0 || order > TOP) return 0;
    const borrows = type === MOVABLE && (flags & ALLOC_CMA) !== 0;
    const cmaFirst = borrows && this.nrFree((t) => t === CMA) > Math.floor(this.nrFree() / 2);
    let pfn = cmaFirst ? this.#smallest(order, CMA) : 0;
    if (pfn === 0) pfn = this.#smallest(order, type);
    if (pfn === 0 && borrows) pfn = this.#smallest(order, CMA);
    if (pfn === 0 && isOrdinary(type)) {
      pfn = this.#claim(order, type, flags);
      if (pfn === 0 && (flags & ALLOC_NOFRAGMENT) === 0) pfn = this.#steal(order, type);
    }
    if (pfn === 0) return 0;
    this.blocks.set(pfn, { start: pfn, order, list: -1 });
    this.leastFree = Math.min(this.leastFree, this.nrFree());
    return pfn;
  }

  // ── Ranges and pageblocks ────────────────────────────────────────────────────────────────────────────────────────

  #pieces(start: number, end: number, put: (pfn: number, order: number) => void): void {
    for (let pfn = start; pfn < end; ) {
      let order = TOP;
      while (pfn % 2 ** order !== 0 || pfn + 2 ** order > end) order--;
      put(pfn, order);
      pfn += 2 ** order;
    }
  }
  addFreeRange(start: number, end: number): void {
    this.#pieces(start, end, (pfn, order) => this.#merge(pfn, order, this.typeOf(pfn)));
  }
  takeRange(start: number, end: number): number {
    if (start >= end || start < this.#start || end > this.#end) return -EINVAL;
    for (let pfn = start; pfn < end; pfn++) if (this.#freeAround(pfn) === undefined) return -EBUSY;
    for (let pfn = start; pfn < end; ) {
      const block = this.#freeAround(pfn) as Block;
      const blockEnd = block.start + 2 ** block.order;
      this.#unlink(block);
      const put = (at: number, order: number): void => this.#link(at, order, this.typeOf(at));
      this.#pieces(block.start, pfn, put);
      this.#pieces(Math.min(end, blockEnd), blockEnd, put);
      pfn = Math.min(blockEnd, end);
    }
    for (let pfn = start; pfn < end; pfn++) this.blocks.set(pfn, { start: pfn, order: 0, list: -1 });
    this.leastFree = Math.min(this.leastFree, this.nrFree());
    return 0;
  }
  #cutAt(blockStart: number): void {
    const block = this.#freeAround(blockStart);
    if (block === undefined || block.order <= 9) return;
    this.#unlink(block);
    for (let part = block.start; part < block.start + 2 ** block.order; part += PAGEBLOCK)
      this.#link(part, 9, block.list);
  }
  #mergeWhole(blockStart: number, type: number): void {
    const whole = this.#free(blockStart, 9);
    if (whole === undefined) return;
    this.#unlink(whole);
    this.#merge(blockStart, 9, type);
  }
  isolate(blockStart: number): void {
    if (this.typeOf(blockStart) === ISOLATE) return;
    this.#cutAt(blockStart);
    this.#moveFree(blockStart, ISOLATE);
    this.#saved.set(blockStart, this.typeOf(blockStart));
    this.#retag(blockStart, PAGEBLOCK, ISOLATE);
    this.#mergeWhole(blockStart, ISOLATE);
  }
  unisolate(blockStart: number): void {
    if (this.typeOf(blockStart) !== ISOLATE) return;
    this.#cutAt(blockStart);
    const type = this.#saved.get(blockStart) as number;
    this.#retag(blockStart, PAGEBLOCK, type);
    this.#moveFree(blockStart, type);
    this.#mergeWhole(blockStart, type);
  }
  retype(pfn: number, type: number): boolean {
    const blockStart = pfn - (pfn % PAGEBLOCK);
    if (!this.isWhole(blockStart)) return false;
    this.#cutAt(blockStart);
    this.#moveFree(blockStart, type);
    this.#retag(blockStart, PAGEBLOCK, type);
    this.#mergeWhole(blockStart, type);
    return true;
  }
  firstFree(type: number): number {
    return this.lists[type]?.find((list) => list.length > 0)?.[0] ?? 0;
  }
  highatomicFree(): number {
    return this.nrFree((type) => type === HIGHATOMIC);
  }
}
