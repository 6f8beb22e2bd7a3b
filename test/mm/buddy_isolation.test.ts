/**
 * The buddy's types that are not for everybody: CMA and ISOLATE, against an oracle that knows each frame.
 *
 * Goal: BUD-1 … BUD-7 with isolated pageblocks, B3 and B9 for the contiguous area. Method: random operations; the
 * oracle keeps the owner of each frame, the type of each pageblock and what is isolated, and says what may be handed
 * out and how many frames count as free. Mutants must be caught.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn } from "../../kernel/types.ts";
import { EBUSY } from "../../kernel/uapi/errno.ts";
import { createBuddy } from "../../mm/buddy.ts";
import { ALLOC_CMA, ALLOC_NOFRAGMENT, type FrameAllocator, type FrameAllocatorDeps } from "../../mm/frame_allocator.ts";
import { MIGRATE_CMA, MIGRATE_ISOLATE, MIGRATE_MOVABLE, type Migratetype } from "../../mm/migratetype.ts";
import { freeCountAddr, Z_NR_FREE_CMA } from "../../mm/mmzone.ts";
import { bareFrames } from "../support/bare_frames.ts";

const START = 1024;
const NR_BLOCKS = 4;
const END = START + NR_BLOCKS * 512;
/** Pageblock 2 is the contiguous area; its buddy, pageblock 3, is not. */
const CMA_BLOCK = 2;
const blockStart = (block: number) => asPfn(START + block * 512);
const blockOf = (pfn: number): number => Math.floor((pfn - START) / 512);

interface Bench {
  readonly deps: FrameAllocatorDeps;
  readonly buddy: FrameAllocator;
}

function bench(wrap: (buddy: FrameAllocator, deps: FrameAllocatorDeps) => FrameAllocator = (buddy) => buddy): Bench {
  const deps = bareFrames(START, END);
  const buddy = createBuddy(deps);
  deps.pageblocks.setMigratetype(blockStart(CMA_BLOCK), MIGRATE_CMA);
  buddy.addFreeRange(blockStart(0), blockStart(CMA_BLOCK));
  buddy.addFreeRange(blockStart(CMA_BLOCK), blockStart(CMA_BLOCK + 1));
  buddy.addFreeRange(blockStart(CMA_BLOCK + 1), asPfn(END));
  return { deps, buddy: wrap(buddy, deps) };
}

type Step =
  | { readonly kind: "alloc"; readonly order: number; readonly type: number; readonly flags: number }
  | { readonly kind: "free"; readonly at: number }
  | { readonly kind: "isolate" | "unisolate"; readonly block: number }
  | { readonly kind: "take"; readonly start: number; readonly nr: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("alloc" as const),
      order: fc.constantFrom(0, 0, 1, 2, 3, 5, 8, 9, 10),
      type: fc.nat(2),
      flags: fc.constantFrom(0, ALLOC_CMA, ALLOC_CMA, ALLOC_NOFRAGMENT, ALLOC_CMA | ALLOC_NOFRAGMENT),
    }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("free" as const), at: fc.nat(1000) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom("isolate" as const, "unisolate" as const),
      block: fc.nat(NR_BLOCKS - 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("take" as const),
      start: fc.nat(2000),
      nr: fc.integer({ min: 1, max: 700 }),
    }),
  },
);
const steps = fc.array(step, { minLength: 5, maxLength: 80 });

/** Runs the steps; the first disagreement with the oracle as a sentence, or null. */
function violation({ deps, buddy }: Bench, list: readonly Step[]): string | null {
  const owned = new Uint8Array(END - START);
  const isolated = new Set<number>();
  const live: { pfn: number; order: number }[] = [];

  const countFree = (counts: (block: number) => boolean): number => {
    let nr = 0;
    for (let pfn = START; pfn < END; pfn++) if (owned[pfn - START] === 0 && counts(blockOf(pfn))) nr++;
    return nr;
  };
  const alloc = (order: number, type: number, flags: number): string | null => {
    const pfn = buddy.allocBlock(order, type as Migratetype, flags) as number;
    if (pfn === 0) return null;
    for (let i = pfn; i < pfn + (1 << order); i++) {
      if (owned[i - START] !== 0) return `frame ${i} has two owners`;
      owned[i - START] = 1;
      if (isolated.has(blockOf(i))) return `frame ${i} of an isolated pageblock is handed out`;
      const mayBorrow = type === MIGRATE_MOVABLE && (flags & ALLOC_CMA) !== 0;
      if (blockOf(i) === CMA_BLOCK && !mayBorrow) return `B9: type ${type} got frame ${i} of the area`;
    }
    live.push({ pfn, order });
    return null;
  };
  const take = (start: number, nr: number): string | null => {
    const [from, to] = [START + start, Math.min(END, START + start + nr)];
    const isFree = owned.subarray(from - START, to - START).every((bit) => bit === 0);
    const result = buddy.takeRange(asPfn(from), asPfn(to));
    if ((result === 0) !== isFree || (result !== 0 && result !== -EBUSY)) return `takeRange says ${result}`;
    if (result !== 0) return null;
    for (let pfn = from; pfn < to; pfn++) {
      owned[pfn - START] = 1;
      live.push({ pfn, order: 0 });
    }
    return null;
  };
  const free = (at: number): string | null => {
    const block = live.splice(at % Math.max(1, live.length), 1)[0];
    if (block === undefined) return null;
    if (buddy.freeBlock(asPfn(block.pfn), block.order) !== 0) return `the free of ${block.pfn} is refused`;
    owned.fill(0, block.pfn - START, block.pfn - START + (1 << block.order));
    return null;
  };
  const doStep = (s: Step): string | null => {
    switch (s.kind) {
      case "alloc":
        return alloc(s.order, s.type, s.flags);
      case "take":
        return s.start < END - START ? take(s.start, s.nr) : null;
      case "free":
        return free(s.at);
      case "isolate":
        buddy.isolate(blockStart(s.block));
        isolated.add(s.block);
        return null;
      case "unisolate":
        buddy.unisolate(blockStart(s.block));
        isolated.delete(s.block);
        return null;
    }
  };
  const judge = (): string | null => {
    const wanted = countFree((block) => !isolated.has(block));
    if (buddy.nrFree() !== wanted) return `FRM-5: nrFree() says ${buddy.nrFree()}, ${wanted} frames are free`;
    const inArea = countFree((block) => block === CMA_BLOCK && !isolated.has(block));
    const recorded = deps.port.ld32(deps.zoneAddr + Z_NR_FREE_CMA);
    if (recorded !== inArea) return `nr_free_cma says ${recorded}, ${inArea} frames of the area are free`;
    for (let block = 0; block < NR_BLOCKS; block++) {
      const type = deps.pageblocks.migratetype(blockStart(block));
      if ((type === MIGRATE_ISOLATE) !== isolated.has(block)) return `pageblock ${block} has type ${type}`;
      if (!isolated.has(block) && (type === MIGRATE_CMA) !== (block === CMA_BLOCK)) {
        return `CMA-4: pageblock ${block} has type ${type}`;
      }
    }
    return buddy.check();
  };
  for (const s of list) {
    const problem = doStep(s) ?? judge();
    if (problem !== null) return `${problem} after ${JSON.stringify(s)}`;
  }
  while (live.length > 0) {
    const problem = free(live.length - 1);
    if (problem !== null) return problem;
  }
  for (let block = 0; block < NR_BLOCKS; block++) buddy.unisolate(blockStart(block));
  isolated.clear();
  return judge();
}

