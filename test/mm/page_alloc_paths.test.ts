/**
 * Which way a page request goes, and what is done to the block on its way out and in.
 *
 * Goal: PGA-2, PGA-3, PGA-5, PCP-4, W4, W5, B10, G3: the border between the fast path and the slow one to the page, the
 * steps of the slow one and what each is asked; frees that are refused; blocks cut up. Method: a machine booted to its
 * page allocator; marks and counters moved by hand, hooks that write down who calls them, the virtual clock.
 */

import { describe, expect, it } from "vitest";
import { CYC_BUDDY_FIND, CYC_PCP_HIT, CYC_SLOWPATH, CYC_ZERO_PAGE } from "../../kernel/arch/charges.ts";
import { KernelBug } from "../../kernel/bug.ts";
import { asPfn, NO_PFN, NULL, type Pfn, pfnToPhys, type Sleeping } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import {
  __GFP_COMP,
  __GFP_DMA,
  __GFP_HIGH,
  __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC,
  __GFP_NOMEMALLOC,
  __GFP_NOWARN,
  __GFP_RECLAIMABLE,
  __GFP_ZERO,
  GFP_ATOMIC,
  GFP_HIGHUSER_MOVABLE,
  GFP_KERNEL,
  GFP_NOWAIT,
} from "../../mm/gfp.ts";
import { MIGRATE_CMA, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_MOVABLE } from "../../mm/migratetype.ts";
import {
  WMARK_LOW,
  Z_FAST_MARK,
  Z_MANAGED,
  Z_NR_FREE,
  Z_NR_FREE_HIGHATOMIC,
  Z_WMARK,
  ZONE_DMA,
  ZONE_DMA32,
  ZONE_NORMAL,
} from "../../mm/mmzone.ts";
import { orderOfFlags, PG_ALLOCATED, PG_BUDDY, PG_HEAD } from "../../mm/page.ts";
import { ALLOCSTALL, DRAIN_ALL_PAGES, PGALLOC_DMA, PGALLOC_DMA32, PGFREE } from "../../mm/vmstat.ts";
import { finish } from "../support/finish.ts";
import { bootPageLevel, type PageLevelMachine, type PageLevelOptions } from "../support/page_level.ts";

const QUIET = GFP_KERNEL | __GFP_NOWARN;
const PAGE = 4096;

interface World extends PageLevelMachine {
  /** Blocks that are out. */
  readonly held: (readonly [Pfn, number])[];
  take(order: number, gfp: number): Pfn;
  /** Takes until nothing more comes, from the largest blocks down. */
  exhaust(gfp: number, orders?: readonly number[]): void;
  /** Virtual cycles that `work` takes. */
  cycles(work: () => void): number;
  /** Gives everything back and looks for leaks. */
  end(): void;
}

function world(options: PageLevelOptions = {}): World {
  const m = bootPageLevel({ nrCpus: 2, ramBytes: 32 * 2 ** 20, ...options });
  const held: (readonly [Pfn, number])[] = [];
  const take = (order: number, gfp: number): Pfn => {
    const pfn = m.pageAlloc.tryAllocPages(m.ctx, order, gfp);
    if (pfn !== NO_PFN) held.push([pfn, order]);
    return pfn;
  };
  return {
    ...m,
    held,
    take,
    exhaust(gfp, orders = [10, 4, 0]) {
      for (const order of orders) while (take(order, gfp) !== NO_PFN);
    },
    cycles(work) {
      const start = m.machine.harts.clock[0] as number;
      work();
      return (m.machine.harts.clock[0] as number) - start;
    },
    end() {
      for (const [pfn, order] of held.splice(0)) expect(m.pageAlloc.freePages(m.ctx, pfn, order)).toBe(0);
      m.expectNoLeak();
    },
  };
}

