/**
 * The per-CPU lists against W8 in its plainest form: which block comes, how many are fetched and given back, and when.
 *
 * Goal: W7, W8, PCP-1 … PCP-3, charges. Method: random traffic of one CPU on all kinds of lists, with sizes and marks that
 * change under it; after each call lists, stock, free_count and high are those of a model that counts at every step.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CYC_BUDDY_FIND, CYC_PCP_HIT, CYC_PCP_MOVE } from "../../kernel/arch/charges.ts";
import { asPhys, type Pfn } from "../../kernel/types.ts";
import { createBuddy } from "../../mm/buddy.ts";
import type { FrameAllocatorFactory } from "../../mm/frame_allocator.ts";
import { MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, type Migratetype, NR_MIGRATETYPES } from "../../mm/migratetype.ts";
import {
  MAX_NR_ZONES,
  NR_PAGE_ORDERS,
  WMARK_HIGH,
  Z_LOCK,
  Z_NR_FREE,
  Z_PCP_BATCH,
  Z_PCP_HIGH_MAX,
  Z_PCP_HIGH_MIN,
  Z_WMARK,
  ZONE_DMA32,
} from "../../mm/mmzone.ts";
import { ORDER_SHIFT } from "../../mm/page.ts";
import { createPageLists } from "../../mm/page_list.ts";
import { FREE_COUNT_SHIFT, NR_PCP_LISTS, P_HIGH, P_STATE, STOCK_MASK } from "../../mm/pcp_layout.ts";
import { PCP_REFILL, PCP_SPILL } from "../../mm/vmstat.ts";
import { bootPageLevel, type PageLevelMachine } from "../support/page_level.ts";

const ZONE = ZONE_DMA32;
const MIB = 1024 * 1024;

interface Sizes {
  readonly batch: number;
  readonly highMin: number;
  readonly highMax: number;
  readonly isShort: boolean;
}

/** W8, counted at every step. */
class NaivePcp {
  readonly lists: number[][] = Array.from({ length: NR_PCP_LISTS }, () => []);
  sizes: Sizes = { batch: 1, highMin: 4, highMax: 4, isShort: false };
  high = 0;
  factor = 0;
  freeCount = 0;
  /** Blocks that went to the buddy in the last call, and whether there was a refill. */
  moved: number[] = [];
  refilled = false;

  static listOf(order: number, type: number): number {
    return order === 9 ? (type === MIGRATE_MOVABLE ? 13 : 12) : order * 3 + type;
  }
  static orderOf(list: number): number {
    return list >= 12 ? 9 : Math.floor(list / 3);
  }
  get stock(): number {
    return this.lists.reduce((sum, list, i) => sum + list.length * 2 ** NaivePcp.orderOf(i), 0);
  }
  #clampedHigh(): number {
    return Math.min(Math.max(this.high, this.sizes.highMin), this.sizes.highMax);
  }

  /** Blocks that a refill for `order` asks the buddy for. */
  refill(order: number): number {
    const { batch, highMin, highMax, isShort } = this.sizes;
    this.refilled = true;
    this.high = this.#clampedHigh();
    let wanted = order === 0 ? batch * 2 ** this.factor : batch;
    if (highMin !== highMax && !isShort) this.high = Math.min(this.high + wanted, highMax);
    if (order === 0) {
      const most = Math.max(this.high - this.stock - batch, batch);
      if (wanted <= most && this.factor < 5) this.factor++;
      wanted = Math.min(wanted, most);
    }
    return wanted <= 1 ? wanted : Math.max(Math.floor(wanted / 2 ** order), 2);
  }

  take(list: number): number {
    this.freeCount = Math.floor(this.freeCount / 2);
    return this.lists[list]?.shift() as number;
  }

  free(pfn: number, order: number, type: number): void {
    this.moved = [];
    this.lists[NaivePcp.listOf(order, type)]?.unshift(pfn);
    this.factor = Math.floor(this.factor / 2);
    const { batch, highMin, highMax, isShort } = this.sizes;
    if (this.freeCount < batch * 32) this.freeCount += 2 ** order;
    if (this.stock < this.high) return;
    this.high = this.#clampedHigh();
    if (highMin !== highMax && isShort) this.high = Math.max(this.high - Math.max(this.freeCount, batch), highMin);
    else if (highMin !== highMax && this.stock >= this.high)
      this.high = Math.min(Math.max(this.stock + this.freeCount, highMin), highMax);
    if (this.stock < this.high) return;
    const most = Math.max(this.high - batch, batch);
    this.#giveBack(Math.min(Math.max(batch, Math.min(this.freeCount, most)), this.stock));
  }

  #giveBack(wanted: number): void {
    for (let pages = 0, i = 0; pages < wanted; i = (i + 1) % NR_PCP_LISTS) {
      const pfn = this.lists[i]?.pop();
      if (pfn === undefined) continue;
      this.moved.push(pfn);
      pages += 2 ** NaivePcp.orderOf(i);
    }
  }
}

