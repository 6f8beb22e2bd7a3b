/**
 * The memory map: what the picture shows is what is there.
 *
 * Goal: KND-1, MAP-1, MAP-2. Method: a program takes and drops memory; the picture is held against the owners of all
 * frames, which page_owners.ts finds out on a way of its own, and its legend against the census. Then against garbage.
 */

import { expect, it } from "vitest";
import { PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { SYS_madvise, SYS_mmap, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { formatMemoryMap } from "../../mm/memory_map.ts";
import { PAGE_ROW_SHIFT } from "../../mm/page.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const NR_PAGES = 2048;

/** A kernel in the middle of a program that has kept every `keep`-th of 2,048 pages. */
function kernelWithPieces(keep: number) {
  const t = bootKernel({
    *"/bin/pieces"(env) {
      const base = env.syscall(SYS_mmap, 0, NR_PAGES * 4096, PROT_READ | PROT_WRITE, 0x22, -1, 0) as number;
      for (let page = 0; page < NR_PAGES; page++) env.mem.st32(base + page * 4096, page);
      for (let page = 0; page < NR_PAGES; page++) {
        if (page % keep !== 0) env.syscall(SYS_madvise, base + page * 4096, 4096, 4);
      }
      const sleep = env.syscall(SYS_nanosleep, 1e9);
      return typeof sleep === "number" ? sleep : yield* sleep;
    },
  });
  t.kernel.spawn("/bin/pieces", ["pieces"]);
  t.kernel.run({ untilCycles: t.kernel.now() + 5e8 });
  return t.kernel;
}

it.each([1, 9])("MAP-1 MAP-2 the picture agrees with the owners of all frames, one page in %i kept", (keep) => {
  const kernel = kernelWithPieces(keep);
  const { pages, zones } = kernel.memory;
  const [head = "", ...lines] = formatMemoryMap(pages, zones).trimEnd().split("\n");
  const legend = lines.pop() as string;
  const cellFrames = Number(/is (\d+) pages/.exec(head)?.[1]);
  const { owner, names } = kernel.owners();
  const isFree = (pfn: number): boolean => (names[owner[pfn] as number] as string).startsWith("free");

  let nrCells = 0;
  for (const line of lines) {
    const first = Number.parseInt(line.slice(0, 8), 16) / 4096;
    for (const [i, letter] of [...line.slice(10)].entries()) {
      // Frame 0 is in no zone.
      const pfns = Array.from({ length: cellFrames }, (_, k) => first + i * cellFrames + k).filter((pfn) => pfn > 0);
      const nrFree = pfns.filter(isFree).length;
      if (letter === " ") continue;
      nrCells++;
      expect([letter, letter === "."]).toEqual([letter, nrFree === pfns.length]);
      if (/[A-Za-z]/.test(letter)) expect(letter === letter.toLowerCase()).toBe(nrFree * 2 >= pfns.length);
    }
  }
  expect(nrCells * cellFrames).toBe(pages.nrFrames);
  expect(new Set(lines.join("").match(/[Aa]/g))).toEqual(new Set(keep === 1 ? ["A", "a"] : ["a"]));

  const shown = new Map(
    [...legend.matchAll(/(\S) ([a-z, ]+) (\d+)/g)].map(([, , name, nr]) => [name, Number(nr)] as const),
  );
  const census = kernel.census();
  expect(shown.get("free")).toBe(census.freeBuddy + census.freePcp);
  expect(shown.get("anonymous")).toBe(census.anon);
  expect(shown.get("slab")).toBe(census.slab);
  expect([...shown.values()].reduce((sum, nr) => sum + nr, 0)).toBe(census.total);
});

it("KND-1 rows of struct page full of garbage are drawn, not followed", () => {
  const { machine, memory } = kernelWithPieces(2);
  for (const byte of [0xff, 0x0a, 0x82, 0x55]) {
    for (let pfn = 0; pfn < memory.pages.nrFrames; pfn += 7) {
      machine.port.fill(memory.pages.rowAt(pfn) as never, byte, 1 << PAGE_ROW_SHIFT);
    }
    expect(formatMemoryMap(memory.pages, memory.zones)).toMatch(/^Memory map/);
  }
});
