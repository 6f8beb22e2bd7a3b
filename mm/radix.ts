/**
 * A radix tree in RAM: from the index of a page in a file to its frame.
 *
 *      index 4,210 = 1·64² + 1·64 + 50          height 3
 *      root ─▶ [ 0 | 1 | …  63 ]                six bits of the index choose a slot on each level
 *                    └▶ [ 0 | 1 | … ]
 *                             └▶ [ … | 50: word | … ]     0: nothing there
 *
 * The tree is as high as its largest index needs, and nodes without content are given back, so that a file with holes
 * pays for what it has. Root: two words, granule of the top node and height; both 0 when empty.
 *
 *   node:  u32 used slots, u32 –, 64 × u32 slots (granules of nodes, or words of the owner on the lowest level),
 *          for each tag u64 with a bit for each slot
 *
 * A tag marks a word (the page is dirty, the page is being written). Each node has a bit for a slot below which
 * something is tagged, so that the next tagged word is found without looking at those that are not.
 *
 *   RDX-1  a node counts its used slots; there is none without any
 *   RDX-2  a failed store changes nothing
 *   RDX-3  a slot of an upper node has a tag ⇔ some slot of the node below has it; a word that is stored over another
 *          keeps its tags, an erased one has none
 *
 * Lock: the caller's. Linux: lib/xarray.c (before 4.20 lib/radix-tree.c).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { type Context, fromGranule, NULL, type PhysAddr, toGranule } from "../kernel/types.ts";

const BITS = 6;
const FANOUT = 1 << BITS;
/** Indices of a tree of each height: 64 ** height. A power each time took longer than the descent (2026, Node 20). */
const CAPACITIES: readonly number[] = Array.from({ length: 10 }, (_, height) => 2 ** (BITS * height));
const USED = 0;
const SLOTS = 8;
const TAGS = SLOTS + FANOUT * 4;
const TAG_BYTES = FANOUT / 8;
const NR_TAGS = 2;
export const RADIX_NODE_BYTES = TAGS + NR_TAGS * TAG_BYTES;
/** Tags: the page is newer than its disk; it is being written there. */
export const TAG_DIRTY = 0;
export const TAG_WRITEBACK = 1;
const HEIGHT = 4;
/** 36 bits: every index is below 2^32. */
const MAX_HEIGHT = 6;

export interface RadixTree {
  /** The word at `index`, 0 if there is none. O(height). */
  load(root: PhysAddr, index: number): number;
  /** Puts `word` ≠ 0 at `index`, 0 ≤ index < 2^32; false without memory. */
  store(ctx: Context, root: PhysAddr, index: number, word: number): boolean;
  /** Removes the word at `index` and the nodes that this leaves empty; the word, or 0. */
  erase(ctx: Context, root: PhysAddr, index: number): number;
  /** First index ≥ `from` with a word, or −1. */
  next(root: PhysAddr, from: number): number;
  /** Gives the word at `index`, which is there, a tag; or takes it away. O(height). */
  setTag(root: PhysAddr, index: number, tag: number): void;
  clearTag(root: PhysAddr, index: number, tag: number): void;
  hasTag(root: PhysAddr, index: number, tag: number): boolean;
  /** First index ≥ `from` with a tag, or −1. */
  nextTagged(root: PhysAddr, from: number, tag: number): number;
}

export interface RadixDeps {
  readonly port: MemoryPort;
  readonly allocNode: (ctx: Context) => PhysAddr;
  readonly freeNode: (ctx: Context, node: PhysAddr) => void;
}

