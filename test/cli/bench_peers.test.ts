/**
 * Goal: what stands beside Slabtown in `bench` is an allocator that works, replays the same operations, and is said to
 * be missing where it is. Method: small streams under the checks of checked_subject.ts and of native_replay.c; the
 * built program without packages and without a compiler. Times are never judged.
 */

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isUtf8Locale } from "../../scripts/ascii.ts";
import type { BenchRun } from "../../scripts/bench/bench_run.ts";
import { checkedSubject } from "../../scripts/bench/checked_subject.ts";
import { figureResult } from "../../scripts/bench/figures.ts";
import { JS_PEERS, packageFolder } from "../../scripts/bench/js_peers.ts";
import { findNativePeers, sampleNative, sampleNativeThreads } from "../../scripts/bench/native_peers.ts";
import { plot } from "../../scripts/bench/plot.ts";
import { NO_ALLOCATOR, replayPairs, replayStream, timeReplay } from "../../scripts/bench/replay.ts";
import { readStream, writeStream } from "../../scripts/bench/stream_file.ts";
import { drawPareto, drawStream } from "../../scripts/bench/streams.ts";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const folder = mkdtempSync(join(tmpdir(), "slabtown-peers-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const RUN: BenchRun = {
  seed: "1",
  nrSamples: 1,
  nrOps: 1_000,
  wants: () => true,
  progress: () => {},
  detail: () => {},
  isStopped: () => false,
};
const STREAM = drawStream({
  seed: "3",
  nrOps: 20_000,
  target: 300,
  drawSize: (prng) => drawPareto(prng, 16, 4096),
  weigh: () => 1,
});
const NO_LIMIT_MS = 60_000;

describe("peers in JavaScript", () => {
  const here = JS_PEERS.filter(({ name, needs }) => {
    // Compiling takes seconds: AssemblyScript's is tried by the bench itself.
    return name !== "AssemblyScript TLSF" && (needs === null || packageFolder(needs) !== undefined);
  });

  it.each(here.map((peer) => [peer.name, peer] as const))("%s: no failure, no overlap", async (_, peer) => {
    const { subject, check } = checkedSubject(await peer.create(64 * 1024 * 1024, null));
    const replay = replayStream(STREAM, subject, peer.holdsObjects === true);
    expect(timeReplay(replay, STREAM.words.length, NO_LIMIT_MS).nrOps).toBe(STREAM.words.length);
    expect(timeReplay(replayPairs(64, 8, subject), 1_600, NO_LIMIT_MS).nrOps).toBe(1_600);
    expect([replay.nrFailed(), check()]).toEqual([0, null]);
  });

  it("checkedSubject() sees an allocator that hands out memory twice, and one that is not aligned", () => {
    const twice = checkedSubject({ alloc: () => 4096, free: () => {} });
    replayPairs(64, 2, twice.subject).run(4);
    expect(twice.check()).toContain("overlap");
    const odd = checkedSubject({ alloc: () => 4097, free: () => {} });
    replayPairs(64, 1, odd.subject).run(2);
    expect(odd.check()).toContain("not aligned");
    const ok = checkedSubject(NO_ALLOCATOR);
    replayPairs(63, 1, ok.subject).run(8);
    expect(ok.check()).toBeNull();
  });
});

describe("peers in C", async () => {
  const native = await findNativePeers(folder, RUN);
  const { program } = native;
  if (program === null) process.stderr.write("test/cli/bench_peers: no C compiler: peers in C are skipped\n");
  const file = join(folder, "small.stream");
  beforeAll(() => writeStream(file, STREAM));
  const nrOps = STREAM.words.length - STREAM.nrFill;

  it.skipIf(program === null).each(native.peers.map((peer) => [peer.name, peer] as const))(
    "%s: the whole stream, no failure, no block damaged, its own library",
    async (_, peer) => {
      const checked = ["0", String(nrOps), String(NO_LIMIT_MS), "1"];
      const stream = await sampleNative(program ?? "", peer, ["stream", file, "0", ...checked], RUN);
      expect(stream).toMatchObject({ nrOps, failures: 0, fault: null });
      const pairs = await sampleNative(program ?? "", peer, ["pairs", "64", "8", ...checked], RUN);
      expect(pairs).toMatchObject({ failures: 0, fault: null });
      for (const workload of ["churn", "pipe"] as const) {
        const sample = await sampleNativeThreads(program ?? "", peer, workload, { nrThreads: 2, nrPairs: 64_000 }, RUN);
        expect(sample?.value).toBeGreaterThan(0);
      }
    },
  );

  it.skipIf(program === null)("sizes that are orders of pages become bytes, of which none fails", async () => {
    const [libc] = native.peers;
    const orders = drawStream({
      seed: "4",
      nrOps: 2_000,
      target: 64,
      drawSize: (prng) => prng.below(3),
      weigh: () => 1,
    });
    const pages = join(folder, "pages.stream");
    writeStream(pages, orders);
    if (libc === undefined) throw new Error("no system malloc");
    const args = ["stream", pages, "12", "0", "2000", String(NO_LIMIT_MS), "1"];
    expect(await sampleNative(program ?? "", libc, args, RUN)).toMatchObject({ failures: 0, fault: null });
  });

  it.skipIf(program === null)("a file that is no stream, and nonsense as arguments, end with an error", async () => {
    const bad = join(folder, "bad.stream");
    writeFileSync(bad, "no stream at all, but long enough");
    const [libc] = native.peers;
    if (libc === undefined) throw new Error("no system malloc");
    const rest = ["0", "0", "10", "10", "0"];
    await expect(sampleNative(program ?? "", libc, ["stream", bad, ...rest], RUN)).rejects.toThrow("ended with 2");
    await expect(sampleNative(program ?? "", libc, ["nonsense"], RUN)).rejects.toThrow("usage");
  });
});

describe("peers that are not here", () => {
  const PROGRAM = join(ROOT, "dist", "scripts", "slabtown.js");

  it.skipIf(!existsSync(PROGRAM))("are named with what they need and how to get it; the bench goes on", () => {
    // The built package with its dependencies and nothing else, and no program to be found but Node.
    const alone = join(folder, "alone");
    for (const room of ["dist", "scripts/bench"]) cpSync(join(ROOT, room), join(alone, room), { recursive: true });
    cpSync(join(ROOT, "package.json"), join(alone, "package.json"));
    mkdirSync(join(alone, "node_modules"));
    for (const name of ["chalk", "commander", "seedrandom", "valibot", "yaml"]) {
      symlinkSync(join(ROOT, "node_modules", name), join(alone, "node_modules", name));
    }
    const program = join(alone, "dist", "scripts", "slabtown.js");
    const args = [program, "bench", "--filter", "A3", "--ops", "5k", "--samples", "1", "--quiet"];
    const env = { PATH: join(alone, "nowhere"), LANG: "C" };
    const run = (...more: string[]) =>
      spawnSync(process.execPath, [...args, ...more], { cwd: alone, env, encoding: "utf8", timeout: 50_000 });
    const { status, stdout, stderr } = run();
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("@thi.ng/malloc: skipped: needs @thi.ng/malloc (npm install --no-save @thi.ng/malloc)");
    expect(stdout).toContain("jemalloc: skipped: needs a C compiler");
    // Not a UTF-8 terminal: plain ASCII.
    expect([...stdout].every((character) => character.charCodeAt(0) < 128)).toBe(true);
    const { skipped, figures } = JSON.parse(run("--json").stdout) as {
      skipped: { name: string; needs: string; install: string }[];
      figures: { subjects: { name: string }[] }[];
    };
    expect(skipped.map(({ name }) => name)).toContain("AssemblyScript TLSF");
    expect(skipped.every(({ needs, install }) => needs !== "" && install !== "")).toBe(true);
    expect(figures[0]?.subjects.map(({ name }) => name)).toEqual([
      "slabtown",
      "loop alone",
      "V8 Uint8Array",
      "V8 array",
    ]);
  });
});

describe("parts", () => {
  it("writeStream() and readStream() keep every operation; other files are refused", () => {
    const path = join(folder, "again.stream");
    writeStream(path, STREAM);
    expect(readStream(path)).toEqual(STREAM);
    writeFileSync(path, "not a stream, sixteen bytes and more");
    expect(() => readStream(path)).toThrow("is no stream");
  });

  // Regression: the limit was by the clock, so on a busy computer a subject was timed before it was filled and warm.
  it("timeReplay() stops at the operations asked for, at the end of the stream, and after so much CPU time", () => {
    const all = STREAM.words.length;
    expect(timeReplay(replayStream(STREAM, NO_ALLOCATOR), 5_000, NO_LIMIT_MS).nrOps).toBe(5_000);
    expect(timeReplay(replayStream(STREAM, NO_ALLOCATOR), all * 2, NO_LIMIT_MS).nrOps).toBe(all);
    const slow = { run: (nr: number) => busy(nr), nrFailed: () => 0 };
    expect(timeReplay(slow, 1e12, 20).nrOps).toBeLessThan(1e12);
    const asleep = { run: (nr: number) => sleep(nr), nrFailed: () => 0 };
    expect(timeReplay(asleep, 8 * 4_096, 300).nrOps).toBe(8 * 4_096);
  });

  it("ratios: below 1 Slabtown is ahead, for times and for rates alike; the best peer is the fastest", () => {
    const subject = (name: string, role: "slabtown" | "peer", value: number) => {
      const none = { cpu: null, worst: null, failures: 0, fault: null, nrOps: 1, samples: [value] };
      return { name, role, value, ...none };
    };
    const subjects = [subject("own", "slabtown", 10), subject("a", "peer", 20), subject("b", "peer", 5)];
    const time = figureResult({ id: "T", title: "t", unit: "ns", bar: 10, better: "lower" }, subjects);
    expect(time.subjects.map(({ ratio }) => ratio)).toEqual([null, 0.5, 2]);
    expect([time.bestPeer, time.isReached]).toEqual(["b", true]);
    const rate = figureResult({ id: "R", title: "r", unit: "M/s", bar: 11, better: "higher" }, subjects);
    expect(rate.subjects.map(({ ratio }) => ratio)).toEqual([null, 2, 0.5]);
    expect([rate.bestPeer, rate.isReached]).toEqual(["a", false]);
  });

  it("plot() puts each value in its row; ASCII without UTF-8", () => {
    const curves = [
      { mark: "b", values: [1, 1, 2] },
      { mark: "k", values: [1, 3, 2] },
    ];
    const lines = plot(["64M", "1G", "4G"], curves, false).split("\n");
    expect(lines).toHaveLength(10);
    expect(lines[0]).toMatch(/^ {2}3\.0 x \| +k$/);
    expect(lines[7]).toMatch(/^ {2}1\.0 x \| +bk +b$/);
    expect(lines.filter((line) => line.includes("bk"))).toHaveLength(2);
    expect(lines[9]).toMatch(/64M +1G +4G/);
    expect(plot(["64M"], curves, true)).toContain("│");
    const locales = [{ LANG: "C.UTF-8" }, { LC_ALL: "en_GB.utf8" }, { LC_ALL: "C", LANG: "C.UTF-8" }, {}];
    expect(locales.map(isUtf8Locale)).toEqual([true, true, false, false]);
  });
});

/** Takes time by the clock, and none of the processor's. */
function sleep(nr: number): number {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  return nr;
}

/** Takes a little time. */
function busy(nr: number): number {
  const end = performance.now() + 1;
  while (performance.now() < end);
  return nr;
}
