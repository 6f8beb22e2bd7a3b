/**
 * What processes are promised: limits of one address space, and overcommit of the machine.
 *
 * A mapping costs nothing when it is made; memory goes when it is touched. Whether a promise is made at all is asked
 * here, three times: the process's own limits, the account of the machine (vm.overcommit_memory), and at the touch,
 * where it is too late to say no politely.
 *
 *   mode 0  heuristic: refused is only what could not be there at all, more than RAM and swap in one request
 *   mode 1  always: nothing is refused
 *   mode 2  never: NR_COMMITTED stays below overcommit_ratio % of RAM, plus swap; and below what is free now, with page
 *           tables and a share for the kernel, so that a promise can be kept without taking anything from anybody
 *
 * In the account are private writable mappings and shared memory, touched or not (VM_ACCOUNT). Files are not: their
 * pages can be given back. With mode 0 and 1 NR_COMMITTED is kept as well, to be read.
 *
 *   ACC-1  NR_COMMITTED = Σ committed of address spaces + Σ committed of shared memory objects
 *   ACC-2  total, data and stack vm = pages of the VMAs, of private writable ones but stacks, of stacks
 *   ACC-3  in mode 2, NR_COMMITTED never passes the limit by a request that was granted
 *
 * Mode 2 is stricter than Linux's, which counts on reclaim; and there is no reserve for root, who everybody is.
 * Source: mm/util.c (__vm_enough_memory), mm/mmap.c (may_expand_vm), Documentation/vm/overcommit-accounting.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { PhysAddr } from "../kernel/types.ts";
import { PROT_WRITE } from "../kernel/uapi/mman.ts";
import {
  MM_COMMITTED,
  MM_DATA_VM,
  MM_LIM_AS,
  MM_LIM_DATA,
  MM_PEAK_VM,
  MM_STACK_VM,
  MM_TOTAL_VM,
  VM_ACCOUNT,
  VM_SHARED,
  VMA_STACK,
} from "./mm_struct.ts";
import { MAX_NR_ZONES, WMARK_HIGH, Z_LOWMEM_RESERVE, Z_NR_FREE, ZONE_MOVABLE, type Zones } from "./mmzone.ts";
import { NR_ANON_MAPPED, NR_CMA_USED, NR_COMMITTED, NR_PAGETABLE, NR_SHMEM, type VmStat } from "./vmstat.ts";

export const OVERCOMMIT_GUESS = 0;
export const OVERCOMMIT_ALWAYS = 1;
export const OVERCOMMIT_NEVER = 2;
const DEFAULT_RATIO = 50;
/** One 64th of memory is not promised to processes in mode 2. */
const KERNEL_SHARE_SHIFT = 6;

/** u32 ×2: mode, ratio. */
const MODE = 0;
const RATIO = 4;
export const VM_ACCOUNT_BYTES = 8;

/** What of a VMA matters for the accounts. */
export interface Accounted {
  readonly prot: number;
  readonly kind: number;
  readonly flags: number;
}

export interface VmAccount {
  /** Do the limits of `mm` allow `nrPages` more of this kind? */
  mayExpand(mm: PhysAddr, what: Accounted, nrPages: number): boolean;
  /** May `nrPages` of it that were not writable become data? */
  mayHaveData(mm: PhysAddr, nrPages: number): boolean;
  /** Can `nrPages` more be promised? */
  mayCommit(nrPages: number): boolean;
  /** `nrPages` of this kind came (or, negative, went). */
  account(mm: PhysAddr, what: Accounted, nrPages: number): void;
  /** Would a private mapping of this kind be accounted? */
  isAccounted(what: Accounted, isNoReserve: boolean): boolean;
  mode(): number;
  setMode(mode: number): void;
  ratio(): number;
  setRatio(ratio: number): void;
  /** CommitLimit of /proc/meminfo, pages. */
  commitLimit(): number;
}

