/**
 * What a program says and asks about its memory: madvise, mincore, msync.
 *
 *   MADV_DONTNEED   pages go, the mapping stays: private memory reads as zeros (or as the file) afterwards
 *   MADV_FREE       anonymous private memory only: the content may be lost from now on, until it is written to anew
 *                   (lazyfree.ts)
 *   MADV_WILLNEED   what is in swap or on a disk is brought in
 *   MADV_COLLAPSE   512 pages side by side become a huge page (thp.ts)
 *   the others      a flag of the VMA: DONTFORK and DOFORK for fork, the rest for whoever cares
 *
 *   ADV-1  a hole in the range: the parts that are mapped are served, the result is −ENOMEM
 *
 * Context: process. Linux: mm/madvise.c, mm/mincore.c, mm/msync.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, type Context, fromGranule, NO_PFN, NULL, type PhysAddr } from "../kernel/types.ts";
import { EBUSY, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import * as mman from "../kernel/uapi/mman.ts";
import type { FileMap } from "./filemap.ts";
import type { LazyFree } from "./lazyfree.ts";
import type { UserPages } from "./memory.ts";
import {
  MM_PGD,
  VM_DONTCOPY,
  VM_HUGEPAGE,
  VM_LOCKED,
  VM_NOHUGEPAGE,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VMA_END,
  VMA_FLAGS,
  VMA_MAPPING,
  VMA_PGOFF,
  VMA_START,
} from "./mm_struct.ts";
import type { PageTables } from "./pgtable.ts";
import { isSwapPte } from "./swap_entry.ts";
import type { Thp } from "./thp.ts";
import type { Vmas } from "./vma.ts";

/** Flags that an advice sets and clears. */
const FLAG_ADVICE: ReadonlyMap<number, readonly [set: number, clear: number]> = new Map([
  [mman.MADV_NORMAL, [0, VM_RAND_READ | VM_SEQ_READ]],
  [mman.MADV_RANDOM, [VM_RAND_READ, VM_SEQ_READ]],
  [mman.MADV_SEQUENTIAL, [VM_SEQ_READ, VM_RAND_READ]],
  [mman.MADV_DONTFORK, [VM_DONTCOPY, 0]],
  [mman.MADV_DOFORK, [0, VM_DONTCOPY]],
  [mman.MADV_HUGEPAGE, [VM_HUGEPAGE, VM_NOHUGEPAGE]],
  [mman.MADV_NOHUGEPAGE, [VM_NOHUGEPAGE, VM_HUGEPAGE]],
]);

/** Pages `[from, to)` of a file. */
export interface FilePart {
  readonly mapping: PhysAddr;
  readonly from: number;
  readonly to: number;
}

export interface AdviceCalls {
  /** 0, −EINVAL, or −ENOMEM (a hole, or no memory to cut a VMA). */
  madvise(ctx: Context, mm: PhysAddr, addr: number, bytes: number, advice: number): number;
  /** One byte a page, bit 0: in memory; or −errno. */
  mincore(ctx: Context, mm: PhysAddr, addr: number, bytes: number): Uint8Array | number;
  /**
   * What there is to write for msync, in order: the caller does it (memory_calls.ts), and returns `error` then. A hole
   * in the range is −ENOMEM, and what is mapped is written all the same; what stands behind a locked part is not.
   */
  msync(
    mm: PhysAddr,
    addr: number,
    bytes: number,
    flags: number,
  ): { readonly error: number; readonly parts: readonly FilePart[] };
}

export interface AdviceDeps {
  readonly port: MemoryPort;
  readonly pageTables: PageTables;
  readonly vmas: Vmas;
  readonly files: FileMap;
  readonly userPages: UserPages;
  readonly thp: Thp;
  readonly lazyFree: LazyFree;
}

/** Range of a call that takes any length, 0 too; −errno. */
function adviceRange(addr: number, bytes: number, onOverflow: number): readonly [number, number] | number {
  if (!Number.isInteger(addr) || !Number.isInteger(bytes) || addr < 0 || bytes < 0 || addr % PAGE_SIZE !== 0) {
    return -EINVAL;
  }
  if (addr + bytes > TASK_SIZE) return -onOverflow;
  return [addr / PAGE_SIZE, Math.ceil((addr + bytes) / PAGE_SIZE)];
}

