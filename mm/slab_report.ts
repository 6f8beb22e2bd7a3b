/**
 * Slab reports: what is printed when somebody misuses an object, in the words of Linux (S9).
 *
 *   =============================================================================                      77 of them
 *   BUG kmalloc-64 (Not tainted): Object already free
 *   -----------------------------------------------------------------------------
 *
 *   Slab 0x00200000 objects=64 used=3 fp=0x00200040 flags=0x…
 *   Object 0x00200080 @offset=128 fp=0x002000c0
 *
 *   Object   00200080: 78 56 34 12 …                                                          at most 64 bytes
 *   CPU: 0 … Call Trace: …
 *   FIX kmalloc-64: Object at 0x00200080 not freed
 *
 * Every report taints the kernel with 'B' (bad page or object). The reader reads memory and changes none but the log.
 * Context: any, also under a cache lock: printk takes no lock that could be held here.
 * Source: mm/slub.c (slab_bug, print_trailer, slab_fix), mm/slab.h (cache_from_obj).
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { KERN_ERR, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import { createRatelimit, DEFAULT_RATELIMIT } from "../kernel/ratelimit.ts";
import { type Context, fromGranule, type Pfn, type PhysAddr, pfnToPhys } from "../kernel/types.ts";
import { gfpNames } from "./gfp.ts";
import type { Pages } from "./page.ts";
import {
  asCache,
  CACHE_FREE_POINTER,
  CACHE_NR_INUSE,
  CACHE_NR_SLABS,
  CACHE_OBJECT_SIZE,
  CACHE_OBJECTS,
  CACHE_ORDER,
  CACHE_SIZE,
  cacheName,
  type KmemCache,
  SLAB_CACHE,
  SLAB_FREELIST,
  SLAB_INUSE,
  SLAB_OBJECTS,
  SLAB_PFN,
  type Slab,
} from "./slab_descriptor.ts";

const DUMP_BYTES = 64;
const ROW_BYTES = 16;

export interface SlabReports {
  /** A bug about one object of `slab`: frame, slab, object, bytes, stack, and what was done about it. */
  objectBug(ctx: Context, slab: Slab, obj: number, reason: string, fix: string): void;
  /** A bug about an address that belongs to no slab. */
  addressBug(ctx: Context, reason: string): void;
  /** Opens the report of a cache that is destroyed while `reason` holds. */
  cacheBug(cache: KmemCache, reason: string): void;
  /** One `Slab 0x…` line, as part of a report. */
  slabLine(slab: Slab): void;
  /** One `Object 0x… @offset=…` line, as part of a report. */
  objectLine(slab: Slab, obj: number): void;
  /** A `WARNING:` with a stack. */
  warning(ctx: Context, text: string): void;
  /** The slab allocator's own word after the page allocator's failure splat; ten in five seconds at most. */
  outOfMemory(ctx: Context, cache: KmemCache, gfp: number): void;
}

/** Address as `%p` prints it on our 32-bit physical space; odd values of misbehaving callers as they are. */
export const hexAddr = (addr: number): string =>
  Number.isInteger(addr) && addr >= 0 ? `0x${addr.toString(16).padStart(8, "0")}` : String(addr);

