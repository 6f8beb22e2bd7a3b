/**
 * What the compiler must refuse: sleeping where one may not sleep, and mixing kinds of addresses.
 *
 * Goal: [context-in-the-type] and [brand-addresses] are real. Method: small programs are compiled against the project;
 * each wrong one has a right twin that must compile.
 */

import { describe, expect, it } from "vitest";
import { typeErrors } from "./support/tsc_fixture.ts";

const HEAD = `
import { GFP_ATOMIC, GFP_KERNEL, gfpWith, __GFP_ZERO } from "../mm/gfp.ts";
import type { PageAllocator } from "../mm/page_alloc.ts";
import type { Kmalloc } from "../mm/kmalloc.ts";
import { pfnToPhys, type IrqContext, type PhysAddr, type Pfn, type Sleeping, type TaskContext } from "../kernel/types.ts";
declare const irq: IrqContext;
declare const task: TaskContext;
declare const pages: PageAllocator;
declare const heap: Kmalloc;
declare const pfn: Pfn;
`;

const compiles = (body: string): boolean => typeErrors(`${HEAD}${body}\nexport {};\n`).length === 0;

describe("contexts in types", () => {
  it("GFP_KERNEL from an IrqContext does not compile; GFP_ATOMIC does", () => {
    expect(compiles("export const a = pages.allocPages(irq, 0, GFP_KERNEL);")).toBe(false);
    expect(compiles("export const a = heap.kmalloc(irq, 64, GFP_KERNEL);")).toBe(false);
    expect(compiles("export const a: Pfn = pages.allocPages(irq, 0, GFP_ATOMIC);")).toBe(true);
    expect(compiles("export const a: PhysAddr = heap.kmalloc(irq, 64, GFP_ATOMIC);")).toBe(true);
  });

  it("modifiers keep what a mask says about sleeping", () => {
    expect(compiles("export const a = pages.allocPages(irq, 0, gfpWith(GFP_KERNEL, __GFP_ZERO));")).toBe(false);
    expect(compiles("export const a = pages.allocPages(irq, 0, gfpWith(GFP_ATOMIC, __GFP_ZERO));")).toBe(true);
  });

  it("the result of a call that may sleep cannot be used before it was iterated", () => {
    expect(compiles("export const a: Pfn = pages.allocPages(task, 0, GFP_KERNEL);")).toBe(false);
    expect(
      compiles(`export function* f(): Sleeping<number> {
        let p = pages.allocPages(task, 0, GFP_KERNEL);
        if (typeof p === "object") p = yield* p;
        return pfnToPhys(p);
      }`),
    ).toBe(true);
  });
});

const IRQ_HEAD = `
import type { IrqAction } from "../kernel/irq.ts";
import type { NmiHandler } from "../kernel/nmi.ts";
import type { ThreadedIrqs } from "../kernel/irq_thread.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import type { Task } from "../kernel/task.ts";
declare const waits: WaitQueues;
declare const threadedIrqs: ThreadedIrqs;
declare const self: Task;
declare const queue: PhysAddr;
`;

describe("interrupt handlers", () => {
  const compilesIrq = (body: string): boolean => compiles(`${IRQ_HEAD}${body}`);
  const action = (handler: string): string => `export const a: IrqAction = { name: "nic0", handler: ${handler} };`;

  it("a handler is a plain function: one that could sleep does not compile; its thread may", () => {
    expect(compilesIrq(action("(ctx) => (heap.kmalloc(ctx, 64, GFP_ATOMIC) === 0 ? 0 : 1)"))).toBe(true);
    expect(compilesIrq(action("(ctx) => (heap.kmalloc(ctx, 64, GFP_KERNEL) === 0 ? 0 : 1)"))).toBe(false);
    expect(compilesIrq(action("function* () { yield* waits.waitOn(queue, self); return 1; }"))).toBe(false);
    expect(compilesIrq(action("() => threadedIrqs.synchronizeIrq(self, 9)"))).toBe(false);
    const thread = "thread: function* (task) { yield* waits.waitOn(queue, task); }";
    expect(compilesIrq(action(`() => 2, ${thread}`))).toBe(true);
  });

  it("an NMI handler has no IrqContext to give away, and cannot sleep", () => {
    const needsIrq = "declare function poll(ctx: IrqContext): boolean;";
    expect(compilesIrq(`${needsIrq} export const a: NmiHandler = (ctx) => ctx.cpu === 0;`)).toBe(true);
    expect(compilesIrq(`${needsIrq} export const a: NmiHandler = (ctx) => poll(ctx);`)).toBe(false);
    expect(compilesIrq("export const a: NmiHandler = (ctx) => heap.kmalloc(ctx, 64, GFP_KERNEL) !== 0;")).toBe(false);
    expect(compilesIrq("export const a: NmiHandler = function* () { return true; };")).toBe(false);
  });
});

describe("branded addresses", () => {
  it("a frame number is no physical address, and a plain number is neither", () => {
    expect(compiles("export const a: PhysAddr = pfn;")).toBe(false);
    expect(compiles("export const a = pfnToPhys(4096);")).toBe(false);
    expect(compiles("export const a: PhysAddr = pfnToPhys(pfn);")).toBe(true);
  });
});
