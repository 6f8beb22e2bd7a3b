/**
 * The conformance suite of the FrameAllocator seam: FRM-1 … FRM-6, over any implementation.
 *
 * Goal: what page_alloc.ts relies on holds for the buddy, for a naive oracle, and for a student's allocator alike.
 * Method: random operations against an ownership map (one owner per frame), with the allocator's own walk after each
 * step. `frameAllocatorViolation` returns the first broken rule instead of throwing, so that known-wrong allocators
 * can be shown to fail.
 */

import { asPfn, type Pfn } from "../../kernel/types.ts";
import type { FrameAllocator } from "../../mm/frame_allocator.ts";
import { MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE } from "../../mm/migratetype.ts";

export interface FrameAllocatorUnderTest {
  readonly allocator: FrameAllocator;
  /** The frames given to it. */
  readonly start: number;
  readonly end: number;
}

/** One step: allocate of an order and type, or free of the k-th live block. */
export type FrameOp =
  | { readonly kind: "alloc"; readonly order: number; readonly type: number }
  | { readonly kind: "free"; readonly index: number }
  | { readonly kind: "badFree"; readonly index: number; readonly how: number };

const TYPES = [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE] as const;

interface Block {
  readonly pfn: number;
  readonly order: number;
}

/** Runs `ops`; the first violated rule as a sentence, or null. */
export function frameAllocatorViolation(
  { allocator, start, end }: FrameAllocatorUnderTest,
  ops: readonly FrameOp[],
): string | null {
  const owner = new Int32Array(end - start).fill(-1);
  const live: Block[] = [];
  let out = 0;
  const largest = largestFreeOrder(allocator);

  const alloc = (order: number, type: number, step: number): string | null => {
    const pfn = allocator.allocBlock(order, TYPES[type % 3] as (typeof TYPES)[number], 0) as number;
    if (pfn === 0) return null;
    if (pfn % (1 << order) !== 0) return `FRM-1: block ${pfn} of order ${order} is misaligned`;
    if (pfn < start || pfn + (1 << order) > end) return `FRM-1: block ${pfn} of order ${order} was never given`;
    for (let i = pfn; i < pfn + (1 << order); i++) {
      if (owner[i - start] !== -1) return `FRM-2: frame ${i} has two owners`;
      owner[i - start] = step;
    }
    live.push({ pfn, order });
    out += 1 << order;
    return null;
  };

  const free = (index: number): string | null => {
    const block = live.splice(index % live.length, 1)[0] as Block;
    if (allocator.freeBlock(asPfn(block.pfn), block.order) !== 0)
      return `FRM-3: a good free of ${block.pfn} is refused`;
    owner.fill(-1, block.pfn - start, block.pfn - start + (1 << block.order));
    out -= 1 << block.order;
    return null;
  };

  /** A free that must be refused: double, interior, wrong order, outside. */
  const badFree = (index: number, how: number): string | null => {
    const block = live[index % Math.max(1, live.length)];
    const candidates: (readonly [number, number])[] = [
      [end + 5, 0],
      [0, 0],
      [start, 11],
    ];
    if (block !== undefined) candidates.push([block.pfn, (block.order + 1) % 11]);
    if (block !== undefined && block.order > 0)
      candidates.push([block.pfn + 1, 0], [block.pfn + (1 << (block.order - 1)), block.order - 1]);
    for (let i = 0; i < owner.length; i++)
      if (owner[i] === -1) {
        candidates.push([start + i, 0]);
        break;
      }
    const [pfn, order] = candidates[how % candidates.length] as readonly [number, number];
    return allocator.freeBlock(pfn as Pfn, order) < 0
      ? null
      : `FRM-3: the bad free of ${pfn}, order ${order} is accepted`;
  };

  for (let step = 0; step < ops.length; step++) {
    const op = ops[step] as FrameOp;
    let problem: string | null = null;
    if (op.kind === "alloc") problem = alloc(op.order, op.type, step);
    else if (op.kind === "badFree") problem = badFree(op.index, op.how);
    else if (live.length > 0) problem = free(op.index);
    problem ??= allocator.check();
    if (problem === null && allocator.nrFree() !== end - start - out) {
      problem = `FRM-5: nrFree() says ${allocator.nrFree()}, ${end - start - out} frames are free`;
    }
    if (problem !== null) return problem;
  }
  while (live.length > 0) {
    const problem = free(live.length - 1) ?? allocator.check();
    if (problem !== null) return problem;
  }
  return largestFreeOrder(allocator) === largest
    ? null
    : "FRM-4: the largest block is not back after freeing everything";
}

/** Order of the largest block that can be had at this moment. */
function largestFreeOrder(allocator: FrameAllocator): number {
  for (let order = 10; order >= 0; order--) {
    const pfn = allocator.allocBlock(order, MIGRATE_MOVABLE, 0);
    if (pfn === 0) continue;
    allocator.freeBlock(pfn, order);
    return order;
  }
  return -1;
}
