/**
 * The seam between reclaim and the question which page goes first.
 *
 * vmscan.ts asks a policy for candidates, oldest first, tells it how often each was used since the last look, and does
 * the rest: slots, entries, I/O. The policy owns the order of the pages and the flags PG_ACTIVE and PG_REFERENCED.
 *
 *   POL-1  isolate() gives evictable pages of that zone and kind only, each isolated once (LRU-3)
 *   POL-2  a page that is used at each look is not reclaimed
 *   POL-3  if no page is used any more, every page of the kind is a candidate after finitely many rounds
 *   POL-4  judge() says PAGE_RECLAIM for a page only if nobody has used it since it last came up
 *
 * The two-list policy, as Linux's without multi-generational LRU:
 *
 *      active    ◀── used again when it comes to the tail of inactive ──┐
 *         └── tail, when inactive is the shorter one ──▶ inactive ──────┴──▶ not used: reclaimed
 *
 * Each page that a fault has brought has its A bit set from the beginning. So the first time that it comes up used it
 * goes round once more, remembered by PG_REFERENCED; if it is used again by then, it is active.
 *
 * The multi-generation policy (`reclaim=mglru`): the order is in lru_gen.ts; what is found used in the oldest
 * generation goes to the youngest. Both have the same interface and pass the same tests; what they differ in is how
 * long a page that is used now and then stays: two rounds, or up to four generations.
 */

import { asPfn, type Context, type Pfn } from "../kernel/types.ts";
import { LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, type Lru } from "./lru.ts";
import { type Pages, PG_ACTIVE, PG_REFERENCED, PG_UNEVICTABLE, PG_WORKINGSET } from "./page.ts";
import type { PageRefs } from "./page_ref.ts";
import type { Rmap } from "./rmap.ts";
import type { TlbBatch } from "./tlb.ts";
import { PGACTIVATE, PGDEACTIVATE, PGREFILL, type VmStat } from "./vmstat.ts";

/** Name of the multi-generation policy. */
export const MULTI_GEN = "generations";
export const PAGE_KEEP = 0;
export const PAGE_RECLAIM = 1;

export interface ReclaimPolicy {
  readonly name: string;
  /** Evictable pages of a kind in a zone. */
  nrCandidates(zone: number, isFile: boolean): number;
  /** Before candidates are taken: moves at most `nr` pages nearer to the end. Flushes may be owed in `flushes`. */
  age(ctx: Context, zone: number, isFile: boolean, nr: number, flushes?: TlbBatch): void;
  /** Isolates at most `max` candidates into `out`, the one to go first first; their number. */
  isolate(ctx: Context, zone: number, isFile: boolean, max: number, out: Int32Array): number;
  /** An isolated candidate was used through `nrUsed` entries (−1: it is locked into memory): what is to be done. */
  judge(ctx: Context, pfn: Pfn, nrUsed: number): typeof PAGE_KEEP | typeof PAGE_RECLAIM;
  /** An isolated page goes back where its flags say. */
  putBack(ctx: Context, pfn: Pfn): void;
}

export interface PolicyDeps {
  readonly pages: Pages;
  readonly lru: Lru;
  readonly rmap: Pick<Rmap, "referenced">;
  readonly refs: PageRefs;
  readonly vmstat: VmStat;
}

const inactiveOf = (isFile: boolean): number => (isFile ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON);
const activeOf = (isFile: boolean): number => (isFile ? LRU_ACTIVE_FILE : LRU_ACTIVE_ANON);

/** Pages looked at on the active list at once. */
const AGE_BATCH = 32;

export function createTwoLists({ pages, lru, rmap, refs, vmstat }: PolicyDeps): ReclaimPolicy {
  const batch = new Int32Array(AGE_BATCH);

  const demote = (ctx: Context, pfn: Pfn, flushes: TlbBatch | undefined): void => {
    // Whether it was used does not matter: on the inactive list it has time to be used again. Its A bits start anew.
    const isLocked = pages.mapcount(pfn) > 0 && rmap.referenced(ctx, pfn, flushes) < 0;
    pages.clearFlags(pfn, PG_ACTIVE);
    pages.addFlags(pfn, isLocked ? PG_UNEVICTABLE : PG_WORKINGSET);
    lru.putBack(ctx, pfn);
    refs.putPage(ctx, pfn);
  };

  return {
    name: "two lists",
    nrCandidates: (zone, isFile) => lru.size(zone, inactiveOf(isFile)) + lru.size(zone, activeOf(isFile)),
    age(ctx, zone, isFile, nr, flushes) {
      if (lru.size(zone, inactiveOf(isFile)) >= lru.size(zone, activeOf(isFile))) return;
      const nrTaken = lru.isolateTail(ctx, zone, activeOf(isFile), Math.min(nr, AGE_BATCH), batch);
      for (let i = 0; i < nrTaken; i++) demote(ctx, asPfn(batch[i] as number), flushes);
      vmstat.countEvents(ctx, PGREFILL, nrTaken);
      vmstat.countEvents(ctx, PGDEACTIVATE, nrTaken);
    },
    isolate: (ctx, zone, isFile, max, out) => lru.isolateTail(ctx, zone, inactiveOf(isFile), max, out),
    judge(ctx, pfn, nrUsed) {
      const wasUsed = (pages.flags(pfn) & PG_REFERENCED) !== 0;
      if (nrUsed < 0) pages.addFlags(pfn, PG_UNEVICTABLE);
      if (nrUsed < 0) return PAGE_KEEP;
      pages.clearFlags(pfn, PG_REFERENCED);
      if (nrUsed === 0) return PAGE_RECLAIM;
      if (wasUsed || nrUsed > 1) {
        pages.addFlags(pfn, PG_ACTIVE);
        vmstat.countEvents(ctx, PGACTIVATE, 1);
      } else pages.addFlags(pfn, PG_REFERENCED);
      return PAGE_KEEP;
    },
    putBack: (ctx, pfn) => lru.putBack(ctx, pfn),
  };
}

export function createMultiGen({ pages, lru, vmstat }: PolicyDeps): ReclaimPolicy {
  return {
    name: MULTI_GEN,
    nrCandidates: (zone, isFile) => lru.size(zone, inactiveOf(isFile)) + lru.size(zone, activeOf(isFile)),
    age: (ctx, zone, isFile) => lru.advance(ctx, zone, isFile),
    isolate: (ctx, zone, isFile, max, out) => lru.isolateTail(ctx, zone, lru.order.oldest(zone, isFile), max, out),
    judge(ctx, pfn, nrUsed) {
      if (nrUsed < 0) pages.addFlags(pfn, PG_UNEVICTABLE);
      if (nrUsed < 0) return PAGE_KEEP;
      pages.clearFlags(pfn, PG_REFERENCED);
      if (nrUsed === 0) return PAGE_RECLAIM;
      pages.addFlags(pfn, PG_ACTIVE | PG_WORKINGSET);
      vmstat.countEvents(ctx, PGACTIVATE, 1);
      return PAGE_KEEP;
    },
    putBack: (ctx, pfn) => lru.putBack(ctx, pfn),
  };
}
