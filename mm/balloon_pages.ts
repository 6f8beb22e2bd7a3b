/**
 * The pages of a balloon: taken from this machine so that its host may use the memory elsewhere.
 *
 *      balloon driver ──enqueue──▶ list through next, prev ──dequeue──▶ freed
 *                                        │
 *      compaction, contiguous ranges ────┴─▶ a balloon page moves: the host is told, nothing is copied
 *
 * A balloon page is allocated, and nobody reads or writes it; its content is the host's business. So it may be moved by
 * giving the host another frame instead, which keeps a balloon from being in the way of large blocks.
 *
 * This file also says what else can move: `mover` is what migration (migrate.ts) can do, and balloon pages.
 *
 *   BAL-1  the list is as long as its count; each page on it is allocated, of order 0, with one holder
 *   BAL-2  a frame is a balloon page exactly if its `private` says so, and it is on the list then
 *   BAL-3  a move that is refused changes nothing; one that is done leaves as many balloon pages as there were
 *   BAL-4  under pressure the balloon gives pages back before a request that may sleep fails, but not to itself
 *
 * Context: any for the list, with interrupts as they are: the callers are process context. State: 16 bytes of static
 * memory and the rows of struct page. Source: mm/balloon_compaction.c, drivers/virtio/virtio_balloon.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { asPfn, type Context, NO_PFN, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { EBUSY, ENOMEM } from "../kernel/uapi/errno.ts";
import type { PageMover } from "./contig_range.ts";
import { __GFP_NOWARN, GFP_HIGHUSER_MOVABLE } from "./gfp.ts";
import { ORDER_MASK, type Pages, PG_ALLOCATED, PG_OWNER_BITS, PG_STATE } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { BALLOON_DEFLATE, BALLOON_INFLATE, BALLOON_MIGRATE, type VmStat } from "./vmstat.ts";

/** BAL-2. Slabs and vmalloc have the bits above; a swap slot is in `private` only beside PG_SWAPCACHE. */
export const PRIVATE_IS_BALLOON = 0x2000_0000;

const B_FIRST = 0;
const B_COUNT = 4;
export const BALLOON_PAGES_BYTES = 16;

/** Whoever inflates: there is one at a time. */
export interface BalloonOwner {
  /** Gives `to` to the host for `from`; false if that cannot be. */
  move(ctx: Context, from: Pfn, to: Pfn): boolean;
  /** Frees some pages, for a request that would fail; their number. */
  giveBack(ctx: Context): number;
}

export interface BalloonPages {
  /** Puts an allocated page of order 0 on the list. */
  enqueue(ctx: Context, pfn: Pfn): void;
  /** Takes one off: the caller frees it. NO_PFN if there is none. */
  dequeue(ctx: Context): Pfn;
  nrPages(): number;
  /** Registers the driver, or null when it is gone; false if there is one. */
  setOwner(owner: BalloonOwner | null): boolean;
  /** BAL-4: for PageAllocator.onPressure. */
  giveBack(ctx: Context): number;
  /** What can move: balloon pages, and what migration moves. */
  readonly mover: PageMover;
  /** BAL-1, BAL-2: a sentence, or null. */
  check(): string | null;
}

export interface BalloonPagesDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly vmstat: VmStat;
  /** Moves all other pages. */
  readonly migration: PageMover;
  /** BALLOON_PAGES_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export function createBalloonPages(deps: BalloonPagesDeps): BalloonPages {
  const { port, pages, pageAlloc, vmstat, migration, statics } = deps;
  const { rowAt, nextAt, setNextAt, prevAt, setPrevAt } = pages;
  let owner: BalloonOwner | null = null;

  const nrPages = (): number => port.ld32(statics + B_COUNT);
  const first = (): number => port.ld32(statics + B_FIRST);

  const isBalloon = (pfn: Pfn): boolean =>
    pages.private(pfn) === PRIVATE_IS_BALLOON &&
    (pages.flags(pfn) & (PG_STATE | ORDER_MASK | PG_OWNER_BITS)) === PG_ALLOCATED;

  const link = (pfn: Pfn): void => {
    const next = first();
    setNextAt(rowAt(pfn), next);
    setPrevAt(rowAt(pfn), 0);
    if (next !== 0) setPrevAt(rowAt(next), pfn);
    port.st32(statics + B_FIRST, pfn);
    port.st32(statics + B_COUNT, nrPages() + 1);
    pages.setPrivate(pfn, PRIVATE_IS_BALLOON);
  };
  const unlink = (pfn: Pfn): void => {
    bugOn(!isBalloon(pfn), "BAL-2: not a balloon page", pfn);
    const [next, prev] = [nextAt(rowAt(pfn)), prevAt(rowAt(pfn))];
    if (next !== 0) setPrevAt(rowAt(next), prev);
    if (prev !== 0) setNextAt(rowAt(prev), next);
    else port.st32(statics + B_FIRST, next);
    port.st32(statics + B_COUNT, nrPages() - 1);
    pages.setPrivate(pfn, 0);
  };

  /** BAL-3 */
  const moveBalloonPage = (ctx: Context, from: Pfn, target: Pfn): number => {
    const gfp = GFP_HIGHUSER_MOVABLE | __GFP_NOWARN;
    const to = owner === null || target !== NO_PFN ? target : pageAlloc.tryAllocPages(ctx, 0, gfp);
    if (to === NO_PFN) return owner === null ? -EBUSY : -ENOMEM;
    if (owner?.move(ctx, from, to) !== true) {
      if (target === NO_PFN) pageAlloc.freePages(ctx, to, 0);
      return -EBUSY;
    }
    unlink(from);
    link(to);
    pageAlloc.freePages(ctx, from, 0);
    vmstat.countEvents(ctx, BALLOON_MIGRATE, 1);
    return 0;
  };

  return {
    enqueue(ctx, pfn) {
      bugOn(isBalloon(pfn), "BAL-1: a balloon page is enqueued twice", pfn);
      link(pfn);
      vmstat.countEvents(ctx, BALLOON_INFLATE, 1);
    },
    dequeue(ctx) {
      const pfn = asPfn(first());
      if (pfn === NO_PFN) return NO_PFN;
      unlink(pfn);
      vmstat.countEvents(ctx, BALLOON_DEFLATE, 1);
      return pfn;
    },
    nrPages,
    setOwner(next) {
      if (next !== null && owner !== null) return false;
      owner = next;
      return true;
    },
    giveBack: (ctx) => owner?.giveBack(ctx) ?? 0,
    mover: {
      isMovable: (pfn) => (isBalloon(pfn) ? owner !== null : migration.isMovable(pfn)),
      migratePage: (ctx, pfn, target = NO_PFN) =>
        isBalloon(pfn) ? moveBalloonPage(ctx, pfn, target) : migration.migratePage(ctx, pfn, target),
    },
    check() {
      let [nr, before] = [0, 0];
      for (let pfn = first(); pfn !== 0; pfn = nextAt(rowAt(pfn))) {
        const isSound = isBalloon(asPfn(pfn)) && pages.refcount(asPfn(pfn)) === 1 && prevAt(rowAt(pfn)) === before;
        if (!isSound || ++nr > nrPages()) return `BAL-1: frame ${pfn} does not belong to the balloon`;
        before = pfn;
      }
      return nr === nrPages() ? null : `BAL-1: ${nr} pages are on the balloon's list of ${nrPages()}`;
    },
  };
}
