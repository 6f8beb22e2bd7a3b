/**
 * Pages that are newer than the disk: who marks them, how they are counted, and how they are found again.
 *
 *                store, write()           the flusher takes it         the disk has it
 *      clean ───────────────────▶ PG_DIRTY ───────────────▶ PG_WRITEBACK ───────────────▶ clean
 *                                    ▲                            │ error: once more
 *                                    └──── stored to meanwhile ───┴─────▶ both, then PG_DIRTY
 *
 * 1. A flag on the page says it, and a tag in the file's tree finds it (radix.ts): a file with a million pages, three
 *    of them dirty, is written by looking at three.
 *
 * 2. write() tells. A store of a program to a mapped page tells nobody but the page table, so pages of a disk are
 *    entered without W; the first store faults (memory.ts), marks the page and gets W. Before a page is written, W goes
 *    again (rmap.ts, clean): what is stored from then on makes the page dirty anew.
 *
 * 3. Only pages of files on a disk (AS_DISK) take part. Others have no other home, or swap's (vmscan.ts).
 *
 *   DTY-1  page of a disk: PG_DIRTY ⇔ TAG_DIRTY, PG_WRITEBACK ⇔ TAG_WRITEBACK
 *   DTY-2  NR_FILE_DIRTY, NR_FILE_WRITEBACK = pages of disks with these flags; NR_WRITEBACK has those of swap besides
 *   DTY-3  an entry with W or D maps a page of a disk ⇒ PG_DIRTY
 *   DTY-4  dirtied when ≠ 0 ⇔ the file has dirty pages: the time when it first had one since the last write-out began
 *
 * Context: process; plain functions. Linux: mm/page-writeback.c (folio_account_dirtied, __folio_start_writeback).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { asPhys, type Context, fromGranule, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { AS_DIRTIED_WHEN, AS_DISK, AS_FLAGS, AS_RADIX, AS_WRITES } from "./mm_struct.ts";
import { type Pages, PG_ANON, PG_DIRTY, PG_UPTODATE, PG_WRITEBACK } from "./page.ts";
import { type RadixTree, TAG_DIRTY, TAG_WRITEBACK } from "./radix.ts";
import { NR_DIRTIED, NR_FILE_DIRTY, NR_FILE_WRITEBACK, NR_WRITEBACK, NR_WRITTEN, type VmStat } from "./vmstat.ts";

export interface DirtyPages {
  /** Does the page belong to a file on a disk? */
  isTracked(pfn: Pfn): boolean;
  /** The page, of a disk, is newer than its disk now. */
  mark(ctx: Context, pfn: Pfn): void;
  /** It is so no more, and nobody has written it: it leaves its file. */
  cancel(pfn: Pfn): void;
  /** A dirty page is about to be written; no entry can change it unseen. It is clean, and under writeback. */
  begin(pfn: Pfn): void;
  /** The write has ended: the disk has the page; it is to be written again; it never will. */
  end(ctx: Context, pfn: Pfn, outcome: "written" | "again" | "lost"): void;
  /** First dirty page at or after `from`; −1. */
  next(mapping: PhysAddr, from: number): number;
  isDirty(mapping: PhysAddr, index: number): boolean;
  hasDirty(mapping: PhysAddr): boolean;
  hasWriteback(mapping: PhysAddr): boolean;
  /** When the file first had a dirty page; 0: it has none. */
  since(mapping: PhysAddr): number;
  /** What is dirty now counts as dirty since now: its write-out begins, and may leave some behind. */
  restart(ctx: Context, mapping: PhysAddr): void;
  /** DTY-1, DTY-4 of a page of a disk, FMAP-5: a sentence, or null. */
  problem(pfn: Pfn): string | null;
  /** Before a store to a mapped page makes one more: writes some in place if there are too many. */
  limit(ctx: Context): void;
  /** Registers who is woken when a file gets its first dirty page, and who writes for limit(). */
  connect(wake: () => void, limit: (ctx: Context) => void): void;
}

export interface DirtyPagesDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly radix: RadixTree;
  readonly vmstat: VmStat;
  readonly now: (ctx: Context) => number;
}

