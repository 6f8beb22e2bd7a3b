/**
 * Zones: ranges of physical memory that differ in who can reach them, and the marks that guard their last pages.
 *
 *   DMA       [0, 16 MiB)            devices with 24 address lines
 *   DMA32     [16 MiB, 4 GiB)        devices with 32; the limit is the kernel parameter `dma32_limit`
 *   Normal    above                  everything else: exists when the limit is lowered
 *   Movable   the top `movablecore`  only pages that can be moved: what is here can be emptied again
 *
 * As on x86-64, a machine of less than 4 GiB has DMA and DMA32 only; GFP_KERNEL then falls back from the empty Normal.
 *
 * A request names the highest zone it may use (W6) and walks downwards; a lower zone defends itself with
 * lowmem_reserve (W3): pages that requests which could have been served above may not take. Three marks per zone (W1,
 * W2): below `low` the allocator asks for reclaim, below `min` only entitled requests succeed, `high` is where reclaim
 * stops.
 *
 * Each zone is a struct of 512 bytes in RAM:
 *
 * | offset | field                         | written under                         |
 * |--------|-------------------------------|---------------------------------------|
 * | 0      | lock                          |                                       |
 * | 4-16   | start pfn, spanned, present, managed (pages) | boot; managed by hand-over |
 * | 20     | nr_free: pages in the buddy, not those on per-CPU lists (W9) | lock       |
 * | 24     | free pages on highatomic lists | lock                                  |
 * | 28     | least nr_free since the hand-over | lock                               |
 * | 32-44  | marks min, low, high, promo   | setup_per_zone_wmarks                 |
 * | 48     | watermark boost               | lock                                  |
 * | 52-68  | lowmem_reserve[5]             | setup_per_zone_lowmem_reserve         |
 * | 72-80  | pcp batch, high_min, high_max | zone_pcp_update                       |
 * | 84     | free pages of the contiguous area, part of nr_free | lock             |
 * | 88     | pages of the contiguous area  | boot                                  |
 * | 92     | pages in pageblocks reserved for high-order atomic requests | lock    |
 * | 96-116 | per migrate type: bit o is set if its list of order o has a block | lock |
 * | 120    | the same for the three ordinary types together | lock              |
 * | 124    | for requests whose highest zone is this one: the first zone with memory, from here down | derived |
 * | 128    | what must stay free in that zone: its low mark, boost, reserve against this one (W4) | derived |
 * | 132…   | free block counts [order][migrate type], u32 | lock                   |
 * | 400    | lock of the LRU lists         |                                       |
 * | 404-420 | pages on each of the five LRU lists (lru.ts) | LRU lock             |
 * | 424-428 | pages isolated from them: anonymous, of files | LRU lock            |
 * | 432-476 | generations of each kind (lru_gen.ts)         | LRU lock            |
 * | 480     | pages that are locked into memory             | atomic              |
 * | 484     | boosted, and kswapd has not been told (B11)   | lock                |
 *
 * First zone and fast mark are what the fast path would find by walking the zonelist and adding up four numbers; they
 * are made anew whenever one of those changes.
 *
 *   B11     a zone's boost is added to its marks but the lowest: a claimed pageblock raises it, kswapd takes it back
 *   ZONE-1  first zone and fast mark agree with the fields that they are made from
 *
 * Source: mm/page_alloc.c, include/linux/mmzone.h. Rules W1-W3, W6, W7.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { bugOn } from "../kernel/bug.ts";
import { clamp, intSqrt, roundDownPow2 } from "../kernel/lib/bits.ts";
import { asPhys, type Context, type Pfn, type PhysAddr } from "../kernel/types.ts";
import { __GFP_DMA, __GFP_DMA32, __GFP_HIGHMEM, __GFP_MOVABLE, type Gfp } from "./gfp.ts";
import { NR_MIGRATETYPES } from "./migratetype.ts";

export const MAX_PAGE_ORDER = 10;
export const NR_PAGE_ORDERS = MAX_PAGE_ORDER + 1;
export const PAGEBLOCK_ORDER = 9;
export const PAGEBLOCK_NR_PAGES = 1 << PAGEBLOCK_ORDER;

export const ZONE_DMA = 0;
export const ZONE_DMA32 = 1;
export const ZONE_NORMAL = 2;
export const ZONE_MOVABLE = 3;
export const MAX_NR_ZONES = 4;
export const ZONE_NAMES: readonly string[] = ["DMA", "DMA32", "Normal", "Movable"];

export const ZONE_DMA_LIMIT = 16 * 1024 * 1024;
/** Where 32-bit devices end. */
export const ZONE_DMA32_LIMIT = 4 * 1024 * 1024 * 1024;