export function createAdviceCalls({
  port,
  pageTables,
  vmas,
  files,
  userPages,
  thp,
  lazyFree,
}: AdviceDeps): AdviceCalls {
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);

  /** MADV_WILLNEED for a range: as far as memory goes. */
  const bringIn = (ctx: Context, mm: PhysAddr, vma: PhysAddr, start: number, end: number): number => {
    const mapping = fromGranule(field(vma, VMA_MAPPING));
    for (let page = start; page < end && mapping !== NULL; page++) {
      const index = field(vma, VMA_PGOFF) + page - field(vma, VMA_START);
      const isThere = index * PAGE_SIZE < files.sizeBytes(mapping) && files.needsIo(mapping, index);
      if (isThere && files.obtain(ctx, mapping, index) < 0) break;
    }
    const absent: number[] = [];
    pageTables.forEachPage(asPfn(field(mm, MM_PGD)), start, end, (_pte, page, word) => {
      if (isSwapPte(word)) absent.push(page);
    });
    for (const page of absent) userPages.handleFault(ctx, mm, page * PAGE_SIZE, false);
    return 0;
  };

  /** Serves one VMA's part of the range. */
  const advise = (ctx: Context, mm: PhysAddr, vma: PhysAddr, start: number, end: number, advice: number): number => {
    const flags = field(vma, VMA_FLAGS);
    const change = FLAG_ADVICE.get(advice);
    if (change !== undefined) {
      port.st32(vma + VMA_FLAGS, ((flags & ~change[1]) | change[0]) >>> 0);
      return 0;
    }
    if (advice === mman.MADV_WILLNEED) return bringIn(ctx, mm, vma, start, end);
    if (advice === mman.MADV_COLLAPSE) return thp.collapse(ctx, mm, vma, start, end);
    if ((flags & VM_LOCKED) !== 0) return -EINVAL;
    const isAnon = field(vma, VMA_MAPPING) === 0;
    if (advice === mman.MADV_FREE && !isAnon) return -EINVAL;
    if (advice === mman.MADV_FREE) lazyFree.mark(ctx, mm, start, end);
    else userPages.zap(ctx, mm, start, end);
    return 0;
  };

  const isKnown = (advice: number): boolean =>
    FLAG_ADVICE.has(advice) ||
    advice === mman.MADV_WILLNEED ||
    advice === mman.MADV_DONTNEED ||
    advice === mman.MADV_FREE ||
    advice === mman.MADV_COLLAPSE;

  /** Is the page of a VMA in memory, mapped or only in its file? */
  const isInCore = (mm: PhysAddr, vma: PhysAddr, page: number): boolean => {
    let word = 0;
    pageTables.forEachPage(asPfn(field(mm, MM_PGD)), page, page + 1, (_pte, _page, found) => {
      word = found;
    });
    if (word !== 0) return !isSwapPte(word);
    const mapping = fromGranule(field(vma, VMA_MAPPING));
    const index = field(vma, VMA_PGOFF) + page - field(vma, VMA_START);
    return mapping !== NULL && files.find(mapping, index) !== NO_PFN;
  };

  return {
    madvise(ctx, mm, addr, bytes, advice) {
      const range = adviceRange(addr, bytes, EINVAL);
      if (typeof range === "number") return range;
      if (!isKnown(advice)) return -EINVAL;
      const [start, end] = range;
      const isFlag = FLAG_ADVICE.has(advice);
      const isCut = !isFlag || (vmas.splitAt(ctx, mm, start) && vmas.splitAt(ctx, mm, end));
      let result = isCut ? 0 : -ENOMEM;
      let covered = start;
      for (let vma = vmas.find(mm, start); isCut && vma !== NULL && covered < end; vma = vmas.next(vma)) {
        const from = Math.max(start, field(vma, VMA_START));
        const to = Math.min(end, field(vma, VMA_END));
        if (from >= to) break;
        if (from > covered) result ||= -ENOMEM;
        const problem = advise(ctx, mm, vma, from, to, advice);
        covered = to;
        if (problem === 0) continue;
        result = problem;
        break;
      }
      if (isFlag) vmas.joinAround(ctx, mm, start, end);
      return result !== 0 || covered >= end ? result : -ENOMEM;
    },
    mincore(_ctx, mm, addr, bytes) {
      const range = adviceRange(addr, bytes, ENOMEM);
      if (typeof range === "number") return range;
      const [start, end] = range;
      if (!vmas.isCovered(mm, start, end)) return -ENOMEM;
      const vec = new Uint8Array(end - start);
      for (let page = start; page < end; page++) {
        vec[page - start] = isInCore(mm, vmas.at(mm, page), page) ? 1 : 0;
      }
      return vec;
    },
    msync(mm, addr, bytes, flags) {
      const both = mman.MS_ASYNC | mman.MS_SYNC;
      const range = adviceRange(addr, bytes, ENOMEM);
      if (typeof range === "number") return { error: range, parts: [] };
      if ((flags & ~(both | mman.MS_INVALIDATE)) !== 0 || (flags & both) === both) return { error: -EINVAL, parts: [] };
      const [start, end] = range;
      const parts: FilePart[] = [];
      for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; vma = vmas.next(vma)) {
        const vmaFlags = field(vma, VMA_FLAGS);
        const isShared = (vmaFlags & VM_SHARED) !== 0;
        if (isShared && (vmaFlags & VM_LOCKED) !== 0 && (flags & mman.MS_INVALIDATE) !== 0)
          return { error: -EBUSY, parts };
        const mapping = fromGranule(field(vma, VMA_MAPPING));
        if (!isShared || mapping === NULL || !files.isDisk(mapping) || (flags & mman.MS_SYNC) === 0) continue;
        const inFile = field(vma, VMA_PGOFF) - field(vma, VMA_START);
        const [from, to] = [Math.max(start, field(vma, VMA_START)), Math.min(end, field(vma, VMA_END))];
        parts.push({ mapping, from: inFile + from, to: inFile + to });
      }
      return { error: vmas.isCovered(mm, start, end) ? 0 : -ENOMEM, parts };
    },
  };
}
