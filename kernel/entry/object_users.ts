/**
 * The kernel's own slab caches: task_struct, mm_struct, vm_area_struct and what belongs to them, vmap_area; and kernel
 * stacks.
 *
 * These are the first customers of the slab allocator, and what /proc/slabinfo shows of a running system.
 */

import {
  __GFP_NOWARN,
  ADDRESS_SPACE_BYTES,
  ANON_VMA_BYTES,
  createKernelStacks,
  createKernelVirtual,
  createVmalloc,
  GFP_KERNEL,
  type KernelStacks,
  type KernelVirtual,
  type KmemCache,
  MM_STRUCT_BYTES,
  type MmCaches,
  type PageAllocator,
  type Pages,
  type PageTables,
  RADIX_NODE_BYTES,
  SLAB_HWCACHE_ALIGN,
  type SlabSubsystem,
  VMA_BYTES,
  VMAP_AREA_BYTES,
  type Vmalloc,
  type VmStat,
} from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import { bug } from "../bug.ts";
import type { ContextTracking } from "../context.ts";
import type { Printk } from "../printk.ts";
import type { TaskMemory } from "../task.ts";
import { TASK_STACK, TASK_STRUCT_BYTES } from "../task_struct.ts";
import { asPhys, type Context, NULL, type PhysAddr, type TaskContext } from "../types.ts";
import type { ReplayHeap } from "./kernel_replay.ts";

export interface ObjectUsers {
  readonly taskMemory: TaskMemory;
  readonly mmCaches: MmCaches;
  readonly replayHeap: ReplayHeap;
  readonly stacks: KernelStacks;
  readonly vmalloc: Vmalloc;
  readonly virtual: KernelVirtual;
}

export interface ObjectUsersDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly pageTables: PageTables;
  /** VMALLOC_STATIC_BYTES of zeroed static memory. */
  readonly vmallocStatics: PhysAddr;
  readonly slab: SlabSubsystem;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly vmstat: VmStat;
  readonly bootCtx: TaskContext;
}

/** A result that cannot sleep here because no reclaim is registered: the number, or NULL. */
const now = (result: number | object): PhysAddr => (typeof result === "number" ? (result as PhysAddr) : NULL);

export function createObjectUsers(deps: ObjectUsersDeps): ObjectUsers {
  const { machine, contexts, printk, slab, vmstat, bootCtx } = deps;
  const { port } = machine;
  const { layer } = slab;

  const createCache = (ctx: TaskContext, name: string, size: number, flags: number): KmemCache =>
    slab.kmemCacheCreate(ctx, { name, size, align: 8, flags });
  const mustCreate = (name: string, size: number): KmemCache => {
    const cache = createCache(bootCtx, name, size, SLAB_HWCACHE_ALIGN);
    return cache === 0 ? bug("boot: no memory for a slab cache") : cache;
  };
  const taskCache = mustCreate("task_struct", TASK_STRUCT_BYTES);
  const mmCache = mustCreate("mm_struct", MM_STRUCT_BYTES);
  const vmaCache = mustCreate("vm_area_struct", VMA_BYTES);
  const anonVmaCache = mustCreate("anon_vma", ANON_VMA_BYTES);
  const mappingCache = mustCreate("address_space", ADDRESS_SPACE_BYTES);
  const nodeCache = mustCreate("radix_tree_node", RADIX_NODE_BYTES);
  const alloc = (ctx: Context, cache: KmemCache): PhysAddr =>
    now(layer.kmemCacheAllocAny(ctx, cache, GFP_KERNEL | __GFP_NOWARN));

  const areaCache = mustCreate("vmap_area", VMAP_AREA_BYTES);
  const areas = {
    allocArea: (ctx: Context) => alloc(ctx, areaCache),
    freeArea: (ctx: Context, area: PhysAddr) => {
      layer.kmemCacheFree(ctx, areaCache, area);
    },
    statics: deps.vmallocStatics,
  };
  const vmalloc = createVmalloc({ ...deps, ...areas }, bootCtx);
  const virtual = createKernelVirtual(machine);
  const stacks = createKernelStacks({ port, contexts, printk, vmalloc, virtual, vmstat });

  return {
    stacks,
    vmalloc,
    virtual,
    taskMemory: {
      alloc(ctx) {
        const stack = stacks.alloc(ctx);
        if (stack === 0) return NULL;
        const struct = alloc(ctx, taskCache);
        if (struct === NULL) {
          stacks.free(ctx, stack);
          return NULL;
        }
        port.fill(struct, 0, TASK_STRUCT_BYTES);
        port.st32(struct + TASK_STACK, stack);
        return struct;
      },
      free(ctx, struct) {
        stacks.free(ctx, port.ld32(struct + TASK_STACK));
        layer.kmemCacheFree(ctx, taskCache, struct);
      },
    },
    mmCaches: {
      allocMm: (ctx) => alloc(ctx, mmCache),
      freeMm: (ctx, mm) => {
        layer.kmemCacheFree(ctx, mmCache, mm);
      },
      allocVma: (ctx) => alloc(ctx, vmaCache),
      freeVma: (ctx, vma) => {
        layer.kmemCacheFree(ctx, vmaCache, vma);
      },
      allocAnonVma: (ctx) => alloc(ctx, anonVmaCache),
      freeAnonVma: (ctx, anonVma) => {
        layer.kmemCacheFree(ctx, anonVmaCache, anonVma);
      },
      allocMapping: (ctx) => alloc(ctx, mappingCache),
      freeMapping: (ctx, mapping) => {
        layer.kmemCacheFree(ctx, mappingCache, mapping);
      },
      allocNode: (ctx) => alloc(ctx, nodeCache),
      freeNode: (ctx, node) => {
        layer.kmemCacheFree(ctx, nodeCache, node);
      },
    },
    replayHeap: {
      kmalloc: (ctx, bytes, gfp) => now(slab.kmalloc.kmallocAny(ctx, bytes, gfp)),
      kfree: (ctx, addr) => slab.kmalloc.kfree(ctx, asPhys(addr)),
      cacheAlloc: (ctx, cache, gfp) => now(layer.kmemCacheAllocAny(ctx, cache, gfp)),
      cacheFree: (ctx, cache, addr) => layer.kmemCacheFree(ctx, cache, asPhys(addr)),
      createCache: (ctx, name, bytes) => createCache(ctx, name, bytes, 0),
      destroyCache: (ctx, cache) => slab.kmemCacheDestroy(ctx, cache),
    },
  };
}
