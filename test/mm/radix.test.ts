/**
 * The radix tree of a page cache against a Map.
 *
 * Goal: RDX-1, RDX-2. Method: random stores, erasures and searches over near and far indexes; allocations fail now and
 * then; after each step every index is looked up, and an empty tree must have given back every node.
 */

import fc from "fast-check";
import { expect, it } from "vitest";
import { asPhys, type Context, NULL, type PhysAddr } from "../../kernel/types.ts";
import { createRadixTree, RADIX_NODE_BYTES } from "../../mm/radix.ts";
import { bareFrames } from "../support/bare_frames.ts";

const ctx = {} as Context;

function rig() {
  const { port } = bareFrames(0, 1024);
  const free: PhysAddr[] = [];
  for (let i = 0; i < 400; i++) free.push(asPhys(0x10_0000 + i * Math.ceil(RADIX_NODE_BYTES / 8) * 8));
  const state = { failAt: -1, nrOut: 0 };
  const tree = createRadixTree({
    port,
    allocNode() {
      if (state.failAt-- === 0) return NULL;
      state.nrOut++;
      return free.pop() ?? NULL;
    },
    freeNode(_ctx, node) {
      state.nrOut--;
      port.fill(node, 0x6b, RADIX_NODE_BYTES);
      free.push(node);
    },
  });
  const root = asPhys(0x8_0000);
  port.fill(root, 0, 8);
  return { tree, root, state };
}

const index = fc.oneof(fc.nat(70), fc.nat(5000), fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.constant(2 ** 32 - 1));

it("RDX-1 RDX-2 holds what a Map holds, whatever fails, and is empty without nodes", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({ index, isErase: fc.boolean(), word: fc.integer({ min: 1, max: 2 ** 32 - 1 }), fail: fc.nat(12) }),
        {
          maxLength: 60,
        },
      ),
      (steps) => {
        const { tree, root, state } = rig();
        const model = new Map<number, number>();
        for (const { index: at, isErase, word, fail } of steps) {
          state.failAt = fail < 4 ? fail : -1;
          if (isErase) {
            const victim = [...model.keys()][at % Math.max(1, model.size)] ?? at;
            expect(tree.erase(ctx, root, victim)).toBe(model.get(victim) ?? 0);
            model.delete(victim);
          } else {
            const before = state.nrOut;
            if (tree.store(ctx, root, at, word)) model.set(at, word);
            else expect(state.nrOut).toBe(before);
          }
          state.failAt = -1;
          for (const [key, value] of model) expect(tree.load(root, key)).toBe(value);
          expect(tree.load(root, at)).toBe(model.get(at) ?? 0);
          const after = [...model.keys()].filter((key) => key >= at).sort((a, b) => a - b)[0] ?? -1;
          expect(tree.next(root, at)).toBe(after);
        }
        for (const key of model.keys()) tree.erase(ctx, root, key);
        expect(state.nrOut).toBe(0);
      },
    ),
    { numRuns: 300 },
  );
});
