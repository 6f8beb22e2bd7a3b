/**
 * The buddy allocator: each rule by its id, then random operations against an ownership map.
 *
 * Goal: BUD-1 … BUD-7 and FRM-1 … FRM-6 after every step. Method: small zones on BoundsPort, full walk each step;
 * mutants of the allocator must be caught by the same suite.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn } from "../../kernel/types.ts";
import { EBUSY, EINVAL } from "../../kernel/uapi/errno.ts";
import { createBuddy } from "../../mm/buddy.ts";
import type { FrameAllocator } from "../../mm/frame_allocator.ts";
import { MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE } from "../../mm/migratetype.ts";
import { freeCountAddr, MAX_PAGE_ORDER } from "../../mm/mmzone.ts";
import { migratetypeOfFlags, PG_BUDDY } from "../../mm/page.ts";
import { type FrameAllocatorUnderTest, type FrameOp, frameAllocatorViolation } from "../conformance/frame_allocator.ts";
import { bareFrames } from "../support/bare_frames.ts";

function buddyOver(start: number, end: number, wrap: (buddy: FrameAllocator) => FrameAllocator = (buddy) => buddy) {
  const deps = bareFrames(start, end);
  const allocator = wrap(createBuddy(deps));
  allocator.addFreeRange(asPfn(start), asPfn(end));
  return { allocator, deps, start, end };
}

const op: fc.Arbitrary<FrameOp> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("alloc" as const),
      order: fc.constantFrom(0, 0, 0, 1, 1, 2, 3, 4, 6, 9, 10),
      type: fc.nat(2),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("free" as const), index: fc.nat(1000) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("badFree" as const), index: fc.nat(1000), how: fc.nat(20) }) },
);
const ops = fc.array(op, { minLength: 1, maxLength: 120 });

describe("buddy rules", () => {
  it("BUD-1 blocks are aligned to their size, whatever the zone's bounds", () => {
    const { allocator } = buddyOver(1029, 3001);
    for (let order = MAX_PAGE_ORDER; order >= 0; order--) {
      const pfn = allocator.allocBlock(order, MIGRATE_MOVABLE, 0);
      if (pfn !== 0) expect(pfn % (1 << order)).toBe(0);
    }
    expect(allocator.check()).toBeNull();
  });

  it("BUD-4 freeBlock() merges with its free buddy of equal order, and only of equal order", () => {
    const { allocator, deps } = buddyOver(1024, 1032);
    const a = allocator.allocBlock(0, MIGRATE_MOVABLE, 0);
    const b = allocator.allocBlock(0, MIGRATE_MOVABLE, 0);
    const c = allocator.allocBlock(1, MIGRATE_MOVABLE, 0);
    expect([a, b, c]).toEqual([1024, 1025, 1026]);
    allocator.freeBlock(a, 0);
    allocator.freeBlock(c, 1);
    // 1024 (order 0) and 1026 (order 1) are neighbours of different orders: both stay.
    expect(deps.port.ld32(freeCountAddr(deps.zoneAddr, 1, MIGRATE_MOVABLE))).toBe(1);
    allocator.freeBlock(b, 0);
    expect(deps.port.ld32(freeCountAddr(deps.zoneAddr, 3, MIGRATE_MOVABLE))).toBe(1);
    expect(allocator.check()).toBeNull();
  });

  it("B6 a split takes the lowest part and links the upper halves", () => {
    const { allocator, deps } = buddyOver(1024, 2048);
    expect(allocator.allocBlock(0, MIGRATE_MOVABLE, 0)).toBe(1024);
    for (let order = 0; order < MAX_PAGE_ORDER; order++) {
      expect(deps.port.ld32(freeCountAddr(deps.zoneAddr, order, MIGRATE_MOVABLE))).toBe(1);
    }
  });

  it("B9 an unmovable request claims a whole movable pageblock", () => {
    const { allocator, deps } = buddyOver(1024, 3072);
    const pfn = allocator.allocBlock(0, MIGRATE_UNMOVABLE, 0);
    expect(deps.pageblocks.migratetype(pfn)).toBe(MIGRATE_UNMOVABLE);
    expect(allocator.check()).toBeNull();
  });

  it("B9 a movable request of order 0 steals the smallest block and leaves the pageblock its type", () => {
    const { allocator, deps } = buddyOver(1024, 1536);
    const unmovable = allocator.allocBlock(0, MIGRATE_UNMOVABLE, 0);
    // Leave single frames only, so that nothing of order ≥ 4 can be claimed.
    const held: number[] = [];
    for (
      let pfn = allocator.allocBlock(1, MIGRATE_UNMOVABLE, 0);
      pfn !== 0;
      pfn = allocator.allocBlock(1, MIGRATE_UNMOVABLE, 0)
    ) {
      held.push(pfn);
    }
    const stolen = allocator.allocBlock(0, MIGRATE_MOVABLE, 0);
    expect(stolen).not.toBe(0);
    expect(deps.pageblocks.migratetype(stolen)).toBe(MIGRATE_UNMOVABLE);
    expect(allocator.check()).toBeNull();
    for (const pfn of held) expect(allocator.freeBlock(asPfn(pfn), 1)).toBe(0);
    expect(allocator.freeBlock(unmovable, 0)).toBe(0);
    expect(allocator.freeBlock(stolen, 0)).toBe(0);
  });

  it("B4 a block that is likely to merge soon goes to the tail of its list", () => {
    const { allocator, deps } = buddyOver(1024, 1040);
    const blocks = Array.from({ length: 16 }, () => allocator.allocBlock(0, MIGRATE_MOVABLE, 0));
    // Frames 2,3 free as one block of order 1; then 0: its buddy 1 is out, its higher buddy 2..3 is free.
    allocator.freeBlock(blocks[8] as never, 0);
    allocator.freeBlock(blocks[2] as never, 0);
    allocator.freeBlock(blocks[3] as never, 0);
    allocator.freeBlock(blocks[0] as never, 0);
    // 8 was freed first and would be behind 0 on a plain stack.
    expect(allocator.allocBlock(0, MIGRATE_MOVABLE, 0)).toBe(1024 + 8);
    expect(migratetypeOfFlags(deps.pages.flags(asPfn(1024)))).toBe(MIGRATE_MOVABLE);
    expect(deps.pages.flags(asPfn(1024)) & PG_BUDDY).toBe(PG_BUDDY);
  });

  it("takeRange takes exactly the free frames asked for, or nothing", () => {
    const { allocator } = buddyOver(1024, 2048);
    const before = allocator.nrFree();
    expect(allocator.takeRange(asPfn(1030), asPfn(1101))).toBe(0);
    expect(allocator.nrFree()).toBe(before - 71);
    expect(allocator.check()).toBeNull();
    expect(allocator.takeRange(asPfn(1100), asPfn(1102))).toBe(-EBUSY);
    expect(allocator.takeRange(asPfn(10), asPfn(12))).toBe(-EINVAL);
    for (let pfn = 1030; pfn < 1101; pfn++) expect(allocator.freeBlock(asPfn(pfn), 0)).toBe(0);
    expect(allocator.allocBlock(MAX_PAGE_ORDER, MIGRATE_MOVABLE, 0)).toBe(1024);
  });

  it("the last page can be had, and nothing after it", () => {
    const { allocator } = buddyOver(1024, 1027);
    const got = [0, 0, 0, 0].map(() => allocator.allocBlock(0, MIGRATE_RECLAIMABLE, 0));
    expect(new Set(got)).toEqual(new Set([1024, 1025, 1026, 0]));
    expect(allocator.nrFree()).toBe(0);
  });
});

describe("buddy against an ownership map", () => {
  it("FRM-1 … FRM-6 hold after every one of random operations", () => {
    fc.assert(
      fc.property(ops, fc.constantFrom([1024, 3072], [1029, 2571], [1536, 1600]), (steps, [start, end]) => {
        expect(frameAllocatorViolation(buddyOver(start as number, end as number), steps)).toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  const mutants: Readonly<Record<string, (buddy: FrameAllocator) => FrameAllocator>> = {
    "hands out a block twice": (buddy) => {
      let last = 0;
      return {
        ...buddy,
        allocBlock: (order, type, flags) =>
          last !== 0 && order === 0 ? asPfn(last) : asPfn((last = buddy.allocBlock(order, type, flags))),
      };
    },
    "accepts every free": (buddy) => ({ ...buddy, freeBlock: (pfn, order) => buddy.freeBlock(pfn, order) * 0 }),
    "loses a frame": (buddy) => ({ ...buddy, nrFree: () => buddy.nrFree() - 1 }),
    "forgets to free": (buddy) => ({ ...buddy, freeBlock: () => 0 }),
  };
  for (const [name, wrap] of Object.entries(mutants)) {
    it(`the suite kills a buddy that ${name}`, () => {
      const found = fc.sample(ops, { numRuns: 200, seed: 7 }).some((steps) => {
        const target: FrameAllocatorUnderTest = buddyOver(1024, 1600, wrap);
        return frameAllocatorViolation(target, steps) !== null;
      });
      expect(found).toBe(true);
    });
  }
});
