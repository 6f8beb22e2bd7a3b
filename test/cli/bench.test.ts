/**
 * Goal: `slabtown bench` keeps the contract of the command line: exit codes, streams, one document, an end at Ctrl-C.
 * Method: the built program as a child process, with few operations. Times are never judged.
 */

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { createRandomStreams } from "../../kernel/lib/prng.ts";
import { PAGE_STRUCT_BYTES } from "../../mm/index.ts";
import { matchesFilter } from "../../scripts/bench/bench_run.ts";
import { median } from "../../scripts/bench/statistics.ts";
import { drawOrder, drawPareto, drawStream } from "../../scripts/bench/streams.ts";
import { parseOps } from "../../scripts/number_options.ts";
import { commandLine } from "../support/command_line.ts";

const PROGRAM = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "dist", "scripts", "slabtown.js");
const isBuilt = existsSync(PROGRAM);
if (!isBuilt) process.stderr.write("test/cli/bench: skipped: dist/ is not built, `npm run build` first\n");

function slabtown(...args: string[]) {
  return spawnSync(process.execPath, [PROGRAM, ...args], { cwd: tmpdir(), encoding: "utf8", timeout: 50_000 });
}

const FAST = ["--ops", "20k", "--samples", "1"];

interface Document {
  readonly schema: string;
  readonly figures: readonly {
    readonly id: string;
    readonly unit: string;
    readonly better: string;
    readonly subjects: readonly {
      readonly name: string;
      readonly role: string;
      readonly value: number;
      readonly cpu: number | null;
      readonly ratio: number | null;
      readonly samples: readonly number[];
    }[];
  }[];
  readonly growth: readonly { readonly subject: string; readonly points: readonly { readonly cpuNs: number }[] }[];
  readonly skipped: readonly { readonly name: string; readonly needs: string; readonly install: string }[];
  readonly faults: readonly string[];
}

describe.skipIf(!isBuilt)("slabtown bench", () => {
  it("--json is one document on stdout, progress is a line per figure on stderr, from any directory", () => {
    const { status, stdout, stderr } = slabtown("bench", "--filter", "A12,A8", ...FAST, "--json");
    expect(status).toBe(0);
    const document = JSON.parse(stdout) as Document;
    expect(document.schema).toBe("slabtown/bench/v1");
    expect(document.figures.map(({ id }) => id)).toEqual(["A8", "A8b", "A12"]);
    // Figures of metadata are counted: A8 is what struct page takes, A8b the rest of what boot keeps.
    const [frame = 0, share = 0] = document.figures.map(({ subjects }) => subjects[0]?.value ?? 0);
    expect(frame).toBeGreaterThanOrEqual(PAGE_STRUCT_BYTES);
    expect(frame).toBeLessThan(PAGE_STRUCT_BYTES + 1);
    expect(share).toBeGreaterThan((100 * PAGE_STRUCT_BYTES) / 4096);
    for (const { unit, better, subjects } of document.figures) {
      expect(["B", "%", "ns"]).toContain(unit);
      expect(better).toBe("lower");
      expect(subjects.map(({ name, role }) => [name, role])).toEqual([["slabtown", "slabtown"]]);
      expect(subjects[0]?.value).toBeGreaterThan(0);
      expect(subjects[0]?.samples.length).toBeGreaterThan(0);
    }
    expect(stderr.trimEnd().split("\n")).toHaveLength(3);
    expect(stderr).toContain("bench: A8 struct page");
  });

  it("A7 is a whole process, from its start to a command of the shell; beside it Node alone", () => {
    const { status, stdout } = slabtown("bench", "--filter", "A7", ...FAST, "--quiet", "--json");
    expect(status).toBe(0);
    const { figures } = JSON.parse(stdout) as Document;
    expect(figures.map(({ id }) => id)).toEqual(["A7", "A7b"]);
    for (const { subjects } of figures) {
      expect(subjects.map(({ name, role }) => [name, role])).toEqual([
        ["slabtown", "slabtown"],
        ["loop alone", "loop"],
      ]);
      expect(subjects.every(({ value, cpu }) => value > 0 && cpu !== null && cpu > 0)).toBe(true);
    }
  });

  it("churn at 50 and 90 % can be measured, and no allocation fails while there is memory", () => {
    const args = ["bench", "--filter", "A2", "--no-peers", ...FAST, "--quiet", "--json"];
    const { status, stdout, stderr } = slabtown(...args);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const { figures, faults, skipped } = JSON.parse(stdout) as Document;
    expect([faults, skipped]).toEqual([[], []]);
    expect(figures.map(({ id }) => id)).toEqual(["A2", "A2b"]);
    for (const { subjects } of figures) {
      expect(subjects.map(({ name }) => name)).toEqual(["slabtown", "loop alone"]);
      expect(subjects[0]).toMatchObject({ failures: 0, fault: null });
    }
  });

  it("beside peers: V8's own heap always, every other one is here or said to be missing", () => {
    const { status, stdout } = slabtown("bench", "--filter", "A4", ...FAST, "--quiet", "--json");
    expect(status).toBe(0);
    const { figures, skipped } = JSON.parse(stdout) as Document;
    const subjects = figures[0]?.subjects ?? [];
    const names = subjects.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["slabtown", "loop alone", "V8 Uint8Array", "V8 array"]));
    for (const { role, ratio } of subjects) expect(ratio === null).toBe(role !== "peer");
    const all = [...names, ...skipped.map(({ name }) => name)];
    for (const name of ["@thi.ng/malloc", "codemix malloc", "AssemblyScript TLSF", "emscripten dlmalloc", "jemalloc"]) {
      expect(all).toContain(name);
    }
  });

  it("--parallel: a row per workload, the stress, all invariants walked", () => {
    const { status, stdout } = slabtown("bench", "--parallel", "2", ...FAST, "--json", "--quiet");
    expect(status).toBe(0);
    const document = JSON.parse(stdout) as {
      threads: { id: string; speedup: number; fault: null }[];
      stress: { operations: number; fault: null };
      faults: string[];
    };
    expect(document.threads.map(({ id }) => id)).toEqual(["none", "churn", "churn-lf", "pipe", "pipe-lf", "pages"]);
    expect(document.stress.operations).toBeGreaterThan(0);
    expect(document.faults).toEqual([]);
  });

  it.each<[readonly string[], string]>([
    [["--parallel", "0"], "1 to 64"],
    [["--parallel", "two"], "1 to 64"],
    [["--ops", "5"], "--ops"],
    [["--samples", "0"], "--samples"],
    [["--filter", "nothing of the kind"], "matches no figure"],
    [["--parallel", "2", "--filter", "A3"], "matches no figure"],
    [["--paralel", "2"], "did you mean --parallel?"],
    [["more"], "too many arguments"],
  ])("%j is a usage error", async (args, message) => {
    const { status, stdout, stderr } = await commandLine("bench", ...args);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(message);
    expect(stderr).toContain("hint:");
  });

  it.each([
    { name: "one thread", args: ["--filter", "A12"] },
    { name: "peers", args: ["--filter", "A3"] },
    { name: "threads", args: ["--parallel", "2", "--filter", "churn"] },
  ])("Ctrl-C with $name prints what there is and ends with 130", async ({ args }) => {
    const child = spawn(process.execPath, [PROGRAM, "bench", ...args, "--ops", "50M", "--json"]);
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.once("data", () => setTimeout(() => child.kill("SIGINT"), 400));
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(code).toBe(130);
    expect(JSON.parse(stdout)).toMatchObject({ schema: "slabtown/bench/v1", isInterrupted: true });
  });

  it("a reader that goes away ends it quietly", async () => {
    const child = spawn(process.execPath, [PROGRAM, "bench", "--filter", "A12", ...FAST, "--quiet"]);
    child.stdout.destroy();
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect([code, stderr]).toEqual([0, ""]);
  });

  it("help has examples, completion knows the options", async () => {
    expect((await commandLine("bench", "--help")).stdout).toContain("slabtown bench --parallel 2");
    expect((await commandLine("completion", "bash")).stdout).toContain("--parallel");
  });
});

