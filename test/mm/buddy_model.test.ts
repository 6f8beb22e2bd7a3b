/**
 * The buddy against the rules in their plainest form: the same block comes out, the same lists are left.
 *
 * Goal: B1 to B9, BUD-1 … BUD-8, FRM-1 … FRM-6, to the choice of the block and the order on each list. Method: random
 * operations of every kind on zones of every shape, compared with NaiveBuddy after each; edges by themselves.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CYC_BUDDY_FIND, CYC_BUDDY_STEP } from "../../kernel/arch/charges.ts";
import { asPfn } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import { createBuddy } from "../../mm/buddy.ts";
import { ALLOC_CMA, ALLOC_NOFRAGMENT, type FrameAllocator, type FrameAllocatorDeps } from "../../mm/frame_allocator.ts";
import {
  MIGRATE_CMA,
  MIGRATE_HIGHATOMIC,
  MIGRATE_ISOLATE,
  MIGRATE_MOVABLE,
  MIGRATE_RECLAIMABLE,
  MIGRATE_UNMOVABLE,
  type Migratetype,
  NR_MIGRATETYPES,
} from "../../mm/migratetype.ts";
import { Z_NR_FREE_CMA, Z_NR_FREE_HIGHATOMIC, Z_NR_FREE_LEAST } from "../../mm/mmzone.ts";
import { ORDER_SHIFT, PG_ALLOCATED, PG_LRU, ZONE_SHIFT } from "../../mm/page.ts";
import { bareFrames } from "../support/bare_frames.ts";
import { NaiveBuddy } from "../support/naive_buddy.ts";

type Step =
  | {
      readonly kind: "alloc";
      readonly order: number;
      readonly type: number;
      readonly flags: number;
      readonly lru: boolean;
    }
  | { readonly kind: "free"; readonly at: number }
  | { readonly kind: "fill"; readonly order: number; readonly type: number; readonly lru: boolean }
  | { readonly kind: "isolate" | "unisolate"; readonly block: number }
  | { readonly kind: "retype"; readonly pfn: number; readonly type: number }
  | { readonly kind: "take"; readonly start: number; readonly nr: number };

const flags = fc.constantFrom(0, 0, ALLOC_CMA, ALLOC_NOFRAGMENT, ALLOC_CMA | ALLOC_NOFRAGMENT);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant("alloc" as const),
      order: fc.constantFrom(0, 0, 1, 2, 3, 4, 5, 8, 9, 10),
      type: fc.nat(3),
      flags,
      lru: fc.boolean(),
    }),
  },
  { weight: 12, arbitrary: fc.record({ kind: fc.constant("free" as const), at: fc.nat(10_000) }) },
  {
    weight: 3,
    // Runs a type dry: what comes next has to fall back.
    arbitrary: fc.record({
      kind: fc.constant("fill" as const),
      order: fc.constantFrom(3, 4, 5, 6, 7),
      type: fc.nat(2),
      lru: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom("isolate" as const, "unisolate" as const), block: fc.nat(5) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("retype" as const),
      pfn: fc.nat(4095),
      type: fc.constantFrom(0, 1, 2, 3, 4),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("take" as const),
      start: fc.integer({ min: 900, max: 4095 }),
      nr: fc.constantFrom(0, 1, 7, 64, 600),
    }),
  },
);

/** Zones: whole pageblocks; cut ones at both ends; one with a contiguous area that is most of it. */
const ZONES = [
  { start: 1024, end: 3072, cma: [] },
  { start: 1029, end: 3001, cma: [3] },
  { start: 1024, end: 4096, cma: [3, 4, 5] },
] as const;

interface Pair {
  readonly deps: FrameAllocatorDeps;
  readonly buddy: FrameAllocator;
  readonly naive: NaiveBuddy;
}

function pair({
  start,
  end,
  cma,
}: {
  readonly start: number;
  readonly end: number;
  readonly cma: readonly number[];
}): Pair {
  const deps = bareFrames(start, end);
  const naive = new NaiveBuddy(start, end);
  const buddy = createBuddy(deps);
  for (const block of cma) {
    deps.pageblocks.setMigratetype(asPfn(block * 512), MIGRATE_CMA);
    naive.pageblocks.set(block, MIGRATE_CMA);
  }
  for (let from = start; from < end; ) {
    const to = Math.min(end, (Math.floor(from / 512) + 1) * 512);
    buddy.addFreeRange(asPfn(from), asPfn(to));
    naive.addFreeRange(from, to);
    from = to;
  }
  deps.port.st32(deps.zoneAddr + Z_NR_FREE_LEAST, buddy.nrFree());
  naive.leastFree = naive.nrFree();
  return { deps, buddy, naive };
}

