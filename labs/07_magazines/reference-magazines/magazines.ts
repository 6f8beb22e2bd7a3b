/**
 * Lab 7: magazines. Each CPU has two at hand, loaded and previous; the depot has lists of those with objects and those
 * without.
 *
 *      word 0: first magazine with objects      CPU c: 2 + 2c loaded       magazine m: link, rounds, objects …
 *      word 1: first magazine without                  3 + 2c previous
 *
 * Locks: c for what CPU c has at hand, nrCpus for the depot.
 */

import type { Layout, Magazines, Memory } from "../given/api.ts";

const FULL = 0;
const EMPTY = 1;

export function createMagazines(memory: Memory, layout: Layout): Magazines {
  const { load, store, lock, unlock, irqSave, irqRestore, cpu } = memory;
  const { nrCpus, nrObjects, magazineSize, nrMagazines } = layout;
  const DEPOT = nrCpus;
  const loadedOf = (c: number): number => 2 + 2 * c;
  const previousOf = (c: number): number => 3 + 2 * c;
  const linkOf = (magazine: number): number => 2 + 2 * nrCpus + (magazine - 1) * (magazineSize + 2);
  const roundsOf = (magazine: number): number => linkOf(magazine) + 1;
  const slotOf = (magazine: number, round: number): number => linkOf(magazine) + 2 + round;

  /** Puts a magazine on one of the depot's lists. */
  function push(list: number, magazine: number): void {
    store(linkOf(magazine), load(list));
    store(list, magazine);
  }

  /** Takes the first magazine of a list; 0 if there is none. */
  function pop(list: number): number {
    const magazine = load(list);
    if (magazine !== 0) store(list, load(linkOf(magazine)));
    return magazine;
  }

  // BLANK CUT
  // Locks are taken in ascending order.
  function exchange(c: number): void {
    const loaded = load(loadedOf(c));
    store(loadedOf(c), load(previousOf(c)));
    store(previousOf(c), loaded);
  }

  /** The last object of a magazine; 0 if it has none. */
  function takeFrom(magazine: number): number {
    const rounds = load(roundsOf(magazine));
    if (rounds === 0) return 0;
    store(roundsOf(magazine), rounds - 1);
    return load(slotOf(magazine, rounds - 1));
  }

  /** What CPU c has at hand, the warmest first; its lock is held. */
  function takeAtHand(c: number): number {
    const object = takeFrom(load(loadedOf(c)));
    if (object !== 0 || load(roundsOf(load(previousOf(c)))) === 0) return object;
    exchange(c);
    return takeFrom(load(loadedOf(c)));
  }

  /** Both magazines of CPU c are empty: one from the depot in their place, if it has one. */
  function loadFull(c: number): void {
    lock(DEPOT);
    const magazine = pop(FULL);
    if (magazine !== 0) {
      push(EMPTY, load(previousOf(c)));
      store(previousOf(c), load(loadedOf(c)));
      store(loadedOf(c), magazine);
    }
    unlock(DEPOT);
  }

  /** Both are full: the depot takes one, and has an empty one. */
  function loadEmpty(c: number): void {
    lock(DEPOT);
    push(FULL, load(previousOf(c)));
    store(previousOf(c), load(loadedOf(c)));
    store(loadedOf(c), pop(EMPTY));
    unlock(DEPOT);
  }

  /** An object of the depot itself, whose lock is held. */
  function takeFromDepot(): number {
    const magazine = load(FULL);
    if (magazine === 0) return 0;
    const object = takeFrom(magazine);
    if (load(roundsOf(magazine)) === 0) push(EMPTY, pop(FULL));
    return object;
  }

  /** Nobody moves anything while all locks are held: if nothing is found, there is nothing. */
  function steal(): number {
    for (let c = 0; c <= DEPOT; c++) lock(c);
    let object = takeFromDepot();
    for (let c = 0; c < nrCpus && object === 0; c++) object = takeAtHand(c);
    for (let c = DEPOT; c >= 0; c--) unlock(c);
    return object;
  }

  // BLANK END
  function init(): void {
    let object = 1;
    for (let magazine = nrMagazines; magazine >= 1; magazine--) {
      let rounds = 0;
      while (rounds < magazineSize && object <= nrObjects) store(slotOf(magazine, rounds++), object++);
      store(roundsOf(magazine), rounds);
      if (magazine <= nrCpus) store(loadedOf(magazine - 1), magazine);
      else if (magazine <= 2 * nrCpus) store(previousOf(magazine - nrCpus - 1), magazine);
      else push(rounds === 0 ? EMPTY : FULL, magazine);
    }
  }

  function alloc(): number {
    // BLANK BEGIN from the magazines at hand, else with one of the depot's, else from wherever there is one (PCM-2)
    const wereOn = irqSave();
    const me = cpu();
    lock(me);
    let object = takeAtHand(me);
    if (object === 0) {
      loadFull(me);
      object = takeAtHand(me);
    }
    unlock(me);
    if (object === 0) object = steal();
    irqRestore(wereOn);
    return object;
    // BLANK END
  }

  function free(object: number): void {
    // BLANK BEGIN into the loaded magazine, else the previous one, else an empty one of the depot's (PCM-4)
    const wereOn = irqSave();
    const me = cpu();
    lock(me);
    if (load(roundsOf(load(loadedOf(me)))) === magazineSize) exchange(me);
    if (load(roundsOf(load(loadedOf(me)))) === magazineSize) loadEmpty(me);
    const magazine = load(loadedOf(me));
    const rounds = load(roundsOf(magazine));
    store(slotOf(magazine, rounds), object);
    store(roundsOf(magazine), rounds + 1);
    unlock(me);
    irqRestore(wereOn);
    // BLANK END
  }

  function drain(): void {
    // BLANK BEGIN both magazines of this CPU to the depot, two empty ones in their place (PCM-7)
    const wereOn = irqSave();
    const me = cpu();
    lock(me);
    lock(DEPOT);
    for (const place of [loadedOf(me), previousOf(me)]) {
      const magazine = load(place);
      if (load(roundsOf(magazine)) === 0) continue;
      push(FULL, magazine);
      store(place, pop(EMPTY));
    }
    unlock(DEPOT);
    unlock(me);
    irqRestore(wereOn);
    // BLANK END
  }

  return { init, alloc, free, drain };
}