describe("the fast path", () => {
  it("a page from the CPU's own list costs a hit, and no lock, no buddy, no slow path", () => {
    const w = world();
    for (let i = 0; i < 3; i++) w.take(0, GFP_KERNEL);
    for (const [pfn] of w.held.splice(0)) w.pageAlloc.freePages(w.ctx, pfn, 0);
    const { count } = w.pcp.info(0, ZONE_DMA32);
    const free = w.zones.field(ZONE_DMA32, Z_NR_FREE);
    expect(count).toBeGreaterThan(0);
    expect(w.cycles(() => w.take(0, GFP_KERNEL))).toBe(CYC_PCP_HIT);
    expect(w.pcp.info(0, ZONE_DMA32).count).toBe(count - 1);
    expect(w.zones.field(ZONE_DMA32, Z_NR_FREE)).toBe(free);
    w.end();
  });

  it("W4 W5 the border is the low mark plus the request, to the page; the high-order reserve does not count", () => {
    const w = world();
    let isWoken = false;
    w.pageAlloc.onLow(() => {
      isWoken = true;
    });
    // ZONE_DMA would help out.
    w.exhaust(QUIET | __GFP_DMA);
    isWoken = false;
    const free = w.zones.field(ZONE_DMA32, Z_NR_FREE);
    const wakes = (low: number, reserve: number): boolean => {
      w.zones.setField(ZONE_DMA32, Z_WMARK + 4 * WMARK_LOW, low);
      w.zones.setField(ZONE_DMA32, Z_NR_FREE_HIGHATOMIC, reserve);
      isWoken = false;
      expect(w.take(4, GFP_NOWAIT)).not.toBe(NO_PFN);
      w.zones.setField(ZONE_DMA32, Z_NR_FREE_HIGHATOMIC, 0);
      const [pfn] = w.held.pop() as readonly [Pfn, number];
      w.pageAlloc.freePages(w.ctx, pfn, 4);
      return isWoken;
    };
    expect(wakes(free - 16, 0)).toBe(false);
    expect(wakes(free - 15, 0)).toBe(true);
    expect(wakes(free - 16 - 40, 40)).toBe(false);
    expect(wakes(free - 16 - 39, 40)).toBe(true);
    w.zones.setupMarks(2);
    w.end();
  });

  it("an order without a list comes from the buddy and is counted; orders that do not exist are refused", () => {
    const w = world();
    const before = w.vmstat.event(PGALLOC_DMA32);
    // The buddy's step, and the way to it.
    expect(w.cycles(() => expect(w.take(10, GFP_KERNEL)).not.toBe(NO_PFN))).toBe(2 * CYC_BUDDY_FIND);
    expect(w.vmstat.event(PGALLOC_DMA32)).toBe(before + 1024);
    for (const order of [-1, 11, Number.NaN, 2 ** 31]) {
      expect(w.pageAlloc.tryAllocPages(w.ctx, order, GFP_KERNEL)).toBe(NO_PFN);
    }
    expect(w.vmstat.event(PGALLOC_DMA32)).toBe(before + 1024);
    w.end();
  });

  it("a mask that names two zones is a bug of its caller", () => {
    const w = world();
    expect(() => w.take(0, GFP_KERNEL | __GFP_DMA | 0x4)).toThrow(KernelBug);
    expect(() => w.take(0, GFP_KERNEL | __GFP_DMA | 0x4)).toThrow("contradicting zone modifiers");
    w.end();
  });

  it("with a contiguous area the walk decides, and movable pages may lie in it, others not", () => {
    const w = world({ cmaBytes: 8 * 2 ** 20 });
    const inArea = (pfn: Pfn): boolean => w.pageblocks.migratetype(pfn) === MIGRATE_CMA;
    w.exhaust(QUIET);
    expect(w.held.some(([pfn]) => inArea(pfn))).toBe(false);
    const nrOthers = w.held.length;
    w.exhaust(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN);
    expect(w.held.slice(nrOthers).filter(([pfn]) => inArea(pfn)).length).toBeGreaterThan(0);
    w.end();
  });
});

