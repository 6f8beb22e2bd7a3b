/**
 * Scenario: per-CPU page lists (mm/pcp.ts) over the real buddy, with interrupts, and a CPU that empties others'.
 *
 * The word that guards the lists is only ever tried: who finds them taken, an interrupt or a CPU, goes to the buddy.
 * Whoever has a page signs its first word.
 */

import type { MemoryPort } from "../../kernel/arch/port.ts";
import { CACHE_LINE } from "../../kernel/params.ts";
import { asPfn, type Context, NO_PFN, type Pfn, pfnToPhys, physAdd } from "../../kernel/types.ts";
import { GFP_ATOMIC, MAX_NR_ZONES } from "../../mm/index.ts";
import { withPort } from "../mutant_port.ts";
import type { BuildOptions, Held, Mutant, Operation, Scenario, ScenarioWorld } from "../scenario.ts";
import { createPageWorld, type PageWorld, type Parts, withoutLocks } from "../world.ts";

const MUTANTS: readonly Mutant[] = [
  {
    name: "lists-unlocked",
    story: "taking the lists does not mark them as taken: an interrupt changes a list that its CPU is changing",
    kinds: ["interrupt race", "race", "invariant", "oops"],
    bound: 1,
  },
  {
    name: "zone-unlocked",
    story: "the zone's lock is not taken: two CPUs split the same block",
    kinds: ["race", "invariant", "oops"],
    bound: 1,
  },
  {
    name: "ab-ba-steal",
    story: "to steal pages a CPU holds its own lists' lock and waits for the other's",
    kinds: ["deadlock"],
    bound: 1,
    programs: ["as", "as"],
    irqs: 0,
  },
  {
    name: "zone-irqs-on",
    story: "the zone's lock is taken with interrupts on, and a handler takes it too",
    kinds: ["lock usage", "deadlock", "interrupt race"],
    bound: 1,
  },
];

/** Lock words of the lists; known when the machine is built, asked for when it runs. */
interface Late {
  isListLock(addr: number): boolean;
}

function plant(mutant: string, late: Late): ((parts: Parts) => Parts) | undefined {
  if (mutant === "lists-unlocked") {
    return (parts) => ({
      ...parts,
      machine: withPort(
        parts.machine,
        (port): Partial<MemoryPort> => ({
          cas: (addr, old, to) => (late.isListLock(addr) ? old : port.cas(addr, old, to)),
          casBelow: (addr, limit, to) => (late.isListLock(addr) ? port.ld32(addr) : port.casBelow(addr, limit, to)),
        }),
      ),
    });
  }
  if (mutant === "zone-unlocked") return withoutLocks;
  if (mutant === "zone-irqs-on") {
    return ({ spinlocks, ...rest }) => ({
      ...rest,
      spinlocks: {
        ...spinlocks,
        spinLockIrqsave(ctx, lock) {
          spinlocks.spinLock(ctx, lock);
          return 1;
        },
        spinUnlockIrqrestore: (ctx, lock) => spinlocks.spinUnlock(ctx, lock),
      },
    });
  }
  return undefined;
}