/** `state`: RATELIMIT_BYTES of zeroed static memory. */
export function createSlabReports(
  machine: Machine,
  contexts: ContextTracking,
  printk: Printk,
  pages: Pages,
  state: PhysAddr,
): SlabReports {
  const { port, harts } = machine;
  const mayComplain = createRatelimit(port, printk, state, { name: "slab_out_of_memory", ...DEFAULT_RATELIMIT });

  const frame = (cache: KmemCache, reason: string): void => {
    const line = `BUG ${cacheName(port, cache)} (${contexts.taintText()}): ${reason}`;
    contexts.taint("B");
    printk(KERN_ERR, ["=".repeat(77), line, "-".repeat(77), ""].join("\n"));
  };

  const cacheOf = (slab: Slab): KmemCache => asCache(fromGranule(port.ld32(slab + SLAB_CACHE)));
  const slabStart = (slab: Slab): number => pfnToPhys(port.ld32(slab + SLAB_PFN) as Pfn);

  const slabLine = (slab: Slab): void => {
    const flags = pages.flags(port.ld32(slab + SLAB_PFN) as Pfn);
    printk(
      KERN_ERR,
      `Slab ${hexAddr(slabStart(slab))} objects=${port.ld32(slab + SLAB_OBJECTS)} ` +
        `used=${port.ld32(slab + SLAB_INUSE)} ` +
        `fp=${hexAddr(fromGranule(port.ld32(slab + SLAB_FREELIST)))} flags=0x${flags.toString(16)}`,
    );
  };

  /** Hexadecimal and printable bytes of an object, 16 to a row. */
  const dump = (addr: number, bytes: number): string[] => {
    const rows: string[] = [];
    for (let row = 0; row < bytes; row += ROW_BYTES) {
      let hex = "";
      let text = "";
      for (let i = row; i < Math.min(row + ROW_BYTES, bytes); i++) {
        const byte = port.ld8(addr + i);
        hex += ` ${byte.toString(16).padStart(2, "0")}`;
        text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".";
      }
      rows.push(`Object   ${(addr + row).toString(16).padStart(8, "0")}:${hex.padEnd(ROW_BYTES * 3)}  ${text}`);
    }
    return rows;
  };

  const objectLines = (slab: Slab, obj: number): string[] => {
    const cache = cacheOf(slab);
    // A pointer into the middle of an object near the end of a slab must not make us read past it.
    const end = slabStart(slab) + PAGE_SIZE * 2 ** port.ld32(cache + CACHE_ORDER);
    const link = obj + port.ld32(cache + CACHE_FREE_POINTER);
    const next = link % 4 === 0 && link < end ? fromGranule(port.ld32(link)) : 0;
    const first = `Object ${hexAddr(obj)} @offset=${obj - slabStart(slab)} fp=${hexAddr(next)}`;
    if (!Number.isInteger(obj) || obj < slabStart(slab) || obj >= end) return [first, ""];
    return [first, "", ...dump(obj, Math.min(port.ld32(cache + CACHE_OBJECT_SIZE), DUMP_BYTES, end - obj))];
  };

  return {
    objectBug(ctx, slab, obj, reason, fix) {
      const name = cacheName(port, cacheOf(slab));
      frame(cacheOf(slab), reason);
      slabLine(slab);
      printk(KERN_ERR, [...objectLines(slab, obj), contexts.stackDump(ctx), `FIX ${name}: ${fix}`].join("\n"));
    },
    addressBug(ctx, reason) {
      contexts.taint("B");
      printk(KERN_ERR, `BUG: ${reason}\n${contexts.stackDump(ctx)}`);
    },
    cacheBug: frame,
    slabLine,
    objectLine: (slab, obj) => printk(KERN_ERR, `Object ${hexAddr(obj)} @offset=${obj - slabStart(slab)}`),
    warning: (ctx, text) => printk(KERN_WARNING, `WARNING: ${text}\n${contexts.stackDump(ctx)}`),
    outOfMemory(ctx, cache, gfp) {
      if (!mayComplain(harts.clock[ctx.cpu] as number)) return;
      const order = port.ld32(cache + CACHE_ORDER);
      const slabs = port.ld32(cache + CACHE_NR_SLABS);
      const objects = slabs * port.ld32(cache + CACHE_OBJECTS);
      printk(
        KERN_WARNING,
        [
          `SLUB: Unable to allocate memory on CPU ${ctx.cpu} (of node 0) on node -1, ` +
            `gfp=0x${gfp.toString(16)}(${gfpNames(gfp)})`,
          `  cache: ${cacheName(port, cache)}, object size: ${port.ld32(cache + CACHE_OBJECT_SIZE)}, ` +
            `buffer size: ${port.ld32(cache + CACHE_SIZE)}, default order: ${order}, min order: ${order}`,
          `  node 0: slabs: ${slabs}, objs: ${objects}, free: ${objects - port.ld32(cache + CACHE_NR_INUSE)}`,
        ].join("\n"),
      );
    },
  };
}
