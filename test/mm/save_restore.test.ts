/**
 * A machine saved in the middle of a run of allocations continues, after a restore, to the same bytes.
 *
 * Goal: DESIGN's "one RAM": nothing that decides an allocation is kept outside the saved machine. Method: random
 * kmalloc and page operations; save half-way, finish, take RAM and clocks; restore, finish again, compare every byte.
 */

import { expect, it } from "vitest";
import { asPfn, asPhys } from "../../kernel/types.ts";
import { __GFP_NOWARN, GFP_ATOMIC } from "../../mm/gfp.ts";
import type { ObjectCacheKind } from "../../mm/slab_subsystem.ts";
import { bootObjectLevel } from "../support/object_level.ts";

const QUIET = GFP_ATOMIC | __GFP_NOWARN;

for (const layer of ["magazine", "passthrough"] as readonly ObjectCacheKind[]) {
  it(`restore in the middle, then the same operations: the same RAM, clocks and draws (${layer})`, () => {
    const m = bootObjectLevel(layer);
    const draw = m.machine.random.stream("test");
    /** What the "program" holds: [address, order or −1 for an object]. */
    let live: (readonly [number, number])[] = [];
    const operate = (nr: number): void => {
      for (let i = 0; i < nr; i++) {
        const ctx = m.contexts.taskContext(draw.below(3));
        const kind = draw.below(10);
        if (kind < 4) live.push([m.slab.kmalloc.kmallocAny(ctx, 1 + draw.below(9000), QUIET) as number, -1]);
        else if (kind < 6) {
          const order = draw.below(4);
          live.push([m.pageAlloc.tryAllocPages(ctx, order, QUIET), order]);
        } else if (live.length > 0) {
          const [addr, order] = live.splice(draw.below(live.length), 1)[0] as readonly [number, number];
          if (order < 0) m.slab.kmalloc.kfree(ctx, asPhys(addr));
          else if (addr !== 0) m.pageAlloc.freePages(ctx, asPfn(addr), order);
        }
      }
    };
    operate(400);
    const middle = m.machine.save();
    const held = [...live];
    operate(400);
    const first = m.machine.save();

    m.machine.restore(middle);
    live = held;
    operate(400);
    const second = m.machine.save();
    expect(Buffer.compare(first.ram, second.ram)).toBe(0);
    expect(second.registers).toEqual(first.registers);
    expect(draw.next()).toBeDefined();
    expect(m.slab.check()).toBeNull();
    expect(m.pageAlloc.check()).toBeNull();
  });
}
