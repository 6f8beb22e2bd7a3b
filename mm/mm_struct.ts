/**
 * mm_struct and vm_area_struct: the layout of an address space in RAM.
 *
 * mm_struct (slab cache of that name, 64 bytes):
 *
 * | offset | field      | meaning                                                             |
 * |--------|------------|---------------------------------------------------------------------|
 * | 0      | vma root   | u32, root of the tree of VMAs, ordered by start                     |
 * | 4      | pgd        | u32, frame of the root page table                                   |
 * | 8      | users      | u32, threads that live in it                                        |
 * | 12     | asid       | u32, tag of its TLB entries                                         |
 * | 16     | rss        | u32, pages present (anonymous)                                      |
 * | 20     | total vm   | u32, pages covered by VMAs                                          |
 * | 32     | cpus       | u32 ×2, bit mask of CPUs whose TLB may hold entries                 |
 * | 40     | map count  | u32, number of VMAs                                                 |
 * | 48     | brk bytes  | f64, the program break                                              |
 * | 56     | nr faults  | u32, page faults served                                             |
 *
 * vm_area_struct (64 bytes): tree node at 0; start page u32 at 16, end page u32 at 20; prot and flags at 24, 28; a
 * mapping's name tag at 32. A VMA covers the pages `[start, end)`.
 *
 *   VMA-1  VMAs are disjoint, in order, not empty, inside user space
 *   VMA-2  a new mapping joins neighbours of equal protection and kind (mprotect splits, and does not join again)
 *   VMA-3  total vm = Σ (end − start); rss ≤ total vm
 *
 * Linux keeps VMAs in a maple tree since 6.1; a red-black tree was used before and is what a student can follow.
 */

export const MM_VMA_ROOT = 0;
export const MM_PGD = 4;
export const MM_USERS = 8;
export const MM_ASID = 12;
export const MM_RSS = 16;
export const MM_TOTAL_VM = 20;
export const MM_CPUS = 32;
export const MM_MAP_COUNT = 40;
export const MM_BRK = 48;
export const MM_FAULTS = 56;
export const MM_STRUCT_BYTES = 64;

export const VMA_NODE = 0;
export const VMA_START = 16;
export const VMA_END = 20;
export const VMA_PROT = 24;
export const VMA_KIND = 28;
export const VMA_BYTES = 64;

/** What a VMA is for; only equal kinds merge. */
export const VMA_ANON = 0;
export const VMA_HEAP = 1;
export const VMA_STACK = 2;

/** vm.max_map_count. */
export const MAX_MAP_COUNT = 65_530;
