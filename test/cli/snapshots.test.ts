/**
 * Goal: a recorded run can be gone back into at any cycle, what is shown there is what was there, a run that goes
 * another way is found and the page named, and no file whatever does harm.
 * Method: small runs, recorded and replayed in this process; programs that differ in one store; every header field and
 * many bytes of a file damaged; the commands with a host that collects what they print.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap, SYS_sched_yield } from "../../kernel/uapi/syscall.ts";
import type { HostOutput } from "../../scripts/host_output.ts";
import { parsePlace } from "../../scripts/options.ts";
import { InputError } from "../../scripts/readers/input_error.ts";
import { replayCommand } from "../../scripts/replay_command.ts";
import { runCommand } from "../../scripts/run_command.ts";
import { type RunWatch, runWorkloads } from "../../scripts/run_workloads.ts";
import { type Mark, ramHex, takeMark } from "../../scripts/snapshots/mark.ts";
import { memoryDiff } from "../../scripts/snapshots/memory_diff.ts";
import { createRecorder } from "../../scripts/snapshots/recorder.ts";
import { createReplayer, type Point, type Replayer } from "../../scripts/snapshots/replayer.ts";
import { decode, type Recording } from "../../scripts/snapshots/snapshot_file.ts";
import { UsageError } from "../../scripts/usage_error.ts";
import { loadWorkloads, type WorkloadSet } from "../../scripts/workloads.ts";
import { createLibc } from "../../userland/libc.ts";

const MACHINE = { nrCpus: 2, ramBytes: 16 * 1024 * 1024, seed: "1", cmdline: "" };
const WORKLOAD = ["webserver --requests 80", "stress --ops 6000", "stress --ops 5000 --seed 2"];
const RUN = { machine: MACHINE, targets: WORKLOAD, options: {}, files: [] };
const scratch = mkdtempSync(join(tmpdir(), "slabtown-snapshots-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A set of one program that is not among the built-in ones. */
async function setOf(program: Program): Promise<WorkloadSet> {
  const set = await loadWorkloads(["true"]);
  return { ...set, programs: new Map([...set.programs, ["/bin/true", program]]) };
}

async function record(set: WorkloadSet, every: number): Promise<Uint8Array> {
  const recorder = createRecorder(every);
  await runWorkloads({ machine: MACHINE, set, watch: recorder.watch });
  return recorder.finish(RUN, "1.0");
}

async function replay(recording: Recording, set: WorkloadSet, point: Point): Promise<Replayer> {
  const replayer = createReplayer(recording, point);
  await runWorkloads({ machine: MACHINE, set, watch: replayer.watch });
  return replayer;
}

const lastStep = ({ marks }: Recording): Point => ({ step: marks.at(-1)?.steps ?? 0 });

/** Writes `value` after each of 60 yields into a page of its own; the 40th write is of `odd`. */
const writer = (odd: number): Program =>
  function* (env) {
    const libc = createLibc(env);
    const at = yield* libc.call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (let i = 0; i < 60; i++) {
      env.mem.st32(at + 4 * i, i === 40 ? odd : 7);
      yield* libc.call(SYS_sched_yield);
    }
    return 0;
  };

