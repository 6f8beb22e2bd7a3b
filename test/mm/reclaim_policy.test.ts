/**
 * Goal: POL-1 … POL-4 of each policy: who uses a page keeps it, who does not loses it, oldest first; and WSET-1, WSET-2.
 * Method: real lists over a machine with its page allocator; the test plays the A bits. One suite for every policy.
 */
import { describe, expect, it } from "vitest";
import { asPfn, asPhys, type Pfn } from "../../kernel/types.ts";
import { GFP_HIGHUSER_MOVABLE } from "../../mm/gfp.ts";
import { LRU_ACTIVE_ANON } from "../../mm/lru.ts";
import { ZONE_DMA32 } from "../../mm/mmzone.ts";
import { PG_ACTIVE, PG_ANON, PG_LRU, PG_SWAPBACKED, PG_UNEVICTABLE, PG_WORKINGSET } from "../../mm/page.ts";
import { createPageRefs } from "../../mm/page_ref.ts";
import {
  createMultiGen,
  createTwoLists,
  PAGE_KEEP,
  PAGE_RECLAIM,
  type PolicyDeps,
  type ReclaimPolicy,
} from "../../mm/reclaim_policy.ts";
import { NR_ISOLATED_ANON, WORKINGSET_ACTIVATE_ANON, WORKINGSET_REFAULT_ANON } from "../../mm/vmstat.ts";
import { createWorkingSet } from "../../mm/workingset.ts";
import { bootPageLevel } from "../support/page_level.ts";

/** A page of a process. */
const ANON = PG_ANON | PG_SWAPBACKED;

const STATE = asPhys(0x9_0000);

function world(create: (deps: PolicyDeps) => ReclaimPolicy) {
  const m = bootPageLevel({ isMultiGen: create === createMultiGen });
  const { pages, pageAlloc, lru, ctx, vmstat } = m;
  const refs = createPageRefs(pages, pageAlloc, lru);
  /** Pages that somebody uses between any two looks; −1: locked into memory. */
  const used = new Map<number, number>();
  const nrUsed = (pfn: number): number => used.get(pfn) ?? 0;
  const policy = create({ pages, lru, refs, vmstat, rmap: { referenced: (_ctx, pfn) => nrUsed(pfn) } });
  const out = new Int32Array(32);
  return {
    ...m,
    used,
    policy,
    newPage(flags = ANON): Pfn {
      const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_HIGHUSER_MOVABLE);
      pages.addFlags(pfn, flags);
      pages.setMapcount(pfn, 1);
      lru.add(ctx, pfn);
      return pfn;
    },
    /** One round as vmscan does it; the pages that may go, which are put back all the same. */
    round(max = 32): number[] {
      policy.age(ctx, ZONE_DMA32, false, max);
      const nr = policy.isolate(ctx, ZONE_DMA32, false, max, out);
      const taken = Array.from(out.subarray(0, nr));
      expect(vmstat.item(NR_ISOLATED_ANON)).toBe(nr);
      const going = taken.filter((pfn) => policy.judge(ctx, asPfn(pfn), nrUsed(pfn)) === PAGE_RECLAIM);
      for (const pfn of taken) {
        policy.putBack(ctx, asPfn(pfn));
        refs.putPage(ctx, asPfn(pfn));
      }
      expect(lru.check()).toBeNull();
      return going;
    },
  };
}

