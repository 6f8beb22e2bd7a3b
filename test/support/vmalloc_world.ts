/**
 * vmalloc, the accessor of the kernel's window and kernel stacks over a real page allocator; struct vmap_area from whole
 * pages. Page allocations fail when `refuse` says so.
 */

import { expect } from "vitest";
import { type Context, NO_PFN, NULL, type Pfn, type PhysAddr, pfnToPhys, physToPfn } from "../../kernel/types.ts";
import { __GFP_NOWARN, GFP_KERNEL } from "../../mm/gfp.ts";
import { createKernelStacks } from "../../mm/kernel_stack.ts";
import { createKernelVirtual } from "../../mm/kernel_virtual.ts";
import { createPageTables } from "../../mm/pgtable.ts";
import { createVmalloc, VMALLOC_STATIC_BYTES } from "../../mm/vmalloc.ts";
import { NR_VMALLOC } from "../../mm/vmstat.ts";
import { bootPageLevel } from "./page_level.ts";

const GFP = GFP_KERNEL | __GFP_NOWARN;

export function bootVmalloc(refuse: () => boolean = () => false) {
  let statics = 0;
  const m = bootPageLevel({
    ramBytes: 24 * 2 ** 20,
    compose: ({ image }) => {
      statics = image.bss("vmalloc", VMALLOC_STATIC_BYTES, 8);
    },
  });
  const { machine, pages, vmstat, printk, ctx } = m;
  const pageAlloc: typeof m.pageAlloc = {
    ...m.pageAlloc,
    tryAllocPages: (c, order, gfp) => (refuse() ? NO_PFN : m.pageAlloc.tryAllocPages(c, order, gfp)),
  };
  const allocArea = (c: Context): PhysAddr => {
    const pfn: Pfn = pageAlloc.tryAllocPages(c, 0, GFP);
    return pfn === NO_PFN ? NULL : pfnToPhys(pfn);
  };
  const freeArea = (c: Context, area: PhysAddr): void => {
    pageAlloc.freePages(c, physToPfn(area), 0);
  };
  const pageTables = createPageTables(machine.port, pages, pageAlloc, vmstat);
  const areas = { allocArea, freeArea, statics: statics as PhysAddr };
  const vm = createVmalloc({ machine, printk, pages, pageAlloc, pageTables, vmstat, ...areas }, ctx);
  const virtual = createKernelVirtual(machine);
  m.pageAlloc.drainAllPages(ctx);
  const freeAtStart = m.zones.totalFree();
  return {
    ...m,
    vm,
    virtual,
    stacks: createKernelStacks({ port: machine.port, contexts: m.contexts, printk, vmalloc: vm, virtual, vmstat }),
    expectAllBack() {
      vm.purge(ctx);
      expect(vm.check()).toBeNull();
      expect(vmstat.item(NR_VMALLOC)).toBe(0);
      m.pageAlloc.drainAllPages(ctx);
      expect(m.pageAlloc.check()).toBeNull();
      expect(m.zones.totalFree()).toBe(freeAtStart);
    },
  };
}
