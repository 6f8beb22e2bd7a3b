/**
 * GFP masks: their numbers, their names, their migrate types.
 *
 * Goal: G1, G2, B8. Method: every bit and every composite by table; then all masks by random choice, printed and read
 * back. That the names are Linux's is judged by recordings (test/conformance/recorded_tables.test.ts).
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as gfp from "../../mm/gfp.ts";
import { MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE } from "../../mm/migratetype.ts";

const { gfpNames, parseGfpNames, gfpWith, gfpAllowsBlocking, gfpMigratetype } = gfp;

/** Bit by bit, lowest first, as gfp_types.h numbers them without its configuration options. */
const BITS = [
  "DMA HIGHMEM DMA32 MOVABLE RECLAIMABLE HIGH IO FS ZERO",
  "",
  "DIRECT_RECLAIM KSWAPD_RECLAIM WRITE NOWARN RETRY_MAYFAIL NOFAIL NORETRY MEMALLOC COMP NOMEMALLOC HARDWALL THISNODE",
  "ACCOUNT",
]
  .join(" ")
  .split(" ")
  .map((name, bit) => ({ name, mask: 2 ** bit }))
  .filter(({ name }) => name !== "");

const COMPOSITES: Readonly<Record<string, string>> = {
  GFP_ATOMIC: "HIGH KSWAPD_RECLAIM",
  GFP_NOWAIT: "KSWAPD_RECLAIM NOWARN",
  GFP_KERNEL: "DIRECT_RECLAIM KSWAPD_RECLAIM IO FS",
  GFP_KERNEL_ACCOUNT: "DIRECT_RECLAIM KSWAPD_RECLAIM IO FS ACCOUNT",
  GFP_NOIO: "DIRECT_RECLAIM KSWAPD_RECLAIM",
  GFP_NOFS: "DIRECT_RECLAIM KSWAPD_RECLAIM IO",
  GFP_USER: "DIRECT_RECLAIM KSWAPD_RECLAIM IO FS HARDWALL",
  GFP_HIGHUSER: "DIRECT_RECLAIM KSWAPD_RECLAIM IO FS HARDWALL HIGHMEM",
  GFP_HIGHUSER_MOVABLE: "DIRECT_RECLAIM KSWAPD_RECLAIM IO FS HARDWALL HIGHMEM MOVABLE",
};

const exported = gfp as unknown as Readonly<Record<string, number>>;
const maskOf = (bits: string): number =>
  bits.split(" ").reduce((mask, name) => mask | (exported[`__GFP_${name}`] as number), 0);

describe("G1 bits and composites", () => {
  it("each bit has its number, its name and its way back", () => {
    expect(BITS).toHaveLength(22);
    for (const { name, mask } of BITS) {
      expect(exported[`__GFP_${name}`], name).toBe(mask);
      const printed = name === "DMA" || name === "DMA32" ? `GFP_${name}` : `__GFP_${name}`;
      expect(gfpNames(mask)).toBe(printed);
      expect(parseGfpNames(printed)).toBe(mask);
      // Both spellings are read.
      expect(parseGfpNames(`__GFP_${name}`)).toBe(mask);
    }
    expect(gfp.GFP_ALL_BITS).toBe(BITS.reduce((all, { mask }) => all | mask, 0));
  });

  it("each composite is made of its bits, is printed by its name, and wins over what it contains", () => {
    for (const [name, bits] of Object.entries(COMPOSITES)) {
      expect(exported[name], name).toBe(maskOf(bits));
      expect(gfpNames(maskOf(bits))).toBe(name);
      expect(parseGfpNames(name)).toBe(maskOf(bits));
      expect(gfpNames(maskOf(bits) | gfp.__GFP_ZERO)).toBe(`${name}|__GFP_ZERO`);
    }
    // GFP_NOIO is both reclaim bits and comes before the name of the pair.
    expect(parseGfpNames("__GFP_RECLAIM")).toBe(gfp.GFP_NOIO);
    expect(gfpNames(gfp.GFP_KERNEL | gfp.__GFP_COMP | gfp.__GFP_NOWARN)).toBe("GFP_KERNEL|__GFP_NOWARN|__GFP_COMP");
  });

  it("any mask comes back from its names; unknown bits are hexadecimal", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 30), (mask) => {
        expect(parseGfpNames(gfpNames(mask))).toBe(mask);
      }),
      { numRuns: 300 },
    );
    expect(gfpNames(0)).toBe("none");
    expect(gfpNames(0x200)).toBe("0x200");
    expect(gfpNames(0x100_0200 | gfp.GFP_ATOMIC)).toBe("GFP_ATOMIC|0x1000200");
  });

  it("reads nothing as 0, and an unknown name as -1, wherever it stands", () => {
    expect(["", "none"].map(parseGfpNames)).toEqual([0, 0]);
    expect(parseGfpNames("0x1f|GFP_ATOMIC")).toBe(0x1f | gfp.GFP_ATOMIC);
    for (const bad of ["GFP_NONE", "GFP_KERNEL|x", "x|GFP_KERNEL", "0x", "0xg1", "a0x1", "0x1g", "GFP_KERNEL|", "12"]) {
      expect(parseGfpNames(bad), bad).toBe(-1);
    }
  });
});

describe("what a mask means", () => {
  it("G2 exactly the masks with DIRECT_RECLAIM may sleep; gfpWith() adds everything but that", () => {
    fc.assert(
      fc.property(fc.nat(gfp.GFP_ALL_BITS), (mask) => {
        const isBlocking = Math.floor(mask / 0x400) % 2 === 1;
        expect(gfpAllowsBlocking(mask)).toBe(isBlocking);
        expect(gfpWith(gfp.GFP_ATOMIC, mask)).toBe((mask & ~0x400) | gfp.GFP_ATOMIC);
        expect(gfpWith(gfp.GFP_KERNEL, mask)).toBe(mask | gfp.GFP_KERNEL);
      }),
    );
  });

  it("B8 the mobility bits choose the migrate type; both together are UNMOVABLE", () => {
    const types = [0, 0x8, 0x10, 0x18].map((bits) => gfpMigratetype(gfp.GFP_KERNEL | bits));
    expect(types).toEqual([MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE]);
  });
});
