/**
 * Intrusive red-black trees in RAM, with a hook for values that summarise a subtree.
 *
 * A binary search tree in which every node is red or black, such that
 *
 *   RB-1  In order, no node is less than one before it. Equal nodes stay in the order of insertion.
 *   RB-2  The root is black.
 *   RB-3  A red node has no red child.
 *   RB-4  Every way from the root to a missing child passes the same number of black nodes.
 *   RB-5  The parent link of each child leads back to its parent; the root's is 0.
 *
 * RB-3 and RB-4 bound the longest way by twice the shortest: a tree of n nodes is at most 2·log2(n + 1) deep. Inserting
 * adds a red node, which can break RB-3 only; erasing a black node breaks RB-4 only. Both are mended by recolouring on
 * the way up and at most 2 (insert) or 3 (erase) rotations:
 *
 *            top                         up              A rotation keeps RB-1: A < top < B < up < C here,
 *           /   \     rotate left       /  \             and the set of nodes below stays the same, so that
 *          A     up   ───────────▶   top    C            only `top` and `up` need a new summary.
 *               /  \  ◀───────────   /  \
 *              B    C  rotate right  A    B
 *
 *   offset  width  field    meaning
 *   +0      u32    parent   granule (address / 8) of the parent; 0 in the root
 *   +4      u32    left     granule of the left child; 0 when missing
 *   +8      u32    right    granule of the right child; 0 when missing
 *   +12     u32    colour   0 red, 1 black (as in Linux)
 *   root:   u32    granule of the root node; 0 in an empty tree
 *
 * Summaries (Linux's augmented trees): `augment(node)` recomputes what the node says about its subtree, from the node
 * itself and its children, whose summaries are right when it is called. It runs bottom-up on each node whose subtree
 * changed, and no further than the first whose summary stays as it was. Maple trees have replaced this for Linux's VMAs
 * since 6.1; the idea is the same and needs a tenth of the code.
 *
 * Node addresses are 8-aligned and not 0. Lock: the caller's. Context: any; no memory is taken, nothing recurses
 * except the checker.
 * Source: Guibas and Sedgewick 1978; the case analysis is that of Cormen et al., with 0 for the missing child.
 */

import type { MemoryPort } from "../arch/port.ts";
import { fromGranule, NULL, type PhysAddr, toGranule } from "../types.ts";

/** Bytes of a node. */
export const RB_NODE_BYTES = 16;

const PARENT = 0;
const LEFT = 4;
const RIGHT = 8;
const COLOUR = 12;
const RED = 0;
const BLACK = 1;

/** Deeper than any tree in 4 GiB can be: 2·log2(2^28 + 1). The checker gives up there. */
const MAX_DEPTH = 57;

type Side = typeof LEFT | typeof RIGHT;
const otherSide = (side: Side): Side => (side === LEFT ? RIGHT : LEFT);

export interface RbTreeOrder {
  /** Does `a` come before `b`? A strict weak order over the nodes' own content. */
  readonly less: (a: PhysAddr, b: PhysAddr) => boolean;
  /** Recomputes the summary in `node` from the node and its children; true if it is another than before. */
  readonly augment?: (node: PhysAddr) => boolean;
}

/** `root` is the address of the root word, which starts as 0. Every function is O(log n) unless it says otherwise. */
export interface RbTree {
  /** Puts `node`, which is in no tree, behind all nodes that are not greater. */
  insert(root: PhysAddr, node: PhysAddr): void;
  /** Takes `node`, which is in this tree, out and zeroes its links. */
  erase(root: PhysAddr, node: PhysAddr): void;
  /** Least node, or NULL. */
  first(root: PhysAddr): PhysAddr;
  /** Greatest node, or NULL. */
  last(root: PhysAddr): PhysAddr;
  /** Node after `node` in order, or NULL. O(1) on average over a walk. */
  next(node: PhysAddr): PhysAddr;
  /** Node before `node` in order, or NULL. O(1) on average over a walk. */
  prev(node: PhysAddr): PhysAddr;
  /** First node for which `isAtOrAbove` holds, or NULL. Once true along the order, it must stay true. */
  lowerBound(root: PhysAddr, isAtOrAbove: (node: PhysAddr) => boolean): PhysAddr;
  /** The top node, or NULL. With `left` and `right`, for searches that are led by summaries. O(1). */
  top(root: PhysAddr): PhysAddr;
  /** Left child, or NULL. O(1). */
  left(node: PhysAddr): PhysAddr;
  /** Right child, or NULL. O(1). */
  right(node: PhysAddr): PhysAddr;
  /** Recomputes the summaries from `node` up to the root, after the caller changed what `node` contributes. */
  propagate(node: PhysAddr): void;
  /** Walks the tree; the first broken invariant, or null. O(n). */
  check(root: PhysAddr): string | null;
}

