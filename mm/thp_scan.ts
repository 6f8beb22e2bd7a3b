/**
 * The scanner of khugepaged: where are 512 small pages that could be a huge one?
 *
 * It walks address spaces, VMAs and aligned ranges of 2 MiB in order, and goes on where it stopped: the place is kept
 * in static memory as an address space and a page. An address space that ended meanwhile is not on the list any more;
 * the scan then begins anew.
 *
 *   KHP-1  a scan looks at no more than pages_to_scan pages; after the last address space a full scan is counted
 *   KHP-2  without a fault that could not be huge since the last full scan nothing is looked at
 *
 * Context: process. Linux: mm/khugepaged.c (khugepaged_scan_mm_slot).
 */

import { PTES_PER_TABLE } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { listFirst, listNext } from "../kernel/lib/list.ts";
import { asPhys, type Context, NULL, type PhysAddr } from "../kernel/types.ts";
import { MM_LIST, VMA_END, VMA_START } from "./mm_struct.ts";
import type { Vmas } from "./vma.ts";

/** Words of state. */
const IS_WANTED = 0;
const IS_DUE = 4;
const CURSOR_MM = 8;
const CURSOR_PAGE = 12;
const TO_SCAN = 16;
const SLEEP_MS = 20;
const COLLAPSED = 24;
const FULL_SCANS = 28;
const LEFT = 32;
const LAST_SCAN = 40;
export const THP_SCAN_BYTES = 48;

const DEFAULT_PAGES_TO_SCAN = 4096;
const DEFAULT_SLEEP_MS = 10_000;
const CYCLES_PER_MS = 1_000_000;

export interface ThpScanner {
  /** A fault would have liked a huge page. */
  wanted(): void;
  /** At `now` cycles: is it time for a scan? */
  lookAround(now: number): boolean;
  isDue(): boolean;
  /** Looks at the next range of 2 MiB; false at the end of this scan. */
  scanStep(ctx: Context): boolean;
  pagesToScan(): number;
  setPagesToScan(nr: number): void;
  sleepMillis(): number;
  setSleepMillis(ms: number): void;
  nrCollapsed(): number;
  nrFullScans(): number;
}

export interface ThpScanDeps {
  readonly port: MemoryPort;
  readonly vmas: Vmas;
  /** Head of the list of all address spaces. */
  readonly mms: PhysAddr;
  /** THP_SCAN_BYTES of static memory. */
  readonly state: PhysAddr;
  /** Would the VMA like huge pages? */
  readonly isWanted: (vma: PhysAddr) => boolean;
  /** Makes the 2 MiB from page `base` on huge: true if it did. */
  readonly collapseAt: (ctx: Context, mm: PhysAddr, vma: PhysAddr, base: number) => boolean;
}

export function createThpScanner(deps: ThpScanDeps): ThpScanner {
  const { port, vmas, mms, state } = deps;
  const word = (offset: number): number => port.ld32(state + offset);
  const setWord = (offset: number, value: number): void => port.st32(state + offset, value);
  const NR = PTES_PER_TABLE;
  setWord(TO_SCAN, DEFAULT_PAGES_TO_SCAN);
  setWord(SLEEP_MS, DEFAULT_SLEEP_MS);

  /** The address space of the cursor, if it still lives; else the first, from its start. */
  const currentMm = (): PhysAddr => {
    let first: PhysAddr = NULL;
    for (let link = listFirst(port, mms); link !== NULL && link !== mms; link = listNext(port, link)) {
      const mm = asPhys(link - MM_LIST);
      if (mm === word(CURSOR_MM)) return mm;
      if (first === NULL) first = mm;
    }
    setWord(CURSOR_MM, first);
    setWord(CURSOR_PAGE, 0);
    return first;
  };

  const nextMm = (mm: PhysAddr): void => {
    const link = listNext(port, asPhys(mm + MM_LIST));
    const isLast = link === mms || link === NULL;
    setWord(CURSOR_MM, isLast ? NULL : link - MM_LIST);
    setWord(CURSOR_PAGE, 0);
    if (isLast) endFullScan();
  };

  const endFullScan = (): void => {
    setWord(FULL_SCANS, word(FULL_SCANS) + 1);
    setWord(IS_WANTED, 0);
    setWord(IS_DUE, 0);
  };

  /** First range at or after the cursor in a VMA that wants it: [vma, base], or null. */
  const nextRange = (mm: PhysAddr): readonly [PhysAddr, number] | null => {
    const from = word(CURSOR_PAGE);
    for (let vma = vmas.find(mm, from); vma !== NULL; vma = vmas.next(vma)) {
      const start = Math.max(from, port.ld32(vma + VMA_START));
      const base = Math.ceil(start / NR) * NR;
      if (deps.isWanted(vma) && base + NR <= port.ld32(vma + VMA_END)) return [vma, base];
    }
    return null;
  };

  return {
    wanted: () => setWord(IS_WANTED, 1),
    lookAround(now) {
      if (word(IS_WANTED) === 0 || word(IS_DUE) !== 0) return false;
      if (now - port.ldF64(state + LAST_SCAN) < word(SLEEP_MS) * CYCLES_PER_MS) return false;
      port.stF64(state + LAST_SCAN, now);
      setWord(IS_DUE, 1);
      setWord(LEFT, word(TO_SCAN));
      return true;
    },
    isDue: () => word(IS_DUE) !== 0,
    scanStep(ctx) {
      const mm = currentMm();
      const range = mm === NULL ? null : nextRange(mm);
      if (range === null) {
        if (mm === NULL) endFullScan();
        else nextMm(mm);
        return word(IS_DUE) !== 0;
      }
      const [vma, base] = range;
      if (deps.collapseAt(ctx, mm, vma, base)) setWord(COLLAPSED, word(COLLAPSED) + 1);
      setWord(CURSOR_PAGE, base + NR);
      setWord(LEFT, Math.max(0, word(LEFT) - NR));
      if (word(LEFT) === 0) setWord(IS_DUE, 0);
      return word(IS_DUE) !== 0;
    },
    pagesToScan: () => word(TO_SCAN),
    setPagesToScan: (nr) => setWord(TO_SCAN, nr),
    sleepMillis: () => word(SLEEP_MS),
    setSleepMillis: (ms) => setWord(SLEEP_MS, ms),
    nrCollapsed: () => word(COLLAPSED),
    nrFullScans: () => word(FULL_SCANS),
  };
}
