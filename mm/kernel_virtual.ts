/**
 * Loads and stores at addresses of the kernel's window (vmalloc, kernel stacks).
 *
 * All other kernel memory is identity-mapped: a physical address is what the kernel points with, and the memory port
 * takes it as it is. A window address means nothing to the port; on real hardware the MMU would translate it on every
 * access, here this file asks the MMU (TLB, then the kernel's table) and then the port. Making the port do so would put
 * a test into each access of the kernel, for the few that are to the window.
 *
 *      ld32(ctx, va) ─▶ mmu.translateKernel ─▶ port.ld32
 *                            └─ nothing there: the fault handler (kernel_stack.ts looks first), then an oops
 *
 *   KVA-1  an access that crosses into a page that is not mapped touches nothing
 *   KVA-2  nothing outside the window is reachable from here
 *
 * Context: any; the CPU is the context's. Linux: arch/…/mm/fault.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { MMU_FAULT } from "../kernel/arch/mmu.ts";
import { bug, bugOn } from "../kernel/bug.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import type { Context, VirtAddr } from "../kernel/types.ts";

export interface KernelVirtual {
  ld8(ctx: Context, va: VirtAddr): number;
  st8(ctx: Context, va: VirtAddr, value: number): void;
  /** `va` is 4-aligned. */
  ld32(ctx: Context, va: VirtAddr): number;
  st32(ctx: Context, va: VirtAddr, value: number): void;
  /** Any length, over as many pages as it takes. */
  fill(ctx: Context, va: VirtAddr, value: number, bytes: number): void;
  read(ctx: Context, va: VirtAddr, bytes: number): Uint8Array;
  write(ctx: Context, va: VirtAddr, bytes: Uint8Array): void;
  /** Registers who may know better what a fault means, and oopses if so; it may not return where it does. */
  onFault(explain: (ctx: Context, va: number) => void): void;
}

export function createKernelVirtual({ port, mmu }: Pick<Machine, "port" | "mmu">): KernelVirtual {
  let explain: (ctx: Context, va: number) => void = () => {};

  const translate = (ctx: Context, va: number, isWrite: boolean): number => {
    const addr = mmu.translateKernel(ctx.cpu, va, isWrite);
    if (addr !== MMU_FAULT) return addr;
    explain(ctx, va);
    return bug("unable to handle page fault for address", va);
  };

  /** Calls `work(addr, done, n)` for each part within a page; every page is there before the first (KVA-1). */
  const eachPart = (
    ctx: Context,
    va: number,
    bytes: number,
    isWrite: boolean,
    work: (addr: number, done: number, n: number) => void,
  ): void => {
    const partAt = (done: number): number => Math.min(bytes - done, PAGE_SIZE - ((va + done) % PAGE_SIZE));
    for (let done = 0; done < bytes; done += partAt(done)) translate(ctx, va + done, isWrite);
    for (let done = 0; done < bytes; done += partAt(done)) {
      work(translate(ctx, va + done, isWrite), done, partAt(done));
    }
  };

  return {
    ld8: (ctx, va) => port.ld8(translate(ctx, va, false)),
    st8: (ctx, va, value) => port.st8(translate(ctx, va, true), value),
    ld32(ctx, va) {
      bugOn(va % 4 !== 0, "kernel_virtual: a word that is not aligned", va);
      return port.ld32(translate(ctx, va, false));
    },
    st32(ctx, va, value) {
      bugOn(va % 4 !== 0, "kernel_virtual: a word that is not aligned", va);
      port.st32(translate(ctx, va, true), value);
    },
    fill: (ctx, va, value, bytes) => eachPart(ctx, va, bytes, true, (addr, _, n) => port.fill(addr, value, n)),
    read(ctx, va, bytes) {
      const result = new Uint8Array(bytes);
      eachPart(ctx, va, bytes, false, (addr, done, n) => result.set(port.readBytes(addr, n), done));
      return result;
    },
    write: (ctx, va, bytes) =>
      eachPart(ctx, va, bytes.length, true, (addr, done, n) => port.writeBytes(addr, bytes.subarray(done, done + n))),
    onFault(hook) {
      explain = hook;
    },
  };
}