export interface VmAccountDeps {
  readonly port: MemoryPort;
  readonly zones: Zones;
  readonly vmstat: VmStat;
  /** VM_ACCOUNT_BYTES. */
  readonly state: PhysAddr;
  /** Pages of all swap areas. */
  readonly swapPages: () => number;
}

export function createVmAccount(deps: VmAccountDeps): VmAccount {
  const { port, zones, vmstat, state, swapPages } = deps;
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const addField = (base: PhysAddr, offset: number, delta: number): void =>
    port.st32(base + offset, port.ld32(base + offset) + delta);
  port.st32(state + RATIO, DEFAULT_RATIO);

  const isData = ({ prot, kind, flags }: Accounted): boolean =>
    (prot & PROT_WRITE) !== 0 && (flags & VM_SHARED) === 0 && kind !== VMA_STACK;

  /** Can the promises be kept with what is free now, above the high marks? */
  const isThere = (committed: number): boolean => {
    let available = vmstat.item(NR_ANON_MAPPED) + vmstat.item(NR_SHMEM) + swapPages();
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const kept = zones.wmark(zone, WMARK_HIGH) + zones.field(zone, Z_LOWMEM_RESERVE + ZONE_MOVABLE * 4);
      available += Math.max(0, zones.field(zone, Z_NR_FREE) - kept);
    }
    // The contiguous area is lent, not given: what a driver takes back must not break a promise.
    available -= zones.totalCma() - vmstat.item(NR_CMA_USED);
    // Page tables for every promise, as far as they are not there yet, and a share for the kernel's own objects.
    const tables = Math.max(0, Math.ceil(committed / 512) + 3 - vmstat.item(NR_PAGETABLE));
    return committed + tables + (zones.totalManaged() >>> KERNEL_SHARE_SHIFT) <= available;
  };

  const commitLimit = (): number => Math.floor((zones.totalManaged() * field(state, RATIO)) / 100) + swapPages();

  return {
    mayExpand: (mm, what, nrPages) =>
      field(mm, MM_TOTAL_VM) + nrPages <= field(mm, MM_LIM_AS) &&
      (!isData(what) || field(mm, MM_DATA_VM) + nrPages <= field(mm, MM_LIM_DATA)),
    mayHaveData: (mm, nrPages) => field(mm, MM_DATA_VM) + nrPages <= field(mm, MM_LIM_DATA),
    mayCommit(nrPages) {
      const mode = field(state, MODE);
      if (mode === OVERCOMMIT_ALWAYS) return true;
      if (mode === OVERCOMMIT_GUESS) return nrPages <= zones.totalManaged() + swapPages();
      const committed = vmstat.item(NR_COMMITTED) + nrPages;
      return committed <= commitLimit() && isThere(committed);
    },
    account(mm, what, nrPages) {
      addField(mm, MM_TOTAL_VM, nrPages);
      if (field(mm, MM_TOTAL_VM) > field(mm, MM_PEAK_VM)) port.st32(mm + MM_PEAK_VM, field(mm, MM_TOTAL_VM));
      if (what.kind === VMA_STACK) addField(mm, MM_STACK_VM, nrPages);
      else if (isData(what)) addField(mm, MM_DATA_VM, nrPages);
      if ((what.flags & VM_ACCOUNT) === 0) return;
      addField(mm, MM_COMMITTED, nrPages);
      vmstat.modItem(NR_COMMITTED, nrPages);
    },
    isAccounted: ({ prot, flags }, isNoReserve) =>
      (prot & PROT_WRITE) !== 0 &&
      (flags & VM_SHARED) === 0 &&
      !(isNoReserve && field(state, MODE) !== OVERCOMMIT_NEVER),
    mode: () => field(state, MODE),
    setMode: (mode) => port.st32(state + MODE, mode),
    ratio: () => field(state, RATIO),
    setRatio: (ratio) => port.st32(state + RATIO, ratio),
    commitLimit,
  };
}
