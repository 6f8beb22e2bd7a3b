/**
 * Goal: programs that know nothing of us read our files and see our numbers.
 * Method: a machine that has run a load writes its /proc into a folder. procps gets the files bound over its own in a
 * name space of its own, node_exporter reads them as its procfs, jc parses them one by one. What they print must say
 * what the machine says; that they run at all proves little. A program that is not installed is said to be missing.
 */

import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { MEMORY_PROC_FILES, PROC_FILES } from "../../scripts/proc_files.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

/** Is there such a program on this computer? */
const has = (command: string): boolean => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;
/** May we bind files over those of /proc, in a name space that ends with the command? */
const canBind = (): boolean => has("unshare") && spawnSync("unshare", ["-Urm", "true"]).status === 0;
const NODE_EXPORTER = ["node_exporter", "prometheus-node-exporter"].find(has);

let dir = "";
let kernel: Kernel;
const file = (name: string): string => kernel.readFile(`/proc/${name}`) ?? "";
const numbersIn = (text: string): number[] => (text.match(/\d+/g) ?? []).map(Number);
const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(file("meminfo"))?.[1]);

/** name → active, num_objs, objsize, objperslab, pagesperslab, num_slabs. */
function slabRows(): Map<string, number[]> {
  const rows = [...file("slabinfo").matchAll(/^(\S+) +(\d+ .*)$/gm)];
  return new Map(
    rows.map(([, name, row]) => {
      const numbers = numbersIn(row as string);
      return [name as string, [...numbers.slice(0, 5), numbers[9] as number]];
    }),
  );
}

beforeAll(() => {
  const t = bootKernel(Object.fromEntries(builtinPrograms()));
  t.kernel.spawn("/bin/memhog", ["memhog", "3M", "--hold", "1000000000"]);
  t.kernel.spawn("/bin/stress", ["stress", "--ops", "2000"]);
  t.kernel.run({ untilCycles: t.kernel.now() + 100_000_000 });
  kernel = t.kernel;
  dir = mkdtempSync(join(tmpdir(), "slabtown-"));
  for (const name of [...PROC_FILES, "softirqs", "swaps"]) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), file(name));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

// ── procps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Output of a command that finds our files in /proc. */
function withOurProc(command: string): string {
  const binds = ["meminfo", "slabinfo", "vmstat"].map((name) => `mount --bind ${dir}/${name} /proc/${name}`);
  const { status, stdout, stderr } = spawnSync("unshare", ["-Urm", "sh", "-ec", [...binds, command].join("\n")], {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", TERM: "dumb" },
  });
  expect([status, stderr]).toEqual([0, ""]);
  return stdout;
}

describe("procps", () => {
  const needs = (...commands: string[]): string | undefined =>
    commands.every(has) && canBind() ? undefined : `needs procps (${commands.join(", ")}) and unshare -Urm`;

  it("free -k shows MemTotal, MemFree and MemAvailable", ({ skip }) => {
    const missing = needs("free");
    skip(missing !== undefined, missing);
    const row = numbersIn(/^Mem:.*$/m.exec(withOurProc("free -k"))?.[0] as string);
    expect([row[0], row[2], row[5]]).toEqual([kib("MemTotal"), kib("MemFree"), kib("MemAvailable")]);
  });

  it("slabtop -o shows every cache with our numbers", ({ skip }) => {
    const missing = needs("slabtop");
    skip(missing !== undefined, missing);
    const rows = [
      ...withOurProc("slabtop -o").matchAll(/^ *(\d+) +(\d+) +\d+% +[\d.]+K +(\d+) +(\d+) +\d+K (\S+) *$/gm),
    ];
    const theirs = rows.map(([, objects, active, slabs, perSlab, name]) => [
      name,
      ...[objects, active, slabs, perSlab].map(Number),
    ]);
    const ours = [...slabRows()].map(([name, [active, objects, , perSlab, , slabs]]) => [
      name,
      objects,
      active,
      slabs,
      perSlab,
    ]);
    const byName = (rows: unknown[][]): unknown[][] => rows.sort((a, b) => String(a[0]).localeCompare(String(b[0])));
    expect(rows.length).toBeGreaterThan(20);
    expect(byName(theirs)).toEqual(byName(ours));
  });

  it("vmstat -m shows every cache with our numbers", ({ skip }) => {
    const missing = needs("vmstat");
    skip(missing !== undefined, missing);
    const rows = [...withOurProc("vmstat -m").matchAll(/^(\S+) +(\d+) +(\d+) +(\d+) +(\d+)$/gm)];
    const theirs = new Map(rows.map(([, name, ...numbers]) => [name as string, numbers.map(Number)]));
    expect(theirs).toEqual(
      new Map(
        [...slabRows()].map(([name, [active, objects, size, perSlab]]) => [name, [active, objects, size, perSlab]]),
      ),
    );
  });

  it("vmstat -s shows the totals", ({ skip }) => {
    const missing = needs("vmstat");
    skip(missing !== undefined, missing);
    const text = withOurProc("vmstat -s");
    expect(Number(/(\d+) K total memory/.exec(text)?.[1])).toBe(kib("MemTotal"));
    expect(Number(/(\d+) K free memory/.exec(text)?.[1])).toBe(kib("MemFree"));
  });
});

