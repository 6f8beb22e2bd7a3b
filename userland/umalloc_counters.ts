/**
 * Counters of the user heap: events, and the peak of memory got from the kernel.
 *
 * They are bumped on slow paths only (a system call is near): what can be found out by walking the heap, such as the
 * bytes in use, is not counted but walked for when somebody asks (umalloc_check.ts).
 */

import { PAGE_SIZE } from "../kernel/params.ts";
import type { UserMemory } from "../kernel/uapi/program.ts";
import { ST_END, ST_MAPPED_PAGES, ST_PEAK_PAGES, STATE_OFFSET, UNITS_PER_PAGE } from "./umalloc_layout.ts";

export interface Counters {
  /** Adds 1 to the event counter at offset `counter` of the state. */
  count(counter: number): void;
  /** Notes the sum of brk and mapped pages, after either has grown. */
  notePeak(): void;
  /** True if `pages` more would make a new peak. */
  wouldPeak(pages: number): boolean;
  /** Bytes got from the kernel at this time. */
  totalBytes(): number;
}

/** The counters of the heap that starts at `base`. */
export function createCounters(mem: UserMemory, base: number): Counters {
  const state = base + STATE_OFFSET;
  const totalPages = (): number => mem.ld32(state + ST_END) / UNITS_PER_PAGE + mem.ld32(state + ST_MAPPED_PAGES);
  return {
    count: (counter) => mem.st32(state + counter, (mem.ld32(state + counter) + 1) >>> 0),
    notePeak() {
      const pages = totalPages();
      if (pages > mem.ld32(state + ST_PEAK_PAGES)) mem.st32(state + ST_PEAK_PAGES, pages);
    },
    wouldPeak: (pages) => totalPages() + pages > mem.ld32(state + ST_PEAK_PAGES),
    totalBytes: () => totalPages() * PAGE_SIZE,
  };
}
