/**
 * GFP flags: what an allocation may do, which memory it may have, and how hard to try.
 *
 *   bit 0-3   zone modifiers      DMA HIGHMEM DMA32 MOVABLE
 *   bit 3-4   mobility            MOVABLE RECLAIMABLE          → migrate type (B8)
 *   bit 5..   permissions         HIGH IO FS DIRECT_RECLAIM …  → may it sleep (G2), which reserves (W4)
 *
 * Rules: G1 (bits and composites, Linux 6.12), G2 (may sleep ⇔ __GFP_DIRECT_RECLAIM), W6 (zone), B8 (migrate type).
 * The numbers are not ABI in Linux and move between versions; what is recorded by name is translated by name.
 * Context: pure functions, any context.
 * Source: include/linux/gfp_types.h, include/linux/gfp.h.
 */

import { MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, type Migratetype } from "./migratetype.ts";

declare const sleepBrand: unique symbol;

/** Any mask. Masks whose effect on sleeping the compiler knows carry a brand (below). */
export type Gfp = number;
/** The caller accepts to sleep: needs a TaskContext. */
export type BlockingGfp = number & { readonly [sleepBrand]: "may sleep" };
/** Never sleeps: fine in every context. */
export type AtomicGfp = number & { readonly [sleepBrand]: "never sleeps" };

// ── Bits (G1) ──────────────────────────────────────────────────────────────────────────────────────────────────────

export const __GFP_DMA = 0x1;
export const __GFP_HIGHMEM = 0x2;
export const __GFP_DMA32 = 0x4;
export const __GFP_MOVABLE = 0x8;
export const __GFP_RECLAIMABLE = 0x10;
export const __GFP_HIGH = 0x20;
export const __GFP_IO = 0x40;
export const __GFP_FS = 0x80;
export const __GFP_ZERO = 0x100;
export const __GFP_DIRECT_RECLAIM = 0x400;
export const __GFP_KSWAPD_RECLAIM = 0x800;
export const __GFP_WRITE = 0x1000;
export const __GFP_NOWARN = 0x2000;
export const __GFP_RETRY_MAYFAIL = 0x4000;
export const __GFP_NOFAIL = 0x8000;
export const __GFP_NORETRY = 0x1_0000;
export const __GFP_MEMALLOC = 0x2_0000;
export const __GFP_COMP = 0x4_0000;
export const __GFP_NOMEMALLOC = 0x8_0000;
export const __GFP_HARDWALL = 0x10_0000;
export const __GFP_THISNODE = 0x20_0000;
export const __GFP_ACCOUNT = 0x40_0000;

const RECLAIM = __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM;

/** Mask of all bits that exist. */
export const GFP_ALL_BITS = 0x7f_fdff;

// ── Composites ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Interrupt handlers and under spinlocks: no sleep, may dip into the reserve. */
export const GFP_ATOMIC = (__GFP_HIGH | __GFP_KSWAPD_RECLAIM) as AtomicGfp;
/** No sleep, no reserve, no complaint. */
export const GFP_NOWAIT = (__GFP_KSWAPD_RECLAIM | __GFP_NOWARN) as AtomicGfp;
/** The ordinary kernel allocation: may sleep, may do I/O, may enter the file system. */
export const GFP_KERNEL = (RECLAIM | __GFP_IO | __GFP_FS) as BlockingGfp;
export const GFP_KERNEL_ACCOUNT = (GFP_KERNEL | __GFP_ACCOUNT) as BlockingGfp;
/** May sleep but start no I/O: block drivers. */
export const GFP_NOIO = RECLAIM as BlockingGfp;
/** May sleep and do I/O but not enter the file system. */
export const GFP_NOFS = (RECLAIM | __GFP_IO) as BlockingGfp;
export const GFP_USER = (GFP_KERNEL | __GFP_HARDWALL) as BlockingGfp;
export const GFP_HIGHUSER = (GFP_USER | __GFP_HIGHMEM) as BlockingGfp;
/** Pages of processes: may be moved and reclaimed. */
export const GFP_HIGHUSER_MOVABLE = (GFP_HIGHUSER | __GFP_MOVABLE) as BlockingGfp;

/** For a balloon: pages that may move, politely; it takes no reserve and does not insist. */
export const GFP_BALLOON = (GFP_HIGHUSER_MOVABLE | __GFP_NORETRY | __GFP_NOMEMALLOC | __GFP_NOWARN) as BlockingGfp;

/**
 * Adds modifiers that change nothing about sleeping (`__GFP_ZERO`, `__GFP_NOWARN`, zones, …), keeping the brand.
 * Bits that would change it are masked out.
 */
export function gfpWith<G extends BlockingGfp | AtomicGfp>(gfp: G, modifiers: number): G {
  return (gfp | (modifiers & ~__GFP_DIRECT_RECLAIM)) as G;
}

/** G2: may this allocation sleep? */
export function gfpAllowsBlocking(gfp: Gfp): gfp is BlockingGfp {
  return (gfp & __GFP_DIRECT_RECLAIM) !== 0;
}

// ── gfp → migrate type (B8) ────────────────────────────────────────────────────────────────────────────────────────

