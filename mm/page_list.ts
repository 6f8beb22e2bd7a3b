/**
 * Lists of page frames, linked through the `next` and `prev` columns of struct page.
 *
 *        head row ──next──▶ pfn a ──next──▶ pfn b ──next──▶ head row
 *
 * Circular and doubly linked. A head is one more row of the two columns, behind the last frame; so insert and remove
 * are straight-line code without a special case for the ends. A row is on one list at most.
 *
 *   PLIST-1  next(prev(x)) = x = prev(next(x)) for every row of a list
 *   PLIST-2  a list contains exactly one head row
 *
 * Context: the caller holds the lock of the list. Cost: O(1), 2 loads and 4 stores.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Pages } from "./page.ts";

export interface PageLists {
  /** Makes the list of head row `head` empty. */
  init(head: number): void;
  isEmpty(head: number): boolean;
  /** First row, or the head itself if the list is empty. */
  first(head: number): number;
  last(head: number): number;
  next(row: number): number;
  addHead(head: number, row: number): void;
  addTail(head: number, row: number): void;
  remove(row: number): void;
  /** Number of rows, and PLIST-1, PLIST-2 on the way: −1 if the links are broken. O(n). */
  count(head: number): number;
}

export function createPageLists(port: MemoryPort, pages: Pages): PageLists {
  const { nextBase, prevBase, firstHead } = pages;
  const nrRows = pages.nrFrames + pages.nrHeads;

  const insert = (prev: number, row: number, next: number): void => {
    port.st32(nextBase + row * 4, next);
    port.st32(prevBase + row * 4, prev);
    port.st32(nextBase + prev * 4, row);
    port.st32(prevBase + next * 4, row);
  };

  const count = (head: number): number => {
    let n = 0;
    let row = head;
    for (;;) {
      const next = port.ld32(nextBase + row * 4);
      if (next >= nrRows || port.ld32(prevBase + next * 4) !== row) return -1;
      if (next === head) return n;
      if (next >= firstHead || ++n > pages.nrFrames) return -1;
      row = next;
    }
  };

  return {
    init(head) {
      port.st32(nextBase + head * 4, head);
      port.st32(prevBase + head * 4, head);
    },
    isEmpty: (head) => port.ld32(nextBase + head * 4) === head,
    first: (head) => port.ld32(nextBase + head * 4),
    last: (head) => port.ld32(prevBase + head * 4),
    next: (row) => port.ld32(nextBase + row * 4),
    addHead: (head, row) => insert(head, row, port.ld32(nextBase + head * 4)),
    addTail: (head, row) => insert(port.ld32(prevBase + head * 4), row, head),
    remove(row) {
      const next = port.ld32(nextBase + row * 4);
      const prev = port.ld32(prevBase + row * 4);
      port.st32(nextBase + prev * 4, next);
      port.st32(prevBase + next * 4, prev);
    },
    count,
  };
}
