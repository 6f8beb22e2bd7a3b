/**
 * All swap areas as one space of slots: which area a slot is in, and which area the next page goes to.
 *
 *      21    18 17                  0
 *     | area   | slot in the area    |        area 0 … 15, each of at most 2^18 slots (1 GiB)
 *
 * Pages go to the area with the highest priority that has a free slot, and to the others only when it is full. Areas of
 * equal priority take turns, 32 slots each: as many as one command writes, so that disks work side by side and each run
 * still lies together. The first area that was given no priority has −2, and each further one is one lower.
 *
 *   AREA-4  a slot is given out in an area with room of the highest priority that is writable
 *   AREA-5  areas of equal priority are filled in turn, 32 slots at a time
 *   AREA-6  a slot number names one slot of one area; what is below it (swap_slots.ts) knows its own numbers only
 *
 * State: priority and whether an area is writable are in its struct swap_info; whose turn it is in static memory.
 * Context: as swap_slots.ts. Linux: mm/swapfile.c (get_swap_pages, swap_active_head), with one more level: slots are
 * handed to CPUs 64 at a time.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { asPhys, type Context, NO_PFN, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { createSwapSlots, SWAP_INFO_BYTES, type SwapSlots, type SwapSlotsDeps } from "./swap_slots.ts";

/** MAX_SWAPFILES */
export const MAX_SWAP_AREAS = 16;
const AREA_SHIFT = 18;
export const AREA_SLOTS = 2 ** AREA_SHIFT;
/** Slots that an area takes before it is the turn of the next of the same priority. */
const TURN = 32;

/** Words at the end of struct swap_info. */
const PRIORITY = 32;
const IS_WRITABLE = 36;
/** Behind all of them: the area whose turn it is, and how many slots it has taken in it. */
const TURN_AREA = MAX_SWAP_AREAS * SWAP_INFO_BYTES;
const TURN_TAKEN = TURN_AREA + 4;
/** Areas at and behind this one are not writable. */
const NR_WRITABLE = TURN_AREA + 8;
export const SWAP_SPACE_BYTES = TURN_AREA + 16;

/** What is known of single slots, by their numbers in the whole space. */
export interface SwapSpace
  extends Pick<
    SwapSlots,
    "alloc" | "isUsable" | "names" | "cached" | "shadow" | "addName" | "dropName" | "cache" | "forget" | "check"
  > {
  /** Pages that areas can hold into which pages may go now, and those of their slots that are free. */
  nrUsable(): number;
  nrFree(): number;
  /** The slots of one area, by their numbers in it. */
  area(nr: number): SwapSlots;
  priority(nr: number): number;
  setPriority(nr: number, priority: number): void;
  setWritable(nr: number, isWritable: boolean): void;
  /** False: the slot's area is being emptied. */
  isWritable(slot: number): boolean;
}

export const areaOfSlot = (slot: number): number => slot >>> AREA_SHIFT;
export const firstSlotOf = (area: number): number => area << AREA_SHIFT;
const inArea = (slot: number): number => slot & (AREA_SLOTS - 1);

/** `state`: SWAP_SPACE_BYTES of zeroed static memory. */
export function createSwapSpace(deps: Omit<SwapSlotsDeps, "firstSlot">): SwapSpace {
  const port: MemoryPort = deps.port;
  const { state } = deps;
  const infoOf = (nr: number): PhysAddr => asPhys(state + nr * SWAP_INFO_BYTES);
  const areas = Array.from({ length: MAX_SWAP_AREAS }, (_, nr) =>
    createSwapSlots({ ...deps, firstSlot: firstSlotOf(nr), state: infoOf(nr) }),
  );
  const of = (slot: number): SwapSlots => {
    bugOn(!(slot >= 0 && slot < MAX_SWAP_AREAS * AREA_SLOTS), "AREA-6: no area has this slot", slot);
    return areas[areaOfSlot(slot)] as SwapSlots;
  };
  const area = (nr: number): SwapSlots => areas[nr] as SwapSlots;
  const isWritable = (nr: number): boolean => port.ld32(infoOf(nr) + IS_WRITABLE) !== 0;
  const priority = (nr: number): number => port.ld32(infoOf(nr) + PRIORITY) | 0;
  const freeIn = (nr: number): number => (isWritable(nr) ? area(nr).nrUsable() - area(nr).nrInUse() : 0);

  /** AREA-4, AREA-5: the area for the next page, or −1. */
  const choose = (): number => {
    const turn = port.ld32(state + TURN_AREA);
    const isOver = port.ld32(state + TURN_TAKEN) >= TURN;
    const end = port.ld32(state + NR_WRITABLE);
    // From the one whose turn it is, or behind it if that is over.
    const from = turn >= end ? 0 : turn + (isOver ? 1 : 0);
    let best = -1;
    for (let i = 0; i < end; i++) {
      const nr = (from + i) % end;
      if (freeIn(nr) > 0 && (best < 0 || priority(nr) > priority(best))) best = nr;
    }
    if (best >= 0 && (best !== turn || isOver)) {
      port.st32(state + TURN_AREA, best);
      port.st32(state + TURN_TAKEN, 0);
    }
    return best;
  };
  const nrFree = (): number => {
    let nr = 0;
    for (let i = port.ld32(state + NR_WRITABLE) - 1; i >= 0; i--) nr += freeIn(i);
    return nr;
  };
  const nrUsable = (): number => {
    let nr = 0;
    for (let i = port.ld32(state + NR_WRITABLE) - 1; i >= 0; i--) if (isWritable(i)) nr += area(i).nrUsable();
    return nr;
  };

  return {
    alloc(ctx: Context, pfn: Pfn) {
      const nr = choose();
      const slot = nr < 0 ? -1 : area(nr).alloc(ctx, pfn);
      if (slot < 0) return -1;
      port.st32(state + TURN_TAKEN, port.ld32(state + TURN_TAKEN) + 1);
      return firstSlotOf(nr) + slot;
    },
    isUsable: (slot) => slot >= 0 && slot < MAX_SWAP_AREAS * AREA_SLOTS && of(slot).isUsable(inArea(slot)),
    names: (slot) => of(slot).names(inArea(slot)),
    cached: (slot) => (of(slot).nrSlots() === 0 ? NO_PFN : of(slot).cached(inArea(slot))),
    shadow: (slot) => of(slot).shadow(inArea(slot)),
    addName: (ctx, slot) => of(slot).addName(ctx, inArea(slot)),
    dropName: (ctx, slot) => of(slot).dropName(ctx, inArea(slot)),
    cache: (ctx, slot, pfn) => of(slot).cache(ctx, inArea(slot), pfn),
    forget: (ctx, slot, shadow) => of(slot).forget(ctx, inArea(slot), shadow),
    nrUsable,
    nrFree,
    area,
    priority,
    setPriority: (nr, value) => port.st32(infoOf(nr) + PRIORITY, value >>> 0),
    setWritable(nr, value) {
      port.st32(infoOf(nr) + IS_WRITABLE, value ? 1 : 0);
      let end = MAX_SWAP_AREAS;
      while (end > 0 && !isWritable(end - 1)) end--;
      port.st32(state + NR_WRITABLE, end);
    },
    isWritable: (slot) => isWritable(areaOfSlot(slot)),
    check() {
      for (const slots of areas) {
        const problem = slots.check();
        if (problem !== null) return problem;
      }
      return null;
    },
  };
}
