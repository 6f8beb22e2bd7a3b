/**
 * The system calls that change which addresses mean something: mmap, munmap, mprotect, brk.
 *
 * Each checks everything that can be refused (arguments, limits, overcommit), then cuts VMAs at the ends of its range,
 * changes what lies between, and joins what nothing sets apart any more. A cut needs memory and may fail: nothing else
 * has changed by then, and the pieces are joined again.
 *
 *   MAP-1  a call that fails changes nothing (SYS-2), but for a MAP_FIXED whose range is gone when VMAs run out
 *   MAP-2  a new mapping never comes to lie on an old one unless MAP_FIXED says so
 *   MAP-4  private anonymous memory of whole huge pages begins at a multiple of 2 MiB, if there is room to choose
 *   MAP-3  a shared mapping of a file that was not opened for writing is never writable
 *
 * Context: process. Linux: mm/mmap.c, mm/mprotect.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import { asPfn, type Context, NULL, type PhysAddr } from "../kernel/types.ts";
import { EACCES, EAGAIN, EEXIST, EINVAL, ENOMEM } from "../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_GROWSDOWN,
  MAP_LOCKED,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
} from "../kernel/uapi/mman.ts";
import { type FileMap, MAX_FILE_BYTES } from "./filemap.ts";
import type { UserPages } from "./memory.ts";
import {
  AS_COMMITTED,
  AS_SHMEM,
  MM_BRK,
  MM_DEF_FLAGS,
  MM_LIM_DATA,
  MM_LIM_MEMLOCK,
  MM_LOCKED_VM,
  MM_MMAP_TOP,
  MM_PGD,
  MM_START_BRK,
  VM_ACCOUNT,
  VM_GROWSDOWN,
  VM_LOCKED,
  VM_MAYWRITE,
  VM_SHARED,
  VMA_ANON,
  VMA_END,
  VMA_FLAGS,
  VMA_HEAP,
  VMA_PROT,
  VMA_START,
} from "./mm_struct.ts";
import type { MmuGather, MmuGathers } from "./mmu_gather.ts";
import type { PageTables } from "./pgtable.ts";
import type { VmAccount } from "./vm_account.ts";
import type { VmaSpec, Vmas } from "./vma.ts";
import { NR_COMMITTED, type VmStat } from "./vmstat.ts";

const PROT_ALL = PROT_READ | PROT_WRITE | PROT_EXEC;
/** Arguments are 53 bits wide, and a mask looks at the lowest 32 only. */
const isProt = (prot: number): boolean => prot >= 0 && prot <= PROT_ALL;
/** No mapping below it unless it is asked for: a NULL pointer with an offset hits nothing (vm.mmap_min_addr). */
export const MMAP_MIN_PAGE = 16;

/** The file of a mapping, as its open file sees it. */
export interface MappedFile {
  readonly mapping: PhysAddr;
  readonly canRead: boolean;
  readonly canWrite: boolean;
  /** Byte offset of the first page, page-aligned. */
  readonly offset: number;
}

/** Pages of a huge page: private anonymous mappings of whole ones are aligned to them. */
const HUGE_PAGES = 512;

export type PageRange = readonly [start: number, end: number];

/** Page range of a user request, or null if it is not one. */
export function pageRange(addr: number, bytes: number): PageRange | null {
  if (!Number.isInteger(addr) || !Number.isInteger(bytes) || addr < 0 || bytes <= 0) return null;
  if (addr % PAGE_SIZE !== 0 || addr + bytes > TASK_SIZE) return null;
  return [addr / PAGE_SIZE, Math.ceil((addr + bytes) / PAGE_SIZE)];
}

