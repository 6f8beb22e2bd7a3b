/**
 * Kernel stacks: 16 KiB for each task, with a page below that is never there.
 *
 *      window   … |– –|▓ ▓ ▓ ▓|– –|▓ ▓ ▓ ▓|– – …
 *                   ▲   ▲     ▲
 *               guard   │     └ top: the first frame is here, and the stack grows down
 *                       └ what is left
 *
 * A kernel stack is small, and nothing checks how deep calls are. On a stack of neighbouring frames the call too many
 * writes over whatever lies below. So stacks are areas of vmalloc (Linux: CONFIG_VMAP_STACK): below each is the guard
 * of the area before, or the first page of the window, and the store that goes too far finds no page.
 *
 * The code of a task runs on the host's stack. What is kept here is what its calls would take: `enter` pushes a frame
 * and writes a record into it, `leave` pops it. A frame larger than a page is written to in each page that it covers,
 * so that it cannot step over the guard.
 *
 *   KST-1  the depth of a task is the sum of its frames, at most 16 KiB; the records are in the pages of its stack
 *   KST-2  a frame that would lie below the stack is reported as Linux reports it, and the task dies; no byte outside
 *          of the stack is written
 *   KST-3  NR_KERNEL_STACK_KB = 16 × stacks
 *
 * Context: of the task. Source: arch/x86/kernel/traps.c (handle_stack_overflow), kernel/fork.c
 * (alloc_thread_stack_node).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { PAGE_SIZE, VMALLOC_START } from "../kernel/params.ts";
import { KERN_EMERG, type Printk } from "../kernel/printk.ts";
import { TASK_STACK, TASK_STACK_USED } from "../kernel/task_struct.ts";
import { asPhys, asVirt, type Context, type PhysAddr, type VirtAddr } from "../kernel/types.ts";
import { __GFP_NOWARN, GFP_KERNEL } from "./gfp.ts";
import type { KernelVirtual } from "./kernel_virtual.ts";
import type { Vmalloc } from "./vmalloc.ts";
import { NR_KERNEL_STACK_KB, type VmStat } from "./vmstat.ts";

export const STACK_PAGES = 4;
const STACK_BYTES = STACK_PAGES * PAGE_SIZE;
const STACK_KIB = STACK_BYTES / 1024;
const STACK_GFP = GFP_KERNEL | __GFP_NOWARN;

export interface KernelStacks {
  /** A stack: number of its lowest page in the window, as task_struct keeps it; 0 without memory. */
  alloc(ctx: Context): number;
  free(ctx: Context, stack: number): void;
  /** A call that takes `bytes` of the current task's stack, a multiple of 16; oopses when there is no room (KST-2). */
  enter(ctx: Context, bytes: number): void;
  /** The call is over. */
  leave(ctx: Context, bytes: number): void;
}

export interface KernelStacksDeps {
  readonly port: MemoryPort;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly vmalloc: Vmalloc;
  readonly virtual: KernelVirtual;
  readonly vmstat: VmStat;
}

const addressOf = (page: number): VirtAddr => asVirt(VMALLOC_START + page * PAGE_SIZE);
const hex = (n: number): string => n.toString(16).padStart(16, "0");

export function createKernelStacks(deps: KernelStacksDeps): KernelStacks {
  const { port, contexts, printk, vmalloc, virtual, vmstat } = deps;

  /** The current task with its stack; a task is what has one. */
  const current = (ctx: Context): { task: PhysAddr; base: number } => {
    const task = asPhys(contexts.currentTask(ctx));
    bugOn(task === 0, "kernel_stack: a frame without a task");
    return { task, base: addressOf(port.ld32(task + TASK_STACK)) };
  };

  virtual.onFault((ctx, va) => {
    if (contexts.currentTask(ctx) === 0) return;
    const { base } = current(ctx);
    if (va >= base || va < base - PAGE_SIZE) return;
    const range = `${hex(base)}..${hex(base + STACK_BYTES - 1)}`;
    printk(KERN_EMERG, `BUG: TASK stack guard page was hit at ${hex(va)} (stack is ${range})`);
    bug("stack guard page: kernel stack overflow");
  });

  return {
    alloc(ctx) {
      const va = vmalloc.vmalloc(ctx, STACK_BYTES, STACK_GFP, "alloc_thread_stack_node");
      if (va === 0) return 0;
      vmstat.modItem(NR_KERNEL_STACK_KB, STACK_KIB);
      return (va - VMALLOC_START) / PAGE_SIZE;
    },
    free(ctx, stack) {
      vmalloc.vfree(ctx, addressOf(stack));
      vmstat.modItem(NR_KERNEL_STACK_KB, -STACK_KIB);
    },
    enter(ctx, bytes) {
      const { task, base } = current(ctx);
      const old = base + STACK_BYTES - port.ld32(task + TASK_STACK_USED);
      const sp = old - bytes;
      for (let at = old - PAGE_SIZE; at > sp; at -= PAGE_SIZE) virtual.st32(ctx, asVirt(at), 0);
      virtual.st32(ctx, asVirt(sp), bytes);
      port.st32(task + TASK_STACK_USED, base + STACK_BYTES - sp);
    },
    leave(ctx, bytes) {
      const { task, base } = current(ctx);
      const used = port.ld32(task + TASK_STACK_USED);
      const record = virtual.ld32(ctx, asVirt(base + STACK_BYTES - used));
      bugOn(record !== bytes, "KST-1: a call returns that was not the last", record, bytes);
      port.st32(task + TASK_STACK_USED, used - bytes);
    },
  };
}
