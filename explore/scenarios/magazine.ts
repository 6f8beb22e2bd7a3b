/**
 * Scenario: magazines and their depot (mm/magazine.ts, mm/depot.ts or mm/depot_lockfree.ts) over the real slabs.
 *
 * Objects of 3300 bytes: magazines hold one round each, so every second operation goes to the depot. CPUs allocate and
 * free, and so do interrupts. Whoever has an object signs it with plain stores: two owners are a race.
 */

import { asPhys, type Context, NULL } from "../../kernel/types.ts";
import { CACHE_CC, CACHE_DEPOT, type DepotKind, GFP_NOWAIT, type KmemCache } from "../../mm/index.ts";
import type { BuildOptions, Held, Mutant, Operation, Scenario, ScenarioWorld } from "../scenario.ts";
import { createObjectWorld, type ObjectWorld, type Parts } from "../world.ts";

const OBJECT_BYTES = 3300;
/** Names of words: of a CPU's record, of a depot. */
const CPU_FIELDS = { 0: "loaded", 4: "hand", 8: "previous", 12: "prounds", 16: "magsize", 20: "first" };
const FULL_FIELDS = { 12: "full", 16: "full.nr", 20: "full.min" };
const EMPTY_FIELDS = { 28: "empty", 32: "empty.nr", 36: "empty.min" };
const DEPOT_FIELDS = { 0: "lock", ...FULL_FIELDS, ...EMPTY_FIELDS, 44: "contention" };

const MUTANTS: readonly Mutant[] = [
  {
    name: "irqs-on",
    story: "interrupts stay on while a magazine is moved: a handler takes the same round",
    kinds: ["interrupt race", "invariant", "oops"],
    bound: 1,
  },
  {
    name: "drain-others",
    story: "a CPU drains the magazines of another one that runs",
    kinds: ["race", "invariant", "oops"],
    bound: 1,
    programs: ["af", "d"],
  },
];

const LOCKED_MUTANTS: readonly Mutant[] = [
  {
    name: "depot-unlocked",
    story: "the depot's lock is taken to be free without taking it",
    kinds: ["race", "invariant", "oops"],
    bound: 1,
    programs: ["aaff", "aaff"],
  },
  {
    name: "depot-irqs-on",
    story: "the depot is visited with interrupts on, its lock held",
    kinds: ["deadlock", "interrupt race", "lock usage", "invariant", "oops"],
    bound: 1,
  },
];

/** Parts that a mutant's allocators are built from. */
function plant(mutant: string): ((parts: Parts) => Parts) | undefined {
  if (mutant === "irqs-on") {
    return (parts) => ({
      ...parts,
      contexts: { ...parts.contexts, localIrqSave: () => 1, localIrqRestore: () => {} },
    });
  }
  if (mutant === "depot-unlocked") {
    return ({ spinlocks, contexts, ...rest }) => ({
      ...rest,
      contexts,
      spinlocks: {
        ...spinlocks,
        spinTryLock(ctx) {
          contexts.preemptDisable(ctx);
          return true;
        },
        spinUnlock(ctx, lock) {
          if (spinlocks.isLocked(lock)) spinlocks.spinUnlock(ctx, lock);
          else contexts.preemptEnable(ctx);
        },
      },
    });
  }
  if (mutant === "depot-irqs-on") {
    return ({ machine, spinlocks, ...rest }) => ({
      ...rest,
      machine,
      spinlocks: {
        ...spinlocks,
        spinTryLock(ctx, lock) {
          machine.harts.irqOn[ctx.cpu] = 1;
          return spinlocks.spinTryLock(ctx, lock);
        },
      },
    });
  }
  return undefined;
}