describe("what the mask asks for", () => {
  it("__GFP_COMP marks the head of a block of more than one page; nothing else does", () => {
    const w = world();
    const isHead = (pfn: Pfn): boolean => (w.pages.flags(pfn) & PG_HEAD) !== 0;
    expect(isHead(w.take(3, GFP_KERNEL | __GFP_COMP))).toBe(true);
    expect(isHead(w.take(0, GFP_KERNEL | __GFP_COMP))).toBe(false);
    expect(isHead(w.take(3, GFP_KERNEL))).toBe(false);
    expect(isHead(w.take(3, GFP_KERNEL | __GFP_ZERO))).toBe(false);
    // A mark is all: nothing is zeroed.
    const dirty = w.take(3, GFP_KERNEL);
    w.machine.port.fill(pfnToPhys(dirty), 0x9e, 8 * PAGE);
    w.held.pop();
    w.pageAlloc.freePages(w.ctx, dirty, 3);
    expect(w.take(3, GFP_KERNEL | __GFP_COMP)).toBe(dirty);
    expect(w.machine.port.ld8(pfnToPhys(dirty))).toBe(0x9e);
    w.end();
  });

  it("__GFP_ZERO clears the block and not a byte more, and takes its time; without it nothing is touched", () => {
    const w = world();
    const { port } = w.machine;
    const fill = (pfn: Pfn, pages: number): void => port.fill(pfnToPhys(pfn), 0x9e, pages * PAGE);
    for (const order of [0, 3]) {
      const pages = 2 ** order;
      // Two neighbours, of which the first is given back dirty and asked for again.
      const pair = w.take(order + 1, GFP_KERNEL);
      w.held.pop();
      w.pageAlloc.splitPage(pair, order + 1);
      fill(pair, 2 * pages);
      for (let i = 0; i < pages; i++) expect(w.pageAlloc.freePages(w.ctx, asPfn(pair + i), 0)).toBe(0);
      w.pageAlloc.drainAllPages(w.ctx);
      const dirty: Pfn[] = [];
      let got = w.take(order, GFP_KERNEL);
      for (; got !== pair; got = w.take(order, GFP_KERNEL)) dirty.push(got);
      expect(port.ld8(pfnToPhys(pair))).toBe(0x9e);
      w.held.pop();
      expect(w.pageAlloc.freePages(w.ctx, pair, order)).toBe(0);
      const plain = w.cycles(() => w.take(order, GFP_KERNEL));
      w.held.pop();
      expect(w.pageAlloc.freePages(w.ctx, pair, order)).toBe(0);
      const zeroing = w.cycles(() => expect(w.take(order, GFP_KERNEL | __GFP_ZERO)).toBe(pair));
      expect(zeroing - plain).toBe(pages * CYC_ZERO_PAGE);
      expect(port.readBytes(pfnToPhys(pair), pages * PAGE).every((byte) => byte === 0)).toBe(true);
      expect(port.readBytes(pfnToPhys(asPfn(pair + pages)), PAGE).every((byte) => byte === 0x9e)).toBe(true);
      for (let i = pages; i < 2 * pages; i++) w.held.push([asPfn(pair + i), 0]);
    }
    w.end();
  });

  it("getFreePages gives the address, NULL when there is nothing, and the rest of the work when it has to sleep", () => {
    const w = world();
    const address = finish(w.pageAlloc.getFreePages(w.ctx, 1, GFP_KERNEL));
    expect(address % (2 * PAGE)).toBe(0);
    const pfn = asPfn(address / PAGE);
    expect(orderOfFlags(w.pages.flags(pfn))).toBe(1);
    w.held.push([pfn, 1]);
    w.exhaust(QUIET);
    expect(w.pageAlloc.getFreePages(w.ctx, 0, GFP_NOWAIT)).toBe(NULL);
    const [back] = w.held.pop() as readonly [Pfn, number];
    let nrAsked = 0;
    w.pageAlloc.onReclaim(function* () {
      nrAsked++;
      if (nrAsked === 1) w.pageAlloc.freePages(w.ctx, back, 0);
      return nrAsked === 1;
    });
    const later = w.pageAlloc.getFreePages(w.ctx, 0, QUIET);
    expect(typeof later).toBe("object");
    expect(finish(later)).toBe(pfnToPhys(back));
    w.held.push([back, 0]);
    expect(finish(w.pageAlloc.getFreePages(w.ctx, 0, QUIET))).toBe(NULL);
    w.end();
  });
});