export function createDirtyPages({ port, pages, radix, vmstat, now }: DirtyPagesDeps): DirtyPages {
  let wake = (): void => {};
  let limit = (_ctx: Context): void => {};
  const mappingOf = (pfn: Pfn): PhysAddr => fromGranule(pages.mapping(pfn));
  const rootOf = (mapping: PhysAddr): PhysAddr => asPhys(mapping + AS_RADIX);
  const hasDirty = (mapping: PhysAddr): boolean => radix.nextTagged(rootOf(mapping), 0, TAG_DIRTY) >= 0;
  const stamp = (mapping: PhysAddr, time: number): void => port.stF64(mapping + AS_DIRTIED_WHEN, time);
  const since = (mapping: PhysAddr): number => port.ldF64(mapping + AS_DIRTIED_WHEN);

  const setDirty = (ctx: Context, pfn: Pfn): void => {
    const mapping = mappingOf(pfn);
    pages.addFlags(pfn, PG_DIRTY);
    radix.setTag(rootOf(mapping), pages.index(pfn), TAG_DIRTY);
    vmstat.modItem(NR_FILE_DIRTY, 1);
    if (since(mapping) !== 0) return;
    stamp(mapping, Math.max(1, now(ctx)));
    wake();
  };

  const clearDirty = (pfn: Pfn): void => {
    const mapping = mappingOf(pfn);
    pages.clearFlags(pfn, PG_DIRTY);
    radix.clearTag(rootOf(mapping), pages.index(pfn), TAG_DIRTY);
    vmstat.modItem(NR_FILE_DIRTY, -1);
    if (!hasDirty(mapping)) stamp(mapping, 0);
  };

  return {
    isTracked: (pfn) =>
      (pages.flags(pfn) & PG_ANON) === 0 &&
      pages.mapping(pfn) !== 0 &&
      (port.ld32(mappingOf(pfn) + AS_FLAGS) & AS_DISK) !== 0,
    mark(ctx, pfn) {
      if ((pages.flags(pfn) & PG_DIRTY) !== 0) return;
      setDirty(ctx, pfn);
      vmstat.modItem(NR_DIRTIED, 1);
    },
    cancel(pfn) {
      if ((pages.flags(pfn) & PG_DIRTY) !== 0) clearDirty(pfn);
    },
    begin(pfn) {
      bugOn((pages.flags(pfn) & (PG_DIRTY | PG_WRITEBACK)) !== PG_DIRTY, "DTY-1: not to be written", pfn);
      clearDirty(pfn);
      const mapping = mappingOf(pfn);
      port.st32(mapping + AS_WRITES, (port.ld32(mapping + AS_WRITES) + 1) >>> 0);
      pages.addFlags(pfn, PG_WRITEBACK);
      radix.setTag(rootOf(mapping), pages.index(pfn), TAG_WRITEBACK);
      vmstat.modItem(NR_FILE_WRITEBACK, 1);
      vmstat.modItem(NR_WRITEBACK, 1);
    },
    end(ctx, pfn, outcome) {
      bugOn((pages.flags(pfn) & PG_WRITEBACK) === 0, "DTY-1: not being written", pfn);
      pages.clearFlags(pfn, PG_WRITEBACK);
      radix.clearTag(rootOf(mappingOf(pfn)), pages.index(pfn), TAG_WRITEBACK);
      vmstat.modItem(NR_FILE_WRITEBACK, -1);
      vmstat.modItem(NR_WRITEBACK, -1);
      if (outcome === "written") vmstat.modItem(NR_WRITTEN, 1);
      if (outcome === "again" && (pages.flags(pfn) & PG_DIRTY) === 0) setDirty(ctx, pfn);
    },
    next: (mapping, from) => radix.nextTagged(rootOf(mapping), from, TAG_DIRTY),
    isDirty: (mapping, index) => radix.hasTag(rootOf(mapping), index, TAG_DIRTY),
    hasDirty,
    hasWriteback: (mapping) => radix.nextTagged(rootOf(mapping), 0, TAG_WRITEBACK) >= 0,
    since,
    restart(ctx, mapping) {
      if (since(mapping) !== 0) stamp(mapping, Math.max(1, now(ctx)));
    },
    problem(pfn) {
      const [flags, mapping, index] = [pages.flags(pfn), mappingOf(pfn), pages.index(pfn)];
      const isDirty = (flags & PG_DIRTY) !== 0;
      const isTagged = radix.hasTag(rootOf(mapping), index, TAG_DIRTY);
      if (isDirty !== isTagged)
        return `DTY-1: page ${index} of a disk, frame ${pfn}: dirty ${isDirty}, tag ${isTagged}`;
      const isBusy = (flags & PG_WRITEBACK) !== 0;
      if (isBusy !== radix.hasTag(rootOf(mapping), index, TAG_WRITEBACK)) return `DTY-1: writeback of frame ${pfn}`;
      if (isDirty && since(mapping) === 0) return `DTY-4: a dirty page, frame ${pfn}, in a file that became so never`;
      return (flags & PG_UPTODATE) !== 0 ? null : `FMAP-5: frame ${pfn} is in its file without content`;
    },
    limit: (ctx) => limit(ctx),
    connect(wakeFlusher, writeSome) {
      wake = wakeFlusher;
      limit = writeSome;
    },
  };
}
