/**
 * The MMU: Sv39 page tables in RAM, and one TLB per CPU.
 *
 *   virtual    | VPN[2] 9 | VPN[1] 9 | VPN[0] 9 | offset 12 |
 *   entry      | N 1 | PBMT 2 | reserved 7 | PPN 44 | RSW 2 | D A G U X W R V |      64 bits
 *
 * A table is one page of 512 entries. An entry with V and none of R, W, X points at the next table; one with R or X
 * is a leaf: at level 0 a 4 KiB page, at level 1 a 2 MiB page, at level 2 a 1 GiB page. Physical addresses end at
 * 4 GiB, so the high word of an entry is always zero and its low word holds everything.
 *
 * The TLB is direct-mapped, 256 entries a CPU, tagged with an address-space id (ASID). It is filled by the hardware
 * walk and forgets only when told to (sfence.vma): a kernel that changes an entry and does not flush keeps using the
 * old translation, here as on real hardware. Writes need an entry whose D bit is set; the walk sets A and D itself.
 *
 * The kernel's own window (vmalloc) has a table of its own, the same on every CPU. Its translations are in the same TLB
 * under ASID 0, by page numbers that count from the start of the window.
 *
 * A checking MMU (`debug_tlb=on`) compares each translation of a process that it has at hand with the table, and tells
 * when a kernel has changed an entry without a flush: the access goes on by the old one, as on hardware. It also keeps
 * what a walk cache would: where the level-0 tables are. Only a flush of the whole address space forgets that, so a
 * table that was taken away without one is told of, as is a frame in a walk that is no table.
 *
 * Source: RISC-V privileged specification, chapter "Sv39".
 */

import { PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, VMALLOC_BYTES, VMALLOC_START } from "../params.ts";
import { CYC_TLB_FLUSH, CYC_TLB_WALK } from "./charges.ts";
import type { Harts } from "./harts.ts";
import type { MemoryPort } from "./port.ts";

export const PTE_V = 1 << 0;
export const PTE_R = 1 << 1;
export const PTE_W = 1 << 2;
export const PTE_X = 1 << 3;
export const PTE_U = 1 << 4;
export const PTE_G = 1 << 5;
export const PTE_A = 1 << 6;
export const PTE_D = 1 << 7;
/** First of the two bits left to software. */
export const PTE_RSW0 = 1 << 8;
export const PTE_RSW1 = 1 << 9;
export const PTE_LEAF = PTE_R | PTE_X;

export const PTES_PER_TABLE = 512;
export const PT_LEVELS = 3;

const TLB_ENTRIES = 256;
const TLB_MASK = TLB_ENTRIES - 1;
/** An ASID is a byte above the 23 bits that a user page number has. */
const ASID_FACTOR = 2 ** 23;
export const NR_ASIDS = 256;
/** The address space of the kernel's window; processes have 1 and above. */
export const KERNEL_ASID = 0;
if (VMALLOC_BYTES / PAGE_SIZE > ASID_FACTOR) throw new Error("mmu: page numbers of the window do not fit a tag");

/** Entries of the walk cache of a checking MMU, a CPU; an ASID is above the 14 bits of a user page number without 9. */
const WALK_ENTRIES = 64;
const WALK_ASID_FACTOR = 2 ** 14;

/** What `translate` returns when the access is not allowed; a physical address is never negative. */
export const MMU_FAULT = -1;

/** A translation that a TLB has and the table has not: `cached` is the physical base, `pte` the entry, 0 for none. */
export interface StaleTranslation {
  readonly cpu: number;
  readonly asid: number;
  readonly va: number;
  readonly isWrite: boolean;
  readonly cached: number;
  readonly pte: number;
}

/** A walk by a table that is none any more: `table` is what a walk cache may have, `current` what hangs there or 0. */
export interface StaleTable {
  readonly cpu: number;
  readonly asid: number;
  readonly va: number;
  readonly isWrite: boolean;
  readonly table: number;
  readonly current: number;
}