describe("reclaim", () => {
  function* nothing(): Sleeping<boolean> {
    return false;
  }

  it("is asked as long as it says so, for this order and mask, by who may wait; then the request fails", () => {
    const w = world();
    w.exhaust(QUIET);
    const [back] = w.held.pop() as readonly [Pfn, number];
    const asked: [number, number][] = [];
    w.pageAlloc.onReclaim(function* (_ctx, order, gfp) {
      asked.push([order, gfp]);
      if (asked.length === 3) w.pageAlloc.freePages(w.ctx, back, 0);
      return true;
    });
    const stalls = w.vmstat.event(ALLOCSTALL);
    expect(w.pageAlloc.allocPagesAny(w.ctx, 0, GFP_NOWAIT)).toBe(NO_PFN);
    expect(asked).toEqual([]);
    const got = w.pageAlloc.allocPagesAny(w.ctx, 0, QUIET);
    expect(typeof got).toBe("object");
    expect(finish(got)).toBe(back);
    w.held.push([back, 0]);
    expect(asked).toEqual([
      [0, QUIET],
      [0, QUIET],
      [0, QUIET],
    ]);
    expect(w.vmstat.event(ALLOCSTALL)).toBe(stalls + 1);
    w.pageAlloc.onReclaim(nothing);
    expect(finish(w.pageAlloc.allocPagesAny(w.ctx, 0, GFP_KERNEL))).toBe(NO_PFN);
    expect(w.log()).toContain("page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)");
    w.end();
  });

  it("where there is none the request fails at once", () => {
    const w = world();
    w.exhaust(QUIET);
    expect(w.pageAlloc.allocPagesAny(w.ctx, 0, QUIET)).toBe(NO_PFN);
    expect(w.vmstat.event(ALLOCSTALL)).toBe(0);
    // A request that was refused leaves no trace on the frame that stands for "none".
    expect(w.pages.refcount(NO_PFN)).toBe(0);
    w.end();
  });
});

