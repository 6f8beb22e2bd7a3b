/**
 * Swap areas: swapon makes a disk one, swapoff brings everything back and lets the disk go.
 *
 *   swapon   open ─▶ lanes for pages (drivers) ─▶ header ─▶ slot map ─▶ kswapd
 *   swapoff  no new slots ─▶ each entry that names one of its slots is brought in ─▶ cached pages lose their slots
 *
 * There may be 16 areas; which one a page goes to says their priority (swap_space.ts). What swapoff brings in may go
 * out again to another area. While an area is on, its file is open: the driver's module stays. A disk that is pulled
 * out makes every read of it an error: who needs such a page gets SIGBUS, all others live.
 *
 *   AREA-1  swapon that fails leaves nothing behind
 *   AREA-2  swapoff succeeds only when no slot is in use; if it fails, the area is on as before
 *   AREA-3  what a header says is checked against the device before it is believed
 *   AREA-7  swapoff comes to an end: what is back in a process does not go out again to the area that is being emptied
 *           (takesBack in swap.ts), and MAX_IDLE_ROUNDS rounds that bring nothing back are enough. AREA-4 to 6:
 *           swap_space.ts
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
import { EBUSY, EINVAL, ENOMEM, EPERM } from "../kernel/uapi/errno.ts";
import { parseSwapHeader, type SwapHeader } from "../kernel/uapi/swap.ts";
import { GFP_KERNEL } from "./gfp.ts";
import type { PageAllocator } from "./page_alloc.ts";
import type { Swap } from "./swap.ts";
import { AREA_SLOTS, areaOfSlot, MAX_SWAP_AREAS, type SwapSpace } from "./swap_space.ts";
import { NR_WRITEBACK, type VmStat } from "./vmstat.ts";

/** How long swapoff waits before it looks again whether pages under way have arrived. */
const WRITEBACK_POLL_CYCLES = 1_000_000;
/** Rounds of swapoff for want of memory that bring nothing back. */
const MAX_IDLE_ROUNDS = 16;

export interface SwapArea {
  /**
   * Uses the open file as swap area and takes over its reference: 0 or −errno (then the reference is the caller's).
   * `priority`: 0 to 32767; without one it is lower than that of all before.
   */
  swapon(task: Task, path: string, file: OpenFile, priority?: number): Sleeping<number>;
  /** 0; −EINVAL (not this file), −ENOMEM (no room for what is out there), −EIO. */
  swapoff(task: Task, path: string): Sleeping<number>;
  /** Text of /proc/swaps. */
  text(): string;
  /** Pages of all areas, and how many of them are free. */
  totals(): { readonly total: number; readonly free: number };
}

export interface SwapAreaDeps {
  readonly port: MemoryPort;
  readonly printk: Printk;
  readonly scheduler: Pick<Scheduler, "sleepUntil">;
  readonly now: () => number;
  readonly pageAlloc: PageAllocator;
  readonly slots: SwapSpace;
  readonly swap: Swap;
  readonly vmstat: VmStat;
  /** Brings in every page of every process that is in swap at a wanted slot: 0 or −errno. */
  readonly bringAllIn: (task: Task, isWanted: (slot: number) => boolean) => number;
  /** Frees memory for it, if others can make room; nobody dies for that. */
  readonly makeRoom: (task: Task) => boolean;
  readonly startKswapd: () => void;
}