export interface MmapCalls {
  /** Address, or −errno. Without `file` the memory is anonymous. */
  mmap(ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number, flags: number, file?: MappedFile): number;
  munmap(ctx: Context, mm: PhysAddr, addr: number, bytes: number): number;
  mprotect(ctx: Context, mm: PhysAddr, addr: number, bytes: number, prot: number): number;
  /** The break after the call; unchanged on failure. */
  brk(ctx: Context, mm: PhysAddr, addr: number): number;
  /** Unmaps the pages `[start, end)`: 0 or −ENOMEM. */
  unmapPages(ctx: Context, mm: PhysAddr, start: number, end: number): number;
  /** Frees the tables that were made for pages `[start, end)`, which no VMA covers. */
  freeTables(ctx: Context, mm: PhysAddr, start: number, end: number): void;
  /** A mapping where nothing is: 0 or −ENOMEM. */
  mapAt(ctx: Context, mm: PhysAddr, start: number, end: number, spec: VmaSpec, isNoReserve?: boolean): number;
  /** Touches every page of `[start, end)` that may be read: 0, or the first failure. */
  populate(ctx: Context, mm: PhysAddr, start: number, end: number): number;
}

export interface MmapDeps {
  readonly port: MemoryPort;
  readonly vmas: Vmas;
  readonly files: FileMap;
  readonly userPages: UserPages;
  readonly pageTables: PageTables;
  readonly gathers: MmuGathers;
  readonly account: VmAccount;
  readonly vmstat: VmStat;
}