export function createRadixTree({ port, allocNode, freeNode }: RadixDeps): RadixTree {
  const topOf = (root: PhysAddr): PhysAddr => fromGranule(port.ld32(root));
  const heightOf = (root: PhysAddr): number => port.ld32(root + HEIGHT);
  const capacity = (height: number): number => CAPACITIES[height] as number;
  /** Address of the slot for `index` in a node whose subtree is `level` + 1 levels high. */
  const slotAt = (node: PhysAddr, level: number, index: number): number =>
    node + SLOTS + (Math.floor(index / capacity(level)) % FANOUT) * 4;
  const addUsed = (node: PhysAddr, delta: number): number => {
    const used = port.ld32(node + USED) + delta;
    port.st32(node + USED, used);
    return used;
  };

  const slotNr = (level: number, index: number): number => Math.floor(index / capacity(level)) % FANOUT;
  const tagAt = (node: PhysAddr, tag: number, slot: number): number => node + TAGS + tag * TAG_BYTES + (slot >>> 5) * 4;
  const isTagged = (node: PhysAddr, tag: number, slot: number): boolean =>
    ((port.ld32(tagAt(node, tag, slot)) >>> (slot & 31)) & 1) !== 0;
  const mark = (node: PhysAddr, tag: number, slot: number, isOn: boolean): void => {
    const at = tagAt(node, tag, slot);
    const bit = (1 << (slot & 31)) >>> 0;
    port.st32(at, (isOn ? port.ld32(at) | bit : port.ld32(at) & ~bit) >>> 0);
  };
  const hasAnyTag = (node: PhysAddr, tag: number): boolean =>
    (port.ld32(tagAt(node, tag, 0)) | port.ld32(tagAt(node, tag, 32))) !== 0;

  const newNode = (ctx: Context): PhysAddr => {
    const node = allocNode(ctx);
    if (node !== NULL) port.fill(node, 0, RADIX_NODE_BYTES);
    return node;
  };

  const load: RadixTree["load"] = (root, index) => {
    const height = heightOf(root);
    if (index >= capacity(height) || height === 0) return 0;
    let node = topOf(root);
    for (let level = height - 1; level > 0; level--) {
      node = fromGranule(port.ld32(slotAt(node, level, index)));
      if (node === NULL) return 0;
    }
    return port.ld32(slotAt(node, 0, index));
  };

  /** Frees the empty nodes on the way to `index`, from below. */
  const prune = (ctx: Context, root: PhysAddr, index: number): void => {
    const pruneBelow = (node: PhysAddr, level: number): boolean => {
      if (level > 0) {
        const slot = slotAt(node, level, index);
        const child = fromGranule(port.ld32(slot));
        if (child !== NULL && pruneBelow(child, level - 1)) {
          port.st32(slot, 0);
          addUsed(node, -1);
          for (let tag = 0; tag < NR_TAGS; tag++) mark(node, tag, slotNr(level, index), false);
        }
      }
      if (port.ld32(node + USED) > 0) return false;
      freeNode(ctx, node);
      return true;
    };
    const top = topOf(root);
    if (top === NULL || !pruneBelow(top, heightOf(root) - 1)) return;
    port.st32(root, 0);
    port.st32(root + HEIGHT, 0);
  };

  /** Takes levels off that have nothing but their slot 0. */
  const shrink = (ctx: Context, root: PhysAddr): void => {
    for (let top = topOf(root); heightOf(root) > 1; top = topOf(root)) {
      if (port.ld32(top + USED) !== 1 || port.ld32(top + SLOTS) === 0) return;
      port.st32(root, port.ld32(top + SLOTS));
      port.st32(root + HEIGHT, heightOf(root) - 1);
      freeNode(ctx, top);
    }
  };

  /** Puts a level on top, or makes the first node, as high as `index` needs; false without memory. */
  const grow = (ctx: Context, root: PhysAddr, index: number): boolean => {
    const node = newNode(ctx);
    if (node === NULL) return false;
    const top = topOf(root);
    let height = heightOf(root) + 1;
    if (top === NULL) while (index >= capacity(height)) height++;
    else {
      port.st32(node + SLOTS, toGranule(top));
      addUsed(node, 1);
      for (let tag = 0; tag < NR_TAGS; tag++) mark(node, tag, 0, hasAnyTag(top, tag));
    }
    port.st32(root, toGranule(node));
    port.st32(root + HEIGHT, height);
    return true;
  };

  /** Makes the nodes on the way; the slot's address, or 0 without memory. */
  const reach = (ctx: Context, root: PhysAddr, index: number): number => {
    while (heightOf(root) === 0 || index >= capacity(heightOf(root))) if (!grow(ctx, root, index)) return 0;
    let node = topOf(root);
    for (let level = heightOf(root) - 1; level > 0; level--) {
      const slot = slotAt(node, level, index);
      let child = fromGranule(port.ld32(slot));
      if (child === NULL) {
        child = newNode(ctx);
        if (child === NULL) return 0;
        port.st32(slot, toGranule(child));
        addUsed(node, 1);
      }
      node = child;
    }
    const slot = slotAt(node, 0, index);
    if (port.ld32(slot) === 0) addUsed(node, 1);
    return slot;
  };

  /** First used index ≥ `from` below `node`, which covers indexes from `base` on; with a tag, if that is ≥ 0; −1. */
  const nextBelow = (node: PhysAddr, level: number, base: number, from: number, tag: number): number => {
    const span = capacity(level);
    for (let i = Math.max(0, Math.floor((from - base) / span)); i < FANOUT; i++) {
      const word = port.ld32(node + SLOTS + i * 4);
      if (word === 0 || (tag >= 0 && !isTagged(node, tag, i))) continue;
      if (level === 0) return base + i;
      const found = nextBelow(fromGranule(word), level - 1, base + i * span, from, tag);
      if (found >= 0) return found;
    }
    return -1;
  };
  const search = (root: PhysAddr, from: number, tag: number): number =>
    topOf(root) === NULL || heightOf(root) > MAX_HEIGHT ? -1 : nextBelow(topOf(root), heightOf(root) - 1, 0, from, tag);

  /** Calls `visit` with each node on the way to `index`, the lowest last; it is there. */
  const descend = (root: PhysAddr, index: number, visit: (node: PhysAddr, slot: number) => void): void => {
    let node = topOf(root);
    for (let level = heightOf(root) - 1; level >= 0 && node !== NULL; level--) {
      visit(node, slotNr(level, index));
      node = level > 0 ? fromGranule(port.ld32(slotAt(node, level, index))) : NULL;
    }
  };

  const setTag: RadixTree["setTag"] = (root, index, tag) => {
    bugOn(load(root, index) === 0, "RDX-3: a tag for nothing", index, tag);
    descend(root, index, (node, slot) => mark(node, tag, slot, true));
  };

  /** The tag goes, and on each level above if nothing else below has it. */
  const clearTag: RadixTree["clearTag"] = (root, index, tag) => {
    const clearBelow = (node: PhysAddr, level: number): boolean => {
      const child = level > 0 ? fromGranule(port.ld32(slotAt(node, level, index))) : NULL;
      if (level > 0 && (child === NULL || clearBelow(child, level - 1))) return hasAnyTag(node, tag);
      mark(node, tag, slotNr(level, index), false);
      return hasAnyTag(node, tag);
    };
    if (topOf(root) !== NULL && index < capacity(heightOf(root))) clearBelow(topOf(root), heightOf(root) - 1);
  };

  return {
    load,
    store(ctx, root, index, word) {
      const slot = reach(ctx, root, index);
      if (slot === 0) {
        prune(ctx, root, index);
        shrink(ctx, root);
        return false;
      }
      port.st32(slot, word);
      return true;
    },
    erase(ctx, root, index) {
      const word = load(root, index);
      if (word === 0) return 0;
      for (let tag = 0; tag < NR_TAGS; tag++) clearTag(root, index, tag);
      let node = topOf(root);
      for (let level = heightOf(root) - 1; level > 0; level--) {
        node = fromGranule(port.ld32(slotAt(node, level, index)));
      }
      port.st32(slotAt(node, 0, index), 0);
      addUsed(node, -1);
      prune(ctx, root, index);
      if (topOf(root) !== NULL) shrink(ctx, root);
      return word;
    },
    next: (root, from) => search(root, from, -1),
    setTag,
    clearTag,
    hasTag(root, index, tag) {
      let found = load(root, index) !== 0;
      if (found) descend(root, index, (node, slot) => (found &&= isTagged(node, tag, slot)));
      return found;
    },
    nextTagged: search,
  };
}