describe("the slow path", () => {
  /** Everything is taken; the hooks write down what they are asked. */
  function scarce(options: PageLevelOptions = {}) {
    const w = world(options);
    w.exhaust(QUIET);
    const calls: string[] = [];
    let toGive: Pfn[] = [];
    w.pageAlloc.onLow((_ctx, highest) => calls.push(`wake ${highest}`));
    w.pageAlloc.onPressure((_ctx, isAtomic) => {
      calls.push(`press ${isAtomic}`);
      const given = toGive;
      toGive = [];
      for (const pfn of given) w.pageAlloc.freePages(w.ctx, pfn, 0);
      return given.length;
    });
    w.pageAlloc.onCompact({
      direct: (_ctx, order, gfp, retry) => {
        calls.push(`compact ${order} ${gfp === QUIET}`);
        return retry();
      },
      wakeDaemon: (_ctx, order) => calls.push(`kcompactd ${order}`),
    });
    return {
      ...w,
      calls,
      willGive: (nr: number) => {
        toGive = Array.from({ length: nr }, () => (w.held.pop() as readonly [Pfn, number])[0]);
        return toGive;
      },
    };
  }

  it("W5 kswapd is woken for the highest zone that the mask allows, if the mask lets it", () => {
    const w = scarce();
    w.take(0, GFP_NOWAIT);
    w.take(0, GFP_NOWAIT | __GFP_DMA);
    w.take(0, GFP_NOWAIT & ~__GFP_KSWAPD_RECLAIM);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`, `wake ${ZONE_DMA}`]);
    w.end();
  });

  it("PGA-5 caches are pressed by who may wait or is urgent, gently by who may not wait, and asked by nobody else", () => {
    const w = scarce();
    const [given] = w.willGive(1);
    expect(w.take(0, QUIET)).toBe(given);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`, "press false"]);
    w.calls.length = 0;
    expect(w.take(0, QUIET)).toBe(NO_PFN);
    expect(w.calls.at(-1)).toBe("press false");
    // GFP_ATOMIC goes deeper into the reserve first.
    w.exhaust(GFP_ATOMIC | __GFP_NOWARN, [4, 0]);
    w.calls.length = 0;
    expect(w.take(0, GFP_ATOMIC | __GFP_NOWARN)).toBe(NO_PFN);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`, "press true"]);
    w.calls.length = 0;
    w.willGive(1);
    expect(w.take(0, GFP_NOWAIT)).toBe(NO_PFN);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`]);
    w.take(0, GFP_ATOMIC | __GFP_NOWARN);
    w.end();
  });

  it("a large block is compacted for by who may wait, and by kcompactd for who may not; a page by nobody", () => {
    const w = scarce();
    w.take(3, QUIET);
    expect(w.calls).toContain("compact 3 true");
    expect(w.calls).not.toContain("kcompactd 3");
    w.calls.length = 0;
    w.take(3, GFP_NOWAIT);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`, "kcompactd 3"]);
    w.calls.length = 0;
    w.take(0, QUIET);
    expect(w.calls.some((call) => call.startsWith("compact") || call.startsWith("kcompactd"))).toBe(false);
    w.end();
  });

  it("what compaction brings is what the request gets, and nobody is pressed then", () => {
    const w = scarce();
    const block = w.held.find(([, order]) => order === 4) as readonly [Pfn, number];
    w.pageAlloc.onCompact({
      direct: (_ctx, _order, _gfp, retry) => {
        w.held.splice(w.held.indexOf(block), 1);
        w.pageAlloc.freePages(w.ctx, block[0], 4);
        return retry();
      },
      wakeDaemon: () => {},
    });
    const got = w.take(4, QUIET);
    expect(got).not.toBe(NO_PFN);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`]);
    w.end();
  });

  it("PCP-4 pages on the lists of other CPUs are fetched, once, and only when needed", () => {
    const w = world();
    const other = w.contexts.taskContext(1);
    w.exhaust(QUIET);
    const drains = w.vmstat.event(DRAIN_ALL_PAGES);
    // Freed on the other CPU: on its list, where this one cannot reach.
    for (let i = 0; i < 3; i++) {
      const [pfn, order] = w.held.pop() as readonly [Pfn, number];
      expect(order).toBe(0);
      w.pageAlloc.freePages(other, pfn, 0);
    }
    expect(w.pcp.info(1, ZONE_DMA32).count + w.pcp.info(1, ZONE_DMA).count).toBe(3);
    expect(w.take(0, QUIET)).not.toBe(NO_PFN);
    expect(w.vmstat.event(DRAIN_ALL_PAGES)).toBe(drains + 1);
    expect(w.pcp.info(1, ZONE_DMA32).count + w.pcp.info(1, ZONE_DMA).count).toBe(0);
    w.end();
  });

  it("PCP-4 what draining brought is enough: nobody compacts then", () => {
    const w = scarce();
    const at = w.held.findIndex(([, order]) => order === 4);
    const [[block]] = w.held.splice(at, 1) as [readonly [Pfn, number]];
    w.pageAlloc.splitPage(block, 4);
    const other = w.contexts.taskContext(1);
    for (let i = 0; i < 16; i++) w.pageAlloc.freePages(other, asPfn(block + i), 0);
    expect(w.take(2, QUIET)).not.toBe(NO_PFN);
    expect(w.calls).toEqual([`wake ${ZONE_NORMAL}`]);
    w.end();
  });

  it("a request that is refused is not counted as served", () => {
    const w = scarce();
    const served = (): number => w.vmstat.event(PGALLOC_DMA) + w.vmstat.event(PGALLOC_DMA32);
    const before = served();
    for (const order of [0, 3, 5, 10]) expect(w.take(order, QUIET)).toBe(NO_PFN);
    expect(served()).toBe(before);
    w.end();
  });

  it("B10 blocks of the high-order reserve are for urgent requests, and for those only when nothing else is left", () => {
    const w = world();
    const frames = w.frames[ZONE_DMA32] as (typeof w.frames)[number];
    w.exhaust(QUIET | __GFP_DMA);
    const [block, buddy] = [w.take(9, GFP_KERNEL), w.take(9, GFP_KERNEL)];
    expect(block ^ 512).toBe(buddy);
    w.held.splice(w.held.length - 2, 1);
    w.pageAlloc.freePages(w.ctx, block, 9);
    w.pageAlloc.drainAllPages(w.ctx);
    expect(frames.retype(block, MIGRATE_HIGHATOMIC)).toBe(true);
    const inReserve = (pfn: Pfn): boolean => (pfn & ~511) === block;
    w.exhaust(QUIET);
    expect(w.held.some(([pfn]) => inReserve(pfn))).toBe(false);
    const nrBefore = w.held.length;
    w.exhaust(GFP_ATOMIC | __GFP_NOWARN, [0]);
    const urgent = w.held.slice(nrBefore).map(([pfn]) => inReserve(pfn));
    expect(urgent).toContain(true);
    // First what is left elsewhere, then the reserve.
    expect(urgent.indexOf(true)).toBeGreaterThan(0);
    w.end();
  });

  it("drainAllPages says how many pages came back", () => {
    const w = world();
    for (let i = 0; i < 5; i++) w.take(0, GFP_KERNEL);
    for (const [pfn] of w.held.splice(0)) w.pageAlloc.freePages(w.ctx, pfn, 0);
    const { count } = w.pcp.info(0, ZONE_DMA32);
    expect(count).toBeGreaterThan(3);
    expect(w.pageAlloc.drainAllPages(w.ctx)).toBe(count);
    expect(w.pageAlloc.drainAllPages(w.ctx)).toBe(0);
    w.end();
  });

  it("W4 __GFP_NOMEMALLOC keeps a request out of all reserves, also one with __GFP_MEMALLOC", () => {
    const w = world();
    w.exhaust(QUIET);
    const left = w.zones.totalFree();
    expect(left).toBeGreaterThan(0);
    for (const gfp of [GFP_NOWAIT | __GFP_NOMEMALLOC, QUIET | __GFP_MEMALLOC | __GFP_NOMEMALLOC]) {
      expect(w.take(0, gfp)).toBe(NO_PFN);
    }
    // Who may not wait gets a little more, who is urgent as well, and __GFP_MEMALLOC everything: also of ZONE_DMA.
    w.exhaust(GFP_ATOMIC | __GFP_NOWARN, [0]);
    const urgent = left - w.zones.totalFree();
    expect(urgent).toBeGreaterThan(0);
    const dma = w.vmstat.event(PGALLOC_DMA);
    w.exhaust(QUIET | __GFP_MEMALLOC, [0]);
    w.pageAlloc.drainAllPages(w.ctx);
    w.exhaust(QUIET | __GFP_MEMALLOC, [0]);
    expect(w.zones.totalFree()).toBe(0);
    expect(w.vmstat.event(PGALLOC_DMA)).toBeGreaterThan(dma);
    w.end();
  });

  it("who may wait and is not urgent stops where it did, __GFP_HIGH or not waiting is what goes deeper", () => {
    const left = (gfp: number): number => {
      const w = world();
      w.exhaust(gfp | __GFP_NOWARN);
      w.pageAlloc.drainAllPages(w.ctx);
      const free = w.zones.totalFree();
      w.end();
      return free;
    };
    const [kernel, nowait, urgent, atomic] = [GFP_KERNEL, GFP_NOWAIT, GFP_KERNEL | __GFP_HIGH, GFP_ATOMIC].map(left);
    expect(kernel).toBeGreaterThan(urgent as number);
    expect(urgent).toBeGreaterThan(atomic as number);
    expect(nowait).toBeGreaterThan(0);
  });

  it("the way through it takes its time", () => {
    const w = world();
    w.exhaust(QUIET);
    expect(w.cycles(() => expect(w.take(0, GFP_NOWAIT)).toBe(NO_PFN))).toBe(CYC_SLOWPATH);
    w.end();
  });
});

