/**
 * Page lists: random programs against arrays, and count() on lists whose links are broken.
 *
 * Goal: PLIST-1, PLIST-2. Method: three lists over few frames; after each step every list is read forwards, backwards
 * and from outside. Then each link of a list is overwritten with every row: count() must tell, or the list be sound.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_NEXT, PAGE_PREV } from "../../mm/page.ts";
import { bareFrames } from "../support/bare_frames.ts";

const rig = () => {
  const { lists, pages, port } = bareFrames(0, 1024);
  const heads = [0, 1, 2].map((i) => pages.firstHead + i);
  for (const head of heads) lists.init(head);
  return { lists, pages, port, heads, head: heads[0] as number };
};

const step = fc.record({ list: fc.nat(2), row: fc.nat(7), how: fc.constantFrom("head", "tail", "remove") });

describe("PLIST-1 PLIST-2 lists of frames", () => {
  it("hold what arrays hold, in their order, after any program", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { lists, pages, heads } = rig();
        const model: number[][] = [[], [], []];
        for (const { list, row, how } of steps) {
          const frame = row + 100;
          const at = model.findIndex((rows) => rows.includes(frame));
          if (how === "remove") {
            if (at < 0) continue;
            lists.remove(frame);
            model[at] = (model[at] as number[]).filter((other) => other !== frame);
          } else if (at < 0) {
            if (how === "head") lists.addHead(heads[list] as number, frame);
            else lists.addTail(heads[list] as number, frame);
            if (how === "head") model[list]?.unshift(frame);
            else model[list]?.push(frame);
          }
          heads.forEach((head, i) => {
            const rows = model[i] as number[];
            expect(lists.count(head)).toBe(rows.length);
            expect(lists.isEmpty(head)).toBe(rows.length === 0);
            expect([lists.first(head), lists.last(head)]).toEqual([rows[0] ?? head, rows.at(-1) ?? head]);
            const [forwards, backwards] = [[] as number[], [] as number[]];
            for (let at = lists.next(head); at !== head; at = lists.next(at)) forwards.push(at);
            for (let at = lists.last(head); at !== head; at = pages.prevAt(pages.rowAt(at))) backwards.push(at);
            expect([forwards, backwards]).toEqual([rows, [...rows].reverse()]);
          });
        }
      }),
      { numRuns: 60 },
    );
  });

  it("count() finds any single link of a list that leads elsewhere", () => {
    const { lists, port, pages, heads, head } = rig();
    const rows = [100, 101, 102];
    for (const row of rows) lists.addTail(head, row);
    lists.addTail(heads[1] as number, 103);
    const nrRows = pages.nrFrames + pages.nrHeads;
    const targets = [...rows, 103, 104, ...heads, nrRows - 1, nrRows, nrRows + 1, 0xffff_ffff];
    let nrBroken = 0;
    for (const offset of [PAGE_NEXT, PAGE_PREV]) {
      for (const row of [head, ...rows]) {
        const link = pages.rowAt(row) + offset;
        const sound = port.ld32(link);
        for (const target of targets) {
          if (target === sound) continue;
          port.st32(link, target);
          expect(lists.count(head), `${row} to ${target}`).toBe(-1);
          nrBroken++;
        }
        port.st32(link, sound);
      }
    }
    expect(nrBroken).toBeGreaterThan(80);
    expect(lists.count(head)).toBe(3);
  });

  it("PLIST-2 count() finds a second head in the ring, and a ring without the head", () => {
    const { lists, pages, heads, head } = rig();
    const link = (row: number, next: number): void => {
      pages.setNextAt(pages.rowAt(row), next);
      pages.setPrevAt(pages.rowAt(next), row);
    };
    // The first and the last head row, each as the second head.
    for (const other of [heads[1] as number, pages.firstHead + pages.nrHeads - 1]) {
      link(head, 100);
      link(100, other);
      link(other, head);
      expect(lists.count(head)).toBe(-1);
    }
    const first = pages.firstHead;
    const second = heads[1] as number;
    link(second, 100);
    link(100, first);
    link(first, second);
    expect(lists.count(second)).toBe(-1);
    // 100 leads to itself, and prev agrees: from the head one would walk for ever.
    link(100, 100);
    pages.setNextAt(pages.rowAt(head), 100);
    expect(lists.count(head)).toBe(-1);
  });

  it("a list of all frames counts them", () => {
    const { lists, pages, head } = rig();
    for (let row = 0; row < pages.nrFrames; row++) lists.addTail(head, row);
    expect(lists.count(head)).toBe(pages.nrFrames);
  });
});
