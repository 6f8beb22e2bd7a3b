/**
 * Goal: a fault sweep tries each N, calls failing programs fine and real damage a finding, and can be repeated.
 * Method: the sweep itself over two small workloads, on machines with little RAM; a planted leak and a planted hang as
 * programs must be found. The command as a user types it: wrong options.
 */

import { describe, expect, it } from "vitest";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap } from "../../kernel/uapi/syscall.ts";
import { DEBUG_ENTRIES_PER_PAGE } from "../../mm/index.ts";
import { initSet } from "../../scripts/boot_command.ts";
import { endState, surplusText } from "../../scripts/end_state.ts";
import { faultSweep, type SweepRequest, type SweepResult, sweepPlan } from "../../scripts/fault_sweep.ts";
import { checkFaultOptions, sweepDocument, sweepText } from "../../scripts/fault_sweep_command.ts";
import { failing, parseFailAlloc, withoutTracers } from "../../scripts/options.ts";
import { runWorkloads } from "../../scripts/run_workloads.ts";
import { placePlan, spread } from "../../scripts/sweep_places.ts";
import { UsageError } from "../../scripts/usage_error.ts";
import { loadWorkloads, type WorkloadSet, withoutStrayWrites } from "../../scripts/workloads.ts";
import { createLibc } from "../../userland/libc.ts";

const MACHINE = { nrCpus: 2, ramBytes: 16 * 1024 * 1024, seed: "1", cmdline: "" };

const sweep = (set: WorkloadSet, options: Partial<SweepRequest> = {}): Promise<SweepResult> =>
  faultSweep({
    machine: MACHINE,
    set,
    from: 1,
    to: undefined,
    step: 1,
    nrPersistent: 5,
    stop: { reason: "none" },
    onProgress: () => {},
    onFinding: () => {},
    ...options,
  });

/** A set of one program that is not among the built-in ones. */
async function setOf(program: Program): Promise<WorkloadSet> {
  const set = await loadWorkloads(["true"]);
  return { ...set, programs: new Map([...set.programs, ["/bin/true", program]]) };
}

const timeless = ({ hostSeconds: _, ...result }: SweepResult): object => result;