/** Tree operations for one order. The state is in RAM: one record of functions serves any number of trees. */
export function createRbTree(port: MemoryPort, { less, augment }: RbTreeOrder): RbTree {
  const parentOf = (node: PhysAddr): PhysAddr => fromGranule(port.ld32(node + PARENT));
  const left = (node: PhysAddr): PhysAddr => fromGranule(port.ld32(node + LEFT));
  const right = (node: PhysAddr): PhysAddr => fromGranule(port.ld32(node + RIGHT));
  const top = (root: PhysAddr): PhysAddr => fromGranule(port.ld32(root));
  const child = (node: PhysAddr, side: Side): PhysAddr => fromGranule(port.ld32(node + side));
  const setParent = (node: PhysAddr, parent: PhysAddr): void => port.st32(node + PARENT, toGranule(parent));
  const setColour = (node: PhysAddr, colour: number): void => port.st32(node + COLOUR, colour);
  const isRed = (node: PhysAddr): boolean => node !== NULL && port.ld32(node + COLOUR) === RED;

  /** Hangs `node`, which may be NULL, below `parent`. */
  const setChild = (parent: PhysAddr, side: Side, node: PhysAddr): void => {
    port.st32(parent + side, toGranule(node));
    if (node !== NULL) setParent(node, parent);
  };

  /** Puts `replacement`, which may be NULL, where `node` hangs now. */
  const replace = (root: PhysAddr, node: PhysAddr, replacement: PhysAddr): void => {
    const parent = parentOf(node);
    if (parent !== NULL) {
      setChild(parent, left(parent) === node ? LEFT : RIGHT, replacement);
    } else {
      port.st32(root, toGranule(replacement));
      if (replacement !== NULL) setParent(replacement, NULL);
    }
  };

  /** Nothing above a summary that stays as it was can change. */
  const propagate = (node: PhysAddr): void => {
    if (augment === undefined) return;
    for (let at = node; at !== NULL && augment(at); ) at = parentOf(at);
  };
  /** The same where nodes have changed places: a summary on the way may be that of another place. */
  const propagateToRoot = (node: PhysAddr): void => {
    if (augment === undefined) return;
    for (let at = node; at !== NULL; at = parentOf(at)) augment(at);
  };

  /** `down` sinks to `side`; its child on the other side takes its place. */
  const rotate = (root: PhysAddr, down: PhysAddr, side: Side): void => {
    const other = otherSide(side);
    const up = child(down, other);
    replace(root, down, up);
    setChild(down, other, child(up, side));
    setChild(up, side, down);
    if (augment !== undefined) {
      augment(down);
      augment(up);
    }
  };

  const insert = (root: PhysAddr, node: PhysAddr): void => {
    let parent: PhysAddr = NULL;
    let side: Side = LEFT;
    for (let at = top(root); at !== NULL; at = child(at, side)) {
      parent = at;
      side = less(node, at) ? LEFT : RIGHT;
    }
    port.st32(node + PARENT, toGranule(parent));
    port.st32(node + LEFT, 0);
    port.st32(node + RIGHT, 0);
    setColour(node, RED);
    if (parent === NULL) port.st32(root, toGranule(node));
    else setChild(parent, side, node);
    if (augment !== undefined) augment(node);
    propagate(parent);
    mendRed(root, node);
  };

  /** `node` is red; its parent may be red too (RB-3). Two levels up at each turn. */
  const mendRed = (root: PhysAddr, node: PhysAddr): void => {
    let at = node;
    let parent = parentOf(at);
    while (isRed(parent)) {
      // A red node is not the root (RB-2), so there is a grandparent.
      const grand = parentOf(parent);
      const side = left(grand) === parent ? LEFT : RIGHT;
      const uncle = child(grand, otherSide(side));
      if (!isRed(uncle)) {
        // An inner grandchild first becomes an outer one, so that one rotation at the top sets things right.
        if (at === child(parent, otherSide(side))) {
          rotate(root, parent, side);
          parent = at;
        }
        setColour(parent, BLACK);
        setColour(grand, RED);
        rotate(root, grand, otherSide(side));
        break;
      }
      setColour(parent, BLACK);
      setColour(uncle, BLACK);
      setColour(grand, RED);
      at = grand;
      parent = parentOf(at);
    }
    setColour(top(root), BLACK);
  };

  const erase = (root: PhysAddr, node: PhysAddr): void => {
    const l = left(node);
    const r = right(node);
    // The place that loses a node: below `parent`, where `orphan` (or nothing) hangs afterwards.
    let parent: PhysAddr;
    let orphan: PhysAddr;
    let lostBlack = !isRed(node);
    if (l === NULL || r === NULL) {
      orphan = l === NULL ? r : l;
      parent = parentOf(node);
      replace(root, node, orphan);
    } else {
      // Its successor, which has no left child, takes over the node's place and colour.
      const heir = outermost(r, LEFT);
      lostBlack = !isRed(heir);
      orphan = right(heir);
      parent = parentOf(heir);
      if (parent === node) {
        parent = heir;
      } else {
        replace(root, heir, orphan);
        setChild(heir, RIGHT, r);
      }
      replace(root, node, heir);
      setChild(heir, LEFT, l);
      setColour(heir, port.ld32(node + COLOUR));
    }
    port.st32(node + PARENT, 0);
    port.st32(node + LEFT, 0);
    port.st32(node + RIGHT, 0);
    propagateToRoot(parent);
    if (lostBlack) mendBlack(root, orphan, parent);
  };

  /** Ways through `at` (NULL or not), a child of `above`, are one black node short (RB-4). */
  const mendBlack = (root: PhysAddr, lacking: PhysAddr, above: PhysAddr): void => {
    let at = lacking;
    let parent = above;
    while (parent !== NULL && !isRed(at)) {
      const side = left(parent) === at ? LEFT : RIGHT;
      const other = otherSide(side);
      // There is a sibling: the ways through it have a black node more than those through `at`.
      let sibling = child(parent, other);
      if (isRed(sibling)) {
        setColour(sibling, BLACK);
        setColour(parent, RED);
        rotate(root, parent, side);
        sibling = child(parent, other);
      }
      if (isRed(child(sibling, side)) || isRed(child(sibling, other))) {
        borrowBlack(root, parent, sibling, side);
        return;
      }
      setColour(sibling, RED);
      at = parent;
      parent = parentOf(at);
    }
    if (at !== NULL) setColour(at, BLACK);
  };

  /** The black sibling has a red child: rotations bring a black node over to `side`, and all ways are even. */
  const borrowBlack = (root: PhysAddr, parent: PhysAddr, sibling: PhysAddr, side: Side): void => {
    const other = otherSide(side);
    let giver = sibling;
    if (!isRed(child(giver, other))) {
      const inner = child(giver, side);
      setColour(inner, BLACK);
      setColour(giver, RED);
      rotate(root, giver, other);
      giver = inner;
    }
    setColour(giver, port.ld32(parent + COLOUR));
    setColour(parent, BLACK);
    setColour(child(giver, other), BLACK);
    rotate(root, parent, side);
  };

  /** Follows `side` links from `node`, which may be NULL, to the end. */
  const outermost = (node: PhysAddr, side: Side): PhysAddr => {
    let at = node;
    if (at === NULL) return NULL;
    for (let below = child(at, side); below !== NULL; below = child(at, side)) at = below;
    return at;
  };

  /** The neighbour of `node` in order, in the direction of `side`. */
  const neighbour = (node: PhysAddr, side: Side): PhysAddr => {
    const below = child(node, side);
    if (below !== NULL) return outermost(below, otherSide(side));
    let at = node;
    let parent = parentOf(at);
    while (parent !== NULL && child(parent, side) === at) {
      at = parent;
      parent = parentOf(at);
    }
    return parent;
  };

  const lowerBound = (root: PhysAddr, isAtOrAbove: (node: PhysAddr) => boolean): PhysAddr => {
    let best: PhysAddr = NULL;
    let at = top(root);
    while (at !== NULL) {
      if (isAtOrAbove(at)) {
        best = at;
        at = left(at);
      } else {
        at = right(at);
      }
    }
    return best;
  };

  return {
    insert,
    erase,
    first: (root) => outermost(top(root), LEFT),
    last: (root) => outermost(top(root), RIGHT),
    next: (node) => neighbour(node, RIGHT),
    prev: (node) => neighbour(node, LEFT),
    lowerBound,
    top,
    left,
    right,
    propagate,
    check: (root) => checkRbTree(port, root, less),
  };
}