describe("frees", () => {
  it("numbers that are no frames are refused, also those that would be one with their high bits cut off", () => {
    const w = world();
    const pfn = w.take(0, GFP_KERNEL);
    const beyond = w.pages.nrFrames;
    const bad = [0, -1, pfn + 0.5, Number.NaN, beyond, beyond + 7, 2 ** 32 + pfn, pfn - 2 ** 32, 2 ** 53];
    bad.forEach((number, i) => {
      expect(w.pageAlloc.freePages(w.ctx, asPfn(number), 0)).toBe(-EINVAL);
      expect(w.pageAlloc.nrBadFrees()).toBe(i + 1);
    });
    expect(w.pages.refcount(pfn)).toBe(1);
    expect(w.pages.flags(pfn) & PG_ALLOCATED).not.toBe(0);
    w.end();
  });

  it("a page with two holders is not freed by one", () => {
    const w = world();
    const pfn = w.take(0, GFP_KERNEL);
    w.pages.setRefcount(pfn, 2);
    expect(w.pageAlloc.freePages(w.ctx, pfn, 0)).toBe(-EINVAL);
    expect(w.pages.refcount(pfn)).toBe(2);
    w.pages.setRefcount(pfn, 1);
    w.end();
  });

  it("a page of an isolated pageblock goes to the buddy, not to a list of its CPU; PGFREE counts it there too", () => {
    const w = world();
    const pfn = w.take(0, GFP_KERNEL);
    const block = asPfn(pfn & ~511);
    const frames = w.frames[ZONE_DMA32] as (typeof w.frames)[number];
    frames.isolate(block);
    expect(w.pageblocks.migratetype(pfn)).toBe(MIGRATE_ISOLATE);
    const { count } = w.pcp.info(0, ZONE_DMA32);
    const [free, freed] = [w.zones.field(ZONE_DMA32, Z_NR_FREE), w.vmstat.event(PGFREE)];
    w.held.pop();
    expect(w.pageAlloc.freePages(w.ctx, pfn, 0)).toBe(0);
    expect(w.pcp.info(0, ZONE_DMA32).count).toBe(count);
    expect(w.zones.field(ZONE_DMA32, Z_NR_FREE)).toBe(free);
    expect(w.vmstat.event(PGFREE)).toBe(freed + 1);
    expect(w.pages.flags(pfn) & PG_BUDDY || w.pages.flags(asPfn(pfn & ~1)) & PG_BUDDY).not.toBe(0);
    frames.unisolate(block);
    w.end();
  });

  it("a page of the contiguous area waits on the list for movable pages, and serves the next such request", () => {
    const w = world({ cmaBytes: 8 * 2 ** 20 });
    w.exhaust(QUIET);
    w.exhaust(GFP_HIGHUSER_MOVABLE | __GFP_NOWARN, [0]);
    const at = w.held.findIndex(([pfn, order]) => order === 0 && w.pageblocks.migratetype(pfn) === MIGRATE_CMA);
    expect(at).toBeGreaterThanOrEqual(0);
    const [[pfn]] = w.held.splice(at, 1) as [readonly [Pfn, number]];
    expect(w.pageAlloc.freePages(w.ctx, pfn, 0)).toBe(0);
    expect(w.pageAlloc.check()).toBeNull();
    expect(w.take(0, GFP_NOWAIT)).toBe(NO_PFN);
    w.pageAlloc.drainAllPages(w.ctx);
    expect(w.take(0, GFP_HIGHUSER_MOVABLE | __GFP_NOWARN)).toBe(pfn);
    w.end();
  });

  it("a page of the contiguous area is on no list that other pages come from", () => {
    const w = world({ ramBytes: 64 * 2 ** 20, cmaBytes: 32 * 2 ** 20 });
    const inArea = (pfn: Pfn): boolean => w.pageblocks.migratetype(pfn) === MIGRATE_CMA;
    const pages = Array.from({ length: 8 }, () => w.take(0, GFP_HIGHUSER_MOVABLE));
    expect(pages.some(inArea)).toBe(true);
    for (const [pfn] of w.held.splice(0)) expect(w.pageAlloc.freePages(w.ctx, pfn, 0)).toBe(0);
    for (const order of [0, 1, 2, 3]) {
      for (const gfp of [GFP_KERNEL, GFP_KERNEL | __GFP_RECLAIMABLE]) {
        for (let i = 0; i < 8; i++) expect(inArea(w.take(order, gfp))).toBe(false);
      }
    }
    w.end();
  });

  it("a block that is split is freed page by page, and no longer as a block", () => {
    const w = world();
    const block = w.take(3, GFP_KERNEL | __GFP_COMP);
    w.held.pop();
    w.pageAlloc.splitPage(block, 3);
    for (let i = 0; i < 8; i++) {
      const flags = w.pages.flags(asPfn(block + i));
      expect([flags & PG_ALLOCATED, flags & PG_HEAD, orderOfFlags(flags)]).toEqual([PG_ALLOCATED, 0, 0]);
      expect(w.pages.refcount(asPfn(block + i))).toBe(1);
    }
    expect(w.pages.flags(asPfn(block + 8)) & PG_ALLOCATED && w.pages.refcount(asPfn(block + 8))).toBe(0);
    expect(w.pageAlloc.freePages(w.ctx, block, 3)).toBe(-EINVAL);
    for (const i of [7, 0, 3, 1, 2, 6, 5, 4]) expect(w.pageAlloc.freePages(w.ctx, asPfn(block + i), 0)).toBe(0);
    w.end();
  });
});

