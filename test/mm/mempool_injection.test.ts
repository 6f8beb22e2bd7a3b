/**
 * Interrupts at every point of a mempool.
 *
 * Goal: the reserve of a pool is whole and no element is lost or given twice (D6), whatever interrupt comes in between.
 * Method: as in injection.test.ts; the handler takes from and gives to the same pool.
 */

import { afterAll, expect, it } from "vitest";
import { type Context, NULL, type PhysAddr } from "../../kernel/types.ts";
import { __GFP_NOWARN, GFP_ATOMIC } from "../../mm/gfp.ts";
import type { Mempool } from "../../mm/mempool_elements.ts";
import { finish } from "../support/finish.ts";
import { forEachInjection } from "../support/injection.ts";
import { bootMempoolWorld, type MempoolWorld } from "../support/mempool_world.ts";

interface World extends MempoolWorld {
  pool: Mempool;
  live: PhysAddr[];
}

const ATOMIC = GFP_ATOMIC | __GFP_NOWARN;
let nrPoints = 0;
afterAll(() => console.info(`interrupts injected into mempools: ${nrPoints}`));

const take = (w: World, ctx: Context): void => {
  const element = w.mempools.allocAny(ctx, w.pool, ATOMIC) as PhysAddr;
  if (element !== NULL) w.live.push(element);
};
const give = (w: World, ctx: Context): void => {
  const element = w.live.shift();
  if (element !== undefined) expect(w.mempools.free(ctx, w.pool, element)).toBe(0);
};

it.each([
  ["memory is there", false],
  ["memory has run out: from the reserve", true],
])("D6 elements taken and given while %s", (_name, isOut) => {
  const setup = (): World => {
    const m = bootMempoolWorld({ port: "inject", ramBytes: 8 << 20, nrCpus: 2 });
    const pool = finish(m.mempools.create(m.ctx, { minNr: 4, bytes: 16_384 }));
    return { ...m, pool, live: [] };
  };
  const { injected } = forEachInjection(
    setup,
    (w) => {
      w.live.length = 0;
      if (isOut) w.failPageAllocation(1, true);
      for (const act of [take, take, give, take, give, give]) act(w, w.ctx);
    },
    (w, irq) => {
      const mine = w.live.splice(0);
      for (const act of [take, take, give, give]) act(w, irq);
      w.live.push(...mine);
    },
    (w) => {
      w.failPageAllocation(0);
      if (isOut) expect(w.mempools.info(w.pool).fromReserve).toBeGreaterThan(0);
      while (w.live.length > 0) give(w, w.ctx);
      for (const fault of [w.mempools.check(), w.slab.check(), w.pageAlloc.check()]) {
        if (fault !== null) throw new Error(fault);
      }
    },
  );
  expect(injected).toBeGreaterThan(10);
  nrPoints += injected;
});