interface Pair {
  readonly m: PageLevelMachine;
  readonly naive: NaivePcp;
  readonly lists: () => number[][];
}

/** A buddy that is only spoken to with its zone's lock held. */
const lockedBuddy: FrameAllocatorFactory = (deps) => {
  const buddy = createBuddy(deps);
  const isLocked = (): void => expect(deps.port.ld32(deps.zoneAddr + Z_LOCK)).not.toBe(0);
  let isUp = false;
  return {
    ...buddy,
    allocBlock(order, type, flags) {
      isUp = true;
      isLocked();
      return buddy.allocBlock(order, type, flags);
    },
    freeBlock(pfn, order) {
      if (isUp) isLocked();
      return buddy.freeBlock(pfn, order);
    },
  };
};

function pair(): Pair {
  const m = bootPageLevel({ ramBytes: 64 * MIB, frameAllocator: lockedBuddy });
  m.pageAlloc.drainAllPages(m.ctx);
  const links = createPageLists(m.pages);
  const first = m.pages.firstHead + MAX_NR_ZONES * NR_PAGE_ORDERS * NR_MIGRATETYPES + ZONE * NR_PCP_LISTS;
  const lists = (): number[][] =>
    Array.from({ length: NR_PCP_LISTS }, (_, i) => {
      const rows: number[] = [];
      for (let row = links.first(first + i); row !== first + i; row = links.next(row)) rows.push(row);
      return rows;
    });
  const naive = new NaivePcp();
  naive.high = pcpWord(m, P_HIGH);
  naive.freeCount = pcpWord(m, P_STATE) >>> FREE_COUNT_SHIFT;
  return { m, naive, lists };
}
const pcpWord = (m: PageLevelMachine, field: number): number =>
  m.machine.port.ld32(asPhys(m.pcp.lockAddr(0, ZONE) - P_STATE + field));

function resize({ m, naive }: Pair, sizes: Sizes): void {
  naive.sizes = sizes;
  m.zones.setField(ZONE, Z_PCP_BATCH, sizes.batch);
  m.zones.setField(ZONE, Z_PCP_HIGH_MIN, sizes.highMin);
  m.zones.setField(ZONE, Z_PCP_HIGH_MAX, sizes.highMax);
}

/** The zone is short if free ≤ high mark: exactly at it, or one above. */
function setMark({ m, naive }: Pair): void {
  const free = m.zones.field(ZONE, Z_NR_FREE);
  m.zones.setField(ZONE, Z_WMARK + WMARK_HIGH * 4, naive.sizes.isShort ? free : free - 1);
}

function alloc(both: Pair, order: number, type: number): number {
  const { m, naive, lists } = both;
  const { clock } = m.machine.harts;
  setMark(both);
  const list = NaivePcp.listOf(order, type);
  naive.refilled = false;
  const wanted = naive.lists[list]?.length === 0 ? naive.refill(order) : 0;
  const [refills, before] = [m.vmstat.event(PCP_REFILL), clock[0] as number];
  const pfn = m.pcp.alloc(m.ctx, ZONE, order, type as Migratetype, 0);
  expect(m.vmstat.event(PCP_REFILL) - refills).toBe(naive.refilled ? 1 : 0);
  if (naive.refilled) {
    const after = lists()[list] as number[];
    naive.lists[list] = pfn === 0 ? [] : [pfn, ...after];
    expect(naive.lists[list]?.length).toBe(wanted);
    expect(new Set(naive.lists[list]).size).toBe(wanted);
  }
  expect(pfn).toBe(naive.take(list));
  // What the buddy charges is in buddy_model.test.ts; here at least each block that moved, and the hit.
  const cost = (clock[0] as number) - before;
  if (naive.refilled) expect(cost).toBeGreaterThanOrEqual(CYC_PCP_HIT + wanted * (CYC_PCP_MOVE + CYC_BUDDY_FIND));
  else expect(cost).toBe(CYC_PCP_HIT);
  return pfn;
}

function free(both: Pair, pfn: number, order: number, type: number): void {
  const { m, naive } = both;
  const { clock } = m.machine.harts;
  setMark(both);
  const [spills, before] = [m.vmstat.event(PCP_SPILL), clock[0] as number];
  naive.free(pfn, order, type);
  expect(m.pcp.free(m.ctx, ZONE, pfn as Pfn, order, type as Migratetype)).toBe(true);
  const { moved } = naive;
  expect(m.vmstat.event(PCP_SPILL) - spills).toBe(moved.length > 0 ? 1 : 0);
  const cost = (clock[0] as number) - before;
  if (moved.length === 0) expect(cost).toBe(CYC_PCP_HIT);
  else expect(cost).toBeGreaterThanOrEqual(CYC_PCP_HIT + moved.length * (CYC_PCP_MOVE + CYC_BUDDY_FIND));
}

function expectSame({ m, naive, lists }: Pair): void {
  const state = pcpWord(m, P_STATE);
  expect(lists()).toEqual(naive.lists);
  expect(state & STOCK_MASK).toBe(naive.stock);
  expect(state >>> FREE_COUNT_SHIFT).toBe(naive.freeCount);
  expect(pcpWord(m, P_HIGH)).toBe(naive.high);
}