export function createSwapArea(deps: SwapAreaDeps): SwapArea {
  const { port, printk, scheduler, now, pageAlloc, slots, swap, vmstat } = deps;
  const areas: ({ readonly path: string; readonly file: OpenFile } | undefined)[] = new Array(MAX_SWAP_AREAS).fill(
    undefined,
  );
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

  /** One lower than all priorities that were given like this; the first is −2. */
  const nextPriority = (): number =>
    areas.reduce((least, area, nr) => (area === undefined ? least : Math.min(least, slots.priority(nr))), -1) - 1;

  function* bringUp(task: Task, nr: number, path: string, file: OpenFile, asked?: number): Sleeping<number> {
    const io = file.openPages === undefined ? -EINVAL : yield* file.openPages(task);
    if (typeof io === "number") return io;
    const header = yield* readHeader(task, io);
    if (typeof header === "number") return header;
    const nrSlots = header.lastPage + 1;
    const priority = asked ?? nextPriority();
    const area = slots.area(nr);
    const error = area.open(task.ctx, Math.min(nrSlots, AREA_SLOTS), header.badPages);
    if (error !== 0) return error;
    if (area.nrSlots() < nrSlots)
      printk(KERN_WARNING, `Truncating oversized swap area, only using ${4 * area.nrSlots()}k`);
    slots.setPriority(nr, priority);
    swap.setDevice(nr, io);
    const kib = area.nrUsable() * 4;
    printk(KERN_INFO, `Adding ${kib}k swap on ${path}.  Priority:${priority} extents:1 across:${kib}k`);
    return 0;
  }

  // ── Off ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Pages that are in the cache and that nobody names keep slots for a faster second eviction: no more. */
  const releaseCached = (task: Task, nr: number): void => {
    const area = slots.area(nr);
    for (let slot = 0; slot < area.nrSlots(); slot++) {
      const pfn = area.cached(slot);
      if (pfn !== NO_PFN) swap.layer.release(task.ctx, asPfn(pfn));
    }
  };

  function* empty(task: Task, nr: number): Sleeping<number> {
    const area = slots.area(nr);
    let fewest = area.nrInUse();
    for (let nrIdle = 0; area.nrInUse() > 0; ) {
      const error = deps.bringAllIn(task, (slot) => areaOfSlot(slot) === nr);
      releaseCached(task, nr);
      nrIdle = area.nrInUse() < fewest ? 0 : nrIdle + 1;
      fewest = Math.min(fewest, area.nrInUse());
      // Other areas may have room for what others do not use now: as long as that helps (AREA-7).
      if (error !== 0 && (error !== -ENOMEM || nrIdle >= MAX_IDLE_ROUNDS || !deps.makeRoom(task))) return error;
      // What is left is being written; it comes back to its processes, or is freed, at the end of that.
      if (area.nrInUse() > 0) yield* scheduler.sleepUntil(task, now() + WRITEBACK_POLL_CYCLES);
    }
    while (vmstat.item(NR_WRITEBACK) > 0) yield* scheduler.sleepUntil(task, now() + WRITEBACK_POLL_CYCLES);
    return 0;
  }

  const close = (nr: number): void => {
    const { file } = areas[nr] as { file: OpenFile };
    swap.setDevice(nr, null);
    areas[nr] = undefined;
    if (--file.refs === 0) file.release();
  };

  /** A line of /proc/swaps. */
  const row = (path: string, nr: number): string => {
    const kib = (pages: number): string => `${pages * 4}\t${pages * 4 < 10_000_000 ? "\t" : ""}`;
    const area = slots.area(nr);
    const [size, used] = [kib(area.nrUsable()), kib(area.nrInUse())];
    return `${path.padEnd(Math.max(40, path.length + 1))}partition\t${size}${used}${slots.priority(nr)}\n`;
  };

  return {
    *swapon(task, path, file, priority) {
      if (isChanging || areas.some((area) => area?.path === path)) return -EBUSY;
      const nr = areas.indexOf(undefined);
      if (nr < 0) return -EPERM;
      isChanging = true;
      try {
        const error = yield* bringUp(task, nr, path, file, priority);
        if (error !== 0) return error;
        areas[nr] = { path, file };
        deps.startKswapd();
        return 0;
      } finally {
        isChanging = false;
      }
    },
    *swapoff(task, path) {
      const nr = areas.findIndex((area) => area?.path === path);
      if (nr < 0) return -EINVAL;
      if (isChanging) return -EBUSY;
      isChanging = true;
      slots.setWritable(nr, false);
      let error = -EBUSY;
      // A fatal signal may end it half-way: the area is on as before then.
      try {
        error = yield* empty(task, nr);
      } finally {
        isChanging = false;
        if (error !== 0) slots.setWritable(nr, true);
      }
      if (error !== 0) return error;
      slots.area(nr).close(task.ctx);
      close(nr);
      return 0;
    },
    text() {
      const head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
      return head + areas.map((area, nr) => (area === undefined ? "" : row(area.path, nr))).join("");
    },
    totals() {
      let [total, free] = [0, 0];
      areas.forEach((area, nr) => {
        if (area === undefined) return;
        total += slots.area(nr).nrUsable();
        free += slots.area(nr).nrUsable() - slots.area(nr).nrInUse();
      });
      return { total, free };
    },
  };
}