function operationsOf(world: PageWorld, isStealing: boolean): ReadonlyMap<string, Operation> {
  const { port, pageAlloc, pcp, spinlocks, image, names } = world;
  const nrCpus = world.machine.config.nrCpus;
  const free = (ctx: Context, pfn: number | undefined): string | undefined => {
    if (pfn === undefined) return undefined;
    const by = port.ld32(pfnToPhys(asPfn(pfn)));
    if (by !== ctx.cpu + 1) return `a page of CPU ${ctx.cpu} is signed by CPU ${by - 1}`;
    const error = pageAlloc.freePages(ctx, asPfn(pfn), 0);
    return error === 0 ? undefined : `a free of an allocated page is refused (${error})`;
  };
  /** The planted one: two locks, each CPU its own first. */
  const locks = image.bss("explore_steal", CACHE_LINE * nrCpus, CACHE_LINE);
  for (let cpu = 0; cpu < nrCpus; cpu++) names.add(locks + cpu * CACHE_LINE, 4, `steal_lock[${cpu}]`);
  const steal = (ctx: Context, other: number): void => {
    const [mine, theirs] = [physAdd(locks, ctx.cpu * CACHE_LINE), physAdd(locks, other * CACHE_LINE)];
    spinlocks.spinLock(ctx, mine);
    spinlocks.spinLock(ctx, theirs);
    spinlocks.spinUnlock(ctx, theirs);
    spinlocks.spinUnlock(ctx, mine);
  };
  return new Map<string, Operation>([
    [
      "a",
      (ctx, held) => {
        const pfn = pageAlloc.tryAllocPages(ctx, 0, GFP_ATOMIC);
        if (pfn === NO_PFN) return undefined;
        port.st32(pfnToPhys(pfn as Pfn), ctx.cpu + 1);
        held.push(pfn);
        return undefined;
      },
    ],
    ["f", (ctx, held) => free(ctx, held.shift())],
    ["F", (ctx, held) => free(ctx, held.pop())],
    [
      "s",
      (ctx) => {
        const other = (ctx.cpu + 1) % nrCpus;
        if (isStealing) steal(ctx, other);
        else pcp.drainCpu(ctx, other);
        return undefined;
      },
    ],
  ]);
}

/** Free in the buddies + on the lists + held is what it was; no page is held twice; the lists are sound. */
function booksOf(world: PageWorld): (held: readonly Held[]) => string | null {
  const nrCpus = world.machine.config.nrCpus;
  const free = (): number => {
    let nr = world.zones.totalFree();
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) nr += world.pcp.info(cpu, zone).count;
    }
    return nr;
  };
  const before = free();
  return (held) => {
    const pages = held.flat();
    if (new Set(pages).size !== pages.length) return "BUD-1: one page is in the hands of two";
    const fault = world.pcp.check();
    if (fault !== null) return fault;
    const now = free() + pages.length;
    return now === before ? null : `${before} pages were free, ${now} are free or held now`;
  };
}

function build({ nrCpus, mutant }: BuildOptions): ScenarioWorld {
  let locks = new Set<number>();
  const world = createPageWorld({ nrCpus, plant: plant(mutant, { isListLock: (addr) => locks.has(addr) }) });
  const { pcp, names, pageAlloc, ctx } = world;
  const found = new Set<number>();
  for (let cpu = 0; cpu < nrCpus; cpu++) {
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
      const lock = pcp.lockAddr(cpu, zone);
      found.add(lock);
      names.add(lock, 12, `pcp[${cpu}]`, { 0: "state", 4: "high", 8: "factor" });
    }
  }
  // A page or two at hand on each CPU's lists.
  for (let cpu = 0; cpu < nrCpus; cpu++) {
    const task = world.task(cpu);
    pageAlloc.freePages(task, pageAlloc.tryAllocPages(task, 0, GFP_ATOMIC), 0);
  }
  pcp.drainCpu(ctx, 0);
  locks = found;
  return { world, operations: operationsOf(world, mutant === "ab-ba-steal"), check: booksOf(world) };
}

export const pcp: Scenario = {
  name: "pcp",
  about: "per-CPU page lists over the buddy, interrupts that allocate, a CPU that drains another's lists",
  cpus: 2,
  maxCpus: 4,
  operations: new Map([
    ["a", "allocate a page"],
    ["f", "free the one allocated first"],
    ["F", "free the one allocated last"],
    ["s", "empty the lists of the next CPU"],
  ]),
  programs: (nrCpus) => Array.from({ length: nrCpus }, (_, cpu) => (cpu % 2 === 0 ? "aF" : "as")),
  randomLetters: "afFs",
  irqProgram: "af",
  irqs: 1,
  hasLocks: true,
  mutants: MUTANTS,
  build,
};