export interface Mmu {
  /**
   * Physical address of user address `va` for a load (`isWrite` false) or a store, or MMU_FAULT. Looks into the TLB,
   * walks on a miss, charges the walk. `va` is any number: one outside user space faults.
   */
  translate(cpu: number, va: number, isWrite: boolean): number;
  /** The same for an address in the kernel's window; what is not mapped there, or outside of it, is MMU_FAULT. */
  translateKernel(cpu: number, va: number, isWrite: boolean): number;
  /** Where the table of the kernel's window is: a frame; boot only. */
  setKernelRoot(root: number): void;
  /** sfence.vma for one page of one address space, on one CPU; who calls pays. */
  flushPage(cpu: number, asid: number, va: number): void;
  /** sfence.vma for a whole address space, on one CPU; who calls pays. */
  flushAsid(cpu: number, asid: number): void;
  /** Everything that one CPU has cached. */
  flushAll(cpu: number): void;
  /** Who is told of stale translations, by a checking MMU. */
  onStale(hook: (stale: StaleTranslation) => void): void;
  /** Who is told of stale tables, by a checking MMU. `isTable`: is a frame a page table? */
  onStaleTable(hook: (stale: StaleTable) => void, isTable: (frame: number) => boolean): void;
  /** Copies of the TLB words, for a saved machine. */
  readonly tlbWords: readonly (Int32Array | Uint32Array)[];
  /** Hits are not counted (they cost nothing extra); walks are, per CPU. */
  readonly walks: Float64Array;
}