/** The lists of the real one, as the naive one has them. */
function listsOf({ lists, firstHead }: FrameAllocatorDeps): number[][][] {
  return Array.from({ length: NR_MIGRATETYPES }, (_, type) =>
    Array.from({ length: 11 }, (_unused, order) => {
      const head = firstHead + order * NR_MIGRATETYPES + type;
      const rows: number[] = [];
      for (let row = lists.first(head); row !== head; row = lists.next(row)) rows.push(row);
      return rows;
    }),
  );
}

function expectSame({ deps, buddy, naive }: Pair): void {
  expect(listsOf(deps)).toEqual(naive.lists);
  expect(buddy.nrFree()).toBe(naive.nrFree());
  const { port, zoneAddr } = deps;
  expect(port.ld32(zoneAddr + Z_NR_FREE_CMA)).toBe(naive.nrFree((type) => type === MIGRATE_CMA));
  expect(port.ld32(zoneAddr + Z_NR_FREE_HIGHATOMIC)).toBe(naive.highatomicFree());
  expect(port.ld32(zoneAddr + Z_NR_FREE_LEAST)).toBe(naive.leastFree);
  for (let type = 0; type < NR_MIGRATETYPES; type++) {
    expect(buddy.firstFree(type as Migratetype)).toBe(naive.firstFree(type));
  }
}

function alloc(
  { deps, buddy, naive }: Pair,
  held: [number, number][],
  order: number,
  type: number,
  how: number,
  lru: boolean,
): number {
  const pfn = buddy.allocBlock(order, type as Migratetype, how);
  expect(pfn).toBe(naive.allocBlock(order, type, how));
  if (pfn === 0) return 0;
  held.push([pfn, order]);
  for (let i = pfn as number; lru && i < pfn + (1 << order); i++) {
    deps.pages.addFlags(asPfn(i), PG_LRU);
    naive.movable.add(i);
  }
  return pfn;
}

function apply(both: Pair, held: [number, number][], move: Step): void {
  const { deps, buddy, naive } = both;
  if (move.kind === "alloc") alloc(both, held, move.order, move.type, move.flags, move.lru);
  else if (move.kind === "fill") {
    for (let i = 0; i < 40 && alloc(both, held, move.order, move.type, ALLOC_NOFRAGMENT, move.lru) !== 0; ) i++;
  } else if (move.kind === "free") {
    const [entry] = held.length === 0 ? [] : held.splice(move.at % held.length, 1);
    if (entry === undefined) return;
    const [pfn, order] = entry;
    for (let i = pfn; i < pfn + (1 << order); i++) {
      deps.pages.clearFlags(asPfn(i), PG_LRU);
      naive.movable.delete(i);
    }
    expect(buddy.freeBlock(asPfn(pfn), order)).toBe(naive.freeBlock(pfn, order));
  } else if (move.kind === "take") {
    const result = buddy.takeRange(asPfn(move.start), asPfn(move.start + move.nr));
    expect(result).toBe(naive.takeRange(move.start, move.start + move.nr));
    for (let i = 0; result === 0 && i < move.nr; i++) held.push([move.start + i, 0]);
  } else if (move.kind === "retype") {
    // An isolated pageblock has its type saved: whoever isolates does not retype (buddy_range.ts).
    if (naive.typeOf(move.pfn) === MIGRATE_ISOLATE) return;
    expect(buddy.retype(asPfn(move.pfn), move.type as Migratetype)).toBe(naive.retype(move.pfn, move.type));
  } else {
    const start = (2 + move.block) * 512;
    if (!naive.isWhole(start)) return;
    buddy[move.kind](asPfn(start));
    naive[move.kind](start);
  }
}

