/**
 * Migrate types: which free list a page belongs on, by how easily its content can be moved (B8, B9).
 *
 * The allocator keeps pages of one kind of mobility together, pageblock by pageblock (512 pages), so that a long-lived
 * unmovable page does not spoil a range that could become a huge page. Source: include/linux/mmzone.h, mm/page_alloc.c.
 */

declare const migratetypeBrand: unique symbol;
export type Migratetype = number & { readonly [migratetypeBrand]: true };

export const MIGRATE_UNMOVABLE = 0 as Migratetype;
export const MIGRATE_MOVABLE = 1 as Migratetype;
export const MIGRATE_RECLAIMABLE = 2 as Migratetype;
/** Number of types that per-CPU lists keep; also the value of HIGHATOMIC. */
export const MIGRATE_PCPTYPES = 3;
/** Reserved for high-order atomic allocations (B10). */
export const MIGRATE_HIGHATOMIC = 3 as Migratetype;
/** The contiguous area (cma.ts): movable requests may borrow here, nobody else. */
export const MIGRATE_CMA = 4 as Migratetype;
/** Taken out of circulation: contiguous allocation, memory being removed. */
export const MIGRATE_ISOLATE = 5 as Migratetype;
export const NR_MIGRATETYPES = 6;

/** As /proc/pagetypeinfo spells them, in order. */
export const MIGRATETYPE_NAMES: readonly string[] = [
  "Unmovable",
  "Movable",
  "Reclaimable",
  "HighAtomic",
  "CMA",
  "Isolate",
];

/** B9: where to look when the own lists are empty. Row = requester; HIGHATOMIC, CMA and ISOLATE never fall back. */
export const FALLBACKS: readonly (readonly Migratetype[])[] = [
  [MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE],
  [MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE],
  [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE],
];

/** B3: may pageblocks of this type merge with pageblocks of another type? */
export const migratetypeIsMergeable = (type: number): boolean => type < MIGRATE_PCPTYPES;