describe("recording and replaying", () => {
  it("MRK-1 marks change nothing: the same run with many, few and none", async () => {
    const set = await loadWorkloads(WORKLOAD);
    const last = async (every: number): Promise<string> => {
      const recorder = createRecorder(every);
      let end: Mark | undefined;
      const watch: RunWatch = {
        ...recorder.watch,
        end(kernel) {
          end = takeMark(kernel, { number: 0, name: "" });
        },
      };
      await runWorkloads({ machine: MACHINE, set, watch });
      return `${end?.cycle} ${end?.steps} ${ramHex(end as Mark)}`;
    };
    const none = await last(1e12);
    expect(await last(10_000)).toBe(none);
    expect(await last(77_777)).toBe(none);
  });

  it("RPL-1 every snapshot of a run is found again, and the file is the same bytes each time", async () => {
    const set = await loadWorkloads(WORKLOAD);
    const file = await record(set, 50_000);
    expect(Buffer.compare(file, await record(set, 50_000))).toBe(0);
    const recording = decode("x.snap", file, "1.0");
    expect(recording.marks.length).toBeGreaterThan(3);
    const replayer = await replay(recording, set, lastStep(recording));
    expect(replayer.divergence()).toBeNull();
    expect(replayer.nrCompared()).toBe(recording.marks.length);
    expect(replayer.view()?.steps).toBe(recording.marks.at(-1)?.steps);
  });

  it("RPL-3 any cycle can be gone to, before and behind snapshots, and twice is the same machine", async () => {
    const set = await loadWorkloads(WORKLOAD);
    const recording = decode("x.snap", await record(set, 50_000), "1.0");
    const [begin, end] = [recording.marks[0]?.cycle ?? 0, recording.marks.at(-1)?.cycle ?? 0];
    for (const part of [0.1, 0.37, 0.9]) {
      const cycle = Math.round(begin + part * (end - begin));
      const once = (await replay(recording, set, { cycle })).view() as Mark;
      const again = await replay(recording, set, { cycle });
      expect(again.divergence()).toBeNull();
      expect(ramHex(again.view() as Mark)).toBe(ramHex(once));
      expect(once.cycle).toBeGreaterThanOrEqual(cycle);
      expect(once.cycle - cycle).toBeLessThan(20_000);
      expect(again.nrCompared()).toBe(recording.marks.filter((mark) => mark.cycle <= once.cycle).length);
    }
    const late = await replay(recording, set, { cycle: end + 1e9 });
    expect(late.hasEnded()).toBe(true);
    expect(late.nrCompared()).toBe(recording.marks.length);
  });

  it("a run that goes another way is found at the next snapshot, with the page and its owner", async () => {
    const recording = decode("x.snap", await record(await setOf(writer(7)), 1_000), "1.0");
    const replayer = await replay(recording, await setOf(writer(8)), lastStep(recording));
    const divergence = replayer.divergence();
    expect(divergence?.lastGood).toBeGreaterThan(3);
    expect(divergence?.mark.number).toBe((divergence?.lastGood ?? 0) + 1);
    expect(divergence?.differences).toHaveLength(1);
    expect(divergence?.differences[0]).toMatch(
      /^1 page of RAM, the first is frame \d+ at 0x[0-9a-f]+ \(anonymous, true \(\d+\)\)$/,
    );
    expect(replayer.view()).toBeNull();
  });

  it("RPL-2 a byte of the image that is not what the machine has is named", async () => {
    const set = await setOf(writer(7));
    const recording = decode("x.snap", await record(set, 1e9), "1.0");
    const other = decode("y.snap", await record(await setOf(writer(8)), 1e9), "1.0");
    const mixed = { ...recording, image: other.image };
    const replayer = await replay(mixed, set, lastStep(mixed));
    expect(replayer.divergence()?.differences[0]).toMatch(/^at 0x[0-9a-f]+: 0x07 instead of 0x08$/);
  });

  it("OWN-1 the diff of two moments adds up, and its rows say what a program did", async () => {
    const set = await setOf(writer(7));
    const recording = decode("x.snap", await record(set, 1_000), "1.0");
    const boot = (await replay(recording, set, { step: 0 })).view() as Mark;
    const late = (await replay(recording, set, { cycle: (recording.marks.at(-1)?.cycle ?? 0) - 1_500 })).view() as Mark;
    const rows = memoryDiff(boot, late);
    const sum = (key: "before" | "after" | "got" | "gave"): number => rows.reduce((all, row) => all + row[key], 0);
    expect(sum("before")).toBe(MACHINE.ramBytes / 4096);
    expect(sum("after")).toBe(MACHINE.ramBytes / 4096);
    expect(sum("got")).toBe(sum("gave"));
    for (const { before, after, got, gave } of rows) expect(after).toBe(before + got - gave);
    expect(rows.find(({ owner }) => owner.startsWith("anonymous, true"))).toMatchObject({ before: 0, gave: 0 });
    expect(rows.find(({ owner }) => owner === "kernel stacks")).toMatchObject({ before: 0, after: 4 });
    expect(memoryDiff(late, late).every(({ got, gave, rewritten }) => got + gave + rewritten === 0)).toBe(true);
  });
});

