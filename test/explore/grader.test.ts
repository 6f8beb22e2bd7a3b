/**
 * Goal: exploration is usable by who judges code that he has not written: a stack of frames by compare-and-swap, right
 * and wrong, explored through the front door alone; and a body that is not deterministic is told apart from a race.
 * Method: what docs/explore.md shows, "For graders".
 */

import { expect, it } from "vitest";
import {
  asExplorable,
  createDeepening,
  createExploration,
  createPageWorld,
  type Verdict,
} from "../../explore/index.ts";
import type { MemoryPort } from "../../kernel/arch/port.ts";
import type { PhysAddr } from "../../kernel/types.ts";

/** What a student hands in: a stack of nodes 1 … 3 whose links are the words after the head. */
type Stack = (port: MemoryPort, head: PhysAddr) => { pop(): number; push(node: number): void };

const NODE = 0xff;
const linkOf = (head: number, node: number): number => head + node * 4;

/** Head: tag and node. */
const tagged: Stack = (port, head) => ({
  pop() {
    for (;;) {
      const top = port.ldAtomic(head);
      const node = top & NODE;
      if (node === 0) return 0;
      const next = port.ldAtomic(linkOf(head, node));
      if (port.cas(head, top, (((top & ~NODE) + NODE + 1) | next) >>> 0) === top) return node;
    }
  },
  push(node) {
    for (;;) {
      const top = port.ldAtomic(head);
      port.stAtomic(linkOf(head, node), top & NODE);
      if (port.cas(head, top, ((top & ~NODE) | node) >>> 0) === top) return;
    }
  },
});

const untagged: Stack = (port, head) => ({
  ...tagged(port, head),
  pop() {
    for (;;) {
      const top = port.ldAtomic(head);
      if (top === 0) return 0;
      if (port.cas(head, top, port.ldAtomic(linkOf(head, top))) === top) return top;
    }
  },
});

function grade(create: Stack, isSteady = true): Verdict {
  const world = createPageWorld({ nrCpus: 2 });
  const { port, machine, names } = world;
  const head = world.image.bss("stack", 16, 8);
  names.add(head, 16, "stack", { 0: "head", 4: "link 1", 8: "link 2", 12: "link 3" });
  const stack = create(port, head);
  for (const node of [3, 2, 1]) stack.push(node);
  port.mark();
  const held: number[][] = [[], []];
  let nrCalls = 0;
  const subject = {
    port,
    harts: machine.harts,
    nrCpus: 2,
    body(cpu: number) {
      const hands: number[] = [];
      held[cpu] = hands;
      if (!isSteady && nrCalls++ % 3 === 2) port.ldAtomic(head);
      hands.push(stack.pop());
      if (cpu === 1) {
        hands.push(stack.pop());
        stack.push(hands.shift() as number);
      }
      return undefined;
    },
    check() {
      const nodes = held.flat().filter((node) => node !== 0);
      for (let node = stack.pop(); node !== 0 && nodes.length < 9; node = stack.pop()) nodes.push(node);
      return nodes.toSorted().join() === "1,2,3" ? null : `nodes ${nodes.toSorted().join()} instead of 1,2,3`;
    },
    nameOf: names.nameOf,
    balanced: world.balanced,
  };
  const exploration = createExploration({ explorable: asExplorable(subject, world.watchLocks), irqs: 0 });
  return exploration.explore({ strategy: createDeepening(2), maxRuns: 100_000 });
}

it("XPL-2 the right stack passes, complete", () => {
  expect(grade(tagged)).toMatchObject({ isComplete: true, finding: null });
});

it("XPL-2 the stack without tags fails, with one preemption and the run as columns", () => {
  const { finding } = grade(untagged);
  expect(finding).toMatchObject({ kind: "invariant", nrEvents: 1 });
  expect(finding?.message).toMatch(/nodes .* instead of 1,2,3/);
  expect(finding?.lines.join("\n")).toContain("stack.head 1 → 2");
});

it("XPL-1 a body that goes another way each time is reported as that", () => {
  expect(grade(untagged, false).finding).toMatchObject({ kind: "nondeterminism" });
});
