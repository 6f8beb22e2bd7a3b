/**
 * Address-space identifiers: which tag the TLB entries of an address space carry.
 *
 * A tag spares a flush at every switch: entries of several address spaces are in a TLB side by side. There are 255 tags
 * for processes (mmu.ts), and there may be more address spaces. So each takes a tag that no living one has; when all
 * are taken, the last tag is shared, and whoever has it flushes when a CPU begins with it.
 *
 *      1 … 254   one address space each, the next free one in turn          255   as many as need it
 *
 *   ASID-1  two living address spaces with one tag have the shared one
 *   ASID-2  no CPU translates for one address space by an entry of another: entries of a dead one are flushed at its
 *           end, those of the shared tag when a CPU begins
 *
 * State: the last tag given, in static memory; the tags are in the mm_structs. Cost: O(address spaces) for a new one.
 * Linux gives tags anew in generations, and flushes everything once a generation (arch/riscv/mm/context.c).
 */

import { NR_ASIDS } from "../kernel/arch/mmu.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";
import { listFirst, listNext } from "../kernel/lib/list.ts";
import { asPhys, NULL, type PhysAddr } from "../kernel/types.ts";
import { MM_ASID, MM_LIST } from "./mm_struct.ts";

/** The last tag: that of everybody for whom there was no other. */
export const SHARED_ASID = NR_ASIDS - 1;

/** A tag for a new address space. `mms`: list of the living ones; `last`: word that holds the last tag given. */
export function takeAsid(port: MemoryPort, mms: PhysAddr, last: PhysAddr): number {
  const isTaken = new Uint8Array(NR_ASIDS);
  for (let link = listFirst(port, mms); link !== NULL && link !== mms; link = listNext(port, link)) {
    isTaken[port.ld32(asPhys(link - MM_LIST) + MM_ASID)] = 1;
  }
  const before = port.ld32(last);
  for (let i = 1; i < SHARED_ASID; i++) {
    const asid = 1 + ((before + i - 1) % (SHARED_ASID - 1));
    if (isTaken[asid] !== 0) continue;
    port.st32(last, asid);
    return asid;
  }
  return SHARED_ASID;
}