describe("boot and audit", () => {
  it("what boot hands over is managed by the zone it lies in, and a range outside of all zones is a bug", () => {
    const w = world();
    const managed = [ZONE_DMA, ZONE_DMA32].map((zone) => w.zones.field(zone, Z_MANAGED));
    expect((managed[0] as number) + (managed[1] as number)).toBe(w.zones.totalFree());
    expect(managed[0]).toBeLessThanOrEqual(4096);
    expect(managed[1]).toBeLessThanOrEqual(4096);
    const end = w.pages.nrFrames;
    expect(() => w.pageAlloc.addManagedRange(asPfn(end + 1024), asPfn(end + 2048))).toThrow("outside of every zone");
  });

  it("check() names the zone that is wrong, and looks at zones and lists as well", () => {
    const w = world();
    expect(w.pageAlloc.check()).toBeNull();
    const free = w.frames[ZONE_DMA]?.firstFree(MIGRATE_MOVABLE) as Pfn;
    const flags = w.pages.flags(free);
    w.pages.setFlags(free, flags ^ PG_BUDDY);
    expect(w.pageAlloc.check()).toMatch(/^zone DMA: /);
    w.pages.setFlags(free, flags);
    const mark = w.zones.addr(ZONE_NORMAL) + Z_FAST_MARK;
    const atBoot = w.machine.port.ld32(mark);
    w.machine.port.st32(mark, atBoot + 1);
    expect(w.pageAlloc.check()).not.toBeNull();
    w.machine.port.st32(mark, atBoot);
    w.take(0, GFP_KERNEL);
    const state = w.pcp.lockAddr(0, ZONE_DMA32);
    w.machine.port.st32(state, w.machine.port.ld32(state) + 1);
    expect(w.pageAlloc.check()).toMatch(/PCP/);
    w.machine.port.st32(state, w.machine.port.ld32(state) - 1);
    expect(w.pageAlloc.check()).toBeNull();
    w.end();
  });
});
