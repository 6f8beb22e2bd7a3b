/**
 * What the page allocator says when something is wrong: no memory (C4), or a free that cannot be right.
 *
 * Both come from slow paths, so they may take their time and find out the details. A failed allocation prints at most
 * once in ten seconds of virtual time for the whole machine, and the next time how many were held back (RTL-1); a bad
 * free always prints and taints the kernel.
 *
 * Context: any. Locks: none. Source: mm/page_alloc.c (warn_alloc, bad_page).
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { KERN_ERR, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import { createRatelimit, RATELIMIT_BYTES } from "../kernel/ratelimit.ts";
import { TASK_PID, taskComm } from "../kernel/task_struct.ts";
import type { Context, Pfn, PhysAddr } from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import { __GFP_NOWARN, type Gfp, gfpNames } from "./gfp.ts";
import type { Zones } from "./mmzone.ts";
import { orderOfFlags, type Pages, PG_ALLOCATED, PG_OWNER_BITS, PG_STATE } from "./page.ts";
import type { PerCpuPages } from "./pcp.ts";
import { formatMemInfo } from "./show_mem.ts";
import { PAGE_ALLOC_FAILED, type VmStat } from "./vmstat.ts";

/** How often a failed allocation may print (C4). */
const SPLAT_LIMIT = { name: "warn_alloc", intervalCycles: 10 * CYCLES_PER_SECOND, burst: 1 };
/** Static memory: the rate limit, number of bad frees. */
export const PAGE_REPORT_BYTES = RATELIMIT_BYTES + 8;

export interface PageReports {
  /** `comm: page allocation failure: …` with the state of memory, unless the mask forbids it. */
  allocFailed(ctx: Context, order: number, gfp: Gfp): void;
  /** Says why a frame is not what freePages was told it is: after the O(1) test has failed. Returns −EINVAL. */
  badFree(ctx: Context, pfn: Pfn, order: number): number;
  /** Number of reports about bad frees. */
  nrBadFrees(): number;
}

export interface PageReportDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly vmstat: VmStat;
  readonly pages: Pages;
  readonly zones: Zones;
  readonly pcp: PerCpuPages;
  /** PAGE_REPORT_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
}

export function createPageReports(deps: PageReportDeps): PageReports {
  const { machine, contexts, printk, vmstat, pages, zones, pcp, state } = deps;
  const { port, harts } = machine;
  const NR_BAD_FREES = state + RATELIMIT_BYTES;
  const maySplat = createRatelimit(port, printk, state, SPLAT_LIMIT);

  /** Line by line: interrupts that are on are not to wait for all of them. */
  const say = (ctx: Context, text: string): void => {
    for (const line of text.split("\n")) {
      printk(KERN_WARNING, line);
      contexts.interruptPoint(ctx);
    }
  };

  const reportBadFree = (ctx: Context, pfn: number, order: number, why: string): number => {
    port.fetchAdd(NR_BAD_FREES, 1);
    contexts.taint("B");
    const task = contexts.currentTask(ctx);
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    printk(
      KERN_ERR,
      [
        `BUG: Bad page state in process ${taskComm(port, task)}  pfn:${pfn.toString(16).padStart(5, "0")}`,
        `page dumped because: ${why} (free of order ${order}, pid ${pid})`,
        contexts.stackDump(ctx),
      ].join("\n"),
    );
    return -EINVAL;
  };

  return {
    allocFailed(ctx, order, gfp) {
      vmstat.countEvents(ctx, PAGE_ALLOC_FAILED, 1);
      if ((gfp & __GFP_NOWARN) !== 0 || !maySplat(harts.clock[ctx.cpu] as number)) return;
      const task = contexts.currentTask(ctx);
      const mode = `0x${gfp.toString(16)}(${gfpNames(gfp)})`;
      say(
        ctx,
        [
          `${taskComm(port, task)}: page allocation failure: order:${order}, mode:${mode}, ` +
            "nodemask=(null),cpuset=/,mems_allowed=0",
          contexts.stackDump(ctx),
          formatMemInfo({ port, zones, vmstat, pcp, nrCpus: harts.nrCpus }),
        ].join("\n"),
      );
    },
    badFree(ctx, pfn, order) {
      if (!Number.isInteger(pfn) || pfn <= 0 || pfn >= pages.nrFrames) {
        return reportBadFree(ctx, pfn, order, "frame outside of memory");
      }
      const flags = pages.flags(pfn);
      if ((flags & PG_ALLOCATED) !== 0) {
        const allocated = orderOfFlags(flags);
        const why =
          allocated === order
            ? `owner flags or references left: 0x${(flags & PG_OWNER_BITS).toString(16)}`
            : `wrong order, the block was allocated with order ${allocated}`;
        return reportBadFree(ctx, pfn, order, why);
      }
      if ((flags & PG_STATE) === 0) return reportBadFree(ctx, pfn, order, "inside a block, not at its start, or freed");
      return reportBadFree(ctx, pfn, order, "already free, or never allocated");
    },
    nrBadFrees: () => port.ld32(NR_BAD_FREES),
  };
}
