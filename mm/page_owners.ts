/**
 * Whose is each page frame? The census (census.ts) counts; this names, frame by frame.
 *
 *   struct page:  flags ──▶ free, slab, page table, …      private ──▶ which slab's cache
 *                                                          mapping ──▶ anon_vma ──▶ its first VMA ──▶ address space
 *
 * A picture for people: what changed between two moments, who owns the page in which two runs differ. Reads struct
 * page and the descriptors of slabs and caches only; O(frames). Believes no pointer that it reads: the machine may be
 * broken.
 *
 *   OWN-1  every frame has exactly one owner
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { KERNEL_IMAGE_BASE, PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, type PhysAddr } from "../kernel/types.ts";
import { PRIVATE_IS_BALLOON } from "./balloon_pages.ts";
import { STACK_PAGES } from "./kernel_stack.ts";
import { ANON_VMA_BYTES, AV_LIST, VMA_ANON_LINK, VMA_BYTES, VMA_MM } from "./mm_struct.ts";
import { MAX_NR_ZONES, Z_SPANNED, Z_START_PFN, type Zones } from "./mmzone.ts";
import {
  orderOfFlags,
  type Pages,
  PG_ALLOCATED,
  PG_ANON,
  PG_BUDDY,
  PG_LARGE_KMALLOC,
  PG_PCP,
  PG_SLAB,
  PG_TABLE,
} from "./page.ts";
import { asCache, CACHE_NAME, CACHE_NAME_BYTES, cacheName, PRIVATE_IS_SLAB, SLAB_CACHE } from "./slab_descriptor.ts";
import { PRIVATE_IS_VMALLOC } from "./vmalloc.ts";

export interface PageOwners {
  /** Index into `names`, by frame. */
  readonly owner: Uint16Array;
  readonly names: readonly string[];
}

export interface PageOwnersDeps {
  readonly port: MemoryPort;
  readonly pages: Pages;
  readonly zones: Zones;
  /** Address spaces and what to call them. */
  readonly programs: readonly { readonly mm: PhysAddr; readonly name: string }[];
  /** Lowest pages of kernel stacks, counted in the vmalloc window. */
  readonly stacks: readonly number[];
}

/** What is read of a cache and of a slab. */
const CACHE_READ_BYTES = CACHE_NAME + CACHE_NAME_BYTES;
const SLAB_READ_BYTES = SLAB_CACHE + 4;

/** Owners of all frames. */
export function pageOwners(deps: PageOwnersDeps): PageOwners {
  const { port, pages, zones } = deps;
  const names: string[] = [];
  const indexes = new Map<string, number>();
  const indexOf = (name: string): number => {
    const known = indexes.get(name);
    if (known !== undefined) return known;
    indexes.set(name, names.length);
    return names.push(name) - 1;
  };
  const owner = new Uint16Array(Math.ceil(port.sizeBytes / PAGE_SIZE)).fill(indexOf("reserved at boot"));
  const columns = { start: pages.rowAt(0), end: pages.rowAt(0) + pages.bytes };
  owner.fill(indexOf("kernel image"), KERNEL_IMAGE_BASE / PAGE_SIZE, KERNEL_IMAGE_BASE / PAGE_SIZE + 128);
  owner.fill(indexOf("struct page"), Math.floor(columns.start / PAGE_SIZE), Math.ceil(columns.end / PAGE_SIZE));
  const stacks = new Set(deps.stacks.flatMap((stack) => Array.from({ length: STACK_PAGES }, (_, i) => stack + i)));
  const programs = new Map(deps.programs.map(({ mm, name }) => [mm / 8, name] as const));

  const slabName = (word: number): string => {
    const slab = ((word & ~PRIVATE_IS_SLAB) * 8) >>> 0;
    if ((word & PRIVATE_IS_SLAB) === 0 || slab + SLAB_READ_BYTES > port.sizeBytes) return "slab (damaged)";
    const cache = port.ld32(slab + SLAB_CACHE) * 8;
    return cache + CACHE_READ_BYTES > port.sizeBytes ? "slab (damaged)" : `slab ${cacheName(port, asCache(cache))}`;
  };
  /** Granule of the address space whose VMA is first on the list of the frame's anon_vma; 0 if it leads nowhere. */
  const firstMapper = (pfn: number): number => {
    const anonVma = pages.mapping(asPfn(pfn)) * 8;
    if (anonVma === 0 || anonVma + ANON_VMA_BYTES > port.sizeBytes) return 0;
    const vma = port.ld32(anonVma + AV_LIST) * 8 - VMA_ANON_LINK;
    return vma < 0 || vma + VMA_BYTES > port.sizeBytes ? 0 : port.ld32(vma + VMA_MM);
  };
  const nameOf = (pfn: number, flags: number): string => {
    if ((flags & PG_BUDDY) !== 0) return "free, buddy";
    if ((flags & PG_PCP) !== 0) return "free, per-CPU";
    const word = port.ld32(pages.privateBase + pfn * 4);
    if ((flags & PG_SLAB) !== 0) return slabName(word);
    if ((flags & PG_LARGE_KMALLOC) !== 0) return "large kmalloc";
    if ((flags & PG_ANON) !== 0) return `anonymous, ${programs.get(firstMapper(pfn)) ?? "a process"}`;
    if ((flags & PG_TABLE) !== 0) return "page tables";
    const page = word - PRIVATE_IS_VMALLOC;
    if (page > 0 && page < PRIVATE_IS_VMALLOC) return stacks.has(page) ? "kernel stacks" : "vmalloc";
    return word === PRIVATE_IS_BALLOON ? "balloon" : "files and other";
  };

  for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
    const start = zones.field(zone, Z_START_PFN);
    const end = Math.min(start + zones.field(zone, Z_SPANNED), owner.length);
    for (let pfn = start; pfn < end; ) {
      const flags = port.ld32(pages.rowAt(pfn));
      const isBlock = (flags & (PG_BUDDY | PG_PCP | PG_ALLOCATED)) !== 0;
      const nrPages = isBlock ? 2 ** orderOfFlags(flags) : 1;
      if (isBlock) owner.fill(indexOf(nameOf(pfn, flags)), pfn, Math.min(pfn + nrPages, end));
      pfn += nrPages;
    }
  }
  return { owner, names };
}