describe("parts of bench", () => {
  it("parseOps() knows units and limits", () => {
    expect(["1000", "20k", "5M"].map((text) => parseOps(text))).toEqual([1000, 20_000, 5_000_000]);
    for (const text of ["", "k", "1.5M", "-5k", "999", "1000M"]) expect(() => parseOps(text)).toThrow("--ops");
  });

  it("matchesFilter() takes ids with their variants, parts of names, and lists of both", () => {
    const names = ["A1 order-0 page pair", "A1b 128 pages", "A12 getpid()", "A3 kmalloc(64) pair"];
    const found = (filter: string): string[] => names.filter((name) => matchesFilter(filter, name));
    expect(found("a1")).toEqual(names.slice(0, 2));
    expect(found("A12,A3")).toEqual(names.slice(2));
    expect(found("pair")).toEqual([names[0], names[3]]);
    expect(found("A1b")).toEqual([names[1]]);
    expect([found(""), found(","), found("A2")]).toEqual([[], [], []]);
  });

  it("median()", () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, Number.NaN]);
  });

  it("a stream frees only what lives, stays around its target and is the same for the same seed", () => {
    const spec = {
      seed: "7",
      nrOps: 20_000,
      target: 500,
      drawSize: (prng: Parameters<typeof drawOrder>[0]) => drawOrder(prng, 5),
      weigh: (order: number) => 2 ** order,
    };
    const stream = drawStream(spec);
    expect(drawStream(spec)).toEqual(stream);
    expect(drawStream({ ...spec, seed: "8" }).words).not.toEqual(stream.words);
    const live = new Map<number, number>();
    let [weight, sum] = [0, 0];
    stream.words.forEach((word, i) => {
      const [slot, size] = [word >>> 1, stream.sizes[i] as number];
      if ((word & 1) === 0) {
        expect(live.has(slot)).toBe(false);
        live.set(slot, size);
      } else {
        expect(live.get(slot)).toBe(size);
        live.delete(slot);
      }
      weight += (word & 1) === 0 ? 2 ** size : -(2 ** size);
      if (i >= stream.nrFill) sum += weight;
    });
    expect(sum / (stream.words.length - stream.nrFill)).toBeGreaterThan(450);
    expect(sum / (stream.words.length - stream.nrFill)).toBeLessThan(550);
  });

  it("drawPareto() stays within its bounds, and half of all sizes are small", () => {
    const prng = createRandomStreams("1").stream("test");
    const sizes = Array.from({ length: 2_000 }, () => drawPareto(prng, 16, 4096));
    expect(Math.min(...sizes)).toBeGreaterThanOrEqual(16);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096);
    expect(sizes.filter((size) => size <= 32).length / sizes.length).toBeCloseTo(0.5, 1);
  });
});
