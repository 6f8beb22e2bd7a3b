/**
 * The kernel's own slab caches: task_struct, mm_struct, vm_area_struct, anon_vma, and kernel stacks beside them.
 *
 * These are the first customers of the slab allocator, and what /proc/slabinfo shows of a running system.
 */

import {
  __GFP_NOWARN,
  ANON_VMA_BYTES,
  GFP_KERNEL,
  type KmemCache,
  MM_STRUCT_BYTES,
  type MmCaches,
  NR_KERNEL_STACK_KB,
  type PageAllocator,
  type Pages,
  SLAB_HWCACHE_ALIGN,
  type SlabSubsystem,
  VMA_BYTES,
  type VmStat,
} from "../../mm/index.ts";
import type { MemoryPort } from "../arch/port.ts";
import { bug } from "../bug.ts";
import type { TaskMemory } from "../task.ts";
import { TASK_STACK, TASK_STRUCT_BYTES } from "../task_struct.ts";
import { asPfn, asPhys, type Context, NO_PFN, NULL, type PhysAddr, type TaskContext } from "../types.ts";
import type { ReplayHeap } from "./kernel_replay.ts";

/** log2 of the pages of a kernel stack: 16 KiB. */
const STACK_ORDER = 2;

export interface ObjectUsers {
  readonly taskMemory: TaskMemory;
  readonly mmCaches: MmCaches;
  readonly replayHeap: ReplayHeap;
}

export interface ObjectUsersDeps {
  readonly port: MemoryPort;
  readonly slab: SlabSubsystem;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly vmstat: VmStat;
  readonly bootCtx: TaskContext;
}

/** A result that cannot sleep here because no reclaim is registered: the number, or NULL. */
const now = (result: number | object): PhysAddr => (typeof result === "number" ? (result as PhysAddr) : NULL);

export function createObjectUsers(deps: ObjectUsersDeps): ObjectUsers {
  const { port, slab, pageAlloc, vmstat, bootCtx } = deps;
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
  const alloc = (ctx: Context, cache: KmemCache): PhysAddr =>
    now(layer.kmemCacheAllocAny(ctx, cache, GFP_KERNEL | __GFP_NOWARN));

  return {
    taskMemory: {
      alloc(ctx) {
        const stack = pageAlloc.tryAllocPages(ctx, STACK_ORDER, GFP_KERNEL);
        if (stack === NO_PFN) return NULL;
        const struct = alloc(ctx, taskCache);
        if (struct === NULL) {
          pageAlloc.freePages(ctx, stack, STACK_ORDER);
          return NULL;
        }
        port.fill(struct, 0, TASK_STRUCT_BYTES);
        port.st32(struct + TASK_STACK, stack);
        vmstat.modItem(NR_KERNEL_STACK_KB, 4 << STACK_ORDER);
        return struct;
      },
      free(ctx, struct) {
        pageAlloc.freePages(ctx, asPfn(port.ld32(struct + TASK_STACK)), STACK_ORDER);
        vmstat.modItem(NR_KERNEL_STACK_KB, -(4 << STACK_ORDER));
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
