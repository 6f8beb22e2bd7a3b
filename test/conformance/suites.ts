/**
 * Which tests make up which row of `npm run conformance`, and where each suite comes from.
 *
 * A row takes the tests of one file whose full name (describe blocks and test, joined by " > ") fits `tests`. `cases`
 * is the number that the suite has where it comes from, or that a recorded table has: with fewer, the row is red, so
 * that a case cannot get lost without notice. A row without a file is a suite that waits for a part of the kernel.
 */

export interface Suite {
  readonly part: 1 | 2 | 3 | 4;
  readonly name: string;
  /** Where its expectations come from. */
  readonly origin: string;
  readonly file?: string;
  /** Default: all tests of the file. */
  readonly tests?: RegExp;
  readonly cases?: number;
  /** Without a file: what has to exist first. */
  readonly needs?: string;
}

/** Titles of the parts, strongest evidence first. */
export const PARTS: Readonly<Record<Suite["part"], string>> = {
  1: "recorded tables of real kernels",
  2: "identities, at every few steps of a run",
  3: "suites of others, case by case",
  4: "real programs reading our files",
};

const TABLES = "test/conformance/recorded_tables.test.ts";
const PROCFS = "test/entry/procfs.test.ts";
const LAYOUT = "test/mm/slab_layout.test.ts";
const MEMINIT = "test/conformance/meminit.test.ts";
const MEMINIT_C = "lib/test_meminit.c";
const POOL = "test/mm/dma_pool.test.ts";
const DMA_DEBUG = "test/mm/dma_debug.test.ts";
const XV6 = "test/conformance/xv6_usertests.test.ts";
const USER = "test/conformance/user_tests.test.ts";
const REAL = "test/conformance/real_programs.test.ts";
const IDS = "test/conformance/identities.test.ts";
const MEMBLOCK = "test/mm/memblock_simulator.test.ts";

export const SUITES: readonly Suite[] = [
  { part: 1, name: "kmalloc classes, shipped recordings", origin: "Linux 6.18", file: TABLES, tests: /S1 .*shipped/ },
  { part: 1, name: "kmalloc classes, larger recordings", origin: "Linux 6.18", file: TABLES, tests: /S1 .*larger/ },
  { part: 1, name: "gfp and migrate types, shipped", origin: "Linux 6.18", file: TABLES, tests: /B8 .*shipped/ },
  { part: 1, name: "gfp and migrate types, larger", origin: "Linux 6.18", file: TABLES, tests: /B8 .*larger/ },
  { part: 1, name: "slab order and objects", origin: "3 × slabinfo", file: TABLES, tests: /slabinfo > S4/, cases: 731 },
  {
    part: 1,
    name: "slab attributes, also debug",
    origin: "2 × /sys/kernel/slab",
    file: LAYOUT,
    tests: /S2, S4/,
    cases: 496,
  },
  { part: 1, name: "watermarks", origin: "2 × zoneinfo", file: TABLES, tests: /> W[12] /, cases: 33 },
  { part: 1, name: "lowmem_reserve", origin: "2 × zoneinfo", file: TABLES, tests: /> W3 /, cases: 40 },
  { part: 1, name: "per-CPU batch and high", origin: "2 × zoneinfo", file: TABLES, tests: /> W7 /, cases: 11 },
  { part: 1, name: "extfrag and unusable index", origin: "debugfs of 6.12", file: TABLES, tests: /> F1 /, cases: 44 },
  { part: 1, name: "whole files of /proc", origin: "Linux 6.12, 6.18", file: PROCFS, tests: /^like Linux/ },
  {
    part: 2,
    name: "identities of /proc, pages, magazines",
    origin: "Linux, illumos",
    file: IDS,
    tests: /during a run/,
  },
  { part: 2, name: "they notice a planted error", origin: "our own", file: IDS, tests: /themselves/ },
  { part: 3, name: "memblock simulator", origin: "tools/testing/memblock", file: MEMBLOCK, cases: 181 },
  {
    part: 3,
    name: "meminit: pages, kmalloc",
    origin: MEMINIT_C,
    file: MEMINIT,
    tests: /do_(alloc|kmalloc)/,
    cases: 31,
  },
  { part: 3, name: "meminit: caches", origin: MEMINIT_C, file: MEMINIT, tests: /kmem_cache_size \d+ \(/, cases: 50 },
  {
    part: 3,
    name: "meminit: caches, plain",
    origin: MEMINIT_C,
    file: MEMINIT,
    tests: /plain, init_on_alloc/,
    cases: 10,
  },
  { part: 3, name: "meminit: RCU-safe caches", origin: MEMINIT_C, file: MEMINIT, tests: /rcu_persistent/, cases: 10 },
  { part: 3, name: "meminit: bulk", origin: MEMINIT_C, file: MEMINIT, tests: /size_bulk/, cases: 10 },
  { part: 3, name: "meminit: vmalloc", origin: MEMINIT_C, file: MEMINIT, tests: /do_vmalloc/, cases: 20 },
  { part: 3, name: "SLUB layout", origin: "mm/slub.c", file: LAYOUT, tests: /> S\d/ },
  { part: 3, name: "DMA pool parameter sets", origin: "mm/dmapool_test.c", file: POOL, tests: /pool of/, cases: 6 },
  {
    part: 3,
    name: "DMA pool misuse and geometry",
    origin: "mm/dmapool.c",
    file: POOL,
    tests: /POOL-|upstream|bad param/,
  },
  { part: 3, name: "DMA-API debug classes", origin: "kernel/dma/debug.c", file: DMA_DEBUG, tests: /^D4 /, cases: 21 },
  { part: 3, name: "xv6 usertests: memory", origin: "xv6 user/usertests.c", file: XV6, cases: 31 },
  { part: 3, name: "KASAN KUnit", origin: "mm/kasan/kasan_test_c.c", needs: "needs a shadow memory checker" },
  { part: 3, name: "KFENCE", origin: "mm/kfence/kfence_test.c", needs: "needs a sampling checker" },
  { part: 3, name: "SLUB KUnit", origin: "lib/tests/slub_kunit.c", needs: "needs slub_debug" },
  { part: 3, name: "xv6 usertests: the program", origin: "xv6 user/usertests.c", file: USER, tests: /^xv6/, cases: 41 },
  { part: 3, name: "Pintos vm", origin: "Pintos tests/vm", file: USER, tests: /^Pintos/, cases: 34 },
  { part: 3, name: "Zephyr mem_slab, heap", origin: "Zephyr tests/kernel", needs: "needs those allocators" },
  { part: 3, name: "FreeRTOS heap_4", origin: "FreeRTOS", needs: "needs that allocator" },
  { part: 4, name: "procps: free, slabtop, vmstat", origin: "procps", file: REAL, tests: /^procps/ },
  { part: 4, name: "jc: parsers of /proc", origin: "jc", file: REAL, tests: /^jc/ },
  { part: 4, name: "node_exporter: five collectors", origin: "Prometheus", file: REAL, tests: /^node_exporter/ },
  { part: 4, name: "promtool check metrics", origin: "Prometheus", needs: "needs output in its format" },
];