describe("the buddy and the rules in their plainest form", () => {
  it.each(ZONES)("the same blocks come out and the same lists are left, zone $start-$end", (zone) => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 80 }), (steps) => {
        const both = pair(zone);
        const held: [number, number][] = [];
        for (const move of steps) {
          apply(both, held, move);
          expectSame(both);
        }
        expect(both.buddy.check()).toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  it("B9 a claim needs half of the pageblock free or alike, exactly", () => {
    for (const nrUsed of [255, 256, 257, 300]) {
      for (const [owner, wants, lru] of [
        [MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, true],
        [MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, false],
        [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, true],
        [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, false],
        [MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE, false],
        [MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, true],
      ] as const) {
        const both = pair({ start: 1024, end: 1536, cma: [] });
        both.buddy.retype(asPfn(1024), owner);
        both.naive.retype(1024, owner);
        const held: [number, number][] = [];
        for (let i = 0; i < nrUsed; i++) alloc(both, held, 0, owner, 0, lru);
        alloc(both, held, 0, wants, 0, false);
        alloc(both, held, 5, wants, ALLOC_NOFRAGMENT, false);
        expectSame(both);
        expect(both.buddy.check()).toBeNull();
      }
    }
  });

  it("B9 what a pageblock full of holes of one order is good for", () => {
    for (const hole of [1, 3, 4, 5]) {
      for (const [owner, wants] of [
        [MIGRATE_MOVABLE, MIGRATE_UNMOVABLE],
        [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE],
        [MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE],
      ] as const) {
        const both = pair({ start: 1024, end: 1536, cma: [] });
        both.buddy.retype(asPfn(1024), owner);
        both.naive.retype(1024, owner);
        const held: [number, number][] = [];
        for (let i = 0; i < 512 >>> hole; i++) alloc(both, held, hole, owner, 0, true);
        for (let at = 0; at < 512 >>> (hole + 1); at++) apply(both, held, { kind: "free", at });
        expectSame(both);
        alloc(both, held, 0, wants, ALLOC_NOFRAGMENT, false);
        alloc(both, held, hole, wants, 0, false);
        alloc(both, held, hole - 1, wants, 0, false);
        expectSame(both);
        expect(both.buddy.check()).toBeNull();
      }
    }
  });

  it("B9 a pageblock that is not whole in the zone is not claimed", () => {
    for (const [start, end] of [
      [1024, 1500],
      [1100, 1536],
      [1024, 1536],
    ] as const) {
      const both = pair({ start, end, cma: [] });
      const held: [number, number][] = [];
      alloc(both, held, 0, MIGRATE_UNMOVABLE, 0, false);
      alloc(both, held, 4, MIGRATE_RECLAIMABLE, 0, false);
      expectSame(both);
    }
  });
});

