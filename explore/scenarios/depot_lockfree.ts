/**
 * Scenario: the lock-free depot, two stacks of magazines whose heads change by compare-and-swap (mm/depot_lockfree.ts).
 */

import type { Machine } from "../../kernel/arch/machine.ts";
import type { MemoryPort } from "../../kernel/arch/port.ts";
import { createLockfreeDepot } from "../../mm/index.ts";
import { withPort } from "../mutant_port.ts";
import type { BuildOptions, Mutant, Scenario, ScenarioWorld } from "../scenario.ts";
import { createObjectWorld } from "../world.ts";
import { checkDepot, DEPOT_OPERATIONS, depotOperations, showDepot, stockDepot } from "./depot_stock.ts";

/** A head is a slot, and above it a tag. */
const SLOT_BITS = 10;
const SLOT = 0x3ff;

const MUTANTS: readonly Mutant[] = [
  {
    name: "untagged",
    story: "a swap succeeds although the head was popped and pushed again in between (ABA)",
    kinds: ["invariant", "race", "oops"],
    bound: 1,
    programs: ["p", "ppU"],
  },
  {
    name: "late-tag",
    story: "the link is read first and the tag just before the swap: the tag is fresh, the link is not",
    kinds: ["invariant", "race", "oops"],
    bound: 1,
    programs: ["p", "ppU"],
  },
  {
    name: "stale-retry",
    story: "a swap that failed is repeated with the new head and the old link",
    kinds: ["invariant", "race", "oops"],
    bound: 1,
  },
  {
    name: "torn-swap",
    story: "compare-and-swap as a load and a store",
    kinds: ["invariant", "race", "oops"],
    bound: 1,
  },
];

type Swap = (port: MemoryPort, addr: number, old: number, to: number) => number;

/** A machine with another compare-and-swap. */
function withSwap(machine: Machine, swap: Swap): Machine {
  return withPort(machine, (port) => ({ cas: (addr, old, to) => swap(port, addr, old, to) }));
}

const isPop = (from: number, to: number): boolean => from >>> SLOT_BITS !== to >>> SLOT_BITS;

/** The machine that the depot of a mutant is built over. */
function plant(machine: Machine, mutant: string): Machine {
  const keepTag = (head: number, to: number): number => ((head & ~SLOT) | (to & SLOT)) >>> 0;
  if (mutant === "untagged") {
    return withSwap(machine, (port, addr, old, to) => port.cas(addr, old, keepTag(old, to)));
  }
  if (mutant === "late-tag") {
    return withSwap(machine, (port, addr, old, to) => {
      if (!isPop(old, to)) return port.cas(addr, old, to);
      const head = port.ldAtomic(addr);
      if ((head & SLOT) !== (old & SLOT)) return head;
      return port.cas(addr, head, keepTag(head + SLOT + 1, to)) === head ? old : -1;
    });
  }
  if (mutant === "stale-retry") {
    return withSwap(machine, (port, addr, old, to) => {
      const found = port.cas(addr, old, to);
      if (found === old || !isPop(old, to) || (found & SLOT) === 0) return found;
      return port.cas(addr, found, keepTag(found + SLOT + 1, to)) === found ? old : found;
    });
  }
  if (mutant === "torn-swap") {
    return withSwap(machine, (port, addr, old, to) => {
      const found = port.ldAtomic(addr);
      if (found === old) port.stAtomic(addr, to);
      return found;
    });
  }
  return machine;
}

function build({ nrCpus, mutant }: BuildOptions): ScenarioWorld {
  const world = createObjectWorld({ nrCpus });
  const statics = world.image.bss("explore_depot", 8, 8);
  const depot = createLockfreeDepot(plant(world.machine, mutant), world.spinlocks, world.slab.slabs, statics);
  const stock = stockDepot(world, depot);
  return {
    world,
    operations: depotOperations(world, depot, stock.cache),
    check: (held) => checkDepot(world, depot, stock, held),
    showValue: showDepot(world, stock),
  };
}

export const depotLockfree: Scenario = {
  name: "depot-lockfree",
  about: "the lock-free depot: two stacks of magazines, tagged compare-and-swap",
  cpus: 2,
  maxCpus: 4,
  operations: DEPOT_OPERATIONS,
  programs: (nrCpus) => Array.from({ length: nrCpus }, () => "ppUU"),
  randomLetters: "puU",
  irqProgram: "",
  irqs: 0,
  hasLocks: false,
  mutants: MUTANTS,
  build,
};
