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
];