/** The two mobility bits, shifted to be a migrate type: 0 UNMOVABLE, 1 MOVABLE, 2 RECLAIMABLE. */
const MOBILITY_SHIFT = 3;
const MOBILITY = (__GFP_MOVABLE | __GFP_RECLAIMABLE) >>> MOBILITY_SHIFT;
const UNMOVABLE = MIGRATE_UNMOVABLE;
if (
  __GFP_MOVABLE >>> MOBILITY_SHIFT !== MIGRATE_MOVABLE ||
  __GFP_RECLAIMABLE >>> MOBILITY_SHIFT !== MIGRATE_RECLAIMABLE
) {
  throw new Error("gfp: the mobility bits are no migrate types");
}

/** B8. Both mobility bits together are a caller's bug; the result is then UNMOVABLE. */
export function gfpMigratetype(gfp: Gfp): Migratetype {
  const type = (gfp >>> MOBILITY_SHIFT) & MOBILITY;
  return type === MOBILITY ? UNMOVABLE : (type as Migratetype);
}

// ── Names (the show_gfp_flags order of Linux: longest composite first, then single bits) ───────────────────────────

const COMPOSITE_NAMES: readonly (readonly [mask: number, name: string])[] = [
  [GFP_HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"],
  [GFP_HIGHUSER, "GFP_HIGHUSER"],
  [GFP_USER, "GFP_USER"],
  [GFP_KERNEL_ACCOUNT, "GFP_KERNEL_ACCOUNT"],
  [GFP_KERNEL, "GFP_KERNEL"],
  [GFP_NOFS, "GFP_NOFS"],
  [GFP_ATOMIC, "GFP_ATOMIC"],
  [GFP_NOIO, "GFP_NOIO"],
  [GFP_NOWAIT, "GFP_NOWAIT"],
];

const BIT_NAMES: readonly (readonly [mask: number, name: string])[] = [
  [__GFP_DMA, "GFP_DMA"],
  [__GFP_HIGHMEM, "__GFP_HIGHMEM"],
  [__GFP_DMA32, "GFP_DMA32"],
  [RECLAIM, "__GFP_RECLAIM"],
  [__GFP_HIGH, "__GFP_HIGH"],
  [__GFP_IO, "__GFP_IO"],
  [__GFP_FS, "__GFP_FS"],
  [__GFP_NOWARN, "__GFP_NOWARN"],
  [__GFP_RETRY_MAYFAIL, "__GFP_RETRY_MAYFAIL"],
  [__GFP_NOFAIL, "__GFP_NOFAIL"],
  [__GFP_NORETRY, "__GFP_NORETRY"],
  [__GFP_COMP, "__GFP_COMP"],
  [__GFP_ZERO, "__GFP_ZERO"],
  [__GFP_NOMEMALLOC, "__GFP_NOMEMALLOC"],
  [__GFP_MEMALLOC, "__GFP_MEMALLOC"],
  [__GFP_HARDWALL, "__GFP_HARDWALL"],
  [__GFP_THISNODE, "__GFP_THISNODE"],
  [__GFP_RECLAIMABLE, "__GFP_RECLAIMABLE"],
  [__GFP_MOVABLE, "__GFP_MOVABLE"],
  [__GFP_ACCOUNT, "__GFP_ACCOUNT"],
  [__GFP_WRITE, "__GFP_WRITE"],
  [__GFP_DIRECT_RECLAIM, "__GFP_DIRECT_RECLAIM"],
  [__GFP_KSWAPD_RECLAIM, "__GFP_KSWAPD_RECLAIM"],
];

/** Extra spellings that recordings of other kernel versions use. */
const ALIASES: Readonly<Record<string, number>> = {
  GFP_DMA: __GFP_DMA,
  GFP_DMA32: __GFP_DMA32,
  __GFP_DMA,
  __GFP_DMA32,
};

const BY_NAME = new Map<string, number>([
  ...COMPOSITE_NAMES.map(([mask, name]) => [name, mask] as const),
  ...BIT_NAMES.map(([mask, name]) => [name, mask] as const),
  ...Object.entries(ALIASES),
]);

/** `GFP_KERNEL|__GFP_ZERO` for a mask, as Linux prints it; `none` for 0. */
export function gfpNames(gfp: Gfp): string {
  if (gfp === 0) return "none";
  let rest = gfp;
  const names: string[] = [];
  for (const [mask, name] of [...COMPOSITE_NAMES, ...BIT_NAMES]) {
    if ((rest & mask) === mask) {
      names.push(name);
      rest &= ~mask;
    }
  }
  if (rest !== 0) names.push(`0x${rest.toString(16)}`);
  return names.join("|");
}

/** The mask of `GFP_KERNEL|__GFP_ZERO`; -1 if a name is unknown. `none` and the empty text are 0. Hex parts count. */
export function parseGfpNames(text: string): number {
  if (text === "" || text === "none") return 0;
  let mask = 0;
  for (const part of text.split("|")) {
    const known = BY_NAME.get(part);
    if (known !== undefined) mask |= known;
    else if (/^0x[0-9a-f]+$/.test(part)) mask |= Number.parseInt(part, 16);
    else return -1;
  }
  return mask;
}

// ── How often to try (G3) ──────────────────────────────────────────────────────────────────────────────────────────

/** Blocks above this order are not to be had by freeing pages one by one. */
export const PAGE_ALLOC_COSTLY_ORDER = 3;

/** Does a request that reclaim and compaction did not serve at once fail, instead of trying again? */
export const failsAtOnce = (order: number, gfp: Gfp): boolean =>
  (gfp & __GFP_NORETRY) !== 0 || (order > PAGE_ALLOC_COSTLY_ORDER && (gfp & __GFP_RETRY_MAYFAIL) === 0);