describe.each([
  ["two lists", createTwoLists],
  ["generations", createMultiGen],
] as const)("policy: %s", (name, create) => {
  it("POL-3 without use every page is a candidate, oldest first", () => {
    const w = world(create);
    expect(w.policy.name).toBe(name);
    const all = Array.from({ length: 10 }, () => w.newPage());
    expect(w.policy.nrCandidates(ZONE_DMA32, false)).toBe(10);
    expect(w.round(4)).toEqual(all.slice(0, 4));
    expect(w.round(6)).toEqual(all.slice(4));
  });

  it("POL-2 POL-4 a page that is used at each look stays for ever", () => {
    const w = world(create);
    const all = Array.from({ length: 20 }, () => w.newPage());
    const [hot] = all as [Pfn];
    w.used.set(hot, 1);
    const gone = new Set<number>();
    for (let i = 0; i < 30; i++) for (const pfn of w.round(8)) gone.add(pfn);
    expect(gone.has(hot)).toBe(false);
    expect(gone.size).toBe(19);
  });

  it("POL-3 a page that is used no more becomes a candidate after finitely many rounds", () => {
    const w = world(create);
    const all = Array.from({ length: 8 }, () => w.newPage(ANON | PG_ACTIVE));
    for (const pfn of all) w.used.set(pfn, 1);
    for (let i = 0; i < 10; i++) w.round();
    w.used.clear();
    const gone = new Set<number>();
    for (let i = 0; i < 10; i++) for (const pfn of w.round()) gone.add(pfn);
    expect([...gone].sort()).toEqual([...all].sort());
  });

  it("POL-1 locked pages and pages of files are no candidates for anonymous reclaim", () => {
    const w = world(create);
    const [locked, file, plain] = [w.newPage(), w.newPage(0), w.newPage()];
    w.used.set(locked, -1);
    expect(w.round()).toEqual([plain]);
    expect(w.pages.flags(locked) & (PG_UNEVICTABLE | PG_LRU)).toBe(PG_UNEVICTABLE | PG_LRU);
    expect(w.policy.nrCandidates(ZONE_DMA32, false)).toBe(1);
    expect(w.policy.nrCandidates(ZONE_DMA32, true)).toBe(1);
    expect(w.pages.flags(file) & PG_LRU).toBe(PG_LRU);
  });
});

describe("two lists", () => {
  it("a page that is used once more is kept, used again it is active, and demoted it is of the working set", () => {
    const w = world(createTwoLists);
    const pfn = w.newPage();
    expect([w.policy.judge(w.ctx, pfn, 1), w.pages.flags(pfn) & PG_ACTIVE]).toEqual([PAGE_KEEP, 0]);
    expect(w.lru.isolate(w.ctx, pfn)).toBe(true);
    expect(w.policy.judge(w.ctx, pfn, 1)).toBe(PAGE_KEEP);
    w.policy.putBack(w.ctx, pfn);
    expect(w.lru.total(LRU_ACTIVE_ANON)).toBe(1);
    w.policy.age(w.ctx, ZONE_DMA32, false, 8);
    expect(w.lru.total(LRU_ACTIVE_ANON)).toBe(0);
    expect(w.pages.flags(pfn) & PG_WORKINGSET).toBe(PG_WORKINGSET);
  });
});

describe("working set", () => {
  it("WSET-1 WSET-2 a page that is back before as many others went as are active goes to the active list", () => {
    const w = world(createTwoLists);
    const workingSet = createWorkingSet(w.machine.port, w.pages, w.lru, w.vmstat, STATE);
    for (let i = 0; i < 5; i++) w.newPage(ANON | PG_ACTIVE);
    const victim = w.newPage();
    const evictOthers = (nr: number): void => {
      for (let i = 0; i < nr; i++) workingSet.evict(victim);
    };
    const near = workingSet.evict(victim);
    evictOthers(4);
    expect(workingSet.refault(w.ctx, victim, near)).toBe(true);
    const far = workingSet.evict(victim);
    evictOthers(5);
    expect(workingSet.refault(w.ctx, victim, far)).toBe(false);
    expect(workingSet.refault(w.ctx, victim, -1)).toBe(false);
    const counted = [WORKINGSET_REFAULT_ANON, WORKINGSET_ACTIVATE_ANON].map((item) => w.vmstat.item(item));
    expect(counted).toEqual([2, 1]);
    // The clock goes round after 2^20 evictions.
    w.machine.port.st32(STATE, 2 ** 20 - 2);
    const old = workingSet.evict(victim);
    evictOthers(3);
    expect(workingSet.refault(w.ctx, victim, old)).toBe(true);
  });
});