function operationsOf(world: ObjectWorld, cache: KmemCache, isDrainingOthers: boolean): ReadonlyMap<string, Operation> {
  const { port, slab } = world;
  const nrCpus = world.machine.config.nrCpus;
  const alloc: Operation = (ctx, held) => {
    const got = slab.layer.kmemCacheAllocAny(ctx, cache, GFP_NOWAIT);
    if (typeof got === "object") return "an allocation that may not sleep wants to";
    if (got === NULL) return undefined;
    port.st32(got, ctx.cpu + 1);
    held.push(got);
    return undefined;
  };
  const free = (ctx: Context, obj: number | undefined): string | undefined => {
    if (obj === undefined) return undefined;
    const by = port.ld32(obj);
    if (by !== ctx.cpu + 1) return `an object of CPU ${ctx.cpu} is signed by CPU ${by - 1}`;
    const error = slab.layer.kmemCacheFree(ctx, cache, asPhys(obj));
    return error === 0 ? undefined : `a free of a live object is refused (${error})`;
  };
  return new Map<string, Operation>([
    ["a", alloc],
    ["f", (ctx, held) => free(ctx, held.shift())],
    ["F", (ctx, held) => free(ctx, held.pop())],
    [
      "d",
      (ctx) => {
        slab.layer.drainCpu(ctx, cache, isDrainingOthers ? (ctx.cpu + 1) % nrCpus : ctx.cpu);
        return undefined;
      },
    ],
  ]);
}

/** The layer's own auditor, and the books of the scenario: what is held is live and held once. */
function checkObjects(world: ObjectWorld, cache: KmemCache, held: readonly Held[]): string | null {
  const objects = held.flat();
  const twice = objects.find((obj, i) => objects.indexOf(obj) !== i);
  if (twice !== undefined) return "MAG-2: one object is in the hands of two";
  const fault = world.slab.layer.check(cache);
  if (fault !== null) return fault;
  const { activeObjects } = world.slab.slabInfo(cache);
  if (activeObjects !== objects.length) return `MAG-6: ${activeObjects} objects are live, ${objects.length} are held`;
  return null;
}

function build({ nrCpus, mutant }: BuildOptions, depot: DepotKind): ScenarioWorld {
  const world = createObjectWorld({ nrCpus, depot, plant: plant(mutant) });
  const { slab, ctx, names } = world;
  const cache = slab.kmemCacheCreate(ctx, { name: "explore", size: OBJECT_BYTES });
  names.add(cache, CACHE_CC, "cache", { 0: "lock" });
  for (let cpu = 0; cpu < nrCpus; cpu++) {
    names.add(cache + CACHE_CC + cpu * 64, 64, `magazines[${cpu}]`, CPU_FIELDS);
  }
  names.add(cache + CACHE_DEPOT, 64, "depot", DEPOT_FIELDS);
  // Fill the slabs and leave one magazine of each kind in the depot, so that every path is short.
  const warm = Array.from({ length: 5 }, () => slab.layer.kmemCacheAllocAny(ctx, cache, GFP_NOWAIT) as number);
  for (const obj of warm) slab.layer.kmemCacheFree(ctx, cache, asPhys(obj));
  return {
    world,
    operations: operationsOf(world, cache, mutant === "drain-others"),
    check: (held) => checkObjects(world, cache, held),
  };
}

function scenario(name: string, about: string, depot: DepotKind, mutants: readonly Mutant[]): Scenario {
  return {
    name,
    about,
    cpus: 2,
    maxCpus: 4,
    operations: new Map([
      ["a", "allocate an object"],
      ["f", "free the one allocated first"],
      ["F", "free the one allocated last"],
      ["d", "drain this CPU's magazines"],
    ]),
    programs: (nrCpus) => Array.from({ length: nrCpus }, (_, cpu) => (cpu % 2 === 0 ? "aaff" : "aFaF")),
    randomLetters: "afFd",
    irqProgram: "af",
    irqs: 1,
    hasLocks: true,
    mutants,
    build: (options) => build(options, depot),
  };
}

export const magazine: Scenario = scenario(
  "magazine",
  "per-CPU magazines over a depot with a lock, and interrupts that allocate and free",
  "locked",
  [...MUTANTS, ...LOCKED_MUTANTS],
);

export const magazineLockfree: Scenario = scenario(
  "magazine-lockfree",
  "per-CPU magazines over the lock-free depot",
  "lockfree",
  MUTANTS,
);