// ── struct zone ────────────────────────────────────────────────────────────────────────────────────────────────────

export const ZONE_BYTES_SHIFT = 9;
export const ZONE_BYTES = 1 << ZONE_BYTES_SHIFT;
export const Z_LOCK = 0;
export const Z_START_PFN = 4;
export const Z_SPANNED = 8;
export const Z_PRESENT = 12;
export const Z_MANAGED = 16;
export const Z_NR_FREE = 20;
export const Z_NR_FREE_HIGHATOMIC = 24;
/** Least nr_free ever seen: what the zone gave at its worst moment. */
export const Z_NR_FREE_LEAST = 28;
export const Z_WMARK = 32;
export const Z_BOOST = 48;
export const Z_LOWMEM_RESERVE = 52;
export const Z_PCP_BATCH = 72;
export const Z_PCP_HIGH_MIN = 76;
export const Z_PCP_HIGH_MAX = 80;
export const Z_NR_FREE_CMA = 84;
export const Z_CMA = 88;
export const Z_NR_RESERVED_HIGHATOMIC = 92;
/** Word of migrate type t: 4 · t further. */
export const Z_NONEMPTY = 96;
export const Z_NONEMPTY_ORDINARY = 120;
export const Z_FIRST = 124;
export const Z_FAST_MARK = 128;
export const Z_FREE_COUNT = 132;
export const Z_LRU_LOCK = 400;
export const Z_NR_LRU = 404;
export const NR_LRU_LISTS = 5;
export const Z_NR_ISOLATED = 424;
export const Z_LRU_GEN = 432;
export const Z_NR_MLOCK = 480;
export const Z_IS_BOOSTED = 484;
/** The fast mark where no zone has memory: more than can ever be free. */
const NO_ZONE_MARK = 0x3fff_ffff;

export const WMARK_MIN = 0;
export const WMARK_LOW = 1;
export const WMARK_HIGH = 2;
export const WMARK_PROMO = 3;

/** Address of the count of free blocks of `order` on the list of `migratetype`. */
export const freeCountAddr = (zone: PhysAddr, order: number, migratetype: number): number =>
  zone + Z_FREE_COUNT + (order * NR_MIGRATETYPES + migratetype) * 4;

if (Z_NONEMPTY + NR_MIGRATETYPES * 4 > Z_NONEMPTY_ORDINARY) throw new Error("mmzone: words overlap");
if (Z_FREE_COUNT + NR_PAGE_ORDERS * NR_MIGRATETYPES * 4 > Z_LRU_LOCK) throw new Error("mmzone: struct zone overflows");

// ── W6: gfp → zone ─────────────────────────────────────────────────────────────────────────────────────────────────

/** The highest zone that a mask may use, by its four zone bits; −1 for combinations that make no sense. */
const GFP_ZONE: readonly number[] = [
  ZONE_NORMAL,
  ZONE_DMA,
  ZONE_NORMAL,
  -1,
  ZONE_DMA32,
  -1,
  -1,
  -1,
  ZONE_NORMAL,
  ZONE_DMA,
  ZONE_MOVABLE,
  -1,
  ZONE_DMA32,
  -1,
  -1,
  -1,
];

const GFP_ZONE_BITS = __GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE;
/** The table in two words, two bits an entry, and a bit for those that make no sense, as Linux has it. */
const ZONE_TABLE = GFP_ZONE.reduce((word, zone, bits) => word | (Math.max(zone, 0) << (2 * bits)), 0);
const BAD_ZONES = GFP_ZONE.reduce((word, zone, bits) => word | (zone < 0 ? 1 << bits : 0), 0);
const ZONE_BITS = 0x3;

/** W6. −1 for a bad combination of zone bits. */
export function gfpZone(gfp: Gfp): number {
  const bits = gfp & GFP_ZONE_BITS;
  return ((BAD_ZONES >>> bits) & 1) !== 0 ? -1 : (ZONE_TABLE >>> (bits << 1)) & ZONE_BITS;
}

// ── W1-W3, W7: pure arithmetic, judged by recorded machines ────────────────────────────────────────────────────────

/** W1: min_free_kbytes from the kilobytes of low memory above their high marks. */
export const minFreeKbytes = (lowmemKbytes: number): number => clamp(intSqrt(lowmemKbytes * 16), 128, 262_144);

