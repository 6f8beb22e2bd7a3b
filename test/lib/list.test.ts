/**
 * Goal: lists in RAM behave like arrays, and checkList() sees each kind of broken link.
 * Method: three lists and twelve nodes under random operations against three arrays, the lists checked after each;
 * then one planted corruption per rule.
 */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import {
  checkList,
  initListHead,
  LIST_HEAD_BYTES,
  listAdd,
  listAddTail,
  listCount,
  listDel,
  listFirst,
  listIsEmpty,
  listLast,
  listNext,
  listPrev,
} from "../../kernel/lib/list.ts";
import { MIN_RAM_BYTES } from "../../kernel/params.ts";
import { asPhys, NULL, type PhysAddr, toGranule } from "../../kernel/types.ts";

const { port } = createMachine({ nrCpus: 1, ramBytes: MIN_RAM_BYTES, seed: "1", port: "bounds" });
const at = (i: number): PhysAddr => asPhys(0x2000 + i * LIST_HEAD_BYTES);
const HEADS = [at(0), at(1), at(2)];
const NODES = Array.from({ length: 12 }, (_, i) => at(3 + i));
const HEAD = HEADS[0] as PhysAddr;
const [A, B, C] = NODES as [PhysAddr, PhysAddr, PhysAddr];

function forward(head: PhysAddr): PhysAddr[] {
  const nodes: PhysAddr[] = [];
  for (let node = listNext(port, head); node !== head; node = listNext(port, node)) nodes.push(node);
  return nodes;
}

function backward(head: PhysAddr): PhysAddr[] {
  const nodes: PhysAddr[] = [];
  for (let node = listPrev(port, head); node !== head; node = listPrev(port, node)) nodes.push(node);
  return nodes;
}

function expectList(head: PhysAddr, model: readonly PhysAddr[]): void {
  expect(checkList(port, head)).toBeNull();
  expect(forward(head)).toEqual(model);
  expect(backward(head)).toEqual([...model].reverse());
  expect(listCount(port, head)).toBe(model.length);
  expect(listIsEmpty(port, head)).toBe(model.length === 0);
  expect(listFirst(port, head)).toBe(model[0] ?? NULL);
  expect(listLast(port, head)).toBe(model.at(-1) ?? NULL);
}

beforeEach(() => {
  for (const node of [...HEADS, ...NODES]) initListHead(port, node);
});

describe("list", () => {
  it("listAdd() makes a stack, listAddTail() a queue", () => {
    for (const node of [A, B, C]) listAdd(port, node, HEAD);
    expectList(HEAD, [C, B, A]);
    for (const node of [A, B, C]) listDel(port, node);
    for (const node of [A, B, C]) listAddTail(port, node, HEAD);
    expectList(HEAD, [A, B, C]);
  });

  it("listAdd() and listAddTail() work beside any node of a list", () => {
    listAdd(port, B, HEAD);
    listAdd(port, C, B);
    listAddTail(port, A, B);
    expectList(HEAD, [A, B, C]);
  });

  it("LST-2 a deleted node points to itself and can be deleted again", () => {
    for (const node of [A, B, C]) listAddTail(port, node, HEAD);
    listDel(port, B);
    listDel(port, B);
    expect(listIsEmpty(port, B)).toBe(true);
    expect(checkList(port, B)).toBeNull();
    expectList(HEAD, [A, C]);
  });

  it("LST-1 LST-2 LST-3 lists behave like arrays under random operations", () => {
    const operation = fc.record({
      tail: fc.boolean(),
      head: fc.nat({ max: HEADS.length - 1 }),
      node: fc.nat({ max: NODES.length - 1 }),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
        for (const node of [...HEADS, ...NODES]) initListHead(port, node);
        const models: PhysAddr[][] = HEADS.map(() => []);
        for (const { tail, head: index, node: nodeIndex } of operations) {
          const node = NODES[nodeIndex] as PhysAddr;
          const owner = models.find((model) => model.includes(node));
          if (owner) {
            owner.splice(owner.indexOf(node), 1);
            listDel(port, node);
            expect(listIsEmpty(port, node)).toBe(true);
          } else if (tail) {
            models[index]?.push(node);
            listAddTail(port, node, HEADS[index] as PhysAddr);
          } else {
            models[index]?.unshift(node);
            listAdd(port, node, HEADS[index] as PhysAddr);
          }
          HEADS.forEach((head, i) => {
            expectList(head, models[i] as PhysAddr[]);
          });
        }
      }),
    );
  });
});

describe("checkList()", () => {
  const NEXT = 0;
  const PREV = 4;
  beforeEach(() => {
    for (const node of [A, B, C]) listAddTail(port, node, HEAD);
  });

  it("LST-1 reports a prev that does not lead back", () => {
    port.st32(B + PREV, toGranule(C));
    expect(checkList(port, HEAD)).toMatch(/^LST-1 next of /);
  });

  it("LST-1 reports a link that skips a node", () => {
    port.st32(A + NEXT, toGranule(C));
    expect(checkList(port, HEAD)).toMatch(/^LST-1 next of /);
  });

  it("LST-1 reports a zeroed link and one out of RAM", () => {
    port.st32(B + NEXT, 0);
    expect(checkList(port, HEAD)).toMatch(/^LST-1 .* out of RAM/);
    port.st32(B + NEXT, 0xffff_ffff);
    expect(checkList(port, HEAD)).toMatch(/^LST-1 .* out of RAM/);
  });

  it("LST-3 ends on a loop that does not include the head", () => {
    port.st32(C + NEXT, toGranule(A));
    expect(checkList(port, HEAD)).toMatch(/^LST-1 next of /);
    port.st32(A + PREV, toGranule(C));
    expect(checkList(port, HEAD)).toMatch(/^LST-1 next of /);
  });
});