export function createMmapCalls(deps: MmapDeps): MmapCalls {
  const { port, vmas, files, userPages, pageTables, gathers, account, vmstat } = deps;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const setField = (base: PhysAddr, offset: number, value: number): void => port.st32(base + offset, value);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);

  /** Cuts VMAs at both ends; on failure joins again. */
  const cut = (ctx: Context, mm: PhysAddr, start: number, end: number): boolean => {
    if (vmas.splitAt(ctx, mm, start) && vmas.splitAt(ctx, mm, end)) return true;
    vmas.joinAround(ctx, mm, start, end);
    return false;
  };

  /** Calls `visit(vma, pages inside the range)`; the first result that is not 0. */
  const forRange = (mm: PhysAddr, start: number, end: number, visit: (vma: PhysAddr, nr: number) => number): number => {
    for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; vma = vmas.next(vma)) {
      const result = visit(vma, Math.min(end, field(vma, VMA_END)) - Math.max(start, field(vma, VMA_START)));
      if (result !== 0) return result;
    }
    return 0;
  };

  /** Tables of `[start, end)`, which no VMA covers, that no neighbour needs wait for the flush (PGT-3). */
  const detachTables = (gather: MmuGather, start: number, end: number): void => {
    const [floor, ceiling] = vmas.holeAround(gather.mm, start);
    const root = asPfn(field(gather.mm, MM_PGD));
    pageTables.detach(root, start, end, floor, ceiling, (table) => gathers.addTable(gather, table));
  };

  const unmapPages: MmapCalls["unmapPages"] = (ctx, mm, start, end) => {
    if (!cut(ctx, mm, start, end)) return -ENOMEM;
    const gather = gathers.begin(mm, end - start);
    for (let vma = vmas.find(mm, start); vma !== NULL && field(vma, VMA_START) < end; ) {
      const next = vmas.next(vma);
      const [first, last] = [field(vma, VMA_START), field(vma, VMA_END)];
      userPages.zapInto(ctx, gather, first, last);
      account.account(mm, vmas.specOf(vma), first - last);
      if ((field(vma, VMA_FLAGS) & VM_LOCKED) !== 0) addField(mm, MM_LOCKED_VM, first - last);
      vmas.remove(ctx, mm, vma);
      vma = next;
    }
    detachTables(gather, start, end);
    gathers.finish(ctx, gather);
    return 0;
  };

  const populate: MmapCalls["populate"] = (ctx, mm, start, end) => {
    for (let page = start; page < end; page++) {
      const vma = vmas.at(mm, page);
      if (vma === NULL) continue;
      const prot = field(vma, VMA_PROT);
      if ((prot & (PROT_READ | PROT_WRITE)) === 0) continue;
      // A writable private page gets its own frame now rather than at its first store.
      const isWrite = (prot & PROT_WRITE) !== 0 && (field(vma, VMA_FLAGS) & VM_SHARED) === 0;
      const result = userPages.handleFault(ctx, mm, page * PAGE_SIZE, isWrite);
      if (result !== 0) return result;
    }
    return 0;
  };

  const mapAt: MmapCalls["mapAt"] = (ctx, mm, start, end, spec, isNoReserve = false) => {
    const nrPages = end - start;
    const isAccounted = account.isAccounted(spec, isNoReserve);
    const flags = (spec.flags | field(mm, MM_DEF_FLAGS) | (isAccounted ? VM_ACCOUNT : 0)) >>> 0;
    const full = { ...spec, flags };
    if (!account.mayExpand(mm, full, nrPages) || (isAccounted && !account.mayCommit(nrPages))) return -ENOMEM;
    if (vmas.add(ctx, mm, start, end, full) === NULL) return -ENOMEM;
    account.account(mm, full, nrPages);
    if ((flags & VM_LOCKED) !== 0) addField(mm, MM_LOCKED_VM, nrPages);
    vmas.joinAround(ctx, mm, start, end);
    return 0;
  };

  // ── mmap ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  const isPrivateAnon = (flags: number): boolean => (flags & (MAP_ANONYMOUS | MAP_SHARED)) === MAP_ANONYMOUS;

  /** A place at a multiple of 2 MiB, for huge pages (thp.ts); −1 without the room to choose. */
  const alignedGap = (mm: PhysAddr, nrPages: number): number => {
    const start = vmas.findGap(mm, nrPages + HUGE_PAGES, MMAP_MIN_PAGE, field(mm, MM_MMAP_TOP));
    // Upwards, so that a mapping that could be next to the one above is.
    return start < 0 ? start : start - (start % HUGE_PAGES) + HUGE_PAGES;
  };

  /** Where the mapping goes: a page number, or −errno. */
  const place = (mm: PhysAddr, addr: number, bytes: number, flags: number): number => {
    const nrPages = Math.ceil(bytes / PAGE_SIZE);
    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0) {
      const range = pageRange(addr, bytes);
      if (range === null || range[0] === 0) return -EINVAL;
      const isKept = (flags & MAP_FIXED_NOREPLACE) !== 0 && vmas.isTaken(mm, range[0], range[1]);
      return isKept ? -EEXIST : range[0];
    }
    const hint = pageRange(Math.ceil(addr / PAGE_SIZE) * PAGE_SIZE, bytes);
    if (hint !== null && hint[0] >= MMAP_MIN_PAGE && !vmas.isTaken(mm, hint[0], hint[1])) return hint[0];
    const aligned = isPrivateAnon(flags) && nrPages % HUGE_PAGES === 0 ? alignedGap(mm, nrPages) : -1;
    const start = aligned >= 0 ? aligned : vmas.findGap(mm, nrPages, MMAP_MIN_PAGE, field(mm, MM_MMAP_TOP));
    return start < 0 ? -ENOMEM : start;
  };

  /** Rights that the file does not give: −EACCES; 0. */
  const fileProblem = (prot: number, isShared: boolean, file: MappedFile | undefined, bytes: number): number => {
    if (file === undefined) return 0;
    if (!Number.isInteger(file.offset) || file.offset < 0 || file.offset % PAGE_SIZE !== 0) return -EINVAL;
    if (file.offset + bytes > MAX_FILE_BYTES) return -EINVAL;
    return !file.canRead || (isShared && (prot & PROT_WRITE) !== 0 && !file.canWrite) ? -EACCES : 0;
  };

  /** A new piece of shared memory with one user; NULL without memory. */
  const createShmem = (ctx: Context, nrPages: number): PhysAddr => {
    if (!account.mayCommit(nrPages)) return NULL;
    const mapping = files.create(ctx, AS_SHMEM);
    if (mapping === NULL) return NULL;
    files.setSize(mapping, nrPages * PAGE_SIZE);
    setField(mapping, AS_COMMITTED, nrPages);
    vmstat.modItem(NR_COMMITTED, nrPages);
    return mapping;
  };

  const lockedProblem = (mm: PhysAddr, flags: number, nrPages: number): number => {
    const isLocked = (flags & MAP_LOCKED) !== 0 || (field(mm, MM_DEF_FLAGS) & VM_LOCKED) !== 0;
    return isLocked && field(mm, MM_LOCKED_VM) + nrPages > field(mm, MM_LIM_MEMLOCK) ? -EAGAIN : 0;
  };

  const specFor = (prot: number, flags: number, start: number, file: MappedFile | undefined): VmaSpec => {
    const isShared = (flags & MAP_SHARED) !== 0;
    const mayWrite = !isShared || file === undefined || file.canWrite;
    return {
      prot,
      kind: VMA_ANON,
      flags:
        (isShared ? VM_SHARED : 0) |
        (mayWrite ? VM_MAYWRITE : 0) |
        ((flags & MAP_GROWSDOWN) !== 0 ? VM_GROWSDOWN : 0) |
        ((flags & MAP_LOCKED) !== 0 ? VM_LOCKED : 0),
      pgoff: file === undefined ? (isShared ? 0 : start) : file.offset / PAGE_SIZE,
      mapping: file?.mapping ?? NULL,
    };
  };

  const mmap: MmapCalls["mmap"] = (ctx, mm, addr, bytes, prot, flags, file) => {
    const sharing = flags & (MAP_SHARED | MAP_PRIVATE);
    const isAnon = (flags & MAP_ANONYMOUS) !== 0;
    if ((sharing !== MAP_SHARED && sharing !== MAP_PRIVATE) || (!isAnon && file === undefined)) return -EINVAL;
    if (!isProt(prot) || !Number.isInteger(addr) || !Number.isInteger(bytes) || bytes <= 0) return -EINVAL;
    if ((flags & MAP_GROWSDOWN) !== 0 && (sharing === MAP_SHARED || !isAnon)) return -EINVAL;
    if (bytes > TASK_SIZE) return -ENOMEM;
    const nrPages = Math.ceil(bytes / PAGE_SIZE);
    const shown = isAnon ? undefined : file;
    const problem = fileProblem(prot, sharing === MAP_SHARED, shown, bytes) || lockedProblem(mm, flags, nrPages);
    if (problem !== 0) return problem;
    const start = place(mm, addr, bytes, flags);
    if (start < 0) return start;
    let spec = specFor(prot, flags, start, shown);
    const isShmem = isAnon && sharing === MAP_SHARED;
    // What can be refused is refused before the old mapping goes (MAP-1).
    const isNoReserve = (flags & MAP_NORESERVE) !== 0;
    let nrTaken = 0;
    forRange(mm, start, start + nrPages, (_vma, nr) => {
      nrTaken += nr;
      return 0;
    });
    if (!account.mayExpand(mm, spec, nrPages - nrTaken)) return -ENOMEM;
    if (account.isAccounted(spec, isNoReserve) && !account.mayCommit(nrPages)) return -ENOMEM;
    if (isShmem) {
      const mapping = createShmem(ctx, nrPages);
      if (mapping === NULL) return -ENOMEM;
      spec = { ...spec, mapping };
    }
    let result = nrTaken > 0 ? unmapPages(ctx, mm, start, start + nrPages) : 0;
    if (result === 0) result = mapAt(ctx, mm, start, start + nrPages, spec, isNoReserve);
    if (isShmem) files.put(ctx, spec.mapping);
    if (result !== 0) return result;
    // Memory that is short now is short at the touch, too: the mapping stays.
    const isFilled = (flags & (MAP_POPULATE | MAP_LOCKED)) !== 0 || (field(mm, MM_DEF_FLAGS) & VM_LOCKED) !== 0;
    if (isFilled) populate(ctx, mm, start, start + nrPages);
    return start * PAGE_SIZE;
  };

  // ── mprotect ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const mprotect: MmapCalls["mprotect"] = (ctx, mm, addr, bytes, prot) => {
    const range = pageRange(addr, bytes);
    if (range === null || !isProt(prot)) return -EINVAL;
    const [start, end] = range;
    if (!vmas.isCovered(mm, start, end)) return -ENOMEM;
    let nrNew = 0;
    let nrData = 0;
    const isWritable = (prot & PROT_WRITE) !== 0;
    const problem = forRange(mm, start, end, (vma, nr) => {
      const spec = vmas.specOf(vma);
      if (!isWritable) return 0;
      if ((spec.flags & VM_MAYWRITE) === 0) return -EACCES;
      if (account.isAccounted({ ...spec, prot }, false) && (spec.flags & VM_ACCOUNT) === 0) nrNew += nr;
      if ((spec.prot & PROT_WRITE) === 0 && (spec.flags & VM_SHARED) === 0) nrData += nr;
      return 0;
    });
    if (problem !== 0) return problem;
    if (!account.mayHaveData(mm, nrData)) return -ENOMEM;
    if (nrNew > 0 && !account.mayCommit(nrNew)) return -ENOMEM;
    if (!cut(ctx, mm, start, end)) return -ENOMEM;
    forRange(mm, start, end, (vma, nr) => {
      account.account(mm, vmas.specOf(vma), -nr);
      setField(vma, VMA_PROT, prot);
      if (account.isAccounted(vmas.specOf(vma), false)) setField(vma, VMA_FLAGS, field(vma, VMA_FLAGS) | VM_ACCOUNT);
      account.account(mm, vmas.specOf(vma), nr);
      return 0;
    });
    userPages.protect(ctx, mm, start, end, prot);
    vmas.joinAround(ctx, mm, start, end);
    return 0;
  };

  // ── brk ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  const brk: MmapCalls["brk"] = (ctx, mm, addr) => {
    const old = port.ldF64(mm + MM_BRK);
    const first = port.ldF64(mm + MM_START_BRK);
    if (!Number.isInteger(addr) || addr < first || addr >= field(mm, MM_MMAP_TOP) * PAGE_SIZE) return old;
    if (Math.ceil((addr - first) / PAGE_SIZE) > field(mm, MM_LIM_DATA)) return old;
    const oldEnd = Math.ceil(old / PAGE_SIZE);
    const newEnd = Math.ceil(addr / PAGE_SIZE);
    if (newEnd < oldEnd && unmapPages(ctx, mm, newEnd, oldEnd) !== 0) return old;
    if (newEnd > oldEnd) {
      if (vmas.isTaken(mm, oldEnd, newEnd) || lockedProblem(mm, 0, newEnd - oldEnd) !== 0) return old;
      const prot = PROT_READ | PROT_WRITE;
      const spec: VmaSpec = { prot, kind: VMA_HEAP, flags: VM_MAYWRITE, pgoff: oldEnd, mapping: NULL };
      if (mapAt(ctx, mm, oldEnd, newEnd, spec) !== 0) return old;
      if ((field(mm, MM_DEF_FLAGS) & VM_LOCKED) !== 0) populate(ctx, mm, oldEnd, newEnd);
    }
    port.stF64(mm + MM_BRK, addr);
    return addr;
  };

  return {
    mmap,
    munmap(ctx, mm, addr, bytes) {
      const range = pageRange(addr, bytes);
      return range === null ? -EINVAL : unmapPages(ctx, mm, range[0], range[1]);
    },
    mprotect,
    brk,
    unmapPages,
    freeTables(ctx, mm, start, end) {
      const gather = gathers.begin(mm, 0);
      detachTables(gather, start, end);
      gathers.finish(ctx, gather);
    },
    mapAt,
    populate,
  };
}
