/**
 * What is said about a TLB that knows better than the page table (`debug_tlb=on`).
 *
 * A kernel that takes an entry away, or a right, and forgets a CPU in its flush, goes on working until another program
 * has the frame. The checking MMU (arch/mmu.ts) sees it at the next access of the program.
 *
 *   STL-1  no access of a process goes by a translation that the table does not have
 *   STL-2  no walk of a process goes by a table that was taken away without a flush, or by a frame that is no table
 */

import type { Machine } from "../arch/machine.ts";
import { KERN_ALERT, type Printk } from "../printk.ts";

const MAX_LINES = 10;
const hex = (n: number): string => `0x${n.toString(16)}`;

export interface StaleTlbReports {
  nrReports(): number;
  /** Once there are pages: is a frame a page table? */
  knowTables(check: (frame: number) => boolean): void;
}

/** Tells the log of the first few; counts all. */
export function reportStaleTlb({ mmu }: Machine, printk: Printk): StaleTlbReports {
  let nr = 0;
  let isTable: (frame: number) => boolean = () => true;
  mmu.onStaleTable(
    ({ cpu, asid, va, isWrite, table, current }) => {
      if (nr++ >= MAX_LINES) return;
      const access = `${isWrite ? "write to" : "read of"} ${hex(va)} in address space ${asid}`;
      const why = current === table ? "which is no page table" : `where frame ${hex(current)} hangs now`;
      printk(KERN_ALERT, `BUG: stale page table on CPU ${cpu}: ${access} walks frame ${hex(table)}, ${why}`);
    },
    (frame) => isTable(frame),
  );
  mmu.onStale(({ cpu, asid, va, isWrite, cached, pte }) => {
    if (nr++ >= MAX_LINES) return;
    const access = isWrite ? "write to" : "read of";
    const what = `${access} ${hex(va)} in address space ${asid}`;
    printk(
      KERN_ALERT,
      `BUG: stale TLB entry on CPU ${cpu}: ${what} goes to ${hex(cached)}, the table says ${hex(pte)}`,
    );
  });
  return {
    nrReports: () => nr,
    knowTables(check) {
      isTable = check;
    },
  };
}
