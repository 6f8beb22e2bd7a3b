/**
 * The kernel image: static memory, laid out once like .data and .bss by a linker.
 *
 * The first allocation strategy of any system, and the only one at power-on: every table whose size is known before
 * there is an allocator gets a fixed place here, from 1 MiB up. Nothing is ever freed. Boot reserves
 * `[KERNEL_IMAGE_BASE, end)` in memblock and seals the image; a later request is a kernel bug.
 *
 *   IMG-1  symbols are disjoint and in address order
 *   IMG-2  every symbol is aligned as asked, and zero at power-on
 *   IMG-3  no symbol is added after seal()
 */

import { bugOn } from "./bug.ts";
import { KERNEL_IMAGE_BASE, PAGE_SIZE } from "./params.ts";
import { alignUp, asPhys, type PhysAddr } from "./types.ts";

export interface ImageSymbol {
  readonly name: string;
  readonly start: PhysAddr;
  readonly end: PhysAddr;
}

export interface KernelImage {
  /** Reserves `bytes` of zeroed static memory. Boot only. */
  bss(name: string, bytes: number, align?: number): PhysAddr;
  /** Ends the image at the next page boundary and returns that address. */
  seal(): PhysAddr;
  readonly symbols: readonly ImageSymbol[];
}

export function createKernelImage(): KernelImage {
  const symbols: ImageSymbol[] = [];
  let next: number = KERNEL_IMAGE_BASE;
  let isSealed = false;
  return {
    symbols,
    bss(name, bytes, align = 8) {
      bugOn(isSealed, "image: static memory asked for after boot");
      const start = alignUp(next, align);
      next = start + bytes;
      symbols.push({ name, start: asPhys(start), end: asPhys(next) });
      return asPhys(start);
    },
    seal() {
      isSealed = true;
      next = alignUp(next, PAGE_SIZE);
      return asPhys(next);
    },
  };
}
