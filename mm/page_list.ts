/**
 * Lists of page frames, linked through the `next` and `prev` words of struct page.
 *
 *        head row ──next──▶ pfn a ──next──▶ pfn b ──next──▶ head row
 *
 * Circular and doubly linked. A head is one more row of struct page, behind the last frame; so insert and remove
 * are straight-line code without a special case for the ends. A row is on one list at most.
 *
 *   PLIST-1  next(prev(x)) = x = prev(next(x)) for every row of a list
 *   PLIST-2  a list contains exactly one head row
 *
 * Context: the caller holds the lock of the list. Cost: O(1), 2 loads and 4 stores.
 */

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

export function createPageLists(pages: Pages): PageLists {
  const { rowAt, nextAt, setNextAt, prevAt, setPrevAt, firstHead } = pages;
  const nrRows = pages.nrFrames + pages.nrHeads;

  const insert = (prev: number, row: number, next: number): void => {
    const at = rowAt(row);
    setNextAt(at, next);
    setPrevAt(at, prev);
    setNextAt(rowAt(prev), row);
    setPrevAt(rowAt(next), row);
  };

  const count = (head: number): number => {
    let n = 0;
    let row = head;
    for (;;) {
      const next = nextAt(rowAt(row));
      if (next >= nrRows || prevAt(rowAt(next)) !== row) return -1;
      if (next === head) return n;
      if (next >= firstHead || ++n > pages.nrFrames) return -1;
      row = next;
    }
  };

  return {
    init(head) {
      setNextAt(rowAt(head), head);
      setPrevAt(rowAt(head), head);
    },
    isEmpty: (head) => nextAt(rowAt(head)) === head,
    first: (head) => nextAt(rowAt(head)),
    last: (head) => prevAt(rowAt(head)),
    next: (row) => nextAt(rowAt(row)),
    addHead: (head, row) => insert(head, row, nextAt(rowAt(head))),
    addTail: (head, row) => insert(prevAt(rowAt(head)), row, head),
    remove(row) {
      const next = nextAt(rowAt(row));
      const prev = prevAt(rowAt(row));
      setNextAt(rowAt(prev), next);
      setPrevAt(rowAt(next), prev);
    },
    count,
  };
}