/** Ends on any content of RAM: a node reached twice would need two parents (RB-5) or be both children of one. */
function checkRbTree(port: MemoryPort, root: PhysAddr, less: RbTreeOrder["less"]): string | null {
  let problem: string | null = null;
  let previous: PhysAddr = NULL;

  /** Number of black nodes on each way down from `node`, or −1 after a problem. */
  const blackHeight = (node: PhysAddr, parent: PhysAddr, depth: number): number => {
    if (node === NULL) return 0;
    const wrong = (what: string): number => {
      problem ??= `${what} at 0x${node.toString(16)}`;
      return -1;
    };
    if (node + RB_NODE_BYTES > port.sizeBytes) return wrong("RB-5 a link out of RAM");
    if (fromGranule(port.ld32(node + PARENT)) !== parent) return wrong("RB-5 wrong parent link");
    const colour = port.ld32(node + COLOUR);
    const left = fromGranule(port.ld32(node + LEFT));
    const right = fromGranule(port.ld32(node + RIGHT));
    if (colour !== RED && colour !== BLACK) return wrong("RB-2 a colour that is neither");
    if (parent === NULL && colour !== BLACK) return wrong("RB-2 red root");
    if (parent !== NULL && colour === RED && port.ld32(parent + COLOUR) === RED) return wrong("RB-3 red below red");
    if (left !== NULL && left === right) return wrong("RB-5 one node is both children");
    if (depth > MAX_DEPTH) return wrong("RB-4 too deep");

    const below = blackHeight(left, node, depth + 1);
    if (below < 0) return -1;
    if (previous !== NULL && less(node, previous)) return wrong("RB-1 out of order");
    previous = node;
    const belowRight = blackHeight(right, node, depth + 1);
    if (belowRight < 0) return -1;
    if (below !== belowRight) return wrong("RB-4 unequal black heights");
    return below + (colour === BLACK ? 1 : 0);
  };

  blackHeight(fromGranule(port.ld32(root)), NULL, 0);
  return problem;
}
