/**
 * Goal: our arithmetic gives the numbers that real kernels printed, with zero tolerance.
 * Method: every row of the recorded tables, and every kmalloc and page allocation of recorded kernel events, is put
 * through the function that the kernel uses. What is compared at the level of files is in test/entry/procfs.test.ts.
 */

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, it } from "vitest";
import { PAGE_SIZE } from "../../kernel/params.ts";
import { extfragIndex, unusableIndex } from "../../mm/extfrag.ts";
import { gfpMigratetype, gfpNames, parseGfpNames } from "../../mm/gfp.ts";
import { kmallocBucket } from "../../mm/kmalloc.ts";
import {
  lowmemReserves,
  minFreeKbytes,
  NR_PAGE_ORDERS,
  ZONE_NAMES,
  zoneBatchsize,
  zoneHighsize,
  zoneWatermarks,
} from "../../mm/mmzone.ts";
import { calculateOrder } from "../../mm/slab_layout.ts";
import { countCases } from "../support/cases.ts";
import {
  largerKernelRecordings,
  recorded,
  recordedSlabinfo,
  recordedZones,
  shippedKernelRecordings,
} from "../support/recorded.ts";

const NR_CPUS = 2;

/** [what, ours, theirs] of every cell that differs. */
type Cell = readonly [what: string, ours: unknown, theirs: unknown];
const differing = (cells: readonly Cell[]): Cell[] => cells.filter(([, ours, theirs]) => ours !== theirs);

// ── Recorded kernel events ─────────────────────────────────────────────────────────────────────────────────────────

const linesOf = (path: string): string[] => gunzipSync(readFileSync(path)).toString("latin1").split("\n");

function kmallocCells(path: string): Cell[] {
  return linesOf(path).flatMap((line) => {
    const match = / kmalloc: .* bytes_req=(\d+) bytes_alloc=(\d+) /.exec(line);
    return match === null ? [] : [[line, kmallocBucket(Number(match[1])), Number(match[2])] as const];
  });
}

/** Each page allocation is a cell for its migrate type; each way of writing a mask is one for its names. */
function gfpCells(path: string): Cell[] {
  const spellings = new Set<string>();
  const types = linesOf(path).flatMap((line): Cell[] => {
    const match = / mm_page_alloc: .* migratetype=(\d+) gfp_flags=(\S+)$/.exec(line);
    if (match === null) return [];
    const names = match[2] as string;
    spellings.add(names);
    return [[line, gfpMigratetype(parseGfpNames(names)), Number(match[1])]];
  });
  const inOrder = (names: string): string => names.split("|").sort().join("|");
  // Between versions of Linux the order of the names changes, but not what they stand for.
  const names = [...spellings].map((text): Cell => [text, inOrder(gfpNames(parseGfpNames(text))), inOrder(text)]);
  return [...types, ...names];
}

describe("recorded kernel events", () => {
  const larger = largerKernelRecordings();
  const sets = [["shipped", shippedKernelRecordings()] as const, ["larger", larger] as const];
  for (const [set, paths] of sets) {
    for (const path of paths) {
      it(`S1 kmalloc gives what Linux gave (${set}: ${basename(path)})`, (context) => {
        const cells = kmallocCells(path);
        countCases(context, cells.length, differing(cells));
      });
      it(`B8 G1 flags by name, and their migrate type (${set}: ${basename(path)})`, (context) => {
        const cells = gfpCells(path);
        countCases(context, cells.length, differing(cells));
      });
    }
  }
  for (const name of ["S1 kmalloc gives what Linux gave", "B8 G1 flags by name, and their migrate type"]) {
    if (larger.length > 0) continue;
    it(`${name} (larger: none)`, ({ skip }) => {
      skip("needs SLABTOWN_RECORDINGS=DIR with *.ftrace.gz");
    });
  }
});

// ── slabinfo ───────────────────────────────────────────────────────────────────────────────────────────────────────

describe("recorded slabinfo", () => {
  for (const name of ["linux-6.12-128M/slabinfo", "linux-6.12-128M/slub_debug-slabinfo", "linux-6.18/slabinfo"]) {
    it(`S4 pages and objects per slab of all caches in ${name}`, (context) => {
      const rows = recordedSlabinfo(name);
      const wrong = rows.filter(({ size, objects, pages }) => {
        const ours = 2 ** calculateOrder(size, { nrCpus: NR_CPUS });
        return ours !== pages || Math.floor((ours * PAGE_SIZE) / size) !== objects;
      });
      countCases(context, rows.length, wrong);
    });
  }
});

