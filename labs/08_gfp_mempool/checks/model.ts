/**
 * The naive model of lab 8: what a mask allows, and what an allocation asks of the machine, in order.
 */

import {
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_IO,
  __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOFS,
  GFP_NOIO,
  GFP_NOWAIT,
} from "../given/api.ts";
import type { GfpConfig } from "./machine.ts";

const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [GFP_KERNEL, "GFP_KERNEL"],
  [GFP_NOFS, "GFP_NOFS"],
  [GFP_NOIO, "GFP_NOIO"],
  [GFP_ATOMIC, "GFP_ATOMIC"],
  [GFP_NOWAIT, "GFP_NOWAIT"],
  [__GFP_HIGH, "HIGH"],
  [__GFP_IO, "IO"],
  [__GFP_DIRECT_RECLAIM, "DIRECT_RECLAIM"],
  [__GFP_KSWAPD_RECLAIM, "KSWAPD_RECLAIM"],
  [__GFP_NOWARN, "NOWARN"],
  [__GFP_NOFAIL, "NOFAIL"],
  [__GFP_NORETRY, "NORETRY"],
  [__GFP_MEMALLOC, "MEMALLOC"],
  [__GFP_NOMEMALLOC, "NOMEMALLOC"],
];

/** The mask in words: the largest composite that fits, then what is left. */
export function maskName(gfp: number): string {
  const names: string[] = [];
  let left = gfp;
  for (const [bits, name] of FLAG_NAMES) {
    if ((left & bits) !== bits) continue;
    names.push(name);
    left &= ~bits;
  }
  if (left !== 0) names.push(`0x${left.toString(16)}`);
  return names.join("|") || "0";
}

export function mayBlock(gfp: number): boolean {
  return (gfp & __GFP_DIRECT_RECLAIM) !== 0;
}

/** GFP-4. */
export function keepsOf(gfp: number, min: number): number {
  if ((gfp & __GFP_MEMALLOC) !== 0 && (gfp & __GFP_NOMEMALLOC) === 0) return 0;
  if ((gfp & __GFP_HIGH) === 0) return min;
  const half = min - Math.floor(min / 2);
  return mayBlock(gfp) ? half : half - Math.floor(half / 4);
}

export type Call = readonly ["take"] | readonly ["kswapd"] | readonly ["reclaim", number];

export interface Memory {
  readonly config: GfpConfig;
  free: number;
  nrReclaims: number;
}

/** What allocPage(gfp) asks of the machine; `memory` is moved on. True if it gets a page. */
export function allocate(memory: Memory, gfp: number, calls: Call[]): boolean {
  const { min, low, reclaim } = memory.config;
  if ((gfp & __GFP_NOFAIL) !== 0 && !mayBlock(gfp)) return false;
  const take = (mark: number): boolean => {
    if (memory.free <= mark) return false;
    memory.free--;
    calls.push(["take"]);
    return true;
  };
  if (take(low)) return true;
  if ((gfp & __GFP_KSWAPD_RECLAIM) !== 0) calls.push(["kswapd"]);
  if (take(keepsOf(gfp, min))) return true;
  while (mayBlock(gfp)) {
    const nr = reclaim[memory.nrReclaims++] ?? 0;
    calls.push(["reclaim", gfp]);
    memory.free += nr;
    if (take(keepsOf(gfp, min))) return true;
    const isLast = nr === 0 || (gfp & __GFP_NORETRY) !== 0;
    // A program in which it would never end is none of ours.
    if (isLast && ((gfp & __GFP_NOFAIL) === 0 || memory.nrReclaims > reclaim.length)) return false;
  }
  return false;
}

export type Source = "machine" | "reserve" | "none" | "sleep";

/** What poolAlloc(gfp) asks of the machine, and where its page comes from. */
export function allocateFromPool(memory: Memory, gfp: number, nrReserve: number, calls: Call[]): Source {
  const mask = gfp | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
  if (allocate(memory, mask & ~(__GFP_DIRECT_RECLAIM | __GFP_IO), calls)) return "machine";
  if (nrReserve > 0) return "reserve";
  if (!mayBlock(gfp)) return "none";
  return allocate(memory, mask, calls) ? "machine" : "sleep";
}