describe("edges of the buddy", () => {
  it("FRM-1 a range given at once becomes the largest blocks that it consists of, and none larger", () => {
    for (const [start, end] of [
      [1024, 4096],
      [2048, 4096],
      [1031, 4095],
    ] as const) {
      const deps = bareFrames(start, end);
      const [buddy, naive] = [createBuddy(deps), new NaiveBuddy(start, end)];
      buddy.addFreeRange(asPfn(start), asPfn(end));
      naive.addFreeRange(start, end);
      expect(listsOf(deps)).toEqual(naive.lists);
      expect(buddy.check()).toBeNull();
    }
  });

  it("a range is taken up to both ends of the zone, and not beyond", () => {
    const both = pair({ start: 1029, end: 3001, cma: [] });
    for (const [from, to] of [
      [1029, 1035],
      [2990, 3001],
      [1028, 1030],
      [3000, 3002],
    ] as const) {
      expect(both.buddy.takeRange(asPfn(from), asPfn(to))).toBe(both.naive.takeRange(from, to));
      expectSame(both);
    }
    expect(both.buddy.nrFree()).toBe(3001 - 1029 - 6 - 11);
  });

  it("B3 two blocks of the largest order that are buddies stay two", () => {
    const both = pair({ start: 2048, end: 4096, cma: [] });
    const held: [number, number][] = [];
    alloc(both, held, 10, MIGRATE_MOVABLE, 0, false);
    alloc(both, held, 10, MIGRATE_MOVABLE, 0, false);
    for (const [pfn, order] of held) both.buddy.freeBlock(asPfn(pfn), order);
    expect(both.buddy.check()).toBeNull();
    expect(both.buddy.allocBlock(10, MIGRATE_MOVABLE, 0)).not.toBe(0);
  });

  it("B4 at the two largest orders nothing is likely to merge: such a block goes to the head", () => {
    const { buddy } = pair({ start: 1024, end: 4096, cma: [] });
    for (let i = 0; i < 6; i++) buddy.allocBlock(9, MIGRATE_MOVABLE, 0);
    for (const pfn of [3072, 3584, 1024, 2048]) expect(buddy.freeBlock(asPfn(pfn), 9)).toBe(0);
    expect(buddy.allocBlock(9, MIGRATE_MOVABLE, 0)).toBe(2048);
  });

  it("FRM-5 an order that does not exist gets nothing, and nothing changes", () => {
    const both = pair({ start: 1024, end: 2048, cma: [] });
    for (const order of [-1, -65_536, 11, 32, 33]) {
      expect(both.buddy.allocBlock(order, MIGRATE_MOVABLE, 0)).toBe(0);
      expect(both.buddy.allocBlock(order, MIGRATE_UNMOVABLE, 0)).toBe(0);
    }
    expectSame(both);
    const pfn = both.buddy.allocBlock(0, MIGRATE_MOVABLE, 0);
    for (const order of [-1, -65_536, 11, 32]) expect(both.buddy.freeBlock(pfn, order)).toBe(-EINVAL);
    expect(both.buddy.freeBlock(pfn, 0)).toBe(0);
  });

  it("FRM-3 marks that look like a block do not help outside the zone, or over its edge", () => {
    const both = pair({ start: 1024, end: 1536, cma: [] });
    const { pages, zone } = both.deps;
    const mark = (pfn: number, order: number): void =>
      pages.setFlags(asPfn(pfn), PG_ALLOCATED | (zone << ZONE_SHIFT) | (order << ORDER_SHIFT));
    for (const [pfn, order] of [
      [1023, 0],
      [1536, 0],
      [1535, 1],
      [1024, 10],
    ] as const) {
      const before = pages.flags(asPfn(pfn));
      mark(pfn, order);
      expect(both.buddy.freeBlock(asPfn(pfn), order)).toBe(-EINVAL);
      pages.setFlags(asPfn(pfn), before);
    }
    for (let order = 11; order < 16; order++) {
      const before = pages.flags(asPfn(1024));
      mark(1024, order);
      expect(both.buddy.freeBlock(asPfn(1024), order)).toBe(-EINVAL);
      pages.setFlags(asPfn(1024), before);
    }
    expectSame(both);
  });

  it("a type without fallbacks has none", () => {
    const both = pair({ start: 1024, end: 2048, cma: [] });
    for (const type of [MIGRATE_HIGHATOMIC, MIGRATE_CMA, MIGRATE_ISOLATE]) {
      expect(both.buddy.allocBlock(0, type, 0)).toBe(0);
    }
    expectSame(both);
  });

  it("B9 movable requests that may borrow take the area first only while it is more than half of what is free", () => {
    const both = pair({ start: 1024, end: 2048, cma: [3] });
    const held: [number, number][] = [];
    // Exactly half is not more than half.
    expect(alloc(both, held, 0, MIGRATE_MOVABLE, ALLOC_CMA, false)).toBe(1024);
    expect(alloc(both, held, 0, MIGRATE_MOVABLE, ALLOC_CMA, false)).toBe(1536);
    expect(alloc(both, held, 0, MIGRATE_MOVABLE, 0, false)).toBe(1025);
    expect(alloc(both, held, 0, MIGRATE_UNMOVABLE, ALLOC_CMA, false)).toBeLessThan(1536);
    // Its blocks are too small: then the own ones serve.
    expect(alloc(both, held, 8, MIGRATE_MOVABLE, ALLOC_CMA, false)).toBe(1536 + 256);
    expectSame(both);
  });

  it("the first block out of two parts of different types is freed by pageblocks, whichever is isolated", () => {
    for (const isolated of [2048, 2560]) {
      const both = pair({ start: 1024, end: 3072, cma: [] });
      const held: [number, number][] = [];
      for (let i = 0; i < 2; i++) alloc(both, held, 10, MIGRATE_MOVABLE, 0, false);
      both.buddy.isolate(asPfn(isolated));
      both.naive.isolate(isolated);
      for (const [pfn, order] of held)
        expect(both.buddy.freeBlock(asPfn(pfn), order)).toBe(both.naive.freeBlock(pfn, order));
      expectSame(both);
      both.buddy.unisolate(asPfn(isolated));
      both.naive.unisolate(isolated);
      expectSame(both);
    }
  });

  it("charges a search once and each step of a cut or a merge", () => {
    let cycles = 0;
    const deps = { ...bareFrames(1024, 3072), charge: (n: number) => void (cycles += n) };
    const buddy = createBuddy(deps);
    buddy.addFreeRange(asPfn(1024), asPfn(3072));
    const costOf = (work: () => void): number => {
      cycles = 0;
      work();
      return cycles;
    };
    const pfn = (order: number) => () => void buddy.allocBlock(order, MIGRATE_MOVABLE, 0);
    expect(costOf(pfn(3))).toBe(CYC_BUDDY_FIND + 7 * CYC_BUDDY_STEP);
    expect(costOf(pfn(3))).toBe(CYC_BUDDY_FIND);
    expect(costOf(() => buddy.freeBlock(asPfn(2048), 3))).toBe(CYC_BUDDY_FIND);
    expect(costOf(() => buddy.freeBlock(asPfn(2056), 3))).toBe(CYC_BUDDY_FIND + 7 * CYC_BUDDY_STEP);
    expect(costOf(pfn(10))).toBe(CYC_BUDDY_FIND);
    expect(costOf(() => buddy.freeBlock(asPfn(2048), 10))).toBe(CYC_BUDDY_FIND);
  });
});