describe("isolation", () => {
  it("a free block that reaches over the pageblock is cut, and whole again afterwards", () => {
    const { deps, buddy } = bench();
    const count = (order: number, type: number): number => deps.port.ld32(freeCountAddr(deps.zoneAddr, order, type));
    expect(count(10, MIGRATE_MOVABLE)).toBe(1);
    buddy.isolate(blockStart(1));
    expect([count(10, MIGRATE_MOVABLE), count(9, MIGRATE_MOVABLE), count(9, MIGRATE_ISOLATE)]).toEqual([0, 2, 1]);
    buddy.isolate(blockStart(0));
    expect([count(9, MIGRATE_ISOLATE), count(10, MIGRATE_ISOLATE)]).toEqual([0, 1]);
    expect(buddy.nrFree()).toBe(1024);
    buddy.unisolate(blockStart(1));
    buddy.unisolate(blockStart(0));
    expect(count(10, MIGRATE_MOVABLE)).toBe(1);
    expect(buddy.check()).toBeNull();
  });

  it("each pageblock gets the type back that it had, also the area", () => {
    const { deps, buddy } = bench();
    for (let block = 0; block < NR_BLOCKS; block++) buddy.isolate(blockStart(block));
    expect(buddy.nrFree()).toBe(0);
    expect(buddy.allocBlock(0, MIGRATE_MOVABLE, ALLOC_CMA)).toBe(0);
    // Twice is once.
    buddy.isolate(blockStart(CMA_BLOCK));
    for (let block = 0; block < NR_BLOCKS; block++) buddy.unisolate(blockStart(block));
    buddy.unisolate(blockStart(CMA_BLOCK));
    const types = [0, 1, 2, 3].map((block) => deps.pageblocks.migratetype(blockStart(block)));
    expect(types).toEqual([MIGRATE_MOVABLE, MIGRATE_MOVABLE, MIGRATE_CMA, MIGRATE_MOVABLE]);
    expect(buddy.check()).toBeNull();
  });
});

describe("CMA and ISOLATE against an oracle", () => {
  it("BUD-1 … BUD-7, B3, B9 hold after every one of random operations", () => {
    fc.assert(
      fc.property(steps, (list) => {
        expect(violation(bench(), list)).toBeNull();
      }),
      { numRuns: 150 },
    );
  });

  const mutants: Readonly<Record<string, (buddy: FrameAllocator, deps: FrameAllocatorDeps) => FrameAllocator>> = {
    "lends the area to everybody": (buddy) => ({
      ...buddy,
      allocBlock: (order, type, flags) =>
        buddy.allocBlock(order, type, flags) || buddy.allocBlock(order, MIGRATE_CMA, flags),
    }),
    "does not isolate": (buddy) => ({ ...buddy, isolate: () => {} }),
    "tags the pageblock but leaves its free blocks on their lists": (buddy, deps) => ({
      ...buddy,
      isolate: (pfn) => deps.pageblocks.isolate(pfn),
    }),
    "forgets the old type": (buddy, deps) => ({
      ...buddy,
      unisolate(pfn) {
        buddy.unisolate(pfn);
        deps.pageblocks.setMigratetype(pfn, MIGRATE_MOVABLE);
      },
    }),
    "looks into isolated pageblocks": (buddy) => ({
      ...buddy,
      allocBlock: (order, type, flags) =>
        buddy.allocBlock(order, type, flags) || buddy.allocBlock(order, MIGRATE_ISOLATE, flags),
    }),
  };
  for (const [name, wrap] of Object.entries(mutants)) {
    it(`a buddy that ${name} is caught`, () => {
      const found = fc.sample(steps, { numRuns: 100, seed: 5 }).some((list) => violation(bench(wrap), list) !== null);
      expect(found).toBe(true);
    });
  }
});
