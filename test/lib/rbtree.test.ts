/**
 * Goal: the tree is a sorted sequence with logarithmic depth and right summaries, whatever the order of operations.
 * Method: random insertions and erasures against a sorted array, with the invariants RB-1 … RB-5 and the summaries
 * checked after each step; erasure in every order from every small tree; then one planted corruption per invariant.
 *
 * A node here is followed by its key (+16) and by its summary (+20: greatest key, +24: number of nodes below).
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { createRbTree, RB_NODE_BYTES } from "../../kernel/lib/rbtree.ts";
import { MIN_RAM_BYTES } from "../../kernel/params.ts";
import { asPhys, NULL, type PhysAddr, toGranule } from "../../kernel/types.ts";

const { port } = createMachine({ nrCpus: 1, ramBytes: MIN_RAM_BYTES, seed: "1", port: "bounds" });
const ROOT = asPhys(0x1000);
const KEY = RB_NODE_BYTES;
const MAX_KEY = RB_NODE_BYTES + 4;
const COUNT = RB_NODE_BYTES + 8;
const node = (i: number): PhysAddr => asPhys(0x10_0000 + i * 32);
const key = (n: PhysAddr): number => port.ld32(n + KEY);

const tree = createRbTree(port, {
  less: (a, b) => key(a) < key(b),
  augment: (n) => {
    const below = [tree.left(n), tree.right(n)].filter((child) => child !== NULL);
    const greatest = Math.max(key(n), ...below.map((child) => port.ld32(child + MAX_KEY)));
    const count = below.reduce((sum, child) => sum + port.ld32(child + COUNT), 1);
    const isSame = port.ld32(n + MAX_KEY) === greatest && port.ld32(n + COUNT) === count;
    port.st32(n + MAX_KEY, greatest);
    port.st32(n + COUNT, count);
    return !isSame;
  },
});

function insert(i: number, value: number): void {
  port.st32(node(i) + KEY, value);
  tree.insert(ROOT, node(i));
}

function subtree(n: PhysAddr): PhysAddr[] {
  return n === NULL ? [] : [...subtree(tree.left(n)), n, ...subtree(tree.right(n))];
}

function depth(n: PhysAddr): number {
  return n === NULL ? 0 : 1 + Math.max(depth(tree.left(n)), depth(tree.right(n)));
}

function expectSummaries(): void {
  for (const n of subtree(tree.top(ROOT))) {
    const keys = subtree(n).map(key);
    expect(port.ld32(n + MAX_KEY)).toBe(Math.max(...keys));
    expect(port.ld32(n + COUNT)).toBe(keys.length);
  }
}

/** The tree holds exactly `model`, in that order. */
function expectTree(model: readonly PhysAddr[]): void {
  expect(tree.check(ROOT)).toBeNull();
  expectSummaries();
  const ascending: PhysAddr[] = [];
  for (let n = tree.first(ROOT); n !== NULL; n = tree.next(n)) ascending.push(n);
  const descending: PhysAddr[] = [];
  for (let n = tree.last(ROOT); n !== NULL; n = tree.prev(n)) descending.push(n);
  expect(ascending).toEqual(model);
  expect(descending).toEqual([...model].reverse());
  expect(depth(tree.top(ROOT))).toBeLessThanOrEqual(2 * Math.log2(model.length + 1));
}

function plant(keys: readonly number[]): void {
  port.st32(ROOT, 0);
  keys.forEach((value, i) => {
    insert(i, value);
  });
}