// ── zoneinfo ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Pages managed in DMA32 when the small machine computed its marks, before it freed its boot-time memory. */
const BOOT_MANAGED_DMA32 = 16_380;

const ZONEINFO = [
  { machine: "linux-6.12-128M", minFreeKb: 1137, atBoot: new Map([["DMA32", BOOT_MANAGED_DMA32]]) },
  { machine: "linux-6.18", minFreeKb: 67_584, atBoot: new Map<string, number>() },
];

describe("recorded zoneinfo", () => {
  for (const { machine, minFreeKb, atBoot } of ZONEINFO) {
    const zones = recordedZones(`${machine}/zoneinfo`).filter(({ name }) => ZONE_NAMES.includes(name));
    const managed = zones.map((zone) => atBoot.get(zone.name) ?? zone.field("managed"));
    const lowmem = managed.slice(0, 3).reduce((sum, pages) => sum + pages, 0);
    const marks = managed.map((pages, zone) => zoneWatermarks(zone, pages, lowmem, minFreeKb >>> 2));

    it(`W2 min, low, high and promo of ${machine}`, (context) => {
      const cells = zones.flatMap((zone, i) =>
        (["min", "low", "high", "promo"] as const).map(
          (mark): Cell => [`${zone.name} ${mark}`, marks[i]?.[mark], zone.field(mark)],
        ),
      );
      countCases(context, cells.length, differing(cells));
    });

    it(`W3 lowmem_reserve of ${machine}`, (context) => {
      const ours = lowmemReserves(managed);
      const cells = zones.flatMap((zone, i) =>
        zone.protection.map((theirs, j): Cell => [`${zone.name} ${j}`, ours[i]?.[j], theirs]),
      );
      countCases(context, cells.length, differing(cells));
    });

    it(`W7 batch and bounds of high of ${machine}`, (context) => {
      const cells = zones.flatMap((zone, i): Cell[] => {
        if (!zone.has("batch")) return [];
        const batch = zoneBatchsize(zone.field("managed"));
        const { min, max } = zoneHighsize(managed[i] as number, zone.field("low"), batch, NR_CPUS);
        const own: Cell = [`${zone.name} batch`, batch, zone.field("batch")];
        // The older file does not print the bounds.
        if (!zone.has("high_min")) return [own];
        const low: Cell = [`${zone.name} high_min`, min, zone.field("high_min")];
        return [own, low, [`${zone.name} high_max`, max, zone.field("high_max")]];
      });
      countCases(context, cells.length, differing(cells));
    });
  }

  it("W1 min_free_kbytes of linux-6.12-128M", (context) => {
    const ours = minFreeKbytes(4 * (3840 + BOOT_MANAGED_DMA32));
    countCases(context, 1, differing([["kB", ours, Number(recorded("linux-6.12-128M/min_free_kbytes"))]]));
  });
});

// ── Fragmentation ──────────────────────────────────────────────────────────────────────────────────────────────────

/** Numbers by zone of a file whose lines are `Node 0, zone NAME numbers…`. */
function rowsOf(name: string): Map<string, number[]> {
  const lines = recorded(`linux-6.12-128M/${name}`).trim().split("\n");
  return new Map(
    lines.map((line) => line.trim().split(/ +/).slice(3)).map(([zone, ...cells]) => [zone ?? "", cells.map(Number)]),
  );
}

describe("recorded fragmentation", () => {
  const indices = [
    ["extfrag_index", extfragIndex],
    ["unusable_index", unusableIndex],
  ] as const;
  for (const [name, index] of indices) {
    it(`F1 ${name} of every zone and order`, (context) => {
      const free = rowsOf("buddyinfo");
      // buddyinfo was read first; by then a block of order 5 and one of order 6 had been taken.
      free.set(
        "DMA32",
        (free.get("DMA32") ?? []).map((n, order) => (order === 5 || order === 6 ? n - 1 : n)),
      );
      const cells = [...rowsOf(name)].flatMap(([zone, row]) =>
        row.map((theirs, order): Cell => [`${zone} ${order}`, index(free.get(zone) ?? [], order) / 1000, theirs]),
      );
      countCases(context, cells.length === 2 * NR_PAGE_ORDERS ? cells.length : 0, differing(cells));
    });
  }
});
