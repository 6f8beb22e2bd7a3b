/**
 * A stock of magazines in a depot, and the books about it: what the scenarios of both depots share.
 *
 * Three magazines lie in the list of empty ones. CPUs take some and give them back, in another order. Whoever has one
 * signs it with plain stores: two owners are a race, whichever of them comes first.
 */

import { asPhys, NULL, type PhysAddr } from "../../kernel/types.ts";
import { DEPOT_EMPTY, DEPOT_FULL, type Depot, GFP_NOWAIT, type KmemCache } from "../../mm/index.ts";
import type { Held, Operation } from "../scenario.ts";
import type { ObjectWorld } from "../world.ts";

const NR_MAGAZINES = 3;
const LETTERS = "ABC";
/** Of a magazine: its link, its slot, and the word that its owner signs, the first round. */
const SLOT_WORD = 4;
const SIGNATURE = 8;
/** A head is a slot, and above it a tag. */
const SLOT_BITS = 10;
const SLOT = 0x3ff;

/** Letter → what it does. */
export const DEPOT_OPERATIONS: ReadonlyMap<string, string> = new Map([
  ["p", "take a magazine from the list of empty ones"],
  ["u", "give back the one taken last"],
  ["U", "give back the one taken first"],
]);

export interface Stock {
  readonly cache: KmemCache;
  readonly magazines: readonly PhysAddr[];
}

/** A cache whose depot has magazines. */
export function stockDepot(world: ObjectWorld, depot: Depot): Stock {
  const { ctx, names, slab } = world;
  const cache = slab.slabs.createCache(ctx, { name: "explore", size: 64 });
  const store = slab.slabs.createCache(ctx, { name: "explore-magazines", size: 16 });
  depot.prepare(ctx);
  depot.init(cache, 0, 1, store);
  const magazines: PhysAddr[] = [];
  for (let i = 0; i < NR_MAGAZINES; i++) {
    const magazine = slab.slabs.allocObject(ctx, store, GFP_NOWAIT);
    const fields = { 0: "link", [SLOT_WORD]: "slot", [SIGNATURE]: "signature" };
    names.add(magazine, 16, `magazine ${LETTERS[i]}`, fields);
    if (!depot.hasRoom(ctx, cache) || !depot.adopt(ctx, cache, magazine))
      throw new Error("explore: no room in a depot");
    magazines.push(magazine);
  }
  // The first one ends on top.
  for (let i = NR_MAGAZINES - 1; i >= 0; i--) depot.addEmpty(ctx, cache, magazines[i] as PhysAddr);
  names.add(cache + DEPOT_FULL, 16, "full", { 0: "head", 4: "nr", 8: "min" });
  names.add(cache + DEPOT_EMPTY, 16, "empty", { 0: "head", 4: "nr", 8: "min" });
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

/** Links as letters, heads of a lock-free depot as letter and tag. */
export function showDepot(
  world: ObjectWorld,
  { cache, magazines }: Stock,
): (addr: number, value: number) => string | null {
  const letters = new Map(magazines.map((magazine, i) => [world.port.peek(magazine + SLOT_WORD), LETTERS[i]]));
  return (addr, value) => {
    const isHead = addr === cache + DEPOT_EMPTY || addr === cache + DEPOT_FULL;
    if (!isHead && !magazines.includes(asPhys(addr))) return null;
    const letter = letters.get(value & SLOT) ?? "none";
    return isHead ? `${letter}#${value >>> SLOT_BITS}` : letter;
  };
}
