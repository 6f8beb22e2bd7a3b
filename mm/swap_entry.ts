/**
 * What the rest of mm/ knows about swap: the entry that stands in a page table for a page that is not in RAM.
 *
 *      31                       10 9     2 1 0
 *     | slot number               |   0   |1|V=0|          word 0: no page and no slot, demand zero or file
 *
 * The hardware looks at V only; all other bits of an invalid entry belong to the kernel. Bit 1 is set so that slot 0
 * is not the empty word. Whoever walks page tables meets such entries: zapping frees the slot, fork makes a second
 * reference, a fault brings the page back. What that means is the swap layer's business; it replaces `noSwap`.
 *
 *   SWE-1  isSwapPte(swapPteOf(slot)) and slotOfPte(swapPteOf(slot)) = slot for every slot below MAX_SWAP_SLOTS
 *   SWE-2  no valid entry and not the empty word is a swap entry
 *
 * Linux: include/linux/swapops.h, arch/riscv/include/asm/pgtable.h.
 */

import { PTE_V } from "../kernel/arch/mmu.ts";
import { bug } from "../kernel/bug.ts";
import type { Context, PhysAddr } from "../kernel/types.ts";

const SLOT_SHIFT = 10;
const SWAP_MARK = 1 << 1;

/** Slot numbers are below this. */
export const MAX_SWAP_SLOTS = 2 ** (32 - SLOT_SHIFT);

/** Does this page-table word stand for a page in swap? */
export const isSwapPte = (pte: number): boolean => (pte & PTE_V) === 0 && pte !== 0;
export const slotOfPte = (pte: number): number => pte >>> SLOT_SHIFT;
export const swapPteOf = (slot: number): number => ((slot << SLOT_SHIFT) | SWAP_MARK) >>> 0;

/** What page tables need of swap. */
export interface SwapLayer {
  /** One entry that names `slot` is gone. */
  free(ctx: Context, slot: number): void;
  /** One more entry names `slot`: 0, or −ENOMEM (no room for the count). */
  dup(ctx: Context, slot: number): number;
  /**
   * A fault on a swap entry: brings the page in and enters it at `pte`. 0, −ENOMEM, or −EIO (the device failed: the
   * process gets SIGBUS). `page` is the virtual page number.
   */
  fault(ctx: Context, mm: PhysAddr, vma: PhysAddr, page: number, pte: PhysAddr, isWrite: boolean): number;
  /** The frame of a slot, in the swap cache, read in place if it was not there; −ENOMEM, −EIO. */
  bringIn(ctx: Context, slot: number): number;
  /** The page, which is in the swap cache, is to belong to its one mapper alone: true if its slot could be given up. */
  release(ctx: Context, pfn: number): boolean;
  /** Pages that the swap area can hold: they can be promised besides those of RAM. */
  nrPages(): number;
}

const none = (): never => bug("swap: an entry without a swap area");

/** No swap at all: there are no entries, so nobody may ask. */
export const noSwap: SwapLayer = { free: none, dup: none, fault: none, bringIn: none, release: none, nrPages: () => 0 };
