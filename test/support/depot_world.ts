/**
 * A depot and a cache that owns it, with nothing between the test and its operations.
 */

import { expect } from "vitest";
import { fromGranule, type PhysAddr } from "../../kernel/types.ts";
import { createLockedDepot, type Depot, type DepotKind } from "../../mm/depot.ts";
import { createLockfreeDepot } from "../../mm/depot_lockfree.ts";
import { GFP_NOWAIT } from "../../mm/gfp.ts";
import { asCache, type KmemCache } from "../../mm/slab_descriptor.ts";
import { SLAB_INTERNAL } from "../../mm/slab_layout.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "./object_level.ts";

export interface DepotWorld {
  readonly m: ObjectLevelMachine;
  readonly depot: Depot;
  /** A cache that only serves as the owner of a depot: nobody allocates from it. */
  readonly cache: KmemCache;
  readonly magazine: () => PhysAddr;
  /** The cache that slot tables come from; NO_CACHE before prepare(), and for the locked depot. */
  readonly slotTables: () => KmemCache;
  /** Runs `before` ahead of the n-th port operation from now (0 = first), once; of those that `counts`. */
  interrupt(n: number, before: () => void, counts?: () => boolean): { readonly hasFired: () => boolean; end(): void };
}

const OPERATIONS = ["ld32", "st32", "ldAtomic", "stAtomic", "cas", "fetchAdd"] as const;

export function bootDepot(kind: DepotKind, isPrepared = true): DepotWorld {
  const m = bootObjectLevel("passthrough", { ramBytes: 12 * 1024 * 1024, nrCpus: 2 });
  const { slabs } = m.slab;
  const statics = m.image.bss("test_depot", 8, 8);
  const { port } = m.machine;
  const depot =
    kind === "locked"
      ? createLockedDepot(m.machine, m.spinlocks)
      : createLockfreeDepot(m.machine, m.spinlocks, slabs, statics);
  const cache = slabs.createCache(m.ctx, { name: "owner", size: 64 });
  const magazines = slabs.createCache(m.ctx, { name: "test-magazines", size: 64, flags: SLAB_INTERNAL });
  if (isPrepared) depot.prepare(m.ctx);
  depot.init(cache, 3, 7, magazines);
  return {
    m,
    depot,
    cache,
    slotTables: () => asCache(fromGranule(port.ld32(statics))),
    magazine() {
      const magazine = slabs.allocObject(m.ctx, magazines, GFP_NOWAIT);
      expect(depot.hasRoom(m.ctx, cache)).toBe(true);
      expect(depot.adopt(m.ctx, cache, magazine)).toBe(true);
      return magazine;
    },
    interrupt(n, before, counts = () => true) {
      let left = n;
      let hasFired = false;
      const restore = OPERATIONS.map((name) => {
        const original = port[name] as (...args: number[]) => number;
        port[name] = ((...args: number[]) => {
          if (!hasFired && counts() && left-- === 0) {
            hasFired = true;
            before();
          }
          return original.apply(port, args);
        }) as never;
        return () => {
          port[name] = original as never;
        };
      });
      return {
        hasFired: () => hasFired,
        end() {
          for (const undo of restore) undo();
        },
      };
    },
  };
}

export const contents = (w: DepotWorld): { full: PhysAddr[]; empty: PhysAddr[] } => {
  const [full, empty] = [[] as PhysAddr[], [] as PhysAddr[]];
  expect(w.depot.walk(w.cache, (magazine, isFull) => (isFull ? full : empty).push(magazine))).toBeNull();
  return { full, empty };
};
