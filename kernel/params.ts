/**
 * Limits and platform constants: the numbers that everything else is built on.
 *
 * Only constants that more than one room needs. Relations between them are asserted at the end, at import.
 */

// ── Pages ──────────────────────────────────────────────────────────────────────────────────────────────────────────

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 4096;

/** Links inside memory count granules, not bytes, so that a 32-bit word reaches all RAM (and all of user space). */
export const GRANULE_SHIFT = 3;
export const GRANULE = 8;

/** Line size of the simulated caches, bytes. Per-CPU structures are padded to it. */
export const CACHE_LINE_SHIFT = 6;
export const CACHE_LINE = 1 << CACHE_LINE_SHIFT;

// ── Machine ────────────────────────────────────────────────────────────────────────────────────────────────────────

export const MAX_CPUS = 64;

/** Smallest RAM that still boots to a shell. */
export const MIN_RAM_BYTES = 8 * 1024 * 1024;

/** Physical addresses end here: the longest typed array that Node 20 can make. */
export const MAX_RAM_BYTES = 4 * 1024 * 1024 * 1024;

export const DEFAULT_RAM_BYTES = 64 * 1024 * 1024;
export const DEFAULT_CPUS = 2;
export const DEFAULT_SEED = "1";

/** The kernel image (static tables and buffers, as .data and .bss would be) starts at 1 MiB, like a PC kernel. */
export const KERNEL_IMAGE_BASE = 0x10_0000;

// ── Virtual time ───────────────────────────────────────────────────────────────────────────────────────────────────

/** Cycles of virtual time per second: a 1 GHz machine, so that one cycle is one nanosecond. */
export const CYCLES_PER_SECOND = 1_000_000_000;

/**
 * A moment this far away or farther never comes: who sleeps until then sleeps for ever (52 days). Below it every cycle
 * is a number of its own, with room to add to.
 */
export const KTIME_MAX = 2 ** 52;

/** Timer interrupts a second. */
export const HZ = 250;
export const CYCLES_PER_TICK = CYCLES_PER_SECOND / HZ;

// ── Address space of a process (Sv39 has 256 GiB for it) ───────────────────────────────────────────────────────────

/**
 * One past the highest user address: 32 GiB, so that a user address in granules is an unsigned 32-bit number and a
 * user-level allocator may link its blocks with 32-bit words, as the kernel does.
 */
export const TASK_SIZE = 0x8_0000_0000;

/** Programs are "loaded" here; the heap (brk) starts above. */
export const USER_TEXT_BASE = 0x1_0000;
export const USER_HEAP_BASE = 0x1000_0000;
/** mmap searches downwards from here; the stack is above it. */
export const USER_MMAP_TOP = 0x7_f000_0000;
export const USER_STACK_TOP = 0x7_ffff_f000;

// ── Address space of the kernel ────────────────────────────────────────────────────────────────────────────────────

/**
 * Where vmalloc and kernel stacks are: 32 GiB in the upper half of what Sv39 lets a process have. Everything else of
 * the kernel is identity-mapped. Page numbers within the window fit the TLB's tags beside an ASID of 0.
 */
export const VMALLOC_START = 0x20_0000_0000;
export const VMALLOC_BYTES = 0x8_0000_0000;

if (VMALLOC_START < TASK_SIZE) throw new Error("params: the vmalloc window overlaps user space");
if (1 << PAGE_SHIFT !== PAGE_SIZE) throw new Error("params: PAGE_SIZE is not 1 << PAGE_SHIFT");
if (1 << GRANULE_SHIFT !== GRANULE) throw new Error("params: GRANULE is not 1 << GRANULE_SHIFT");
if (TASK_SIZE / GRANULE !== 2 ** 32) throw new Error("params: a user address in granules must fit 32 bits");
if (MAX_RAM_BYTES / GRANULE > 2 ** 32) throw new Error("params: a physical address in granules must fit 32 bits");
