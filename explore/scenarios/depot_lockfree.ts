/**
 * Scenario: the lock-free depot, two stacks of magazines whose heads change by compare-and-swap (mm/depot_lockfree.ts).
 *
 * Three magazines lie in the list of empty ones. CPUs take some and give them back, in another order. Whoever has one
 * signs it with plain stores: two owners are a race, whichever of them comes first.
 */

import type { MemoryPort } from "../../kernel/arch/port.ts";
import { asPhys, NULL, type PhysAddr } from "../../kernel/types.ts";
import {
  createLockfreeDepot,
  DEPOT_EMPTY,
  DEPOT_FULL,
  type Depot,
  GFP_NOWAIT,
  type KmemCache,
  type SlabSubsystem,
} from "../../mm/index.ts";
import type { BuildOptions, Held, Mutant, Operation, Scenario, ScenarioWorld } from "../scenario.ts";
import { createObjectWorld, type ObjectWorld, type Parts } from "../world.ts";

const NR_MAGAZINES = 3;
/** Of a magazine: the word that its owner signs, the first round. */
const SIGNATURE = 8;
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

/** The port of a machine with another compare-and-swap, for values that are heads of a depot. */
function withSwap(
  machine: Parts["machine"],
  swap: (port: MemoryPort, addr: number, old: number, to: number) => number,
) {
  const { port } = machine;
  const cas = (addr: number, old: number, to: number): number => swap(port, addr, old, to);
  const mutated: MemoryPort = new Proxy(port, {
    get: (target, key) => {
      if (key === "cas") return cas;
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { ...machine, port: mutated };
}

const isPop = (from: number, to: number): boolean => from >>> 10 !== to >>> 10;

/** The machine that the depot of a mutant is built over. */
function plant(machine: Parts["machine"], mutant: string): Parts["machine"] {
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

interface Stock {
  readonly cache: KmemCache;
  readonly magazines: readonly PhysAddr[];
}

/** A cache whose depot has magazines. */
export function stockDepot(world: ObjectWorld, slab: SlabSubsystem, depot: Depot, nr: number): Stock {
  const { ctx, names } = world;
  const cache = slab.slabs.createCache(ctx, { name: "explore", size: 64 });
  const store = slab.slabs.createCache(ctx, { name: "explore-magazines", size: 16 });
  depot.prepare(ctx);
  depot.init(cache, 0, 1, store);
  const magazines: PhysAddr[] = [];
  for (let i = 0; i < nr; i++) {
    const magazine = slab.slabs.allocObject(ctx, store, GFP_NOWAIT);
    names.add(
      magazine,
      16,
      `magazine ${String.fromCharCode(65 + i)}`,
      new Map([
        [0, "link"],
        [4, "slot"],
        [SIGNATURE, "signature"],
      ]),
    );
    if (!depot.hasRoom(ctx, cache) || !depot.adopt(ctx, cache, magazine))
      throw new Error("explore: no room in a depot");
    magazines.push(magazine);
  }
  // The first one ends on top.
  for (let i = nr - 1; i >= 0; i--) depot.addEmpty(ctx, cache, magazines[i] as PhysAddr);
  names.add(
    cache + DEPOT_FULL,
    16,
    "full",
    new Map([
      [0, "head"],
      [4, "nr"],
      [8, "min"],
    ]),
  );
  names.add(
    cache + DEPOT_EMPTY,
    16,
    "empty",
    new Map([
      [0, "head"],
      [4, "nr"],
      [8, "min"],
    ]),
  );
  return { cache, magazines };
}

/** Taking, giving back and signing magazines, with interrupts off as a depot's callers have them. */
export function depotOperations(world: ObjectWorld, depot: Depot, cache: KmemCache): ReadonlyMap<string, Operation> {
  const { port, contexts } = world;
  const sign = (cpu: number, magazine: PhysAddr): void => port.st32(magazine + SIGNATURE, cpu + 1);
  const take: Operation = (ctx, held) => {
    const irq = contexts.localIrqSave(ctx);
    const magazine = depot.takeEmpty(ctx, cache, NULL);
    contexts.localIrqRestore(ctx, irq);
    if (magazine === NULL) return undefined;
    sign(ctx.cpu, magazine);
    held.push(magazine);
    return undefined;
  };
  const give = (ctx: Parameters<Operation>[0], magazine: number | undefined): string | undefined => {
    if (magazine === undefined) return undefined;
    const by = port.ld32(magazine + SIGNATURE);
    if (by !== ctx.cpu + 1)
      return `${world.names.placeOf(magazine)} was taken by CPU ${ctx.cpu} and is signed by CPU ${by - 1}`;
    const irq = contexts.localIrqSave(ctx);
    depot.addEmpty(ctx, cache, asPhys(magazine));
    contexts.localIrqRestore(ctx, irq);
    return undefined;
  };
  return new Map([
    ["p", take],
    ["u", (ctx, held) => give(ctx, held.pop())],
    ["U", (ctx, held) => give(ctx, held.shift())],
  ]);
}

/** Every magazine is in one place: a list, or the hands of one CPU. */
export function checkDepot(
  world: ObjectWorld,
  depot: Depot,
  { cache, magazines }: Stock,
  held: readonly Held[],
): string | null {
  const places = new Map<number, string>();
  let wrong: string | null = null;
  const put = (magazine: number, place: string): void => {
    const before = places.get(magazine);
    const name = world.names.placeOf(magazine);
    if (before !== undefined) wrong ??= `DEP-5: ${name} is in two places: ${before} and ${place}`;
    if (!magazines.includes(asPhys(magazine))) wrong ??= `DEP-5: ${name} is no magazine, but is in ${place}`;
    places.set(magazine, place);
  };
  held.forEach((hands, cpu) => {
    for (const magazine of hands) put(magazine, `the hands of CPU ${cpu}`);
  });
  const fault = depot.walk(cache, (magazine) => put(magazine, "the depot"));
  const lost = magazines.find((magazine) => !places.has(magazine));
  return wrong ?? fault ?? (lost === undefined ? null : `DEP-5: ${world.names.placeOf(lost)} is nowhere: lost`);
}

function build({ nrCpus, mutant }: BuildOptions): ScenarioWorld {
  const world = createObjectWorld({ nrCpus });
  const { slab, image } = world;
  const statics = image.bss("explore_depot", 8, 8);
  const depot = createLockfreeDepot(plant(world.machine, mutant), world.spinlocks, slab.slabs, statics);
  const stock = stockDepot(world, slab, depot, NR_MAGAZINES);
  const letters = new Map(stock.magazines.map((magazine, i) => [world.port.peek(magazine + 4), "ABCDEFGH"[i]]));
  return {
    world,
    operations: depotOperations(world, depot, stock.cache),
    check: (held) => checkDepot(world, depot, stock, held),
    showValue: (addr, value) => {
      const isHead = addr === stock.cache + DEPOT_EMPTY || addr === stock.cache + DEPOT_FULL;
      const isLink = stock.magazines.includes(asPhys(addr));
      if (!isHead && !isLink) return null;
      const letter = letters.get(value & SLOT) ?? "none";
      return isHead ? `${letter}#${value >>> 10}` : letter;
    },
  };
}

export const depotLockfree: Scenario = {
  name: "depot-lockfree",
  about: "the lock-free depot: two stacks of magazines, tagged compare-and-swap",
  cpus: 2,
  maxCpus: 4,
  operations: new Map([
    ["p", "take a magazine from the list of empty ones"],
    ["u", "give back the one taken last"],
    ["U", "give back the one taken first"],
  ]),
  programs: (nrCpus) => Array.from({ length: nrCpus }, () => "ppUU"),
  irqProgram: "",
  irqs: 0,
  hasLocks: false,
  mutants: MUTANTS,
  build,
};
