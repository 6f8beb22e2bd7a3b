/**
 * Goal: a kernel that refuses memory at any moment costs the caller a 0 and nothing else.
 * Method: one fixed script of calls, run once to count the brk, mmap and munmap calls it makes, then once for each N
 * with the N-th refused, and once with all from the N-th on refused. After each: every block intact, `check()` clean;
 * and once the kernel gives again, what failed succeeds.
 */
import { describe, expect, it } from "vitest";
import { SYS_munmap } from "../../kernel/uapi/syscall.ts";
import { createUmalloc } from "../../userland/umalloc.ts";
import { createFakeProcess } from "../support/fake_env.ts";
import { HeapModel } from "./heap_model.ts";

/** Reaches each way in which memory is asked for: first pages, top, new segment, mapping, its table, growing both. */
function script(model: HeapModel): void {
  for (let i = 0; i < 40; i++) model.malloc(20 + i * 30);
  for (let i = 0; i < 12; i++) model.malloc(45_000);
  for (let i = 0; i < 14; i++) model.malloc(120_000);
  model.calloc(3, 90_000);
  model.memalign(65_536, 10_000);
  model.memalign(1024, 3000);
  for (let i = 0; i < 6 && i < model.blocks.length; i++) model.realloc(model.blocks.length - 1 - i, 150_000);
  for (let i = 0; i < 10 && model.blocks.length > 0; i++) model.free((i * 7) % model.blocks.length);
  if (model.blocks.length > 0) model.realloc(0, 60_000);
  if (model.blocks.length > 0) model.realloc(0, 300_000);
  if (model.blocks.length > 0) model.realloc(0, 5000);
  model.heap.trim();
  for (let i = 0; i < 5; i++) model.malloc(30_000);
}

interface Run {
  readonly model: HeapModel;
  readonly nrAsked: number;
}

function run(isRefused: (n: number, nr: number) => boolean): Run {
  const process = createFakeProcess({ limitBytes: 8 * 1024 * 1024 });
  let nrAsked = 0;
  process.refuse = (nr) => isRefused(nrAsked++, nr);
  const model = new HeapModel(process, createUmalloc(process.env));
  script(model);
  model.verifyAll();
  process.refuse = () => false;
  const nrFailed = model.nrFailed;
  expect(model.malloc(100)).toBeDefined();
  expect(model.malloc(30_000)).toBeDefined();
  expect(model.malloc(400_000)).toBeDefined();
  expect(model.nrFailed).toBe(nrFailed);
  model.verifyAll();
  model.freeAll();
  model.heap.trim();
  model.verifyAll();
  expect(model.heap.stats().nrMisuses).toBe(0);
  return { model, nrAsked };
}

const { nrAsked } = run(() => false);

describe("the kernel refuses", () => {
  it("the script asks often enough to be a test", () => {
    expect(nrAsked).toBeGreaterThan(40);
  });

  it("the N-th request, for every N", () => {
    let nrFailed = 0;
    for (let n = 0; n < nrAsked; n++) nrFailed += run((i) => i === n).model.nrFailed;
    expect(nrFailed).toBeGreaterThan(0);
  });

  it("every request from the N-th on, for every N", () => {
    for (let n = 0; n < nrAsked; n++) {
      const { model } = run((i) => i >= n);
      if (n < 3) expect(model.nrFailed).toBeGreaterThan(10);
    }
  });

  it("munmap alone: blocks stay mapped and known", () => {
    run((_i, nr) => nr === SYS_munmap);
  });

  it("memory that ends: allocations fail, frees make room, and all comes back", () => {
    const process = createFakeProcess({ limitBytes: 600 * 1024 });
    const model = new HeapModel(process, createUmalloc(process.env));
    for (const bytes of [24, 700, 9000, 70_000]) {
      while (model.malloc(bytes) !== undefined);
      model.verifyAll();
      const nr = model.blocks.length;
      expect(nr).toBeGreaterThan(3);
      for (let i = 0; i < nr / 2; i++) model.free(i);
      expect(model.malloc(bytes)).toBeDefined();
      model.freeAll();
      model.heap.trim();
      model.verifyAll();
    }
  });
});
