/**
 * W4: who may take how deep, against the rule as it is written, on zones of random numbers.
 */

import fc from "fast-check";
import { expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { asPhys } from "../../kernel/types.ts";
import { ALLOC_CMA } from "../../mm/frame_allocator.ts";
import {
  nextBoost,
  Z_BOOST,
  Z_LOWMEM_RESERVE,
  Z_NONEMPTY,
  Z_NONEMPTY_ORDINARY,
  Z_NR_FREE,
  Z_NR_FREE_CMA,
  Z_NR_FREE_HIGHATOMIC,
  Z_WMARK,
} from "../../mm/mmzone.ts";
import {
  ALLOC_HIGHATOMIC,
  ALLOC_MIN_RESERVE,
  ALLOC_NON_BLOCK,
  ALLOC_OOM,
  createWatermarks,
} from "../../mm/watermark.ts";

const ZONE = asPhys(0x10_0000);
const { port } = createMachine({ nrCpus: 1, ramBytes: 8 * 1024 * 1024, seed: "w4", port: "bounds" });

const few = fc.nat(40);
const zone = fc.record({
  free: fc.nat(300),
  cma: few,
  highatomic: few,
  marks: fc.tuple(fc.nat(60), fc.nat(60), fc.nat(60), fc.nat(60)),
  boost: fc.constantFrom(0, 0, 9),
  reserve: fc.tuple(few, few, few, few),
  /** Bit o: there is a free block of order o; of ordinary types, HIGHATOMIC, CMA. */
  orders: fc.tuple(fc.nat(0x7ff), fc.nat(0x7ff), fc.nat(0x7ff)),
});
const request = fc.record({
  order: fc.nat(10),
  highest: fc.nat(3),
  mark: fc.nat(3),
  cma: fc.boolean(),
  minReserve: fc.boolean(),
  nonBlock: fc.boolean(),
  oom: fc.boolean(),
  highatomic: fc.boolean(),
});

it("W4 a request is let through if the rule says so, and only then", () => {
  fc.assert(
    fc.property(zone, request, fc.boolean(), fc.integer({ min: -1, max: 1 }), (z, r, hasCma, edge) => {
      const isPrivileged = r.minReserve || r.nonBlock || r.oom || r.highatomic;
      let mark = (z.marks[r.mark] as number) + (r.mark === 0 ? 0 : z.boost);
      if (r.minReserve) mark -= Math.floor(mark / 2);
      if (r.minReserve && r.nonBlock) mark -= Math.floor(mark / 4);
      if (r.oom) mark -= Math.floor(mark / 2);
      const kept = (isPrivileged ? 0 : z.highatomic) + (hasCma && !r.cma ? z.cma : 0) + (2 ** r.order - 1);
      const needed = mark + (z.reserve[r.highest] as number) + kept;
      // Two times in three right at the edge, where a wrong comparison shows.
      const free = z.free % 3 === 0 ? z.free : needed + edge;
      const lists = [z.orders[0], ...(r.highatomic || r.oom ? [z.orders[1]] : []), ...(r.cma ? [z.orders[2]] : [])];
      const hasBlock = lists.some((orders) => orders >= 2 ** r.order);

      port.st32(ZONE + Z_NR_FREE, Math.max(0, free));
      port.st32(ZONE + Z_NR_FREE_CMA, z.cma);
      port.st32(ZONE + Z_NR_FREE_HIGHATOMIC, z.highatomic);
      port.st32(ZONE + Z_BOOST, z.boost);
      for (let i = 0; i < 4; i++) {
        port.st32(ZONE + Z_WMARK + i * 4, z.marks[i] as number);
        port.st32(ZONE + Z_LOWMEM_RESERVE + i * 4, z.reserve[i] as number);
      }
      port.st32(ZONE + Z_NONEMPTY_ORDINARY, z.orders[0]);
      port.st32(ZONE + Z_NONEMPTY + 3 * 4, z.orders[1]);
      port.st32(ZONE + Z_NONEMPTY + 4 * 4, z.orders[2]);
      const flags =
        r.mark |
        (r.cma ? ALLOC_CMA : 0) |
        (r.minReserve ? ALLOC_MIN_RESERVE : 0) |
        (r.nonBlock ? ALLOC_NON_BLOCK : 0) |
        (r.oom ? ALLOC_OOM : 0) |
        (r.highatomic ? ALLOC_HIGHATOMIC : 0);
      const checks = createWatermarks(port, hasCma);
      expect(checks.hasBlock(ZONE, r.order, flags)).toBe(hasBlock);
      const isOk = checks.isOk(ZONE, r.order, r.highest, flags);
      expect(isOk).toBe(Math.max(0, free) > needed && (r.order === 0 || hasBlock));
    }),
    { numRuns: 4000 },
  );
});

it("B11 a boost grows by pageblocks up to 1.5 high marks, at least one; not in zones below four", () => {
  const grow = (high: number, factor = 15_000, managed = 100_000): number[] => {
    const boosts = [0];
    for (let i = 0; i < 4; i++) boosts.push(nextBoost(boosts.at(-1) as number, managed, high, factor));
    return boosts.slice(1);
  };
  expect(grow(800)).toEqual([512, 1024, 1200, 1200]);
  expect(grow(30)).toEqual([512, 512, 512, 512]);
  expect(grow(0)).toEqual([0, 0, 0, 0]);
  expect(grow(800, 0)).toEqual([0, 0, 0, 0]);
  expect([grow(800, 15_000, 2048)[0], grow(800, 15_000, 2047)[0]]).toEqual([512, 0]);
});