export function createMmu(port: MemoryPort, harts: Harts, isChecking = false): Mmu {
  const { satpRoot, satpAsid, clock, nrCpus } = harts;
  // A tag is page number + asid · 2^23, as a signed word; 0 is invalid, so ASIDs in use start at 1.
  const readTag = new Int32Array(nrCpus * TLB_ENTRIES);
  const writeTag = new Int32Array(nrCpus * TLB_ENTRIES);
  const frameBase = new Uint32Array(nrCpus * TLB_ENTRIES);
  const walks = new Float64Array(nrCpus);

  const tagOf = (vpn: number, asid: number): number => (vpn + asid * ASID_FACTOR) | 0;

  let kernelRoot = 0;

  /**
   * Walks the tables at frame `root` for page `vpn`; on success fills slot `slot` under `tag` and returns the page's
   * physical base. `user`: PTE_U where the entry has to be a process's, 0 where it must not be.
   */
  const walk = (
    cpu: number,
    root: number,
    vpn: number,
    user: number,
    isWrite: boolean,
    slot: number,
    tag: number,
  ): number => {
    clock[cpu] = (clock[cpu] as number) + CYC_TLB_WALK;
    walks[cpu] = (walks[cpu] as number) + 1;
    let table = root * PAGE_SIZE;
    if (table === 0) return MMU_FAULT;
    for (let level = PT_LEVELS - 1; level >= 0; level--) {
      const index = (vpn >>> (9 * level)) & (PTES_PER_TABLE - 1);
      const pteAddr = table + index * 8;
      const pte = port.ld32(pteAddr);
      if ((pte & PTE_V) === 0) return MMU_FAULT;
      const ppn = pte >>> 10;
      if ((pte & PTE_LEAF) === 0) {
        table = ppn * PAGE_SIZE;
        continue;
      }
      if ((pte & PTE_U) !== user || (isWrite && (pte & PTE_W) === 0)) return MMU_FAULT;
      const used = pte | PTE_A | (isWrite ? PTE_D : 0);
      if (used !== pte) port.st32(pteAddr, used >>> 0);
      const inLeaf = vpn & ((1 << (9 * level)) - 1);
      const base = (ppn + inLeaf) * PAGE_SIZE;
      readTag[slot] = tag;
      // Clean pages take the walk again at their first store, which is how D gets set.
      writeTag[slot] = (used & PTE_W) !== 0 && (used & PTE_D) !== 0 ? tag : 0;
      frameBase[slot] = base;
      return base;
    }
    return MMU_FAULT;
  };

  /** TLB or walk: physical address of byte `offset` of page `vpn`, or MMU_FAULT. */
  const translatePage = (cpu: number, vpn: number, offset: number, isWrite: boolean): number => {
    const slot = cpu * TLB_ENTRIES + (vpn & TLB_MASK);
    const tag = (vpn + (satpAsid[cpu] as number) * ASID_FACTOR) | 0;
    if ((isWrite ? writeTag[slot] : readTag[slot]) === tag) return (frameBase[slot] as number) + offset;
    const base = walk(cpu, satpRoot[cpu] as number, vpn, PTE_U, isWrite, slot, tag);
    return base === MMU_FAULT ? MMU_FAULT : base + offset;
  };

  // ── The checking MMU ─────────────────────────────────────────────────────────────────────────────────────────────

  let tellStale: (stale: StaleTranslation) => void = () => {};

  /** The leaf for page `vpn` and the physical base that it gives, without a trace; [0, −1] if there is none. */
  const peek = (root: number, vpn: number): readonly [pte: number, base: number] => {
    let table = root * PAGE_SIZE;
    for (let level = PT_LEVELS - 1; level >= 0 && table !== 0; level--) {
      const pte = port.ld32(table + ((vpn >>> (9 * level)) & (PTES_PER_TABLE - 1)) * 8);
      if ((pte & PTE_V) === 0) break;
      if ((pte & PTE_LEAF) !== 0) return [pte, ((pte >>> 10) + (vpn & ((1 << (9 * level)) - 1))) * PAGE_SIZE];
      table = (pte >>> 10) * PAGE_SIZE;
    }
    return [0, -1];
  };

  const translate = (cpu: number, va: number, isWrite: boolean): number => {
    // Below 4 GiB, where programs have their heap, a page number is a shift and all stays integer arithmetic.
    if (va >>> 0 === va) return translatePage(cpu, va >>> PAGE_SHIFT, va & (PAGE_SIZE - 1), isWrite);
    if (!(va >= 0 && va < TASK_SIZE)) return MMU_FAULT;
    const vpn = Math.floor(va / PAGE_SIZE);
    // The offset as an integer also keeps slow double arithmetic out of the callers. A fraction is no address.
    const offset = (va - vpn * PAGE_SIZE) | 0;
    return vpn * PAGE_SIZE + offset === va ? translatePage(cpu, vpn, offset, isWrite) : MMU_FAULT;
  };

  let tellStaleTable: (stale: StaleTable) => void = () => {};
  let isTable: (frame: number) => boolean = () => true;
  const walkTag = new Int32Array(isChecking ? nrCpus * WALK_ENTRIES : 0);
  const walkTable = new Int32Array(walkTag.length);

  /** Looks at the tables that a walk for page `vpn` goes by, and remembers the last. */
  const checkWalk = (cpu: number, vpn: number, va: number, isWrite: boolean): void => {
    const asid = satpAsid[cpu] as number;
    const slot = cpu * WALK_ENTRIES + ((vpn >>> 9) & (WALK_ENTRIES - 1));
    const tag = asid * WALK_ASID_FACTOR + (vpn >>> 9);
    let table = satpRoot[cpu] as number;
    for (let level = PT_LEVELS - 1; level >= 0 && table !== 0; level--) {
      if (!isTable(table)) tellStaleTable({ cpu, asid, va, isWrite, table, current: table });
      if (level === 0) break;
      const pte = port.ld32(table * PAGE_SIZE + ((vpn >>> (9 * level)) & (PTES_PER_TABLE - 1)) * 8);
      table = (pte & PTE_V) !== 0 && (pte & PTE_LEAF) === 0 ? pte >>> 10 : 0;
    }
    const known = walkTable[slot] as number;
    if (walkTag[slot] === tag && known !== table) {
      tellStaleTable({ cpu, asid, va, isWrite, table: known, current: table });
    }
    walkTag[slot] = table === 0 ? 0 : tag;
    walkTable[slot] = table;
  };

  const checkedTranslate = (cpu: number, va: number, isWrite: boolean): number => {
    const vpn = Math.floor(va / PAGE_SIZE);
    const asid = satpAsid[cpu] as number;
    const slot = cpu * TLB_ENTRIES + (vpn & TLB_MASK);
    const isUser = va >= 0 && va < TASK_SIZE;
    const isHit = (isWrite ? writeTag[slot] : readTag[slot]) === tagOf(vpn, asid);
    if (isUser && !isHit && satpRoot[cpu] !== 0) checkWalk(cpu, vpn, va, isWrite);
    if (isUser && isHit) {
      const [pte, base] = peek(satpRoot[cpu] as number, vpn);
      const needed = PTE_U | (isWrite ? PTE_W | PTE_D : 0);
      const cached = frameBase[slot] as number;
      if (base !== cached || (pte & needed) !== needed) tellStale({ cpu, asid, va, isWrite, cached, pte });
    }
    return translate(cpu, va, isWrite);
  };

  const forgetWalks = (cpu: number, asid: number): void => {
    for (let slot = cpu * WALK_ENTRIES; slot < (cpu + 1) * WALK_ENTRIES; slot++) {
      if (Math.floor((walkTag[slot] as number) / WALK_ASID_FACTOR) === asid) walkTag[slot] = 0;
    }
  };

  return {
    walks,
    onStale(hook) {
      tellStale = hook;
    },
    onStaleTable(hook, check) {
      tellStaleTable = hook;
      isTable = check;
    },
    tlbWords: isChecking ? [readTag, writeTag, frameBase, walkTag, walkTable] : [readTag, writeTag, frameBase],
    translate: isChecking ? checkedTranslate : translate,
    translateKernel(cpu, va, isWrite) {
      const inWindow = va - VMALLOC_START;
      // Page 0 of the window is never mapped: its tag would be that of an invalid entry.
      if (!(inWindow >= PAGE_SIZE && inWindow < VMALLOC_BYTES)) return MMU_FAULT;
      const page = Math.floor(inWindow / PAGE_SIZE);
      const offset = inWindow - page * PAGE_SIZE;
      const slot = cpu * TLB_ENTRIES + (page & TLB_MASK);
      if ((isWrite ? writeTag[slot] : readTag[slot]) === page) return (frameBase[slot] as number) + offset;
      const base = walk(cpu, kernelRoot, VMALLOC_START / PAGE_SIZE + page, 0, isWrite, slot, page);
      return base === MMU_FAULT ? MMU_FAULT : base + offset;
    },
    setKernelRoot(root) {
      kernelRoot = root;
    },
    flushPage(cpu, asid, va) {
      const vpn = Math.floor(va / PAGE_SIZE);
      const slot = cpu * TLB_ENTRIES + (vpn & TLB_MASK);
      const tag = tagOf(vpn, asid);
      if (readTag[slot] === tag) readTag[slot] = 0;
      if (writeTag[slot] === tag) writeTag[slot] = 0;
    },
    flushAll(cpu) {
      clock[cpu] = (clock[cpu] as number) + CYC_TLB_FLUSH;
      readTag.fill(0, cpu * TLB_ENTRIES, (cpu + 1) * TLB_ENTRIES);
      writeTag.fill(0, cpu * TLB_ENTRIES, (cpu + 1) * TLB_ENTRIES);
      walkTag.fill(0, cpu * WALK_ENTRIES, (cpu + 1) * WALK_ENTRIES);
    },
    flushAsid(cpu, asid) {
      for (let slot = cpu * TLB_ENTRIES; slot < (cpu + 1) * TLB_ENTRIES; slot++) {
        const owner = Math.floor(((readTag[slot] as number) >>> 0) / ASID_FACTOR);
        if (owner === asid) {
          readTag[slot] = 0;
          writeTag[slot] = 0;
        }
      }
      if (isChecking) forgetWalks(cpu, asid);
    },
  };
}
