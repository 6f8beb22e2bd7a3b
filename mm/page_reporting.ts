/**
 * Free page reporting: a virtual machine tells its host which memory it does not use.
 *
 *      a block of a pageblock or more becomes free ──▶ whoever reports is told (two seconds later it looks)
 *      report(): every such block that is free and not marked ──▶ up to 32 at a time to the host ──▶ marked
 *
 * A balloon takes memory away because the host asks; this gives memory that nobody has asked for, and costs nothing to
 * take back: a reported block stays where it is, on its free list, and can be handed out at any moment. The host has
 * thrown its content away, and backs each page again when it is touched. So the content of free memory is lost: with
 * `init_on_free=1`, which promises zeros there, nothing is reported.
 *
 * The mark is a flag in the first frame of a free block, PG_REPORTED. Whoever takes a block off its list, cuts it or
 * merges it writes the flags anew, so the mark is gone with the block that was reported, and no path of the page
 * allocator need know of it.
 *
 *   RPT-1  only frames of free blocks of at least pageblock order are reported, and they are free when the host acts
 *   RPT-2  a block that has been reported and is still whole is not reported again
 *   RPT-3  after a block of that size becomes free, somebody looks: nothing stays unreported for ever. (What is left
 *          of a reported block that was cut is unmarked, but no news.)
 *   RPT-4  a report that failed marks nothing
 *
 * Context: process; the zone's lock with interrupts off around each batch. O(pageblocks of the machine) a pass. Linux
 * walks the free lists, takes blocks off them while the host works, and therefore stops at a watermark; our host acts
 * before the store returns. Source: mm/page_reporting.c.
 */

import type { Spinlocks } from "../kernel/spinlock.ts";
import { asPfn, asPhys, type Context } from "../kernel/types.ts";
import { PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, Z_LOCK, type Zones } from "./mmzone.ts";
import { orderOfFlags, type Pages, PG_BUDDY, PG_REPORTED, zoneOfFlags } from "./page.ts";

/** Blocks in one report. */
export const PAGE_REPORTING_CAPACITY = 32;

/** Tells the host of the first `nr` blocks; false if it did not take them. Under the zone's lock. */
export type ReportBlocks = (ctx: Context, frames: Int32Array, orders: Uint8Array, nr: number) => boolean;

export interface PageReporting {
  /** Registers who is told, under the zone's lock, that there is something to report; null: nobody. */
  onFree(hook: (() => void) | null): void;
  /** One batch from frame `from` on: where to go on, −1 at the end or on failure, and the frames reported. */
  reportSome(ctx: Context, from: number, report: ReportBlocks): { readonly next: number; readonly nrFrames: number };
}

export interface PageReportingDeps {
  readonly spinlocks: Spinlocks;
  readonly pages: Pages;
  readonly zones: Zones;
  /** The buddies' side: registers who hears of large blocks that became free. */
  readonly onLargeFree: (hook: () => void) => void;
}

export function createPageReporting({ spinlocks, pages, zones, onLargeFree }: PageReportingDeps): PageReporting {
  const frames = new Int32Array(PAGE_REPORTING_CAPACITY);
  const orders = new Uint8Array(PAGE_REPORTING_CAPACITY);

  /** Free blocks of at least a pageblock start at a pageblock. */
  const isReportable = (flags: number): boolean =>
    (flags & (PG_BUDDY | PG_REPORTED)) === PG_BUDDY && orderOfFlags(flags) >= PAGEBLOCK_ORDER;

  /** Collects blocks of one zone from `pfn` on; the number, and the first frame that was not looked at. */
  const collect = (pfn: number, zone: number): readonly [nr: number, next: number] => {
    let nr = 0;
    while (pfn < pages.nrFrames && nr < PAGE_REPORTING_CAPACITY) {
      const flags = pages.flags(asPfn(pfn));
      if (zoneOfFlags(flags) !== zone) break;
      if (isReportable(flags)) {
        frames[nr] = pfn;
        orders[nr++] = orderOfFlags(flags);
      }
      pfn += PAGEBLOCK_NR_PAGES;
    }
    return [nr, pfn];
  };

  return {
    onFree: (hook) => onLargeFree(hook ?? (() => {})),
    reportSome(ctx, from, report) {
      const zone = zoneOfFlags(pages.flags(asPfn(from)));
      const lock = asPhys(zones.addr(zone) + Z_LOCK);
      const irq = spinlocks.spinLockIrqsave(ctx, lock);
      const [nr, next] = collect(from, zone);
      const isTaken = nr === 0 || report(ctx, frames, orders, nr);
      let nrFrames = 0;
      for (let i = 0; isTaken && i < nr; i++) {
        pages.addFlags(asPfn(frames[i] as number), PG_REPORTED);
        nrFrames += 1 << (orders[i] as number);
      }
      spinlocks.spinUnlockIrqrestore(ctx, lock, irq);
      return { next: isTaken && next < pages.nrFrames ? next : -1, nrFrames };
    },
  };
}
