/**
 * Scenario: the depot with a lock (mm/depot.ts). The same books and operations as for the lock-free one.
 */

import { createLockedDepot } from "../../mm/index.ts";
import type { BuildOptions, Mutant, Scenario, ScenarioWorld } from "../scenario.ts";
import { createObjectWorld, type Parts } from "../world.ts";
import { checkDepot, DEPOT_OPERATIONS, depotOperations, stockDepot } from "./depot_stock.ts";

const MUTANTS: readonly Mutant[] = [
  {
    name: "unlocked",
    story: "the lists are changed without the lock",
    kinds: ["race", "invariant", "oops"],
    bound: 1,
  },
  {
    name: "forgotten-unlock",
    story: "the lock is not released when it was taken at the first try",
    kinds: ["deadlock"],
    bound: 1,
  },
  {
    name: "plain-unlock",
    story: "the lock is released by a plain store, which orders nothing",
    kinds: ["race"],
    bound: 1,
  },
];

function plant(parts: Parts, mutant: string): Parts {
  const { spinlocks, contexts, machine } = parts;
  if (mutant === "unlocked") {
    return {
      ...parts,
      spinlocks: {
        ...spinlocks,
        spinTryLock: () => true,
        spinLock: () => {},
        spinUnlock: () => {},
      },
    };
  }
  if (mutant === "forgotten-unlock") {
    return { ...parts, spinlocks: { ...spinlocks, spinUnlock: (ctx) => contexts.preemptEnable(ctx) } };
  }
  if (mutant === "plain-unlock") {
    return {
      ...parts,
      spinlocks: {
        ...spinlocks,
        spinUnlock(ctx, lock) {
          machine.port.st32(lock, 0);
          contexts.preemptEnable(ctx);
        },
      },
    };
  }
  return parts;
}

function build({ nrCpus, mutant }: BuildOptions): ScenarioWorld {
  const world = createObjectWorld({ nrCpus });
  const stock = stockDepot(world, createLockedDepot(world.machine, world.spinlocks));
  const { machine, spinlocks } = plant(world, mutant);
  const depot = createLockedDepot(machine, spinlocks);
  return {
    world,
    operations: depotOperations(world, depot, stock.cache),
    check: (held) => checkDepot(world, depot, stock, held),
  };
}

export const depotLocked: Scenario = {
  name: "depot-locked",
  about: "the depot whose lists are guarded by a lock",
  cpus: 2,
  maxCpus: 4,
  operations: DEPOT_OPERATIONS,
  programs: (nrCpus) => Array.from({ length: nrCpus }, () => "ppUU"),
  randomLetters: "puU",
  irqProgram: "",
  irqs: 0,
  hasLocks: true,
  mutants: MUTANTS,
  build,
};
