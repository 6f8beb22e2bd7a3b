/**
 * Lab 11: a freelist as an array. No links: slot i holds the i-th node from the bottom, and a tag of its own.
 *
 *      top    ┌── tag: 16 ──┬─ node: 8 ─┬─ index: 8 ─┐      slot   ┌── tag: 16 ──┬─ node: 8 ─┐
 *
 * The top says what belongs into its slot; whoever comes next writes it there (*helping*), so that nobody waits for
 * a CPU that rests. A slot's tag counts how often it was written, and is what makes each value of the top a new one.
 *
 * Source: N. Shafiei, "Non-blocking array-based algorithms for stacks and queues", ICDCN 2009.
 */

import type { Freelist, Layout, Memory } from "../given/api.ts";

const TOP = 0;
const TAG_MASK = 0xffff;

export function createFreelist(memory: Memory, layout: Layout): Freelist {
  const { load, store, cas } = memory;
  const slotWord = (index: number): number => 1 + index;
  const packSlot = (tag: number, node: number): number => ((tag & TAG_MASK) << 8) | node;
  const packTop = (tag: number, node: number, index: number): number =>
    (((tag & TAG_MASK) << 16) | (node << 8) | index) >>> 0;
  const indexOf = (top: number): number => top & 0xff;
  const nodeOf = (top: number): number => (top >>> 8) & 0xff;
  const tagOf = (top: number): number => top >>> 16;

  function init(): void {
    for (let index = 0; index <= layout.nrNodes; index++) store(slotWord(index), packSlot(layout.firstTag, 0));
    store(TOP, packTop(layout.firstTag, 0, 0));
  }

  /** Loads the top; its slot is written when this returns. */
  function settledTop(): number {
    const top = load(TOP);
    const word = slotWord(indexOf(top));
    const slot = load(word);
    if (slot >>> 8 === ((tagOf(top) - 1) & TAG_MASK)) cas(word, slot, packSlot(tagOf(top), nodeOf(top)));
    return top;
  }

  /** Moves the top, if it is still `top`, to the slot `index` with what that holds, or with `node`. */
  function moveTop(top: number, index: number, node = -1): boolean {
    const slot = load(slotWord(index));
    const desired = packTop((slot >>> 8) + 1, node < 0 ? slot & 0xff : node, index);
    return cas(TOP, top, desired) === top;
  }

  function push(node: number): void {
    for (;;) {
      const top = settledTop();
      if (moveTop(top, indexOf(top) + 1, node)) return;
    }
  }

  function refill(nr: number): number[] {
    for (;;) {
      const top = settledTop();
      const count = Math.min(nr, indexOf(top));
      if (count === 0) return [];
      const nodes = [nodeOf(top)];
      for (let i = 1; i < count; i++) nodes.push(load(slotWord(indexOf(top) - i)) & 0xff);
      if (moveTop(top, indexOf(top) - count)) return nodes;
    }
  }

  return { init, push, pop: () => refill(1)[0] ?? 0, refill };
}
