/**
 * mremap: a mapping gets longer, shorter, or another address, and keeps its pages.
 *
 *      grow in place          [ pages |░░░░ ]            nothing behind it: the VMA ends later
 *      move                   [ pages ]  ──▶  [ pages |░░░ ]     entries go to the new addresses, frames stay
 *
 * No byte is copied: the VMA at the new place has the same anon_vma or file and a pgoff such that each page keeps its
 * index, so that the reverse mapping still finds it (RMAP-2). Everything that can fail (cuts, the new VMA, its page
 * tables) is done before the first entry moves.
 *
 *   MRM-1  a call that fails leaves the mapping where it was, with its pages
 *   MRM-2  content, rss and mapcounts are the same before and after
 *
 * Context: process. Not supported: an old length of 0 (a second mapping of shared pages), MREMAP_DONTUNMAP.
 * Linux: mm/mremap.c.
 */

import { PTES_PER_TABLE } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, type Context, NULL, type PhysAddr } from "../kernel/types.ts";
import { EAGAIN, EFAULT, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import { MREMAP_FIXED, MREMAP_MAYMOVE } from "../kernel/uapi/mman.ts";
import {
  MM_LIM_MEMLOCK,
  MM_LOCKED_VM,
  MM_MMAP_TOP,
  MM_PGD,
  VM_ACCOUNT,
  VM_LOCKED,
  VMA_END,
  VMA_FLAGS,
  VMA_START,
} from "./mm_struct.ts";
import { MMAP_MIN_PAGE, type MmapCalls, pageRange } from "./mmap.ts";
import type { PageTables } from "./pgtable.ts";
import type { Tlb } from "./tlb.ts";
import type { VmAccount } from "./vm_account.ts";
import type { Vmas } from "./vma.ts";

export interface MremapDeps {
  readonly port: MemoryPort;
  readonly pageTables: PageTables;
  readonly vmas: Vmas;
  readonly calls: MmapCalls;
  readonly account: VmAccount;
  readonly tlb: Tlb;
}

/** The new address, or −errno: −EINVAL, −EFAULT (the old range is not in one mapping), −ENOMEM, −EAGAIN (locked). */
export type Mremap = (
  ctx: Context,
  mm: PhysAddr,
  addr: number,
  oldBytes: number,
  newBytes: number,
  flags: number,
  newAddr: number,
) => number;

export function createMremap({ port, pageTables, vmas, calls, account, tlb }: MremapDeps): Mremap {
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const pgdOf = (mm: PhysAddr) => asPfn(field(mm, MM_PGD));

  /** May the mapping `vma` have `nrMore` pages more? 0 or −errno. */
  const growProblem = (mm: PhysAddr, vma: PhysAddr, nrMore: number): number => {
    const spec = vmas.specOf(vma);
    const isLocked = (spec.flags & VM_LOCKED) !== 0;
    if (isLocked && field(mm, MM_LOCKED_VM) + nrMore > field(mm, MM_LIM_MEMLOCK)) return -EAGAIN;
    if (!account.mayExpand(mm, spec, nrMore)) return -ENOMEM;
    return (spec.flags & VM_ACCOUNT) === 0 || account.mayCommit(nrMore) ? 0 : -ENOMEM;
  };

  const grown = (mm: PhysAddr, vma: PhysAddr, nrMore: number): void => {
    account.account(mm, vmas.specOf(vma), nrMore);
    if ((field(vma, VMA_FLAGS) & VM_LOCKED) !== 0) port.st32(mm + MM_LOCKED_VM, field(mm, MM_LOCKED_VM) + nrMore);
  };

  /** Makes the tables that the entries of `[start, end)` need `delta` pages further; false without memory. */
  const prepareTables = (ctx: Context, mm: PhysAddr, start: number, end: number, delta: number): boolean => {
    let isReady = true;
    let ready = -1;
    pageTables.forEachEntry(pgdOf(mm), start, end, (_pte, page) => {
      const table = Math.floor((page + delta) / PTES_PER_TABLE);
      if (!isReady || table === ready) return;
      isReady = pageTables.walk(ctx, pgdOf(mm), page + delta, true) !== NULL;
      ready = table;
    });
    return isReady;
  };

  const moveEntries = (ctx: Context, mm: PhysAddr, start: number, end: number, delta: number): void => {
    pageTables.forEachEntry(pgdOf(mm), start, end, (pte, page, word) => {
      const to = pageTables.walk(ctx, pgdOf(mm), page + delta, false);
      bugOn(to === NULL, "MRM-1: no table where an entry is to go", page, delta);
      pageTables.writePte(pte, 0);
      pageTables.writePte(to, word);
    });
    tlb.flushRange(ctx, mm, start, end);
  };

  /** Moves `[start, oldEnd)`, in one VMA, to `to`, `nrPages` long; nothing is there. 0 or −errno. */
  const move = (ctx: Context, mm: PhysAddr, start: number, oldEnd: number, to: number, nrPages: number): number => {
    if (!vmas.splitAt(ctx, mm, start) || !vmas.splitAt(ctx, mm, oldEnd)) return -ENOMEM;
    const vma = vmas.at(mm, start);
    const fresh = vmas.addLike(ctx, mm, to, to + nrPages, vmas.specOf(vma), vma);
    if (fresh === NULL) return -ENOMEM;
    if (!prepareTables(ctx, mm, start, oldEnd, to - start)) {
      vmas.remove(ctx, mm, fresh);
      calls.freeTables(ctx, mm, to, to + nrPages);
      return -ENOMEM;
    }
    moveEntries(ctx, mm, start, oldEnd, to - start);
    grown(mm, fresh, nrPages);
    // Its pages are at the new place: what is unmapped is empty, and cut already.
    calls.unmapPages(ctx, mm, start, oldEnd);
    return 0;
  };

  const moveAndJoin = (
    ctx: Context,
    mm: PhysAddr,
    start: number,
    oldEnd: number,
    to: number,
    nrPages: number,
  ): number => {
    const result = move(ctx, mm, start, oldEnd, to, nrPages);
    vmas.joinAround(ctx, mm, start, oldEnd);
    vmas.joinAround(ctx, mm, to, to + nrPages);
    return result;
  };

  /** Longer in place: 0; 1 if something is behind it; −errno. */
  const growInPlace = (ctx: Context, mm: PhysAddr, start: number, oldEnd: number, newEnd: number): number => {
    const vma = vmas.at(mm, start);
    const isFree = field(vma, VMA_END) === oldEnd && !vmas.isTaken(mm, oldEnd, newEnd);
    if (!isFree || pageRange(start * PAGE_SIZE, (newEnd - start) * PAGE_SIZE) === null) return 1;
    vmas.resize(vma, field(vma, VMA_START), newEnd);
    grown(mm, vma, newEnd - oldEnd);
    vmas.joinAround(ctx, mm, start, newEnd);
    return 0;
  };

  /** Where a mapping that moves goes, with what is there out of the way: a page number, or −errno. */
  const target = (ctx: Context, mm: PhysAddr, nrPages: number, fixed: readonly [number, number] | null): number => {
    if (fixed === null) {
      const gap = vmas.findGap(mm, nrPages, MMAP_MIN_PAGE, field(mm, MM_MMAP_TOP));
      return gap < 0 ? -ENOMEM : gap;
    }
    const result = vmas.isTaken(mm, fixed[0], fixed[1]) ? calls.unmapPages(ctx, mm, fixed[0], fixed[1]) : 0;
    return result === 0 ? fixed[0] : result;
  };

  return (ctx, mm, addr, oldBytes, newBytes, flags, newAddr) => {
    const range = pageRange(addr, oldBytes);
    const size = pageRange(0, newBytes);
    const isFixed = (flags & MREMAP_FIXED) !== 0;
    const mayMove = (flags & MREMAP_MAYMOVE) !== 0;
    if (range === null || size === null || (flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE)) !== 0) return -EINVAL;
    const [start, oldEnd] = range;
    const nrPages = size[1];
    const fixed = isFixed ? pageRange(newAddr, newBytes) : null;
    if (isFixed && (!mayMove || fixed === null || fixed[0] === 0)) return -EINVAL;
    if (fixed !== null && fixed[0] < oldEnd && start < fixed[1]) return -EINVAL;
    const vma = vmas.at(mm, start);
    if (vma === NULL || field(vma, VMA_END) < oldEnd) return -EFAULT;
    const nrMore = nrPages - (oldEnd - start);
    const problem = nrMore > 0 ? growProblem(mm, vma, nrMore) : 0;
    if (problem !== 0) return problem;
    if (nrMore < 0 && calls.unmapPages(ctx, mm, start + nrPages, oldEnd) !== 0) return -ENOMEM;
    const end = Math.min(oldEnd, start + nrPages);
    let at = start;
    let result = fixed === null && nrMore <= 0 ? 0 : 1;
    if (result === 1 && fixed === null) result = growInPlace(ctx, mm, start, end, start + nrPages);
    if (result === 1) {
      at = mayMove ? target(ctx, mm, nrPages, fixed) : -ENOMEM;
      result = at < 0 ? at : moveAndJoin(ctx, mm, start, end, at, nrPages);
    }
    if (result !== 0) return result;
    const moved = vmas.at(mm, at);
    if ((field(moved, VMA_FLAGS) & VM_LOCKED) !== 0) calls.populate(ctx, mm, at, at + nrPages);
    return at * PAGE_SIZE;
  };
}
