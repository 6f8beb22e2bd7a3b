/**
 * LKDTM: making the kernel crash in known ways, to see that it says what happened.
 *
 *      echo EXHAUST_STACK > /sys/kernel/debug/provoke-crash/DIRECT
 *
 * | crash point              | what it does                                 | what is said                 |
 * |--------------------------|----------------------------------------------|------------------------------|
 * | EXHAUST_STACK            | calls itself until the kernel stack is full  | stack guard page was hit     |
 * | STACK_GUARD_PAGE_LEADING | reads the byte below the stack               | the same                     |
 * | VMALLOC_LINEAR_OVERFLOW  | writes one byte behind an area of vmalloc    | unable to handle page fault  |
 * | BUG                      | finds the kernel broken                      | kernel BUG                   |
 * | PANIC                    | stops the machine                            | Kernel panic                 |
 *
 * The task that writes the name runs into it, and dies (but for PANIC). Source: drivers/misc/lkdtm.
 */

import { GFP_KERNEL, type KernelStacks, type KernelVirtual, type Vmalloc } from "../../mm/index.ts";
import type { MemoryPort } from "../arch/port.ts";
import { bug } from "../bug.ts";
import type { FileRegistry } from "../file.ts";
import { PAGE_SIZE, VMALLOC_START } from "../params.ts";
import type { Task } from "../task.ts";
import { TASK_STACK } from "../task_struct.ts";
import { asVirt, type Sleeping } from "../types.ts";
import { EINVAL, ENOMEM } from "../uapi/errno.ts";

const DIR = "/sys/kernel/debug/provoke-crash";
/** What one call of the recursion takes: REC_STACK_SIZE is THREAD_SIZE / 8 in Linux. */
const FRAME_BYTES = 2048;

export interface LkdtmDeps {
  readonly port: MemoryPort;
  readonly stacks: KernelStacks;
  readonly vmalloc: Vmalloc;
  readonly virtual: KernelVirtual;
  readonly panic: (reason: string) => void;
}

export function registerLkdtm(registry: FileRegistry, deps: LkdtmDeps): void {
  const { port, stacks, vmalloc, virtual } = deps;

  const recurse = ({ ctx }: Task): number => {
    for (;;) stacks.enter(ctx, FRAME_BYTES);
  };
  const belowStack = ({ ctx, struct }: Task): number =>
    virtual.ld8(ctx, asVirt(VMALLOC_START + port.ld32(struct + TASK_STACK) * PAGE_SIZE - 1));
  const behindArea = ({ ctx }: Task): number => {
    const area = vmalloc.vmalloc(ctx, PAGE_SIZE, GFP_KERNEL, "lkdtm_VMALLOC_LINEAR_OVERFLOW");
    if (area === 0) return -ENOMEM;
    try {
      virtual.st8(ctx, asVirt(area + PAGE_SIZE), 0xaa);
      return 0;
    } finally {
      vmalloc.vfree(ctx, area);
    }
  };

  const points: ReadonlyMap<string, (task: Task) => number> = new Map([
    ["EXHAUST_STACK", recurse],
    ["STACK_GUARD_PAGE_LEADING", belowStack],
    ["VMALLOC_LINEAR_OVERFLOW", behindArea],
    ["BUG", () => bug("lkdtm_BUG")],
    [
      "PANIC",
      () => {
        deps.panic("dumptest");
        return 0;
      },
    ],
  ]);

  registry.registerText(`${DIR}/DIRECT`, {
    read: () => `Available crash types:\n${[...points.keys()].join("\n")}\n`,
    *write(task: Task, text: string): Sleeping<number> {
      const crash = points.get(text.trim());
      return crash === undefined ? -EINVAL : Math.min(0, crash(task));
    },
  });
}

/** /proc/vmallocinfo. Source: mm/vmalloc.c (vmalloc_info_show). */
export function registerVmallocinfo(registry: FileRegistry, vmalloc: Vmalloc): void {
  const hex = (n: number): string => `0x${n.toString(16).padStart(16, "0")}`;
  registry.registerText("/proc/vmallocinfo", {
    read: () =>
      vmalloc
        .areas()
        .map(({ start, end, nrPages, caller }) => {
          const size = String(end - start).padStart(7);
          return `${hex(start)}-${hex(end)} ${size} ${caller} pages=${nrPages} vmalloc\n`;
        })
        .join(""),
  });
}