const sizes: fc.Arbitrary<Sizes> = fc
  .record({
    batch: fc.constantFrom(1, 1, 2, 4, 7, 15, 63),
    highMin: fc.constantFrom(4, 16, 60, 250),
    more: fc.constantFrom(0, 0, 1, 40, 400),
    isShort: fc.boolean(),
  })
  .map(({ batch, highMin, more, isShort }) => ({ batch, highMin, highMax: highMin + more, isShort }));

const kind = fc.record({ order: fc.constantFrom(0, 0, 0, 0, 1, 2, 3, 9), type: fc.nat(2) });
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("alloc" as const), what: kind, nr: fc.constantFrom(1, 3, 12, 200) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("free" as const),
      at: fc.nat(10_000),
      nr: fc.constantFrom(1, 5, 30, 200),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("resize" as const), sizes }) },
);

describe("W8 the lists of a CPU and the rule in its plainest form", () => {
  it("the same blocks, the same sizes, whatever the traffic", () => {
    fc.assert(
      fc.property(sizes, fc.array(step, { minLength: 1, maxLength: 60 }), (first, steps) => {
        const both = pair();
        resize(both, first);
        const held: [number, number, number][] = [];
        let pages = 0;
        for (const move of steps) {
          if (move.kind === "resize") resize(both, move.sizes);
          else if (move.kind === "alloc") {
            const { order, type } = move.what;
            // Memory stays plentiful: a refill gets what it asks for.
            for (let i = 0; i < move.nr && pages < 6000; i++, pages += 2 ** order)
              held.push([alloc(both, order, type), order, type]);
          } else {
            for (let i = 0; i < move.nr && held.length > 0; i++) {
              const [[pfn, order, type]] = held.splice(move.at % held.length, 1) as [[number, number, number]];
              free(both, pfn, order, type);
              pages -= 2 ** order;
            }
          }
          expectSame(both);
        }
        expect(both.m.pcp.check()).toBeNull();
      }),
      { numRuns: 40 },
    );
  });

  it("what is given back comes from the tails, list after list", () => {
    const both = pair();
    resize(both, { batch: 4, highMin: 12, highMax: 12, isShort: false });
    const held: [number, number, number][] = [];
    for (const type of [0, 1, 2]) for (let i = 0; i < 6; i++) held.push([alloc(both, 0, type), 0, type]);
    for (let i = 0; i < 3; i++) held.push([alloc(both, 1, MIGRATE_UNMOVABLE), 1, MIGRATE_UNMOVABLE]);
    for (const [pfn, order, type] of held) {
      free(both, pfn, order, type);
      expectSame(both);
    }
    expect(both.m.pcp.check()).toBeNull();
  });

  it("a CPU that only allocates fetches up to 32 batches at once, and not more than fits below high", () => {
    for (const [batch, high] of [
      [7, 4000],
      [7, 100],
      [1, 40],
    ] as const) {
      const both = pair();
      resize(both, { batch, highMin: high, highMax: high, isShort: false });
      const held = Array.from({ length: 2000 }, () => {
        const pfn = alloc(both, 0, MIGRATE_MOVABLE);
        expectSame(both);
        return pfn;
      });
      for (const pfn of held) free(both, pfn, 0, MIGRATE_MOVABLE);
      expectSame(both);
    }
  });

  it("PCP-1 PCP-2 a stock without blocks, and a block that the buddy does not know, end in a bug and in no loop", () => {
    const wrongStock = pair();
    const { port } = wrongStock.m.machine;
    free(wrongStock, alloc(wrongStock, 0, MIGRATE_MOVABLE), 0, MIGRATE_MOVABLE);
    const word = asPhys(wrongStock.m.pcp.lockAddr(0, ZONE));
    port.st32(word, port.ld32(word) + 5);
    expect(() => wrongStock.m.pcp.drainCpu(wrongStock.m.ctx, 0)).toThrow("PCP-1");

    const wrongOrder = pair();
    const pfn = alloc(wrongOrder, 0, MIGRATE_MOVABLE);
    free(wrongOrder, pfn, 0, MIGRATE_MOVABLE);
    wrongOrder.m.pages.addFlags(pfn as Pfn, 1 << ORDER_SHIFT);
    expect(() => wrongOrder.m.pcp.drainCpu(wrongOrder.m.ctx, 0)).toThrow("PCP-2");
  });

  it("W7 the two lists of order 9 are those of movable blocks and of all others", () => {
    const both = pair();
    resize(both, { batch: 1, highMin: 4000, highMax: 4000, isShort: false });
    const blocks = [0, 1, 2].map((type) => [alloc(both, 9, type), type] as const);
    for (const [pfn, type] of blocks) free(both, pfn, 9, type);
    expect(both.lists()[12]?.length).toBe(2);
    expect(both.lists()[13]?.length).toBe(1);
    expectSame(both);
  });
});