describe("rbtree", () => {
  it("an empty tree has no first, no last and no bound", () => {
    port.st32(ROOT, 0);
    expect(tree.check(ROOT)).toBeNull();
    expect([tree.first(ROOT), tree.last(ROOT), tree.lowerBound(ROOT, () => true)]).toEqual([NULL, NULL, NULL]);
  });

  it("RB-1 … RB-5 hold after each of random insertions and erasures", () => {
    const operation = fc.record({ i: fc.nat({ max: 39 }), value: fc.nat({ max: 25 }) });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 120 }), fc.nat({ max: 26 }), (operations, bound) => {
        port.st32(ROOT, 0);
        const model: PhysAddr[] = [];
        for (const { i, value } of operations) {
          const place = model.indexOf(node(i));
          if (place >= 0) {
            tree.erase(ROOT, node(i));
            model.splice(place, 1);
          } else {
            insert(i, value);
            // Behind all equal keys.
            const behind = model.findIndex((n) => key(n) > value);
            model.splice(behind < 0 ? model.length : behind, 0, node(i));
          }
          expectTree(model);
          expect(tree.lowerBound(ROOT, (n) => key(n) >= bound)).toBe(model.find((n) => key(n) >= bound) ?? NULL);
        }
      }),
      { numRuns: 60 },
    );
  });

  it("RB-1 … RB-5 hold when 1,000 ascending keys come and go from either end", () => {
    const keys = Array.from({ length: 1000 }, (_, i) => i);
    plant(keys);
    const model = keys.map(node);
    expectTree(model);
    while (model.length > 0) {
      const gone = (model.length % 2 === 0 ? model.shift() : model.pop()) as PhysAddr;
      tree.erase(ROOT, gone);
      if (model.length % 50 === 0) expectTree(model);
      expect(tree.check(ROOT)).toBeNull();
    }
    expect(port.ld32(ROOT)).toBe(0);
  });

  it("erases the nodes of a tree of six in all 720 orders, for 720 orders of insertion", () => {
    const orders = permutations([0, 1, 2, 3, 4, 5]);
    for (const [i, insertion] of orders.entries()) {
      plant(insertion);
      const erasure = orders[(i * 7) % orders.length] as number[];
      let model = insertion.map((value, n) => [value, node(n)] as const).sort(([a], [b]) => a - b);
      for (const value of erasure) {
        tree.erase(ROOT, (model.find(([k]) => k === value) as readonly [number, PhysAddr])[1]);
        model = model.filter(([k]) => k !== value);
        expectTree(model.map(([, n]) => n));
      }
    }
  });

  it("equal keys stay in the order of insertion", () => {
    plant([5, 5, 5, 5, 5, 5, 5]);
    expectTree([0, 1, 2, 3, 4, 5, 6].map(node));
  });

  it("erase() zeroes the links of the node", () => {
    plant([1, 2, 3]);
    tree.erase(ROOT, node(1));
    expect([0, 4, 8].map((offset) => port.ld32(node(1) + offset))).toEqual([0, 0, 0]);
  });

  it("propagate() brings a changed node's summary up to the root", () => {
    plant(Array.from({ length: 30 }, (_, i) => i));
    port.st32(node(29) + KEY, 1000);
    tree.propagate(node(29));
    expectSummaries();
    expect(port.ld32(tree.top(ROOT) + MAX_KEY)).toBe(1000);
  });

  it("works without summaries", () => {
    const plain = createRbTree(port, { less: (a, b) => key(a) < key(b) });
    port.st32(ROOT, 0);
    for (let i = 0; i < 50; i++) {
      port.st32(node(i) + KEY, (i * 37) % 50);
      plain.insert(ROOT, node(i));
    }
    for (let i = 0; i < 50; i += 2) plain.erase(ROOT, node(i));
    expect(plain.check(ROOT)).toBeNull();
  });
});

describe("rbtree check()", () => {
  const [PARENT, LEFT, RIGHT, COLOUR] = [0, 4, 8, 12];
  const keys = Array.from({ length: 20 }, (_, i) => i);
  const top = (): PhysAddr => tree.top(ROOT);

  it("RB-1 reports keys out of order", () => {
    plant(keys);
    port.st32(tree.first(ROOT) + KEY, 100);
    expect(tree.check(ROOT)).toMatch(/^RB-1/);
  });

  it("RB-2 reports a red root and a colour that is neither", () => {
    plant(keys);
    port.st32(top() + COLOUR, 0);
    expect(tree.check(ROOT)).toMatch(/^RB-2 red root/);
    port.st32(top() + COLOUR, 2);
    expect(tree.check(ROOT)).toMatch(/^RB-2 a colour/);
  });

  it("RB-3 reports red below red", () => {
    plant(keys);
    const red = keys.map(node).find((n) => port.ld32(n + COLOUR) === 0 && tree.left(n) !== NULL) as PhysAddr;
    port.st32(tree.left(red) + COLOUR, 0);
    expect(tree.check(ROOT)).toMatch(/^RB-3/);
  });

  it("RB-4 reports a black node too many", () => {
    plant(keys);
    port.st32(tree.last(ROOT) + COLOUR, 1);
    expect(tree.check(ROOT)).toMatch(/^RB-4/);
  });

  it("RB-5 reports wrong parents, shared children, loops and links out of RAM", () => {
    plant(keys);
    port.st32(tree.first(ROOT) + PARENT, toGranule(top()));
    expect(tree.check(ROOT)).toMatch(/^RB-5 wrong parent/);
    plant(keys);
    port.st32(tree.last(ROOT) + RIGHT, toGranule(top()));
    expect(tree.check(ROOT)).toMatch(/^RB-5 wrong parent/);
    plant(keys);
    port.st32(top() + LEFT, toGranule(tree.right(top())));
    expect(tree.check(ROOT)).toMatch(/^RB-5 one node/);
    plant(keys);
    port.st32(tree.last(ROOT) + RIGHT, 0xffff_fff0);
    expect(tree.check(ROOT)).toMatch(/^RB-5 a link out of RAM/);
  });

  it("RB-4 gives up on a tree that is deeper than any can be", () => {
    for (let i = 0; i < 100; i++) {
      port.st32(node(i) + PARENT, i === 0 ? 0 : toGranule(node(i - 1)));
      port.st32(node(i) + LEFT, 0);
      port.st32(node(i) + RIGHT, toGranule(node(i + 1)));
      port.st32(node(i) + COLOUR, 1);
      port.st32(node(i) + KEY, i);
    }
    port.st32(ROOT, toGranule(node(0)));
    expect(tree.check(ROOT)).toMatch(/^RB-4 too deep/);
  });
});

function permutations(items: readonly number[]): number[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item) => permutations(items.filter((other) => other !== item)).map((rest) => [item, ...rest]));
}