describe("fault sweep", () => {
  it("SWP-3 tries each N once and some with all later ones", () => {
    expect(sweepPlan(3, 6, 1, 2)).toEqual(["3", "3+", "4", "5", "5+", "6"]);
    expect(sweepPlan(1, 3, 1, Number.POSITIVE_INFINITY)).toEqual(["1", "1+", "2", "2+", "3", "3+"]);
    expect(sweepPlan(2, 9, 3, 1)).toEqual(["2", "2+", "5", "8"]);
    expect(sweepPlan(5, 4, 1, 1)).toEqual([]);
  });

  it("SWP-4 tries the first request of each place before any second one", () => {
    expect(spread([3, 5, 6, 8, 9, 12, 20], 4)).toEqual([3, 20, 6, 9]);
    expect([spread([3], 4), spread([3, 4], 4), spread([3, 4, 5], 1), spread([], 2)]).toEqual([[3], [3, 4], [3], []]);
    const places = [
      { name: "b", requests: [2, 7, 8, 9, 11] },
      { name: "a", requests: [1, 5] },
      { name: "c", requests: [6] },
    ];
    expect(placePlan(places, 3, false)).toEqual(["1", "1+", "2", "2+", "6", "6+", "5", "11", "8"]);
    expect(placePlan(places, 1, true)).toEqual(["1", "1+", "2", "2+", "6", "6+"]);
    expect(placePlan([], 3, true)).toEqual([]);
  });

  it("SWP-4 SWP-5 by place: a shell and a driver, the same again, and findings say where", async () => {
    const set = initSet("insmod rtc\n");
    const plain = await sweep(set, { to: 1, nrPersistent: 0 });
    const range = { perPlace: 1, from: plain.nrRequests - 9 };
    const result = await sweep(set, range);
    expect(result.findings).toEqual([]);
    expect([result.nrRequests, result.referenceCycles]).toEqual([plain.nrRequests, plain.referenceCycles]);
    const { places } = result;
    if (places === null) throw new Error("no places");
    expect(places.reduce((sum, { nrRequests }) => sum + nrRequests, 0)).toBe(10);
    expect(places.every(({ nrTried }) => nrTried === 1)).toBe(true);
    expect([result.nrOnce, result.nrPersistent]).toEqual([places.length, places.length]);
    const names = places.map(({ place }) => place);
    expect(names).toContain("kmod: kmallocAny < kzalloc < allocStruct < insmod < body");
    expect(names.join()).not.toMatch(/onRequest|shouldFail|execute/);
    expect(timeless(await sweep(set, range))).toEqual(timeless(result));
    expect(sweepText(result, "x")).toContain(`${places.length} that allocate; each was tried, with up to 1`);
    const found = { nth: "7", kind: "leak", what: "1 tasks", place: "sh: pipe" } as const;
    expect(sweepText({ ...result, findings: [found] }, "x")).toContain("asked for by sh: pipe");
  });

  it("a boot with a shell, a pipe and a driver: every N, nothing found", async () => {
    const result = await sweep(initSet("free; ps | cat; insmod rtc; rmmod rtc\n"), { nrPersistent: 20 });
    expect(result.findings).toEqual([]);
    expect(result.nrOnce).toBe(result.nrRequests);
    expect(result.nrOnce).toBeGreaterThan(30);
    expect(result.nrPersistent).toBeGreaterThan(9);
  });

  it("a file that nobody could remove, because rm found no memory, is no leak (was told as one)", async () => {
    const result = await sweep(initSet("echo x > /tmp/a; rm /tmp/a\n"), { nrPersistent: Number.POSITIVE_INFINITY });
    expect(result.findings).toEqual([]);
    expect(result.nrPersistent).toBe(result.nrOnce);
  });

  // Found by this sweep: with swap=SIZE a kernel thread was process 1, so that init was refused memory, and died.
  it("memory on a swap disk: one failure, and no allocation from there on", async () => {
    const machine = { ...MACHINE, cmdline: "swap=16M" };
    const result = await sweep(initSet("memhog 18M\n"), {
      machine,
      step: 4000,
      nrPersistent: Number.POSITIVE_INFINITY,
    });
    expect(result.findings).toEqual([]);
    expect(result.nrRequests).toBeGreaterThan(5000);
    expect([result.nrOnce, result.nrPersistent]).toEqual([3, 3]);
  });

  it("a heap recording: failing programs are fine; FIN-3, SWP-1, SWP-2 the same again", async () => {
    const set = await loadWorkloads([], { ops: "+100,+5000,+70000,-1,+24,-0,-2,-3", verify: true });
    const whole = await sweep(set);
    expect(whole.findings).toEqual([]);
    expect(whole.nrFailedPrograms).toBeGreaterThan(0);
    expect(timeless(await sweep(set))).toEqual(timeless(whole));
    const part = await sweep(set, { from: 2, to: 3 });
    expect(part).toMatchObject({ nrRequests: whole.nrRequests, nrOnce: 2, from: 2, to: 3 });
  });

  it("finds a program that waits for memory for ever, and one that lost its data", async () => {
    const careless = await setOf(function* (env) {
      const libc = createLibc(env);
      if ((yield* libc.call(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)) >= 0) return 0;
      yield* libc.print("3 blocks written, 2 wrong\n");
      for (;;) yield* libc.sleep(CYCLES_PER_SECOND);
    });
    const { findings } = await sweep(careless);
    const kinds = new Set(findings.map(({ kind }) => kind));
    expect([...kinds].sort()).toEqual(["content", "hang"]);
  });

  it("says what is wrong with its range and with the run that it compares with", async () => {
    const set = await loadWorkloads([], { ops: "+100,-0" });
    await expect(sweep(set, { from: 1_000_000 })).rejects.toThrow(UsageError);
    const broken = { ...MACHINE, cmdline: "fail_nth=1+" };
    await expect(sweep(set, { machine: broken, from: 9_999 })).rejects.toThrow("allocations");
  });

  it("stops at Ctrl-C with what it has", async () => {
    const stop: SweepRequest["stop"] = { reason: "none" };
    const set = await loadWorkloads([], { ops: "+100,+5000,+70000" });
    const result = await sweep(set, {
      stop,
      onProgress: (nrDone) => {
        if (nrDone === 3) stop.reason = "interrupt";
      },
    });
    expect(result).toMatchObject({ isInterrupted: true });
    expect(result.nrOnce + result.nrPersistent).toBe(3);
    expect(sweepText(result, "slabtown run x")).toContain("then interrupted");
  });

  it("prints the first finding with the line that shows it again, and a document", async () => {
    const result = await sweep(await loadWorkloads([], { ops: "+1" }), { to: 1 });
    const found = { ...result, findings: [{ nth: "7+", kind: "leak", what: "1 tasks" } as const] };
    expect(sweepText(found, "slabtown run x")).toContain("again        slabtown run x --fail-alloc 7+");
    const document = sweepDocument(found, MACHINE, "slabtown run x", false);
    expect(document).toMatchObject({
      schema: "slabtown/fault-sweep/v1",
      findings: [{ nth: "7+", kind: "leak", replay: "slabtown run x --fail-alloc 7+" }],
    });
    expect(JSON.stringify(document)).not.toContain("econds");
  });
});