describe("snapshot files", () => {
  it("SNP-1 whatever is done to a file, reading it is refused with one line", async () => {
    const file = await record(await setOf(writer(7)), 20_000);
    const refusal = (bytes: Uint8Array, version = "1.0"): string => {
      try {
        decode("x.snap", bytes, version);
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
        return (error as InputError).message;
      }
      return "accepted";
    };
    const withCrc = (bytes: Uint8Array): Uint8Array => {
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(12, crc32(bytes.subarray(16)), true);
      return bytes;
    };
    expect(refusal(file)).toBe("accepted");
    expect(refusal(file, "1.1")).toBe("made by slabtown 1.0, this is 1.1");
    for (const length of [0, 7, 8, 19, 20, 100, file.length - 1]) {
      expect(refusal(file.slice(0, length))).toMatch(/no snapshot|cut off/);
    }
    for (let at = 0; at < file.length; at += 1 + Math.floor(file.length / 300)) {
      const damaged = file.slice();
      damaged[at] = (damaged[at] as number) ^ (1 << (at % 8));
      expect(refusal(damaged)).not.toBe("accepted");
      // The same with a checksum that fits: refused, or a file that says something else; never another error.
      if (at >= 16) refusal(withCrc(damaged));
    }
    const format2 = file.slice();
    format2[8] = 2;
    expect(refusal(format2)).toBe("snapshot format 2, this slabtown reads 1");
    const huge = file.slice();
    new DataView(huge.buffer).setUint32(16, 0xffff_fff0, true);
    expect(refusal(huge)).toBe("the snapshot is cut off");
  });

  it.each<[string, string, RegExp]>([
    ["a machine without RAM", '"ramBytes":16777216', /header makes no sense/],
    ["a cycle that is no number", '"cycle":', /header makes no sense/],
  ])("SNP-1 a header with %s is refused", async (_, field, message) => {
    const file = await record(await setOf(writer(7)), 1e9);
    const text = Buffer.from(file).toString("latin1");
    const at = text.indexOf(field) + field.length - 1;
    const damaged = file.slice();
    damaged[at] = "x".charCodeAt(0);
    new DataView(damaged.buffer).setUint32(12, crc32(damaged.subarray(16)), true);
    expect(() => decode("x.snap", damaged, "1.0")).toThrow(message);
  });

  it("SNP-2 sizes that lie are refused without being believed", async () => {
    const file = await record(await setOf(writer(7)), 1e9);
    const length = new DataView(file.buffer, file.byteOffset).getUint32(16, true);
    const header = Buffer.from(file.subarray(20, 20 + length)).toString();
    const remade = (change: (text: string) => string): Uint8Array => {
      const json = Buffer.from(change(header));
      const made = Buffer.concat([file.subarray(0, 20), json, file.subarray(20 + length)]);
      made.writeUInt32LE(json.length, 16);
      made.writeUInt32LE(crc32(made.subarray(16)), 12);
      return made;
    };
    expect(
      decode(
        "x.snap",
        remade((text) => text),
        "1.0",
      ).marks,
    ).toHaveLength(2);
    const lies: ((text: string) => string)[] = [
      (text) => text.replace('"ramBytes":16777216', '"ramBytes":4294967296'),
      (text) => text.replace(/"bytes":\d+/, '"bytes":9007199254740991'),
      (text) => text.replace(/"frames":\[\d+/, '"frames":[4095'),
      (text) => text.replace(/"pieces":\[\d+\]/, '"pieces":[]'),
      (text) => text.replace(/"number":1,/, '"number":0,'),
      (text) => text.replace(/"ownerNames":\[[^\]]*\]/, '"ownerNames":[]'),
    ];
    for (const lie of lies) expect(() => decode("x.snap", remade(lie), "1.0")).toThrow(InputError);
  });
});

