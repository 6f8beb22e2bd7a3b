/**
 * A machine with address spaces and a contiguous area, and nothing above: for tests of migration and CMA.
 *
 * mm_struct and vm_area_struct come from whole pages instead of slabs, so that every page of the machine is accounted
 * for by this file. Programs are played by the test: `poke` and `peek` go through the MMU of a CPU, as a program would.
 */

import { expect } from "vitest";
import {
  asPfn,
  type Context,
  NO_PFN,
  NULL,
  type Pfn,
  type PhysAddr,
  pfnToPhys,
  physToPfn,
} from "../../kernel/types.ts";
import { takeCensus } from "../../mm/census.ts";
import { CMA_BYTES, type Cma, createCma } from "../../mm/cma.ts";
import type { PageMover } from "../../mm/contig_range.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { createMigration, type MigrationDeps } from "../../mm/migrate.ts";
import { NR_MIGRATETYPES } from "../../mm/migratetype.ts";
import { MM_PGD } from "../../mm/mm_struct.ts";
import { freeCountAddr, MAX_NR_ZONES, NR_PAGE_ORDERS } from "../../mm/mmzone.ts";
import { createPageRefs } from "../../mm/page_ref.ts";
import { createPageTables, type PageTables } from "../../mm/pgtable.ts";
import {
  createProcessMemory,
  PROCESS_MEMORY_BYTES,
  type ProcessMemory,
  type ProcessMemoryDeps,
} from "../../mm/process_memory.ts";
import { noSwap } from "../../mm/swap_entry.ts";
import { bootPageLevel, type PageLevelMachine, type PageLevelOptions } from "./page_level.ts";

export interface ProcessWorld extends PageLevelMachine {
  readonly processMemory: ProcessMemory;
  readonly pageTables: PageTables;
  readonly mover: PageMover;
  readonly cma: Cma;
  /** Stores and loads a word at a user address on `cpu`, faulting pages in; undefined: the access is not allowed. */
  poke(cpu: number, mm: PhysAddr, va: number, value: number): boolean;
  peek(cpu: number, mm: PhysAddr, va: number): number | undefined;
  /** Physical address of a user address for an access on `cpu`, faulting pages in; −1: not allowed. */
  addressOf(cpu: number, mm: PhysAddr, va: number, isWrite: boolean): number;
  /** The frame behind a user page; NO_PFN if there is none. */
  frameOf(mm: PhysAddr, va: number): Pfn;
  /** Every invariant and identity that holds between operations; fails the test at the first that does not. */
  expectSound(): void;
}

const MIB = 2 ** 20;

/** `override` replaces what migration is built from, `overrideMemory` what process memory is, to plant faults. */
export function bootProcessWorld(
  options: PageLevelOptions = {},
  override: (deps: MigrationDeps) => Partial<MigrationDeps> = () => ({}),
  overrideMemory: (deps: ProcessMemoryDeps) => Partial<ProcessMemoryDeps> = () => ({}),
): ProcessWorld {
  const statics = { mm: 0, cma: 0 };
  const m = bootPageLevel({
    ramBytes: 24 * MIB,
    cmaBytes: 4 * MIB,
    ...options,
    compose: ({ image }) => {
      statics.mm = image.bss("mm", PROCESS_MEMORY_BYTES, 8);
      statics.cma = image.bss("cma", CMA_BYTES, 8);
    },
  });
  const { machine, pages, pageAlloc, zones, vmstat, contexts, spinlocks, printk, pageblocks, ctx, lru } = m;
  const { port, mmu } = machine;
  const pageTables = createPageTables(port, pages, pageAlloc, vmstat);
  const allocObject = (context: Context): PhysAddr => {
    const pfn = pageAlloc.tryAllocPages(context, 0, GFP_KERNEL);
    return pfn === NO_PFN ? NULL : pfnToPhys(pfn);
  };
  const freeObject = (context: Context, object: PhysAddr): void => {
    pageAlloc.freePages(context, physToPfn(object), 0);
  };
  const memoryDeps: ProcessMemoryDeps = {
    machine,
    pages,
    pageAlloc,
    pageTables,
    zones,
    vmstat,
    refs: createPageRefs(pages, pageAlloc, lru),
    lru,
    swap: noSwap,
    caches: {
      allocMm: allocObject,
      freeMm: freeObject,
      allocVma: allocObject,
      freeVma: freeObject,
      allocAnonVma: allocObject,
      freeAnonVma: freeObject,
      allocMapping: allocObject,
      freeMapping: freeObject,
      allocNode: allocObject,
      freeNode: freeObject,
    },
    state: statics.mm as PhysAddr,
    interruptPoint: contexts.interruptPoint,
  };
  const processMemory = createProcessMemory({ ...memoryDeps, ...overrideMemory(memoryDeps) });
  const { flushPage } = processMemory.tlb;
  const { rmap, files } = processMemory;
  const deps: MigrationDeps = { machine, pages, pageAlloc, pageTables, vmstat, flushPage, rmap, files, lru };
  const mover = createMigration({ ...deps, ...override(deps) });
  pageAlloc.onMigrate(mover);
  const state = statics.cma as PhysAddr;
  const cma = createCma({
    machine,
    contexts,
    spinlocks,
    printk,
    vmstat,
    pageblocks,
    pageAlloc,
    area: m.cmaArea,
    state,
  });

  const addressOf = (cpu: number, mm: PhysAddr, va: number, isWrite: boolean): number => {
    processMemory.activate(cpu, mm);
    const addr = mmu.translate(cpu, va, isWrite);
    if (addr >= 0) return addr;
    return processMemory.handleFault(ctx, mm, va, isWrite) === 0 ? mmu.translate(cpu, va, isWrite) : -1;
  };

  const expectIdentities = (): void => {
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      let pages = 0;
      for (let order = 0; order < NR_PAGE_ORDERS; order++) {
        for (let type = 0; type < NR_MIGRATETYPES; type++) {
          pages += port.ld32(freeCountAddr(zones.addr(zone), order, type)) << order;
        }
      }
      expect(pages).toBe((m.frames[zone] as (typeof m.frames)[number]).nrFree());
    }
    const { total, ...parts } = takeCensus(pages, zones, vmstat, 0);
    expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(total);
    expect(parts.freeBuddy).toBe(zones.totalFree());
  };

  return {
    ...m,
    processMemory,
    pageTables,
    mover,
    cma,
    addressOf,
    poke(cpu, mm, va, value) {
      const addr = addressOf(cpu, mm, va, true);
      if (addr >= 0) port.st32(addr, value);
      return addr >= 0;
    },
    peek(cpu, mm, va) {
      const addr = addressOf(cpu, mm, va, false);
      return addr < 0 ? undefined : port.ld32(addr);
    },
    frameOf(mm, va) {
      const pte = pageTables.walk(ctx, asPfn(processMemory.field(mm, MM_PGD)), Math.floor(va / 4096), false);
      const value = pte === NULL ? 0 : pageTables.readPte(pte);
      return (value & 1) === 0 ? NO_PFN : asPfn(value >>> 10);
    },
    expectSound() {
      expect(pageAlloc.check()).toBeNull();
      expect(cma.check()).toBeNull();
      expect(lru.check() ?? processMemory.checkAll()).toBeNull();
      expectIdentities();
    },
  };
}
