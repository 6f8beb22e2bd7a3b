/**
 * vmalloc: memory that is contiguous for the kernel and need not be in RAM.
 *
 * A large block is hard to find (compaction.ts); many single frames are easy. So the kernel has a window of addresses
 * (params.ts) with a page table of its own, where frames from anywhere are put side by side:
 *
 *      window  |– –|■ ■ ■ ■ –|■ ■ –|■ ■ ■ ■ –|░ ░ ░|…    ■ mapped   – guard, never mapped   ░ freed, not yet flushed
 *                   area       area
 *
 * 1. An *area* is a range of the window with a frame behind each page and one page without behind the last: who runs
 *    over the end of an area meets nothing instead of his neighbour. Areas are in a tree, by address; a new one goes
 *    into the lowest gap that is large enough.
 *
 * 2. Freeing takes the entries out and gives the frames back at once. The addresses come back *lazily*: a TLB may still
 *    know them, and telling every CPU to forget costs the same for one page as for a thousand. So they wait until there
 *    are many, or the window is full; then one flush is for all of them.
 *
 *   VML-1  areas and their guards are disjoint, in order, inside the window; its page 0 belongs to nobody
 *   VML-2  each page of a live area has an entry with a frame of its own, its guard has none, a freed area has none
 *   VML-3  NR_VMALLOC = Σ pages of live areas
 *   VML-4  no address is given out again before every TLB has been flushed of what it meant
 *   VML-5  a failed vmalloc leaves nothing behind
 *   VML-6  a frame of an area says so in `private`, by the number of its page in the window
 *
 * State: struct vmap_area from a slab cache, the tree's root and counts in static memory, the table in page frames.
 *
 *   offset  width  field    meaning
 *   +0      16     node     of the tree
 *   +16     u32    start    page number within the window
 *   +20     u32    end      one past the guard page
 *   +24     u32    state    LIVE or LAZY
 *   +28     36     caller   name of who asked, NUL-padded
 *
 * Context: process, or boot; never sleeps. Cost: O(pages + areas). Linux: mm/vmalloc.c, where gaps are in an augmented
 * tree of their own.
 */

import { CYC_TLB_FLUSH } from "../kernel/arch/charges.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import { KERNEL_ASID, PTE_A, PTE_D, PTE_G, PTE_R, PTE_V, PTE_W } from "../kernel/arch/mmu.ts";
import { bugOn } from "../kernel/bug.ts";
import { createRbTree, type RbTree } from "../kernel/lib/rbtree.ts";
import { PAGE_SIZE, VMALLOC_BYTES, VMALLOC_START } from "../kernel/params.ts";
import { KERN_ERR, type Printk } from "../kernel/printk.ts";
import {
  asPfn,
  asPhys,
  asVirt,
  type Context,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  type VirtAddr,
} from "../kernel/types.ts";
import { EINVAL } from "../kernel/uapi/errno.ts";
import type { Gfp } from "./gfp.ts";
import { orderOfFlags, type Pages, PG_ALLOCATED } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { type PageTables, pfnOfPte, pteOf } from "./pgtable.ts";
import { NR_VMALLOC, type VmStat } from "./vmstat.ts";

const WINDOW_PAGES = VMALLOC_BYTES / PAGE_SIZE;
const FIRST_VPN = VMALLOC_START / PAGE_SIZE;
const KERNEL_RIGHTS = PTE_V | PTE_R | PTE_W | PTE_A | PTE_D | PTE_G;
/** Pages of freed addresses that are worth a flush (lazy_max_pages is 32 MiB per CPU in Linux). */
export const LAZY_MAX_PAGES = 512;
const NR_TABLE_PAGES = 512;

const VA_START = 16;
const VA_END = 20;
const VA_STATE = 24;
const VA_CALLER = 28;
const CALLER_BYTES = 36;
export const VMAP_AREA_BYTES = 64;
const LIVE = 1;
const LAZY = 2;

/** VML-6: in `private` beside the page number; slabs have bit 31, granules of address spaces end below this. */
export const PRIVATE_IS_VMALLOC = 0x4000_0000;

/** Static memory: root of the tree, frame of the table, pages that wait for a flush, live areas beyond that table. */
const S_ROOT = 0;
const S_TABLE = 4;
const S_LAZY = 8;
const S_HIGH = 12;
export const VMALLOC_STATIC_BYTES = 16;

export interface VmapArea {
  readonly start: VirtAddr;
  /** One past the guard page. */
  readonly end: VirtAddr;
  readonly nrPages: number;
  readonly caller: string;
}

export interface Vmalloc {
  /** `bytes` of neighbouring addresses, page-aligned; 0 without memory. `caller` is for /proc/vmallocinfo. */
  vmalloc(ctx: Context, bytes: number, gfp: Gfp, caller: string): VirtAddr | 0;
  /** Frees an area by its first address: 0, or −EINVAL after a line in the log. */
  vfree(ctx: Context, va: number): number;
  /** Flushes every TLB once, and makes all freed addresses usable again. */
  purge(ctx: Context): void;
  /** Live areas, by address. */
  areas(): readonly VmapArea[];
  /** Page tables of the window: they stay where areas are, and one set stays always. O(tables). */
  nrTables(): number;
  /** VML-1 … VML-3, VML-6: a sentence, or null. O(pages). */
  check(): string | null;
}