const DEFAULT_SCALE_FACTOR = 10;
const DEFAULT_BOOST_FACTOR = 15_000;

/** Words of zeroed static memory for all zones: min_free_kbytes, scale factor, boost factor, is there a kswapd? */
export const ZONE_STATE_BYTES = 16;
const MIN_FREE = 0;
const SCALE_FACTOR = 4;
const BOOST_FACTOR = 8;
const HAS_KSWAPD = 12;

/** B11: the boost after one more, from the zone's high mark without it; the same where there is to be none. */
export function nextBoost(boost: number, managed: number, high: number, factor: number): number {
  const most = Math.floor((high * factor) / 10_000);
  if (most === 0 || PAGEBLOCK_NR_PAGES * 4 > managed) return boost;
  return Math.min(boost + PAGEBLOCK_NR_PAGES, Math.max(PAGEBLOCK_NR_PAGES, most));
}

export interface Watermarks {
  readonly min: number;
  readonly low: number;
  readonly high: number;
  readonly promo: number;
}

/**
 * W2: the marks of a zone of `managed` pages, where `lowmemPages` are managed in all zones but Movable, and
 * `pagesMin` = min_free_kbytes / 4. `scaleFactor` is vm.watermark_scale_factor (default 10).
 */
export function zoneWatermarks(
  zone: number,
  managed: number,
  lowmemPages: number,
  pagesMin: number,
  scaleFactor = DEFAULT_SCALE_FACTOR,
): Watermarks {
  const proportional = lowmemPages === 0 ? 0 : Math.floor((pagesMin * managed) / lowmemPages);
  const min = zone === ZONE_MOVABLE ? clamp(Math.floor(managed / 1024), 32, 128) : proportional;
  const delta = Math.max(proportional >>> 2, Math.floor((managed * scaleFactor) / 10_000));
  return { min, low: min + delta, high: min + 2 * delta, promo: min + 3 * delta };
}

const LOWMEM_RESERVE_RATIO: readonly number[] = [256, 256, 32, 0];

/** W3: `reserve[i][j]` for managed pages per zone; column MAX_NR_ZONES is Linux's ZONE_DEVICE. */
export function lowmemReserves(managed: readonly number[]): number[][] {
  return managed.map((own, i) => {
    const ratio = LOWMEM_RESERVE_RATIO[i] as number;
    const row = new Array<number>(MAX_NR_ZONES + 1).fill(0);
    let above = 0;
    for (let j = i + 1; j <= MAX_NR_ZONES; j++) {
      above += managed[j] ?? 0;
      row[j] = ratio === 0 || own === 0 ? 0 : Math.floor(above / ratio);
    }
    return row;
  });
}

/** W7: pages moved at once between a per-CPU list and the buddy. */
export function zoneBatchsize(managed: number): number {
  const quarter = Math.max(1, Math.floor(Math.min(managed >>> 10, 256) / 4));
  return Math.max(1, roundDownPow2(quarter + (quarter >>> 1)) - 1);
}

/** W7: the two bounds of `pcp->high`. */
export function zoneHighsize(
  managed: number,
  low: number,
  batch: number,
  nrCpus: number,
): { min: number; max: number } {
  return {
    min: Math.max(Math.floor(low / nrCpus), 4 * batch),
    max: Math.max(Math.floor(Math.floor(managed / 8) / nrCpus), 4 * batch),
  };
}

// ── Zones of a booted machine ──────────────────────────────────────────────────────────────────────────────────────

export interface Zones {
  /** Address of `struct zone` number `zone`. */
  addr(zone: number): PhysAddr;
  name(zone: number): string;
  /** True if the zone has any memory. */
  isPopulated(zone: number): boolean;
  field(zone: number, offset: number): number;
  setField(zone: number, offset: number, value: number): void;
  wmark(zone: number, mark: number): number;
  /**
   * Recomputes marks, reserves and per-CPU sizes from the managed pages (W1-W3, W7); `minFree` overrides W1, and
   * `scaleFactor` stays in force.
   */
  setupMarks(nrCpus: number, minFree?: number, scaleFactor?: number): void;
  /** Zone that contains `pfn`; −1 if none spans it. */
  zoneOfPfn(pfn: Pfn): number;
  totalManaged(): number;
  /** Pages that had left the buddies at each zone's worst moment, per-CPU stocks included. */
  peakUsed(): number;
  totalFree(): number;
  /** Pages that ordinary requests never get: per zone its high mark and its largest reserve (totalreserve_pages). */
  totalReserve(): number;
  /** Pages of the contiguous areas, and those of them that are free. */
  totalCma(): number;
  totalFreeCma(): number;
  minFreeKbytes(): number;
  /** vm.watermark_scale_factor */
  scaleFactor(): number;
  /** vm.watermark_boost_factor, in fractions of 10,000 of the high mark; 0: none. */
  boostFactor(): number;
  setBoostFactor(factor: number): void;
  /** B11: a request is about to claim a pageblock of another type. The zone's lock is held. */
  boost(zone: number): void;
  /** Takes `nr` pages of boost back, at most all. */
  unboost(zone: number, nr: number): void;
  /** Tells kswapd of a boost that it has not heard of. No zone's lock is held. Any context. */
  tellBoost(ctx: Context, zone: number): void;
  /** Registers kswapd: from here on there are boosts, and somebody who takes them back. */
  onBoost(wake: (ctx: Context, zone: number) => void): void;
  /** ZONE-1: a sentence, or null. */
  check(): string | null;
}

