/**
 * The page allocator's interface (implementation follows).
 */

import type { Context, Pfn, MaySleep, TaskContext, PhysAddr } from "../kernel/types.ts";
import type { AtomicGfp, BlockingGfp, Gfp } from "./gfp.ts";

export interface PageAllocator {
  /**
   * Allocates 2^order contiguous, naturally aligned frames. NO_PFN if there are none.
   * With a blocking mask the result may be the rest of the work (`Sleeping`).
   */
  allocPages(ctx: TaskContext, order: number, gfp: BlockingGfp): MaySleep<Pfn>;
  allocPages(ctx: Context, order: number, gfp: AtomicGfp): Pfn;
  /** For masks known at run time only; checks the context at run time. */
  allocPagesAny(ctx: Context, order: number, gfp: Gfp): MaySleep<Pfn>;
  /** One attempt that never sleeps, whatever the mask says: fast path, then reserves the mask entitles to. No splat. */
  tryAllocPages(ctx: Context, order: number, gfp: Gfp): Pfn;
  /** Frees a block: 0, or −EINVAL after a report (double, foreign, interior, wrong order). */
  freePages(ctx: Context, pfn: Pfn, order: number): number;
  /** As allocPagesAny, the address of the first byte; NULL on failure. */
  getFreePages(ctx: Context, order: number, gfp: Gfp): MaySleep<PhysAddr>;
}