// ── jc ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

const jcCases = (): void => {
  /** What `jc --PARSER` makes of a text. */
  const parse = (parser: string, text: string): unknown => {
    const { status, stdout, stderr } = spawnSync("jc", [`--${parser}`], { input: text, encoding: "utf8" });
    expect([status, stderr]).toEqual([0, ""]);
    return JSON.parse(stdout);
  };
  const PARSED = [...MEMORY_PROC_FILES, "interrupts", "loadavg", "softirqs", "stat", "swaps", "uptime", "version"];

  it.each(PARSED)("parses /proc/%s", (name) => {
    expect(file(name)).not.toBe("");
    expect(parse(`proc-${name}`, file(name))).toBeTruthy();
  });

  it.each(["maps", "stat", "statm", "status"])("parses /proc/<pid>/%s", (name) => {
    const [task] = kernel.tasks().filter(({ isKernelThread }) => !isKernelThread);
    const text = file(`${task?.pid}/${name}`);
    expect(text).not.toBe("");
    expect(parse(`proc-pid-${name}`, text)).toBeTruthy();
  });

  it("reads our numbers out of buddyinfo and slabinfo", () => {
    const zones = parse("proc-buddyinfo", file("buddyinfo")) as { zone: string; free_chunks: number[] }[];
    const rows = [...file("buddyinfo").matchAll(/zone +(\S+) (.*)$/gm)];
    expect(zones.map(({ zone, free_chunks }) => [zone, free_chunks])).toEqual(
      rows.map(([, zone, row]) => [zone, numbersIn(row as string)]),
    );
    const caches = parse("proc-slabinfo", file("slabinfo")) as { name: string; num_objs: number }[];
    expect(caches.map(({ name, num_objs }) => [name, num_objs])).toEqual(
      [...slabRows()].map(([name, [, objects]]) => [name, objects]),
    );
  });
};

describe("jc", () => {
  if (has("jc")) jcCases();
  else it("parses our files", ({ skip }) => skip("needs jc"));
});

// ── node_exporter ──────────────────────────────────────────────────────────────────────────────────────────────────

/** A port that was free a moment ago. */
const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });

/** Scrapes node_exporter once over our files. */
async function scrape(program: string, collectors: readonly string[]): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  const flags = collectors.map((name) => `--collector.${name}`);
  const exporter = spawn(
    program,
    [`--path.procfs=${dir}`, "--collector.disable-defaults", ...flags, `--web.listen-address=${address}`],
    { stdio: "ignore" },
  );
  try {
    for (let attempt = 0; attempt < 100; attempt++) {
      await sleep(100);
      const answer = await fetch(`http://${address}/metrics`).catch(() => undefined);
      if (answer?.ok === true) return await answer.text();
    }
    throw new Error(`${program} does not answer`);
  } finally {
    exporter.kill();
  }
}

describe("node_exporter", () => {
  it("all five memory collectors succeed and export our numbers", async ({ skip }) => {
    if (NODE_EXPORTER === undefined) return skip("needs node_exporter");
    const collectors = ["buddyinfo", "meminfo", "slabinfo", "vmstat", "zoneinfo"];
    const text = await scrape(NODE_EXPORTER, collectors);
    const series = (pattern: RegExp): string[] => text.split("\n").filter((line) => pattern.test(line));
    for (const name of collectors) {
      expect(series(/^node_scrape_collector_success/)).toContain(
        `node_scrape_collector_success{collector="${name}"} 1`,
      );
    }
    const value = (name: string): number => Number(series(new RegExp(`^${name} `))[0]?.split(" ")[1]);
    expect(value("node_memory_MemTotal_bytes")).toBe(1024 * kib("MemTotal"));
    expect(value("node_memory_MemFree_bytes")).toBe(1024 * kib("MemFree"));
    expect(series(/^node_buddyinfo_blocks\{/).length).toBe(11 * file("buddyinfo").trim().split("\n").length);
    expect(series(/^node_zoneinfo_nr_free_pages\{/).length).toBeGreaterThan(0);
    expect(series(/^node_slabinfo_objects\{/).length).toBe(slabRows().size);
  });
});
