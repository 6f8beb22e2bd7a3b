/**
 * mlock and its family: pages that stay in memory.
 *
 * VM_LOCKED is a property of a VMA; what reclaim looks at is the page: each frame that a locked VMA maps is on the list
 * of pages that nobody scans (PG_UNEVICTABLE), from the fault on (memory.ts) or from here. mlock also touches every
 * page, so that a later access cannot fail. RLIMIT_MEMLOCK binds everybody; Linux exempts root.
 *
 *   LCK-1 (memory.ts)
 *   LCK-2  locked vm = pages of VMAs with VM_LOCKED ≤ RLIMIT_MEMLOCK when it was set
 *
 * Context: process. Linux: mm/mlock.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, type Context, NULL, type PhysAddr } from "../kernel/types.ts";
import { EAGAIN, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import { MCL_CURRENT, MCL_FUTURE } from "../kernel/uapi/mman.ts";
import type { UserPages } from "./memory.ts";
import {
  MM_DEF_FLAGS,
  MM_LIM_MEMLOCK,
  MM_LOCKED_VM,
  MM_PGD,
  MM_TOTAL_VM,
  VM_LOCKED,
  VMA_END,
  VMA_FLAGS,
  VMA_START,
} from "./mm_struct.ts";
import type { MmapCalls } from "./mmap.ts";
import { type PageTables, pfnOfPte } from "./pgtable.ts";
import { isSwapPte } from "./swap_entry.ts";
import type { Vmas } from "./vma.ts";

const LAST_PAGE = TASK_SIZE / PAGE_SIZE;

export interface LockCalls {
  /** 0, −EINVAL, −ENOMEM (a hole, the limit, no memory), −EAGAIN (a page could not be brought in). */
  mlock(ctx: Context, mm: PhysAddr, addr: number, bytes: number): number;
  munlock(ctx: Context, mm: PhysAddr, addr: number, bytes: number): number;
  mlockall(ctx: Context, mm: PhysAddr, flags: number): number;
  munlockall(ctx: Context, mm: PhysAddr): number;
}

export interface LockDeps {
  readonly port: MemoryPort;
  readonly pageTables: PageTables;
  readonly vmas: Vmas;
  readonly userPages: UserPages;
  readonly calls: MmapCalls;
}

export function createLockCalls({ port, pageTables, vmas, userPages, calls }: LockDeps): LockCalls {
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);

  /** Page range of any addresses: rounded outwards, as Linux does for these calls. */
  const rangeOf = (addr: number, bytes: number): readonly [number, number] | null => {
    if (!Number.isInteger(addr) || !Number.isInteger(bytes) || addr < 0 || bytes < 0) return null;
    if (addr + bytes > TASK_SIZE) return null;
    return [Math.floor(addr / PAGE_SIZE), Math.ceil((addr + bytes) / PAGE_SIZE)];
  };

  /** Makes the pages that are there follow the flag of their VMA. */
  const markPages = (ctx: Context, mm: PhysAddr, start: number, end: number, isLocked: boolean): void => {
    pageTables.forEachEntry(asPfn(field(mm, MM_PGD)), start, end, (_pte, _page, word) => {
      if (isSwapPte(word)) return;
      if (isLocked) userPages.lockPage(ctx, pfnOfPte(word));
      else userPages.unlockPage(ctx, pfnOfPte(word));
    });
  };

  /** Sets or clears VM_LOCKED of every VMA in the range, whose ends are cut. */
  const setLocked = (ctx: Context, mm: PhysAddr, start: number, end: number, isLocked: boolean): void => {
    for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; vma = vmas.next(vma)) {
      const flags = field(vma, VMA_FLAGS);
      const wanted = (isLocked ? flags | VM_LOCKED : flags & ~VM_LOCKED) >>> 0;
      if (wanted === flags) continue;
      const [first, last] = [field(vma, VMA_START), field(vma, VMA_END)];
      port.st32(vma + VMA_FLAGS, wanted);
      port.st32(mm + MM_LOCKED_VM, field(mm, MM_LOCKED_VM) + (isLocked ? last - first : first - last));
      markPages(ctx, mm, first, last, isLocked);
    }
    vmas.joinAround(ctx, mm, start, end);
  };

  const change = (ctx: Context, mm: PhysAddr, start: number, end: number, isLocked: boolean): number => {
    if (!vmas.splitAt(ctx, mm, start) || !vmas.splitAt(ctx, mm, end)) {
      vmas.joinAround(ctx, mm, start, end);
      return -ENOMEM;
    }
    setLocked(ctx, mm, start, end, isLocked);
    return 0;
  };

  /** Pages of the range that are not locked yet. */
  const nrUnlocked = (mm: PhysAddr, start: number, end: number): number => {
    let nr = 0;
    for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; vma = vmas.next(vma)) {
      if ((field(vma, VMA_FLAGS) & VM_LOCKED) !== 0) continue;
      nr += Math.min(end, field(vma, VMA_END)) - Math.max(start, field(vma, VMA_START));
    }
    return nr;
  };

  return {
    mlock(ctx, mm, addr, bytes) {
      const range = rangeOf(addr, bytes);
      if (range === null) return -EINVAL;
      const [start, end] = range;
      if (start === end) return 0;
      const nrLocked = field(mm, MM_LOCKED_VM) + nrUnlocked(mm, start, end);
      if (nrLocked > field(mm, MM_LIM_MEMLOCK) || !vmas.isCovered(mm, start, end)) return -ENOMEM;
      const result = change(ctx, mm, start, end, true);
      if (result !== 0) return result;
      return calls.populate(ctx, mm, start, end) === 0 ? 0 : -EAGAIN;
    },
    munlock(ctx, mm, addr, bytes) {
      const range = rangeOf(addr, bytes);
      if (range === null) return -EINVAL;
      if (range[0] === range[1]) return 0;
      return vmas.isCovered(mm, range[0], range[1]) ? change(ctx, mm, range[0], range[1], false) : -ENOMEM;
    },
    mlockall(ctx, mm, flags) {
      if ((flags & ~(MCL_CURRENT | MCL_FUTURE)) !== 0 || (flags & (MCL_CURRENT | MCL_FUTURE)) === 0) return -EINVAL;
      const isCurrent = (flags & MCL_CURRENT) !== 0;
      if (isCurrent && field(mm, MM_TOTAL_VM) > field(mm, MM_LIM_MEMLOCK)) return -ENOMEM;
      port.st32(mm + MM_DEF_FLAGS, (flags & MCL_FUTURE) !== 0 ? VM_LOCKED : 0);
      if (!isCurrent) return 0;
      setLocked(ctx, mm, 0, LAST_PAGE, true);
      // As in Linux: what cannot be brought in now is no failure of mlockall.
      for (let vma = vmas.first(mm); vma !== NULL; vma = vmas.next(vma)) {
        calls.populate(ctx, mm, field(vma, VMA_START), field(vma, VMA_END));
      }
      return 0;
    },
    munlockall(ctx, mm) {
      port.st32(mm + MM_DEF_FLAGS, 0);
      setLocked(ctx, mm, 0, LAST_PAGE, false);
      return 0;
    },
  };
}