it("a page more of dma-debug's entries, which it keeps, is no leak (was told as one, packets.yaml at 1180)", async () => {
  const { kernel } = await runWorkloads({ machine: MACHINE, set: await loadWorkloads(["true"]) });
  const reference = endState(kernel);
  const census = { ...kernel.census(), dmaPools: kernel.census().dmaPools + 1 };
  const ENTRIES = "/sys/kernel/debug/dma-api/nr_total_entries";
  const nrEntries = Number(kernel.readFile(ENTRIES)) + DEBUG_ENTRIES_PER_PAGE;
  const readFile = (path: string): string | null => (path === ENTRIES ? `${nrEntries}\n` : kernel.readFile(path));
  const now = (other: Partial<Kernel>) => endState({ ...kernel, ...other });
  expect(surplusText(now({ census: () => census, readFile }), reference)).toBeNull();
  expect(surplusText(now({ census: () => census }), reference)).toBe("1 pages of other");
});

describe("options of fault injection", () => {
  it("--fail-alloc is a kernel parameter", () => {
    expect(failing(MACHINE, parseFailAlloc("17+")).cmdline).toBe("fail_nth=17+");
    expect(failing({ ...MACHINE, cmdline: "quiet" }, "3").cmdline).toBe("quiet fail_nth=3");
    for (const bad of ["", "0", "-1", "1.5", "+", "1++", "x"]) expect(() => parseFailAlloc(bad)).toThrow(UsageError);
  });

  it("refuses options that mean nothing together", () => {
    for (const bad of [
      { sweepTo: 3 },
      { persistent: true },
      { faultSweep: true, failAlloc: "3" },
      { faultSweep: true, sweepFrom: 5, sweepTo: 3 },
      { sweepPlaces: 2 },
      { faultSweep: true, sweepPlaces: 2, sweepStep: 2 },
    ]) {
      expect(() => checkFaultOptions(bad)).toThrow(UsageError);
    }
    checkFaultOptions({ faultSweep: true, sweepFrom: 3, sweepTo: 5, sweepStep: 2, persistent: true });
    checkFaultOptions({ faultSweep: true, sweepPlaces: 2, persistent: true });
    checkFaultOptions({});
  });

  it("tracers that look at the host's stack are left out: nearly half of isa-disk's time", () => {
    const traced = { ...MACHINE, cmdline: "irqsoff=on swap=1M stacktrace=on" };
    expect(withoutTracers(traced).cmdline).toBe("swap=1M");
  });

  it("devices keep their faults, but for stray writes", async () => {
    const { devices } = withoutStrayWrites(await loadWorkloads(["isa-disk.yaml"]));
    expect(devices).toHaveProperty(["disk0", "corrupt"]);
    expect(devices).not.toHaveProperty(["disk0", "stray_write"]);
  });
});
