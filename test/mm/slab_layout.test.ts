/**
 * Goal: S2, S4-S8 compute what real kernels computed.
 * Method: every row of the recorded slabinfo and sysfs tables of Linux 6.12 (2 CPUs, with and without slub_debug) and
 * 6.18 (2 CPUs) is put through our arithmetic; no row may differ.
 */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../kernel/params.ts";
import {
  calculateAlignment,
  calculateOrder,
  calculateSizes,
  cpuPartialOf,
  GEOMETRY_SIZE_SHIFT,
  minPartialOf,
  objectIndex,
  SLAB_CACHE_DMA,
  SLAB_HWCACHE_ALIGN,
  SLAB_KMALLOC,
  SLAB_POISON,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TYPESAFE_BY_RCU,
  slabGeometry,
} from "../../mm/slab_layout.ts";
import { countCases } from "../support/cases.ts";
import { recorded } from "../support/recorded.ts";

const TWO_CPUS = { nrCpus: 2 };

/** `SLABROW name key=value …` lines. */
function attributeRows(name: string): Map<string, string>[] {
  return recorded(name)
    .split("\n")
    .filter((line) => line.startsWith("SLABROW "))
    .map((line) => {
      const [, cache, ...pairs] = line.split(" ");
      const row = new Map(pairs.map((pair) => pair.split("=", 2) as [string, string]));
      return row.set("name", cache as string);
    });
}

function layoutOfRow(row: Map<string, string>): Record<string, unknown> {
  const number = (key: string): number => Number(row.get(key));
  const flag = (key: string, bit: number): number => (number(key) === 1 ? bit : 0);
  const flags =
    flag("red_zone", SLAB_RED_ZONE) |
    flag("poison", SLAB_POISON) |
    flag("store_user", SLAB_STORE_USER) |
    flag("destroy_by_rcu", SLAB_TYPESAFE_BY_RCU) |
    flag("reclaim_account", SLAB_RECLAIM_ACCOUNT) |
    flag("cache_dma", SLAB_CACHE_DMA) |
    flag("hwcache_align", SLAB_HWCACHE_ALIGN) |
    (/kmalloc-/.test(row.get("name") as string) ? SLAB_KMALLOC : 0);
  const hasCtor = row.get("ctor") !== "-";
  const layout = calculateSizes(
    { objectSize: number("object_size"), align: number("align"), flags, hasCtor },
    TWO_CPUS,
  );
  const isDebug = (flags & (SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER)) !== 0;
  return {
    name: row.get("name"),
    align: layout.align,
    slab_size: layout.size,
    objs_per_slab: layout.objects,
    order: layout.order,
    min_partial: layout.minPartial,
    cpu_partial: isDebug ? 0 : layout.cpuPartial,
  };
}

