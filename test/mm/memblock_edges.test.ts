/**
 * memblock at its edges: tables of more than a page, tables that cannot grow, ranges of nothing, what a bug says.
 *
 * Goal: MB-3, MB-7, MB-9 … MB-11. Method: 8 MiB of RAM; regions that are declared need not exist, arrays must.
 */
import { beforeEach, describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { KERNEL_IMAGE_BASE, PAGE_SIZE } from "../../kernel/params.ts";
import { asPhys, NULL } from "../../kernel/types.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import { createMemblock, type Memblock, type MemblockOptions } from "../../mm/memblock.ts";

const M = 1024 * 1024;
const { port } = createMachine({ nrCpus: 1, ramBytes: 8 * M, seed: "1", port: "bounds" });
const create = (options?: MemblockOptions): Memblock => createMemblock(port, asPhys(KERNEL_IMAGE_BASE), options);
const reserve = (m: Memblock, start: number, size: number): number => m.reserve(asPhys(start), size);

beforeEach(() => {
  port.fill(asPhys(2 * M), 0xa5, M);
});

describe("MB-9 tables of more than a page", () => {
  /** 600 reserved regions: the array went from 2 to 1024 records, that is four pages. */
  const grown = (): { m: Memblock; array: number } => {
    const m = create({ nrRegions: 2 });
    m.allowResize();
    m.add(asPhys(2 * M), M);
    for (let i = 0; i < 600; i++) expect(reserve(m, 4 * M + i * 64, 8)).toBe(0);
    const { start, end } = m.reservedRegions()[0] as { start: number; end: number };
    expect(end - start).toBe(4 * PAGE_SIZE);
    return { m, array: start };
  };

  it("the outgrown array of two pages was given back whole", () => {
    const { m } = grown();
    expect(m.reservedSize()).toBe(600 * 8 + 4 * PAGE_SIZE);
    expect(m.check()).toBeNull();
  });

  it("a new array is cleared to its end, and nothing behind it is touched", () => {
    const { fill } = port;
    const ends: number[] = [];
    port.fill = (addr, value, bytes) => {
      ends.push(addr + bytes);
      fill.call(port, addr, value, bytes);
    };
    const { array } = grown();
    port.fill = fill;
    expect(ends.at(-1)).toBe(array + 4 * PAGE_SIZE);
    expect(port.readBytes(array + 601 * 16, 4 * PAGE_SIZE - 601 * 16).every((byte) => byte === 0)).toBe(true);
  });

  it("check() counts the records, and knows where addresses end", () => {
    const m = create({ nrRegions: 2 });
    m.add(asPhys(2 * M), M);
    reserve(m, 4 * M, 8);
    // The header of `reserved` is at 24: array, cnt, max.
    const cnt = KERNEL_IMAGE_BASE + 24 + 4;
    port.st32(cnt, 3);
    expect(m.check()).toBe("MB-9 reserved: 3 regions in an array of 2");
    port.st32(cnt, 1);
    const record = port.ld32(KERNEL_IMAGE_BASE + 24);
    for (const [end, fault] of [
      [2 ** 32, null],
      [2 ** 32 + 1, "MB-1 reserved[0] is empty or too long"],
      [4 * M, "MB-1 reserved[0] is empty or too long"],
    ] as const) {
      port.stF64(record + 8, end);
      expect(m.check()).toBe(fault);
    }
  });

  it("check() wants every page of an array reserved", () => {
    for (let page = 0; page < 4; page++) {
      const { m, array } = grown();
      expect(m.free(asPhys(array + page * PAGE_SIZE), PAGE_SIZE)).toBe(0);
      expect(m.check()).toBe("MB-9 the reserved array is not reserved");
    }
  });

  it("MB-10 discard() hands over all of its pages", () => {
    const { m, array } = grown();
    const late: number[][] = [];
    m.discard((startPfn, endPfn) => late.push([startPfn, endPfn]));
    expect(late).toEqual([[array / PAGE_SIZE, array / PAGE_SIZE + 4]]);
  });

  it("memory's table grows only if reserved's can; else nothing has changed, with a log or without", () => {
    for (const log of [undefined, () => {}]) {
      const m = create({ nrRegions: 2, ...(log === undefined ? {} : { log }) });
      m.allowResize();
      for (const i of [0, 2]) {
        m.add(asPhys(2 * M + i * PAGE_SIZE), PAGE_SIZE);
        reserve(m, 2 * M + i * PAGE_SIZE, PAGE_SIZE);
      }
      const before = [m.memoryRegions(), m.reservedRegions()];
      expect(m.add(asPhys(3 * M), PAGE_SIZE)).toBe(-ENOMEM);
      expect([m.memoryRegions(), m.reservedRegions()]).toEqual(before);
      expect(m.check()).toBeNull();
    }
  });
});

describe("small things", () => {
  it("a range of nothing changes nothing, also in a table that is full", () => {
    const m = create({ nrRegions: 2 });
    for (const i of [0, 2]) {
      m.add(asPhys(2 * M + i * PAGE_SIZE), PAGE_SIZE);
      reserve(m, 2 * M + i * PAGE_SIZE, PAGE_SIZE);
    }
    const inside = asPhys(2 * M + 100);
    expect([m.add(inside, 0), m.remove(inside, 0), m.reserve(inside, 0), m.free(inside, 0)]).toEqual([0, 0, 0, 0]);
    expect([m.free(asPhys(2 ** 32 - 1), 5), m.memorySize()]).toEqual([0, 2 * PAGE_SIZE]);
  });

  it("MB-7 MB-11 allocExact() can have page 1, zeroed, and not page 0", () => {
    const m = create();
    m.add(asPhys(0), M);
    port.fill(asPhys(0), 0xa5, 3 * PAGE_SIZE);
    expect(m.allocExact(asPhys(PAGE_SIZE - 8), 16)).toBe(NULL);
    expect(m.allocExact(asPhys(PAGE_SIZE), PAGE_SIZE)).toBe(PAGE_SIZE);
    expect([PAGE_SIZE - 4, PAGE_SIZE, 2 * PAGE_SIZE - 4, 2 * PAGE_SIZE].map((addr) => port.ld32(addr))).toEqual([
      0xa5a5_a5a5, 0, 0, 0xa5a5_a5a5,
    ]);
  });

  it("a request's limit is in the log, 0 for none", () => {
    const lines: string[] = [];
    const m = create({ log: (line) => lines.push(line) });
    m.add(asPhys(2 * M), M);
    m.alloc(64, 64);
    m.alloc(64, 64, { minAddr: 0x1000, maxAddr: 0x28_0000 });
    expect(lines.filter((line) => line.startsWith("memblock_alloc")).map((line) => line.split("nid=-1 ")[1])).toEqual([
      "from=0x0000000000000000 max_addr=0x0000000000000000",
      "from=0x0000000000001000 max_addr=0x0000000000280000",
    ]);
  });

  it("each kernel bug says what was wrong", () => {
    const m = create();
    m.add(asPhys(2 * M), M);
    expect(() => m.alloc(0, 8)).toThrow("memblock: allocation of no bytes");
    expect(() => m.alloc(Number.NaN, 8)).toThrow("memblock: allocation of no bytes");
    expect(() => m.alloc(8, 24)).toThrow("memblock: alignment is not a power of two");
    expect(() => m.allocExact(asPhys(2 * M), 0)).toThrow("memblock: allocation of no bytes");
    expect(() => m.trim(3)).toThrow("memblock: alignment is not a power of two");
    expect(() => create({ nrRegions: 1 })).toThrow("memblock: tables too small to grow");
    m.discard(() => {});
    expect(() => m.memorySize()).toThrow("memblock: used after the hand-over");
  });
});