describe("the commands", () => {
  const hostOutput = (): HostOutput & { stdout: () => string; stderr: () => string } => {
    let [out, err] = ["", ""];
    return {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
      stop: { reason: "none" },
      stdout: () => out,
      stderr: () => err,
    };
  };
  const BASE = { quiet: true, color: false, mem: 16 * 1024 * 1024 };

  it("run --snapshot-every, replay --list, --to and --diff", async () => {
    const snapshot = join(scratch, "run.snap");
    const recorded = hostOutput();
    expect(await runCommand(WORKLOAD, { ...BASE, snapshotEvery: 100_000, snapshot }, recorded)).toBe(0);
    expect(recorded.stderr()).toMatch(/\d+ snapshots in .*run\.snap \(\d+\.\d MiB\); to go back: slabtown replay/);
    const list = hostOutput();
    expect(await replayCommand(snapshot, { ...BASE, list: true, json: true }, list)).toBe(0);
    const { snapshots } = JSON.parse(list.stdout()) as { snapshots: { cycle: number; freePages: number }[] };
    expect(snapshots.length).toBeGreaterThan(3);
    const there = hostOutput();
    expect(await replayCommand(snapshot, { ...BASE, to: "@1", diff: "@0", json: true }, there)).toBe(0);
    const document = JSON.parse(there.stdout()) as Record<string, unknown>;
    expect(document).toMatchObject({
      compared: 2,
      divergence: null,
      at: { cycle: snapshots[1]?.cycle, freePages: snapshots[1]?.freePages },
      diff: { from: snapshots[0]?.cycle },
    });
    const text = hostOutput();
    expect(await replayCommand(snapshot, { ...BASE, diff: snapshot }, text)).toBe(0);
    expect(text.stdout()).toContain(`${snapshots.length} of ${snapshots.length} snapshots passed, each as recorded`);
    expect(text.stdout()).toContain("nothing changed");
  });

  it("a recording that has changed since is refused, and so are places that are none", async () => {
    const path = join(scratch, "heap.rep");
    const rep = readFileSync("scripts/samples/tar.rep.gz");
    writeFileSync(path, rep);
    const snapshot = join(scratch, "heap.snap");
    const options = { ...BASE, mem: 64 * 1024 * 1024, snapshot };
    expect(await runCommand([path], options, hostOutput())).toBe(0);
    writeFileSync(path, readFileSync("scripts/samples/redis.rep.gz"));
    await expect(replayCommand(snapshot, BASE, hostOutput())).rejects.toThrow("not what it was");
    rmSync(path);
    await expect(replayCommand(snapshot, BASE, hostOutput())).rejects.toThrow("no such file");
    for (const to of ["@7", "-900G", "x", "@", ""]) {
      await expect(replayCommand(snapshot, { ...BASE, to }, hostOutput())).rejects.toThrow(UsageError);
    }
    await expect(runCommand(["-"], options, hostOutput())).rejects.toThrow("standard input");
    await expect(runCommand(["true"], { ...options, faultSweep: true }, hostOutput())).rejects.toThrow(UsageError);
    const nowhere = join(scratch, "no", "such", "place.snap");
    await expect(runCommand(["true"], { ...options, snapshot: nowhere }, hostOutput())).rejects.toThrow(
      "cannot be written",
    );
  });

  it("--cycles and --fail-alloc are part of what is repeated", async () => {
    const snapshot = join(scratch, "cut.snap");
    const options = { ...BASE, snapshot, cycles: 100_000, failAlloc: "400" };
    await runCommand(WORKLOAD, options, hostOutput());
    const replayed = hostOutput();
    expect(await replayCommand(snapshot, { ...BASE, json: true }, replayed)).toBe(0);
    expect(JSON.parse(replayed.stdout())).toMatchObject({ divergence: null, compared: 2 });
  });

  it.each([
    ["50M", { from: "start", cycles: 50e6 }],
    ["+10k", { from: "last", cycles: 10_000 }],
    ["-1", { from: "last", cycles: -1 }],
    ["+0", { from: "last", cycles: 0 }],
    ["@3", { from: 3, cycles: 0 }],
    ["@12-5M", { from: 12, cycles: -5e6 }],
  ])("place %s", (text, place) => {
    expect(parsePlace(text, "--to")).toEqual(place);
  });
});