describe("slab layout", () => {
  for (const name of ["linux-6.12-128M/slab-attrs", "linux-6.12-128M/slub_debug-slab-attrs"]) {
    it(`S2, S4-S8 all attributes of all caches in ${name}`, (context) => {
      const rows = attributeRows(name);
      expect(rows.length).toBe(248);
      const theirs = rows.map((row) => ({
        name: row.get("name"),
        align: Number(row.get("align")),
        slab_size: Number(row.get("slab_size")),
        objs_per_slab: Number(row.get("objs_per_slab")),
        order: Number(row.get("order")),
        min_partial: Number(row.get("min_partial")),
        cpu_partial: Number(row.get("cpu_partial")),
      }));
      const ours = rows.map(layoutOfRow);
      const wrong = theirs.filter((row, i) => JSON.stringify(row) !== JSON.stringify(ours[i]));
      countCases(context, theirs.length, wrong);
    });
  }

  it("S5 min_partial and cpu_partial at their steps", () => {
    expect([8, 64, 1024, 4095, 4096, 16_384, 4 << 20].map(minPartialOf)).toEqual([5, 5, 5, 5, 6, 7, 10]);
    expect([8, 255, 256, 1023, 1024, 4095, 4096].map(cpuPartialOf)).toEqual([120, 120, 52, 52, 24, 24, 6]);
  });

  it("S6 a cache line, halved while the object fits into half of it", () => {
    const aligned = [1, 8, 9, 16, 17, 32, 33, 64, 65, 200].map((n) => calculateAlignment(n, 0, SLAB_HWCACHE_ALIGN));
    expect(aligned).toEqual([8, 8, 16, 16, 32, 32, 64, 64, 64, 64]);
    expect(calculateAlignment(40, 256, SLAB_HWCACHE_ALIGN)).toBe(256);
    expect(calculateAlignment(40, 4, 0)).toBe(8);
  });

  it("S7 the free pointer lies inside the object, or after it when there is a constructor", () => {
    const offsetOf = (objectSize: number, hasCtor: boolean): number =>
      calculateSizes({ objectSize, align: 0, flags: 0, hasCtor }, TWO_CPUS).freePointerOffset;
    expect([1, 8, 16, 24, 32, 100].map((n) => offsetOf(n, false))).toEqual([0, 0, 8, 8, 16, 48]);
    expect([1, 8, 20, 100].map((n) => offsetOf(n, true))).toEqual([8, 8, 24, 104]);
  });

  it("S7 S8 red zones: behind an object that ends on a word a word more; a small one has its free pointer behind", () => {
    const layoutOf = (objectSize: number, flags: number): number[] => {
      const layout = calculateSizes({ objectSize, align: 0, flags, hasCtor: false }, TWO_CPUS);
      return [layout.size, layout.freePointerOffset, layout.leftRedZone];
    };
    // size = left + object, rounded up + (a word if that is the object) + (free pointer, if behind) + right
    expect(layoutOf(20, SLAB_RED_ZONE)).toEqual([8 + 24 + 8, 8 + 8, 8]);
    expect(layoutOf(24, SLAB_RED_ZONE)).toEqual([8 + 24 + 8 + 8, 8 + 8, 8]);
    expect(layoutOf(8, SLAB_RED_ZONE)).toEqual([8 + 8 + 8 + 8, 8, 8]);
    expect(layoutOf(4, SLAB_RED_ZONE)).toEqual([8 + 8 + 8 + 8, 8 + 8, 8]);
    expect(layoutOf(4, 0)).toEqual([8, 0, 0]);
    expect(layoutOf(24, SLAB_RED_ZONE | SLAB_POISON)).toEqual([8 + 24 + 8 + 8 + 8, 8 + 32, 8]);
  });

  it("S4 every size gets a slab that holds it, and wastes no more than half", () => {
    for (let size = 8; size <= 300_000; size += size < 40_000 ? 8 : 1000) {
      const order = calculateOrder(size, TWO_CPUS);
      const objects = Math.floor((PAGE_SIZE * 2 ** order) / size);
      expect(objects).toBeGreaterThanOrEqual(1);
      // What objectIndex() relies on: a slab beyond 32 KiB holds a single object.
      if (order > 3) expect(objects).toBe(1);
      expect(((PAGE_SIZE * 2 ** order) % size) / (PAGE_SIZE * 2 ** order)).toBeLessThanOrEqual(0.5);
    }
  });

  it("objectIndex() is exact for every object of every size up to 32 KiB", () => {
    let nrWrong = 0;
    for (let size = 8; size <= 32_768; size += 8) {
      const geometry = slabGeometry(size);
      if (geometry >>> GEOMETRY_SIZE_SHIFT !== size) nrWrong++;
      for (let index = 0; (index + 1) * size <= 32_768; index++) {
        if (objectIndex(index * size, geometry) !== index) nrWrong++;
      }
    }
    expect(nrWrong).toBe(0);
  });

  it("objectIndex() of what is no start of an object gives another offset back, before the first object too", () => {
    let nrTaken = 0;
    for (let size = 8; size <= 32_768; size += size < 256 ? 8 : 64) {
      const geometry = slabGeometry(size);
      // A slab's first object lies up to a page behind its start.
      for (let offset = -4096; offset <= 32_768; offset += offset < 256 ? 1 : 40) {
        const index = objectIndex(offset, geometry);
        const isStart = offset >= 0 && offset % size === 0;
        if (!isStart && Math.imul(index, geometry >>> GEOMETRY_SIZE_SHIFT) === offset) nrTaken++;
      }
    }
    expect(nrTaken).toBe(0);
  });
});