/** A copy for the fast path: why, see slab_objects.ts. */
const STRUCT_SHIFT = ZONE_BYTES_SHIFT;

/** Views over MAX_NR_ZONES structs at `base`, zeroed. */
export function createZones(port: MemoryPort, base: PhysAddr, state: PhysAddr): Zones {
  const addr = (zone: number): PhysAddr => asPhys(base + (zone << STRUCT_SHIFT));
  const field = (zone: number, offset: number): number => port.ld32(base + (zone << STRUCT_SHIFT) + offset);
  const setField = (zone: number, offset: number, value: number): void => {
    port.st32(addr(zone) + offset, value);
    if (offset === Z_MANAGED || (offset >= Z_WMARK && offset < Z_PCP_BATCH)) refreshFastMarks();
  };
  const managedOf = (): number[] => Array.from({ length: MAX_NR_ZONES }, (_, zone) => field(zone, Z_MANAGED));

  /** First zone with memory from `highest` down, and what must stay free there for a request of that highest zone. */
  const fastMark = (highest: number): readonly [first: number, mark: number] => {
    let zone = highest;
    while (zone >= 0 && field(zone, Z_MANAGED) === 0) zone--;
    if (zone < 0) return [0, NO_ZONE_MARK];
    const low = field(zone, Z_WMARK + WMARK_LOW * 4) + field(zone, Z_BOOST);
    return [zone, Math.min(low + field(zone, Z_LOWMEM_RESERVE + highest * 4), NO_ZONE_MARK)];
  };
  const refreshFastMarks = (): void => {
    for (let highest = 0; highest < MAX_NR_ZONES; highest++) {
      const [first, mark] = fastMark(highest);
      port.st32(addr(highest) + Z_FIRST, first);
      port.st32(addr(highest) + Z_FAST_MARK, mark);
    }
  };

  const sumOf = (offset: number): number => {
    let pages = 0;
    for (let zone = 0; zone < MAX_NR_ZONES; zone++) pages += field(zone, offset);
    return pages;
  };

  const scaleFactorNow = (): number => port.ld32(state + SCALE_FACTOR) || DEFAULT_SCALE_FACTOR;
  port.st32(state + BOOST_FACTOR, DEFAULT_BOOST_FACTOR);
  let wakeKswapd: (ctx: Context, zone: number) => void = () => {};

  const setMarks = (zone: number, marks: Watermarks): void => {
    setField(zone, Z_WMARK, marks.min);
    setField(zone, Z_WMARK + 4, marks.low);
    setField(zone, Z_WMARK + 8, marks.high);
    setField(zone, Z_WMARK + 12, marks.promo);
  };

  const wmark = (zone: number, mark: number): number =>
    field(zone, Z_WMARK + mark * 4) + (mark === WMARK_MIN ? 0 : field(zone, Z_BOOST));

  return {
    addr,
    name: (zone) => ZONE_NAMES[zone] as string,
    isPopulated: (zone) => field(zone, Z_PRESENT) !== 0,
    field,
    setField,
    wmark,
    setupMarks(nrCpus, minFree, scaleFactor) {
      const managed = managedOf();
      const lowmem = managed.slice(0, ZONE_MOVABLE).reduce((sum, pages) => sum + pages, 0);
      const kbytes = minFree ?? minFreeKbytes(lowmem * 4);
      port.st32(state + MIN_FREE, kbytes);
      if (scaleFactor !== undefined) port.st32(state + SCALE_FACTOR, scaleFactor);
      lowmemReserves(managed).forEach((row, zone) => {
        row.forEach((pages, j) => {
          setField(zone, Z_LOWMEM_RESERVE + j * 4, pages);
        });
      });
      managed.forEach((pages, zone) => {
        const marks = zoneWatermarks(zone, pages, lowmem, kbytes >>> 2, scaleFactorNow());
        setMarks(zone, marks);
        const batch = zoneBatchsize(pages);
        const high = zoneHighsize(pages, marks.low, batch, nrCpus);
        setField(zone, Z_PCP_BATCH, batch);
        setField(zone, Z_PCP_HIGH_MIN, high.min);
        setField(zone, Z_PCP_HIGH_MAX, high.max);
      });
    },
    zoneOfPfn(pfn) {
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        const start = field(zone, Z_START_PFN);
        if (pfn >= start && pfn < start + field(zone, Z_SPANNED)) return zone;
      }
      return -1;
    },
    totalManaged: () => sumOf(Z_MANAGED),
    peakUsed() {
      let pages = 0;
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) pages += field(zone, Z_MANAGED) - field(zone, Z_NR_FREE_LEAST);
      return pages;
    },
    totalReserve() {
      let nr = 0;
      for (let zone = 0; zone < MAX_NR_ZONES; zone++) {
        let reserve = 0;
        for (let j = zone; j <= MAX_NR_ZONES; j++) reserve = Math.max(reserve, field(zone, Z_LOWMEM_RESERVE + j * 4));
        nr += Math.min(reserve + wmark(zone, WMARK_HIGH), field(zone, Z_MANAGED));
      }
      return nr;
    },
    totalFree: () => sumOf(Z_NR_FREE),
    totalCma: () => sumOf(Z_CMA),
    totalFreeCma: () => sumOf(Z_NR_FREE_CMA),
    minFreeKbytes: () => port.ld32(state + MIN_FREE),
    scaleFactor: scaleFactorNow,
    boostFactor: () => port.ld32(state + BOOST_FACTOR),
    setBoostFactor: (factor) => port.st32(state + BOOST_FACTOR, factor),
    boost(zone) {
      if (port.ld32(state + HAS_KSWAPD) === 0) return;
      const high = field(zone, Z_WMARK + WMARK_HIGH * 4);
      const boost = nextBoost(field(zone, Z_BOOST), field(zone, Z_MANAGED), high, port.ld32(state + BOOST_FACTOR));
      if (boost === field(zone, Z_BOOST)) return;
      setField(zone, Z_BOOST, boost);
      setField(zone, Z_IS_BOOSTED, 1);
    },
    unboost(zone, nr) {
      if (nr > 0) setField(zone, Z_BOOST, field(zone, Z_BOOST) - Math.min(nr, field(zone, Z_BOOST)));
    },
    tellBoost(ctx, zone) {
      if (field(zone, Z_IS_BOOSTED) === 0) return;
      setField(zone, Z_IS_BOOSTED, 0);
      wakeKswapd(ctx, zone);
    },
    onBoost(wake) {
      port.st32(state + HAS_KSWAPD, 1);
      wakeKswapd = wake;
    },
    check() {
      for (let highest = 0; highest < MAX_NR_ZONES; highest++) {
        const [first, mark] = fastMark(highest);
        if (field(highest, Z_FIRST) !== first || field(highest, Z_FAST_MARK) !== mark) {
          return `ZONE-1: the fast mark of requests up to zone ${highest} is not mark ${mark} of zone ${first}`;
        }
      }
      return null;
    },
  };
}

/** Splits `[0, endPfn)` into zones. `movablePages` are taken from the top, whole pageblocks only. */
export function zoneRanges(
  endPfn: number,
  dma32LimitPfn: number,
  movablePages: number,
): readonly (readonly [start: number, end: number])[] {
  bugOn(dma32LimitPfn % PAGEBLOCK_NR_PAGES !== 0, "mmzone: dma32_limit is not a whole number of pageblocks");
  const dmaEnd = Math.min(endPfn, ZONE_DMA_LIMIT / 4096);
  const dma32End = Math.max(dmaEnd, Math.min(endPfn, dma32LimitPfn));
  const wanted = movablePages - (movablePages % PAGEBLOCK_NR_PAGES);
  const movableStart = wanted === 0 ? endPfn : Math.max(dmaEnd, endPfn - (endPfn % PAGEBLOCK_NR_PAGES) - wanted);
  return [
    [1, dmaEnd],
    [dmaEnd, Math.min(dma32End, movableStart)],
    [dma32End, Math.max(dma32End, movableStart)],
    [movableStart, endPfn],
  ];
}
