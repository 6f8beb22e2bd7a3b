/**
 * A process world with compaction, and memory that can be broken into pieces on purpose.
 */

import { expect } from "vitest";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { NO_PFN, type PhysAddr, pfnToPhys } from "../../kernel/types.ts";
import { COMPACTION_BYTES, type Compaction, createCompaction } from "../../mm/compaction.ts";
import type { PageMover } from "../../mm/contig_range.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import type { PageLevelOptions } from "./page_level.ts";
import { bootProcessWorld, type ProcessWorld } from "./process_world.ts";

const PAGE = 4096;
export const va = (page: number): number => USER_HEAP_BASE + page * PAGE;

export interface CompactionWorld extends ProcessWorld {
  readonly compaction: Compaction;
  /** Gives the page of compaction's state back: then `expectNoLeak` counts. */
  end(): void;
}

/** `moverFor` may refuse to move what the real one would. */
export function bootCompactionWorld(
  options: PageLevelOptions = {},
  moverFor: (mover: PageMover) => PageMover = (mover) => mover,
): CompactionWorld {
  const w = bootProcessWorld({ cmaBytes: 0, ...options });
  const { machine, contexts, spinlocks, pages, pageblocks, zones, frames, vmstat, pcp, pageAlloc, ctx } = w;
  const page = pageAlloc.tryAllocPages(ctx, 0, GFP_KERNEL);
  if (page === NO_PFN || COMPACTION_BYTES > PAGE) throw new Error("compaction_world: no room");
  machine.port.fill(pfnToPhys(page), 0, PAGE);
  const compaction = createCompaction({
    machine,
    contexts,
    spinlocks,
    pages,
    pageblocks,
    zones,
    frames,
    mover: moverFor(w.mover),
    vmstat,
    pcp,
    hasCma: w.cmaArea !== null,
    drainAllPages: pageAlloc.drainAllPages,
    state: pfnToPhys(page),
  });
  pageAlloc.onCompact(compaction);
  // What is promised is there: tests fill memory to the last page that they are granted.
  w.processMemory.account.setMode(2);
  w.processMemory.account.setRatio(100);
  return {
    ...w,
    compaction,
    expectSound() {
      w.expectSound();
      expect(compaction.check()).toBeNull();
    },
    end: () => {
      pageAlloc.freePages(ctx, page, 0);
    },
  };
}

/** An address space of `nrPages` with word 0 of page i holding `seed + i`; pages for which `keeps` is false are dropped. */
export function pieces(w: ProcessWorld, nrPages: number, seed: number, keeps: (page: number) => boolean): PhysAddr {
  const mm = w.processMemory.createMm(w.ctx);
  expect(w.processMemory.brk(w.ctx, mm, va(nrPages))).toBe(va(nrPages));
  for (let i = 0; i < nrPages; i++) expect(w.poke(i & 1, mm, va(i), seed + i)).toBe(true);
  for (let i = 0; i < nrPages; i++) {
    if (!keeps(i)) expect(w.processMemory.dropPages(w.ctx, mm, va(i), PAGE)).toBe(0);
  }
  return mm;
}

/** What `pieces` has kept is there, on both CPUs. */
export function expectPieces(
  w: ProcessWorld,
  mm: PhysAddr,
  nrPages: number,
  seed: number,
  keeps: (page: number) => boolean,
): void {
  for (let i = 0; i < nrPages; i++) {
    if (!keeps(i)) continue;
    for (const cpu of [0, 1]) expect(w.peek(cpu, mm, va(i))).toBe(seed + i);
  }
  expect(w.processMemory.check(mm)).toBeNull();
}
