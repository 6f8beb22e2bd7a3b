/**
 * Goal: each misuse of free and realloc is named rightly, at once, and leaves the heap as it was.
 * Method: a table of wrong pointers, each with the kind that has to be reported; before and after, the heap's
 * statistics are equal and its invariants hold, and every block can still be freed. A clean twin reports nothing.
 */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../kernel/params.ts";
import { createUmalloc, type Umalloc } from "../../userland/umalloc.ts";
import type { MisuseKind } from "../../userland/umalloc_misuse.ts";
import { createFakeProcess } from "../support/fake_env.ts";

interface Scene {
  readonly heap: Umalloc;
  readonly reports: [MisuseKind, number][];
  readonly small: number;
  readonly middle: number;
  readonly long: number;
  readonly mapped: number;
  /** Freed: cached; joined with a free neighbour; become top; unmapped. */
  readonly cached: number;
  readonly joined: number;
  readonly gone: number;
}

function scene(): Scene {
  const process = createFakeProcess();
  const reports: [MisuseKind, number][] = [];
  const heap = createUmalloc(process.env, { onMisuse: (kind, ptr) => reports.push([kind, ptr]) });
  const cached = heap.malloc(64);
  const small = heap.malloc(64);
  const before = heap.malloc(400);
  const joined = heap.malloc(400);
  const middle = heap.malloc(400);
  const long = heap.malloc(20_000);
  const mapped = heap.malloc(1_000_000);
  const gone = heap.malloc(500_000);
  for (const p of [cached, before, joined, gone]) heap.free(p);
  return { heap, reports, small, middle, long, mapped, cached, joined, gone };
}

const CASES: readonly (readonly [string, MisuseKind, (s: Scene) => number])[] = [
  ["a cached chunk", "double free", (s) => s.cached],
  ["a chunk joined with its neighbour", "double free", (s) => s.joined],
  ["the inside of a freed chunk", "double free", (s) => s.joined + 16],
  ["a mapped block that is gone", "foreign pointer", (s) => s.gone],
  ["the second unit of a small chunk", "interior pointer", (s) => s.small + 16],
  ["the middle of a chunk", "interior pointer", (s) => s.middle + 208],
  ["the middle of a long chunk", "interior pointer", (s) => s.long + 9600],
  ["the middle of a mapped block", "interior pointer", (s) => s.mapped + 16],
  ["a later page of a mapped block", "interior pointer", (s) => s.mapped + 8 * PAGE_SIZE],
  ["8 bytes into a chunk", "misaligned pointer", (s) => s.small + 8],
  ["1 byte into a chunk", "misaligned pointer", (s) => s.small + 1],
  ["3 bytes into a mapped block", "misaligned pointer", (s) => s.mapped + 3],
  ["the heap's base", "foreign pointer", (s) => s.heap.base],
  ["the heap's state", "foreign pointer", (s) => s.heap.base + 8448 + 64],
  ["one page before the heap", "foreign pointer", (s) => s.heap.base - PAGE_SIZE],
  ["far behind the heap", "foreign pointer", (s) => s.heap.base + 2 ** 30],
  ["a small integer", "foreign pointer", () => 48],
  ["a negative number", "foreign pointer", () => -4096],
  ["a fraction", "foreign pointer", (s) => s.small + 0.5],
  ["not a number", "foreign pointer", () => Number.NaN],
  ["beyond user space", "foreign pointer", () => 2 ** 36],
];

describe("misuse", () => {
  for (const [name, kind, pointerOf] of CASES) {
    it(`free() of ${name}: ${kind}`, () => {
      const s = scene();
      const before = { ...s.heap.stats(), nrMisuses: 1 };
      s.heap.free(pointerOf(s));
      expect(s.reports).toEqual([[kind, pointerOf(s)]]);
      expect(s.heap.stats()).toEqual(before);
      expect(s.heap.check()).toBeNull();
    });

    it(`realloc() of ${name}: ${kind}, and 0`, () => {
      const s = scene();
      expect(s.heap.realloc(pointerOf(s), 100)).toBe(0);
      expect(s.reports).toEqual([[kind, pointerOf(s)]]);
      expect(s.heap.usableSize(pointerOf(s))).toBe(0);
      expect(s.heap.check()).toBeNull();
    });
  }

  it("MAP-3 no unit inside a long chunk passes for a chunk", () => {
    const s = scene();
    for (let offset = 16; offset < 20_000; offset += 16) expect(s.heap.usableSize(s.long + offset)).toBe(0);
  });

  it("the clean twin reports nothing", () => {
    const s = scene();
    for (const p of [s.small, s.middle, s.long, s.mapped, 0]) s.heap.free(p);
    expect(s.reports).toEqual([]);
    s.heap.trim();
    expect(s.heap.stats().nrMisuses).toBe(0);
    expect(s.heap.check()).toBeNull();
  });

  it("a chunk that became top and is freed again: double free", () => {
    const process = createFakeProcess();
    const reports: MisuseKind[] = [];
    const heap = createUmalloc(process.env, { onMisuse: (kind) => reports.push(kind) });
    const p = heap.malloc(2000);
    heap.free(p);
    heap.free(p);
    expect(reports).toEqual(["double free"]);
  });

  it("a link overwritten after free is noticed before it is followed", () => {
    const process = createFakeProcess();
    const reports: MisuseKind[] = [];
    const heap = createUmalloc(process.env, { onMisuse: (kind) => reports.push(kind) });
    const [a, b] = [heap.malloc(64), heap.malloc(64)];
    heap.free(a);
    heap.free(b);
    process.env.mem.st32(b, 0xdead_beef);
    const c = heap.malloc(64);
    expect(reports).toEqual(["corrupted heap"]);
    expect(c).not.toBe(0);
    expect([a, b]).not.toContain(c);
    // The chunks of the broken list are lost, and only they.
    for (let i = 0; i < 100; i++) expect([a, b]).not.toContain(heap.malloc(64));
    expect(heap.check()).toContain("TC-1");
  });

  it("by default one line goes to fd 2", () => {
    const process = createFakeProcess();
    const heap = createUmalloc(process.env);
    const p = heap.malloc(64);
    heap.free(p);
    heap.free(p);
    heap.free(p + 16_777_216);
    heap.realloc(heap.malloc(32) + 16, 10);
    expect(process.written.get(2)?.split("\n")).toEqual([
      "free(): double free detected in umalloc",
      expect.stringMatching(/^free\(\): invalid pointer 0x[0-9a-f]+ \(foreign pointer\)$/),
      expect.stringMatching(/^realloc\(\): invalid pointer 0x[0-9a-f]+ \(interior pointer\)$/),
      "",
    ]);
    expect(heap.stats().nrMisuses).toBe(3);
  });

  it("free() of a wild pointer before the first malloc is reported too", () => {
    const process = createFakeProcess();
    const reports: MisuseKind[] = [];
    const heap = createUmalloc(process.env, { onMisuse: (kind) => reports.push(kind) });
    heap.free(0x1000_0040);
    expect(heap.realloc(0x2000_0000, 8)).toBe(0);
    expect(reports).toEqual(["foreign pointer", "foreign pointer"]);
  });
});
