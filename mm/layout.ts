/**
 * Where the parts of a new address space begin: at fixed places, or at random ones (ASLR).
 *
 *      0x10000000          heap start                                  mmap top        stack top        0x7fffff000
 *          │ 0 … 32 MiB ──▶ │ brk ─▶           ◀─ mappings │ ◀── 0 … 1 GiB │ … ◀─ stack │ ◀── 0 … 8 MiB │
 *
 * Who knows where a stack or a heap is needs only one stray store to be somebody else. So every execve draws three
 * numbers from the stream `aslr` of the machine: the same seed brings the same places, run after run, and another seed
 * others. fork copies the places, because its pages are full of pointers.
 *
 *   | vm part   | bits of a page number    | since kernel.randomize_va_space |
 *   |-----------|--------------------------|---------------------------------|
 *   | stack top | 11, and 8 in the page    | 1                               |
 *   | mmap top  | vm.mmap_rnd_bits, 18     | 1                               |
 *   | heap      | 13                       | 2                               |
 *
 * The text has no pages here (a program is a function, addressed from 0x10000), so there is no image to be moved: every
 * program is what Linux calls ET_EXEC, linked for one address.
 *
 *   ASLR-1  the places are a function of the seed and of how many programs were begun before
 *   ASLR-2  with randomize_va_space 0, or ADDR_NO_RANDOMIZE, they are the fixed ones, and nothing is drawn
 *   ASLR-3  heap, mappings and the stack at its default limit lie apart, whatever is drawn
 *
 * Linux: fs/binfmt_elf.c (randomize_stack_top, arch_randomize_brk), mm/util.c (arch_mmap_rnd). It has 22 bits for the
 * stack of x86-64 and 28 for mmap in 128 TiB; user space is 32 GiB here, and what is left for each is as on a 32-bit
 * machine. The heap stays below 2 GiB, where an address is a small integer to V8.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Prng } from "../kernel/lib/prng.ts";
import { PAGE_SIZE, USER_HEAP_BASE, USER_MMAP_TOP, USER_STACK_TOP } from "../kernel/params.ts";
import type { PhysAddr } from "../kernel/types.ts";

/** Values of kernel.randomize_va_space. */
export const RANDOMIZE_NONE = 0;
export const RANDOMIZE_ALL = 2;

const STACK_RND_PAGES = 2 ** 11;
const HEAP_RND_PAGES = 2 ** 13;
const DEFAULT_MMAP_RND_BITS = 18;
export const MIN_MMAP_RND_BITS = 8;
export const MAX_MMAP_RND_BITS = 20;

/** Most of what a stack has by default, and the gap below it. */
const STACK_ROOM = 8 * 2 ** 20 + 2 ** 20;
if (USER_MMAP_TOP + STACK_ROOM + STACK_RND_PAGES * PAGE_SIZE > USER_STACK_TOP) {
  throw new Error("layout: a random stack may reach the mappings (ASLR-3)");
}
if (USER_HEAP_BASE + HEAP_RND_PAGES * PAGE_SIZE > USER_MMAP_TOP - 2 ** MAX_MMAP_RND_BITS * PAGE_SIZE) {
  throw new Error("layout: a random heap may reach the mappings (ASLR-3)");
}

/** Words of state. */
const MODE = 0;
const MMAP_RND_BITS = 4;
export const LAYOUT_BYTES = 8;

/** Addresses, in pages. */
export interface Places {
  readonly stackTop: number;
  readonly mmapTop: number;
  readonly heapStart: number;
}

export interface Layout {
  /** Places for a new program; `isFixed`: its process has ADDR_NO_RANDOMIZE. */
  draw(isFixed: boolean): Places;
  /** Bytes that the arguments begin below the stack's top: a multiple of 16 below a page. */
  drawStackOffset(isFixed: boolean): number;
  /** kernel.randomize_va_space: 0 none, 1 stack and mmap, 2 (boot's default) the heap, too. */
  mode(): number;
  setMode(mode: number): void;
  /** vm.mmap_rnd_bits. */
  mmapRndBits(): number;
  setMmapRndBits(bits: number): void;
}

export interface LayoutDeps {
  readonly port: MemoryPort;
  readonly random: Prng;
  /** LAYOUT_BYTES of zeroed static memory. */
  readonly state: PhysAddr;
}

export function createLayout({ port, random, state }: LayoutDeps): Layout {
  const mode = (): number => port.ld32(state + MODE);
  const mmapRndBits = (): number => port.ld32(state + MMAP_RND_BITS);
  port.st32(state + MMAP_RND_BITS, DEFAULT_MMAP_RND_BITS);

  return {
    draw(isFixed) {
      const isRandom = mode() !== RANDOMIZE_NONE && !isFixed;
      const below = (pages: number): number => (isRandom ? random.below(pages) : 0);
      const stackTop = USER_STACK_TOP / PAGE_SIZE - below(STACK_RND_PAGES);
      const mmapTop = USER_MMAP_TOP / PAGE_SIZE - below(2 ** mmapRndBits());
      const heapRnd = mode() === RANDOMIZE_ALL ? below(HEAP_RND_PAGES) : 0;
      return { stackTop, mmapTop, heapStart: USER_HEAP_BASE / PAGE_SIZE + heapRnd };
    },
    drawStackOffset: (isFixed) => (mode() === RANDOMIZE_NONE || isFixed ? 0 : 16 * random.below(PAGE_SIZE / 16)),
    mode,
    setMode: (value) => port.st32(state + MODE, value),
    mmapRndBits,
    setMmapRndBits: (bits) => port.st32(state + MMAP_RND_BITS, bits),
  };
}
