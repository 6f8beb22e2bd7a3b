/**
 * The swap area: swapon makes a disk one, swapoff brings everything back and lets the disk go.
 *
 *   swapon   open ─▶ lanes for pages (drivers) ─▶ header ─▶ slot map ─▶ kswapd
 *   swapoff  no new slots ─▶ each swap entry of each address space is brought in ─▶ cached pages lose their slots
 *
 * There is one area at a time. While it is on, its file is open: the driver's module stays. A disk that is pulled out
 * makes every read of it an error: who needs such a page gets SIGBUS, all others live.
 *
 *   AREA-1  swapon that fails leaves nothing behind
 *   AREA-2  swapoff succeeds only when no slot is in use; if it fails, the area is on as before
 *   AREA-3  what a header says is checked against the device before it is believed
 *
 * Context: process, may sleep. Linux: mm/swapfile.c (sys_swapon, sys_swapoff, try_to_unuse).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { OpenFile, PageIo } from "../kernel/file.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { KERN_ERR, KERN_INFO, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import type { Scheduler } from "../kernel/sched.ts";
import type { Task } from "../kernel/task.ts";
import { asPfn, NO_PFN, pfnToPhys, type Sleeping } from "../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import { parseSwapHeader, type SwapHeader } from "../kernel/uapi/swap.ts";
import { GFP_KERNEL } from "./gfp.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { Swap } from "./swap.ts";
import type { SwapSlots } from "./swap_slots.ts";
import { NR_WRITEBACK, type VmStat } from "./vmstat.ts";

/** How long swapoff waits before it looks again whether pages under way have arrived. */
const WRITEBACK_POLL_CYCLES = 1_000_000;

export interface SwapArea {
  /** Uses the open file as swap area and takes over its reference: 0 or −errno (then the reference is the caller's). */
  swapon(task: Task, path: string, file: OpenFile): Sleeping<number>;
  /** 0; −EINVAL (not this file), −ENOMEM (no room for what is out there), −EIO. */
  swapoff(task: Task, path: string): Sleeping<number>;
  /** Text of /proc/swaps. */
  text(): string;
  /** Pages of the area, and how many of them are free. */
  totals(): { readonly total: number; readonly free: number };
}

export interface SwapAreaDeps {
  readonly port: MemoryPort;
  readonly printk: Printk;
  readonly scheduler: Pick<Scheduler, "sleepUntil">;
  readonly now: () => number;
  readonly pageAlloc: PageAllocator;
  readonly slots: SwapSlots;
  readonly swap: Swap;
  readonly vmstat: VmStat;
  /** Brings in every page of every process that is in swap: 0 or −errno. */
  readonly bringAllIn: (task: Task) => number;
  readonly startKswapd: () => void;
}

export function createSwapArea(deps: SwapAreaDeps): SwapArea {
  const { port, printk, scheduler, now, pageAlloc, slots, swap, vmstat } = deps;
  let area: { readonly path: string; readonly file: OpenFile } | undefined;
  let isChanging = false;

  // ── On ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  function* readHeader(task: Task, io: PageIo): Sleeping<SwapHeader | number> {
    let pfn = pageAlloc.allocPages(task.ctx, 0, GFP_KERNEL);
    if (typeof pfn === "object") pfn = yield* pfn;
    if (pfn === NO_PFN) return -ENOMEM;
    const error = io.read(task.ctx, 0, Int32Array.of(pfn), 1);
    const header = error === 0 ? parseSwapHeader(port.readBytes(pfnToPhys(pfn), PAGE_SIZE), io.nrPages) : "";
    pageAlloc.freePages(task.ctx, pfn, 0);
    if (error !== 0) return error;
    if (typeof header !== "string") return header;
    printk(KERN_ERR, header);
    return -EINVAL;
  }

  function* bringUp(task: Task, path: string, file: OpenFile): Sleeping<number> {
    const io = file.openPages === undefined ? -EINVAL : yield* file.openPages(task);
    if (typeof io === "number") return io;
    const header = yield* readHeader(task, io);
    if (typeof header === "number") return header;
    const nrSlots = header.lastPage + 1;
    const error = slots.open(task.ctx, nrSlots, header.badPages);
    if (error !== 0) return error;
    if (slots.nrSlots() < nrSlots)
      printk(KERN_WARNING, `Truncating oversized swap area, only using ${4 * slots.nrSlots()}k`);
    swap.setDevice(io);
    const kib = slots.nrUsable() * 4;
    printk(KERN_INFO, `Adding ${kib}k swap on ${path}.  Priority:-2 extents:1 across:${kib}k`);
    return 0;
  }

  // ── Off ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Pages that are in the cache and that nobody names keep slots for a faster second eviction: no more. */
  const releaseCached = (task: Task): void => {
    for (let slot = 0; slot < slots.nrSlots(); slot++) {
      const pfn = slots.cached(slot);
      if (pfn !== NO_PFN) swap.layer.release(task.ctx, asPfn(pfn));
    }
  };

  function* empty(task: Task): Sleeping<number> {
    while (slots.nrInUse() > 0) {
      const error = deps.bringAllIn(task);
      if (error !== 0) return error;
      releaseCached(task);
      // What is left is being written; it comes back to its processes, or is freed, at the end of that.
      if (slots.nrInUse() > 0) yield* scheduler.sleepUntil(task, now() + WRITEBACK_POLL_CYCLES);
    }
    while (vmstat.item(NR_WRITEBACK) > 0) yield* scheduler.sleepUntil(task, now() + WRITEBACK_POLL_CYCLES);
    return 0;
  }

  const close = (): void => {
    const { file } = area as { file: OpenFile };
    swap.setDevice(null);
    area = undefined;
    if (--file.refs === 0) file.release();
  };

  return {
    *swapon(task, path, file) {
      if (area !== undefined || isChanging) return -EBUSY;
      isChanging = true;
      try {
        const error = yield* bringUp(task, path, file);
        if (error !== 0) return error;
        area = { path, file };
        deps.startKswapd();
        return 0;
      } finally {
        isChanging = false;
      }
    },
    *swapoff(task, path) {
      if (area === undefined || area.path !== path) return -EINVAL;
      if (isChanging) return -EBUSY;
      isChanging = true;
      swap.setWritable(false);
      let error = -EBUSY;
      // A fatal signal may end it half-way: the area is on as before then.
      try {
        error = yield* empty(task);
      } finally {
        isChanging = false;
        if (error !== 0) swap.setWritable(true);
      }
      if (error !== 0) return error;
      slots.close(task.ctx);
      close();
      return 0;
    },
    text() {
      const head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
      if (area === undefined) return head;
      const kib = (pages: number): string => `${pages * 4}\t${pages * 4 < 10_000_000 ? "\t" : ""}`;
      const [size, used] = [kib(slots.nrUsable()), kib(slots.nrInUse())];
      return `${head}${area.path.padEnd(Math.max(40, area.path.length + 1))}partition\t${size}${used}-2\n`;
    },
    totals() {
      const total = area === undefined ? 0 : slots.nrUsable();
      return { total, free: total - slots.nrInUse() };
    },
  };
}
