/**
 * Lab 11: a freelist of linked nodes. The head is a word: a tag and the first node; each node has a word for its link.
 *
 *      head   ┌── tag: 24 bits ──┬─ node: 8 ─┐        link of a node: word of that number, the next node or 0
 */

import type { Freelist, Layout, Memory } from "../given/api.ts";

const HEAD = 0;
const NODE_MASK = 0xff;
const TAG_ONE = 0x100;

export function createFreelist(memory: Memory, layout: Layout): Freelist {
  const { load, store, cas } = memory;
  const linkOf = (node: number): number => node;
  // BLANK CUT
  /** The head with another node, and the tag as it is. */
  const withNode = (head: number, node: number): number => ((head & ~NODE_MASK) | node) >>> 0;
  /** The head with another node and the next tag. */
  const withNextTag = (head: number, node: number): number => (((head & ~NODE_MASK) + TAG_ONE) | node) >>> 0;

  // BLANK END
  function init(): void {
    store(HEAD, (layout.firstTag * TAG_ONE) % 2 ** 32);
  }

  function push(node: number): void {
    // BLANK BEGIN link it to the first node, make it the first; again from the load if the head has changed (LFS-3)
    for (;;) {
      const head = load(HEAD);
      store(linkOf(node), head & NODE_MASK);
      if (cas(HEAD, head, withNode(head, node)) === head) return;
    }
    // BLANK END
  }

  function pop(): number {
    // BLANK BEGIN take the first node, with the next tag, if the head has not changed since it was loaded (LFS-4)
    for (;;) {
      const head = load(HEAD);
      const node = head & NODE_MASK;
      if (node === 0) return 0;
      const next = load(linkOf(node));
      if (cas(HEAD, head, withNextTag(head, next)) === head) return node;
    }
    // BLANK END
  }

  function refill(nr: number): number[] {
    // BLANK BEGIN walk over up to nr nodes, then take all of them by one compare-and-swap of the head (LFS-6)
    for (;;) {
      const head = load(HEAD);
      const nodes: number[] = [];
      let node = head & NODE_MASK;
      while (node !== 0 && nodes.length < nr) {
        nodes.push(node);
        node = load(linkOf(node));
      }
      if (nodes.length === 0) return nodes;
      if (cas(HEAD, head, withNextTag(head, node)) === head) return nodes;
    }
    // BLANK END
  }

  return { init, push, pop, refill };
}
