/**
 * Fragmentation as numbers: is free memory scarce, or is it in pieces? (F1)
 *
 *   extfrag_index   −1000 the request would succeed; → 0 lack of memory; → 1000 fragmentation
 *   unusable_index  the share of free memory that is in blocks too small for the order
 *   score           the share, in percent, that is useless for a huge page: what proactive compaction looks at
 *
 * Pure functions over the numbers of free blocks of a zone, by order; integer divisions are nested as in Linux.
 * Source: mm/vmstat.c (fragmentation_index, unusable_free_index, extfrag_for_order).
 */

/** Blocks of `order` that the free blocks of that order and above contain. */
function suitableBlocks(blocks: readonly number[], order: number): number {
  return blocks.reduce((sum, count, i) => (i < order ? sum : sum + count * 2 ** (i - order)), 0);
}

const freePages = (blocks: readonly number[]): number => suitableBlocks(blocks, 0);

/** F1: −1000 … 1000; `blocks` are the free blocks of a zone, by order. */
export function extfragIndex(blocks: readonly number[], order: number): number {
  const total = blocks.reduce((sum, count) => sum + count, 0);
  if (total === 0) return 0;
  if (suitableBlocks(blocks, order) > 0) return -1000;
  const needed = Math.floor((freePages(blocks) * 1000) / 2 ** order);
  return 1000 - Math.floor((1000 + needed) / total);
}

/** F1: 0 … 1000. */
export function unusableIndex(blocks: readonly number[], order: number): number {
  const free = freePages(blocks);
  if (free === 0) return 1000;
  return Math.floor(((free - suitableBlocks(blocks, order) * 2 ** order) * 1000) / free);
}

/** F1, proactive: 0 … 100; 0 if nothing is free, for then there is nothing to put together. */
export function fragmentationScore(blocks: readonly number[], order: number): number {
  const free = freePages(blocks);
  if (free === 0) return 0;
  return Math.floor(((free - suitableBlocks(blocks, order) * 2 ** order) * 100) / free);
}
