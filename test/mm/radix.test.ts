/**
 * The radix tree of a page cache against a Map.
 *
 * Goal: RDX-1, RDX-2, RDX-3. Method: random stores, erasures and searches over near and far indexes; allocations fail now and
 * then; after each step every index is looked up, and an empty tree must have given back every node.
 */

import fc from "fast-check";
import { expect, it } from "vitest";
import { asPhys, type Context, NULL, type PhysAddr } from "../../kernel/types.ts";
import { createRadixTree, RADIX_NODE_BYTES, TAG_DIRTY, TAG_WRITEBACK } from "../../mm/radix.ts";
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
    { numRuns: 150 },
  );
});

it("RDX-3 tags are those of a Set: they come and go, find their words, stay when a word is replaced, end with it", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ index, act: fc.nat(3), tag: fc.constantFrom(TAG_DIRTY, TAG_WRITEBACK), from: index }), {
        maxLength: 60,
      }),
      (steps) => {
        const { tree, root, state } = rig();
        const words = new Set<number>();
        const tags = [new Set<number>(), new Set<number>()] as const;
        for (const { index: at, act, tag, from } of steps) {
          const known = [...words][at % Math.max(1, words.size)] ?? at;
          const tagged = tags[tag] as Set<number>;
          if (act === 0 && tree.store(ctx, root, at, 7)) words.add(at);
          if (act === 1) {
            tree.erase(ctx, root, known);
            words.delete(known);
            for (const set of tags) set.delete(known);
          }
          if (act === 2 && words.has(known)) {
            tree.setTag(root, known, tag);
            tagged.add(known);
          }
          if (act === 3) {
            tree.clearTag(root, known, tag);
            tagged.delete(known);
          }
          for (const word of words) expect(tree.hasTag(root, word, tag)).toBe(tagged.has(word));
          const next = [...tagged].filter((key) => key >= from).sort((a, b) => a - b)[0] ?? -1;
          expect(tree.nextTagged(root, from, tag)).toBe(next);
        }
        for (const key of words) tree.erase(ctx, root, key);
        expect(state.nrOut).toBe(0);
      },
    ),
    { numRuns: 150 },
  );
});
