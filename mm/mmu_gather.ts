/**
 * Gathering what an unmapping takes away, so that one flush serves for all of it.
 *
 *   entries out ─▶ frames ──┐
 *   tables detached ────────┴─ wait here ─▶ one flush of every TLB ─▶ frames and tables are freed
 *
 * A TLB may still lead to a frame whose entry is gone, and a CPU that walks may still have the address of a table that
 * hangs in no other any more. So both wait for the flush. Frames need their pages forgotten (sfence.vma with an
 * address); after tables are gone the whole address space must be: a fence with an address orders leaf entries only.
 *
 *   TLB-2  a frame whose entry is gone is freed after the flush, however many are gathered
 *   PGT-4  a table that hangs in no other is freed after a flush of the whole address space
 *
 * State: on the host, for the length of one call. Context: process. Linux: mm/mmu_gather.c.
 */

import { asPfn, type Context, type Pfn, type PhysAddr } from "../kernel/types.ts";
import type { PageRefs } from "./page_ref.ts";
import type { PageTables } from "./pgtable.ts";
import type { Tlb } from "./tlb.ts";

/** Frames that wait for one flush; half a page of the kernel's stack. */
const GATHER_FRAMES = 512;

export interface MmuGather {
  readonly mm: PhysAddr;
  readonly frames: Int32Array;
  nrFrames: number;
  /** Pages whose entries are gone since the last flush. */
  first: number;
  last: number;
  readonly tables: Pfn[];
}

export interface MmuGathers {
  /** For at most `nrPages` pages. */
  begin(mm: PhysAddr, nrPages: number): MmuGather;
  /** The entry of `page` is gone; its reference to the frame is the gather's. Pages come in ascending order. */
  addFrame(ctx: Context, gather: MmuGather, page: number, pfn: Pfn): void;
  /** The table hangs in no other any more. */
  addTable(gather: MmuGather, table: Pfn): void;
  /** Flushes, then frees. */
  finish(ctx: Context, gather: MmuGather): void;
}

export interface MmuGatherDeps {
  readonly tlb: Tlb;
  readonly refs: PageRefs;
  readonly pageTables: PageTables;
  readonly interruptPoint: (ctx: Context) => void;
}

export function createMmuGathers({ tlb, refs, pageTables, interruptPoint }: MmuGatherDeps): MmuGathers {
  const finish = (ctx: Context, gather: MmuGather): void => {
    const { mm, frames, nrFrames, tables } = gather;
    if (tables.length > 0) tlb.flushMm(ctx, mm);
    else if (nrFrames > 0) tlb.flushRange(ctx, mm, gather.first, gather.last + 1);
    gather.nrFrames = 0;
    for (let i = 0; i < nrFrames; i++) {
      refs.putPage(ctx, asPfn(frames[i] as number));
      // Tens of thousands of pages at the end of a large process: no device is to wait for that.
      interruptPoint(ctx);
    }
    for (const table of tables) pageTables.freeTable(ctx, table);
    tables.length = 0;
  };

  return {
    begin: (mm, nrPages) => ({
      mm,
      frames: new Int32Array(Math.min(GATHER_FRAMES, nrPages)),
      nrFrames: 0,
      first: 0,
      last: 0,
      tables: [],
    }),
    addFrame(ctx, gather, page, pfn) {
      if (gather.nrFrames === 0) gather.first = page;
      gather.frames[gather.nrFrames++] = pfn;
      gather.last = page;
      if (gather.nrFrames === gather.frames.length) finish(ctx, gather);
    },
    addTable(gather, table) {
      gather.tables.push(table);
    },
    finish,
  };
}