export interface VmallocDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly pageTables: PageTables;
  readonly vmstat: VmStat;
  /** A struct vmap_area of VMAP_AREA_BYTES, and back; NULL without memory. */
  readonly allocArea: (ctx: Context) => PhysAddr;
  readonly freeArea: (ctx: Context, area: PhysAddr) => void;
  /** VMALLOC_STATIC_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export function createVmalloc(deps: VmallocDeps, bootCtx: Context): Vmalloc {
  const { machine, printk, pages, pageAlloc, pageTables, vmstat, statics } = deps;
  const { port, mmu, harts } = machine;
  const { clock } = harts;
  const field = (area: PhysAddr, offset: number): number => port.ld32(area + offset);
  const setField = (area: PhysAddr, offset: number, value: number): void => port.st32(area + offset, value);
  const tree: RbTree = createRbTree(port, { less: (a, b) => field(a, VA_START) < field(b, VA_START) });
  const root = asPhys(statics + S_ROOT);
  const table = (): Pfn => asPfn(port.ld32(statics + S_TABLE));
  const addressOf = (page: number): VirtAddr => asVirt(VMALLOC_START + page * PAGE_SIZE);

  const entryOf = (page: number): PhysAddr => pageTables.walk(bootCtx, table(), FIRST_VPN + page, false);
  const wordOf = (page: number): number => {
    const entry = entryOf(page);
    return entry === NULL ? 0 : pageTables.readPte(entry);
  };
  const endOfLast = (area: PhysAddr): number => (area === NULL ? 1 : field(area, VA_END));

  const callerOf = (area: PhysAddr): string => {
    const bytes = Array.from(port.readBytes(area + VA_CALLER, CALLER_BYTES));
    const end = bytes.indexOf(0);
    return String.fromCharCode(...bytes.slice(0, end < 0 ? CALLER_BYTES : end));
  };
  const setCaller = (area: PhysAddr, caller: string): void => {
    for (let i = 0; i < CALLER_BYTES; i++) port.st8(area + VA_CALLER + i, caller.charCodeAt(i) & 0x7f || 0);
  };

  // ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Lowest page with `nr` free ones behind it; −1 if the window is full. */
  const findGap = (nr: number): number => {
    let from = 1;
    for (let area = tree.first(root); area !== NULL; area = tree.next(area)) {
      if (field(area, VA_START) - from >= nr) return from;
      from = endOfLast(area);
    }
    return WINDOW_PAGES - from >= nr ? from : -1;
  };

  /** Counts an area that the first table does not reach. */
  const addHigh = (area: PhysAddr, delta: number): void => {
    if (field(area, VA_END) > NR_TABLE_PAGES) port.st32(statics + S_HIGH, port.ld32(statics + S_HIGH) + delta);
  };

  const newArea = (ctx: Context, nrPages: number, caller: string): PhysAddr => {
    let start = findGap(nrPages + 1);
    if (start < 0) {
      purge(ctx);
      start = findGap(nrPages + 1);
    }
    const area = start < 0 ? NULL : deps.allocArea(ctx);
    if (area === NULL) return NULL;
    setField(area, VA_START, start);
    setField(area, VA_END, start + nrPages + 1);
    setField(area, VA_STATE, LIVE);
    setCaller(area, caller);
    tree.insert(root, area);
    addHigh(area, 1);
    return area;
  };

  /** Theory 2. */
  const purge = (ctx: Context): void => {
    if (port.ld32(statics + S_LAZY) === 0) return;
    for (let cpu = 0; cpu < harts.nrCpus; cpu++) {
      mmu.flushAsid(cpu, KERNEL_ASID);
      clock[cpu] = (clock[cpu] as number) + CYC_TLB_FLUSH;
    }
    for (let area = tree.first(root); area !== NULL; ) {
      const next = tree.next(area);
      if (field(area, VA_STATE) === LAZY) {
        tree.erase(root, area);
        deps.freeArea(ctx, area);
      }
      area = next;
    }
    port.st32(statics + S_LAZY, 0);
    pageTables.pruneEmpty(ctx, table(), FIRST_VPN + NR_TABLE_PAGES);
  };

  // ── Frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes the frames of pages `[start, end)` out and gives them back; what has none is left alone. */
  const unmap = (ctx: Context, start: number, end: number): void => {
    for (let page = start; page < end; page++) {
      const entry = entryOf(page);
      const word = entry === NULL ? 0 : pageTables.readPte(entry);
      if (word === 0) continue;
      const pfn = pfnOfPte(word);
      pageTables.writePte(entry, 0);
      pages.setPrivate(pfn, 0);
      pageAlloc.freePages(ctx, pfn, 0);
      vmstat.modItem(NR_VMALLOC, -1);
    }
  };

  const mapPage = (ctx: Context, page: number, gfp: Gfp): boolean => {
    const entry = pageTables.walk(ctx, table(), FIRST_VPN + page, true);
    const pfn = entry === NULL ? NO_PFN : pageAlloc.tryAllocPages(ctx, 0, gfp);
    if (pfn === NO_PFN) return false;
    pages.setPrivate(pfn, PRIVATE_IS_VMALLOC | page);
    pageTables.writePte(entry, pteOf(pfn, KERNEL_RIGHTS));
    vmstat.modItem(NR_VMALLOC, 1);
    return true;
  };

  /** The addresses of an unmapped area wait for a flush. */
  const retire = (ctx: Context, area: PhysAddr): void => {
    setField(area, VA_STATE, LAZY);
    const nrLazy = port.ld32(statics + S_LAZY) + field(area, VA_END) - field(area, VA_START);
    port.st32(statics + S_LAZY, nrLazy);
    addHigh(area, -1);
    // Or nobody needs more than the first table any more: the others can go.
    const isLastHigh = field(area, VA_END) > NR_TABLE_PAGES && port.ld32(statics + S_HIGH) === 0;
    if (nrLazy > LAZY_MAX_PAGES || isLastHigh) purge(ctx);
  };

  const vmalloc: Vmalloc["vmalloc"] = (ctx, bytes, gfp, caller) => {
    const nrPages = Math.ceil(bytes / PAGE_SIZE);
    if (!(nrPages > 0 && nrPages < WINDOW_PAGES)) return 0;
    const area = newArea(ctx, nrPages, caller);
    if (area === NULL) return 0;
    const start = field(area, VA_START);
    for (let page = start; page < start + nrPages; page++) {
      if (mapPage(ctx, page, gfp)) continue;
      unmap(ctx, start, page);
      retire(ctx, area);
      return 0;
    }
    return addressOf(start);
  };

  const vfree: Vmalloc["vfree"] = (ctx, va) => {
    const page = (va - VMALLOC_START) / PAGE_SIZE;
    const area = Number.isInteger(page) ? tree.lowerBound(root, (at) => field(at, VA_START) >= page) : NULL;
    if (area === NULL || field(area, VA_START) !== page || field(area, VA_STATE) !== LIVE) {
      printk(KERN_ERR, `Trying to vfree() nonexistent vm area (0x${Math.abs(va).toString(16).padStart(16, "0")})`);
      return -EINVAL;
    }
    unmap(ctx, page, field(area, VA_END) - 1);
    retire(ctx, area);
    return 0;
  };

  const checkPage = (page: number): string | null => {
    const word = wordOf(page);
    const pfn = pfnOfPte(word);
    const isOwn = (word & PTE_V) !== 0 && pages.private(pfn) === (PRIVATE_IS_VMALLOC | page);
    const flags = isOwn ? pages.flags(pfn) : 0;
    const isSound = isOwn && (flags & PG_ALLOCATED) !== 0 && orderOfFlags(flags) === 0;
    return isSound ? null : `VML-2, VML-6: page ${page} of the window has no frame of its own`;
  };

  const check = (): string | null => {
    let [from, nrLive] = [1, 0];
    for (let area = tree.first(root); area !== NULL; area = tree.next(area)) {
      const [start, end, isLive] = [field(area, VA_START), field(area, VA_END), field(area, VA_STATE) === LIVE];
      if (start < from || end <= start + 1 || end > WINDOW_PAGES) return `VML-1: area of pages ${start} to ${end}`;
      for (let page = start; page < end; page++) {
        const hasFrame = isLive && page < end - 1;
        const problem = hasFrame ? checkPage(page) : null;
        if (problem !== null) return problem;
        if (!hasFrame && wordOf(page) !== 0) return `VML-2: page ${page} of the window is mapped`;
      }
      if (isLive) nrLive += end - start - 1;
      from = end;
    }
    const counted = vmstat.item(NR_VMALLOC);
    return nrLive === counted ? null : `VML-3: ${nrLive} pages are in areas, NR_VMALLOC is ${counted}`;
  };

  // The tables of the first two megabytes stay, so that a machine at rest has always the same.
  const top = pageTables.createRoot(bootCtx);
  port.st32(statics + S_TABLE, top);
  const isMade = top !== NO_PFN && pageTables.walk(bootCtx, top, FIRST_VPN, true) !== NULL;
  bugOn(!isMade, "vmalloc: no memory for the kernel's page table");
  mmu.setKernelRoot(top);

  return {
    nrTables: () => pageTables.count(table()),
    vmalloc,
    vfree,
    purge,
    areas() {
      const found: VmapArea[] = [];
      for (let area = tree.first(root); area !== NULL; area = tree.next(area)) {
        if (field(area, VA_STATE) !== LIVE) continue;
        const [start, end] = [field(area, VA_START), field(area, VA_END)];
        found.push({ start: addressOf(start), end: addressOf(end), nrPages: end - start - 1, caller: callerOf(area) });
      }
      return found;
    },
    check,
  };
}
