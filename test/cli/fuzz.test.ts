/**
 * Goal: the fuzzer's runs are the same each time, what it finds is real, and what it writes shows it again.
 * Method: planted bugs (modules with a bug of their own, programs that ignore SIGKILL, readers that throw) have to be
 * found, shrunk to little and found again in the scenario that is written. A short run over machines and borders finds
 * nothing.
 */

import { describe, expect, it } from "vitest";
import { PARAMETERS } from "../../kernel/cmdline.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { createDraw } from "../../scripts/fuzz/draw.ts";
import { drawCase, FUZZ_DRIVERS, PARAMETER_VALUES } from "../../scripts/fuzz/draw_machine.ts";
import { PROGRAM_ARGUMENTS } from "../../scripts/fuzz/draw_program.ts";
import type { Finding } from "../../scripts/fuzz/finding.ts";
import { type FuzzRequest, type FuzzResult, fuzz, signatureOf, targetOf } from "../../scripts/fuzz/fuzz.ts";
import { caseText, type FuzzCase, runText } from "../../scripts/fuzz/fuzz_case.ts";
import { runCase } from "../../scripts/fuzz/run_case.ts";
import { shorter, shrink } from "../../scripts/fuzz/shrink.ts";
import { fuzzDocument, fuzzText } from "../../scripts/fuzz_command.ts";
import { judge } from "../../scripts/metrics.ts";
import { inputFromBytes } from "../../scripts/readers/input.ts";
import { runWorkloads } from "../../scripts/run_workloads.ts";
import { loadScenario } from "../../scripts/workloads.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { createLibc } from "../../userland/libc.ts";
import { FUZZED_CALLS } from "../../userland/programs/sysfuzz_calls.ts";

const run = (options: Partial<FuzzRequest>): Promise<FuzzResult> =>
  fuzz({
    seed: "test",
    targets: ["machines"],
    first: 0,
    nrRuns: 1,
    isTimeUp: () => false,
    stop: { reason: "none" },
    shrinkBudget: 120,
    onProgress: () => {},
    onFinding: () => {},
    ...options,
  });

/** Run `nr`, and with it a driver that has a bug. */
function withBug(bug: string, params: readonly string[] = []) {
  return (seed: string, nr: number): FuzzCase => {
    const drawn = drawCase(createDraw(seed, nr));
    const steps = [["insmod", "buggy", `bug=${bug}`], ["rmmod", "buggy"], ["ps"]];
    return {
      ...drawn,
      cpus: 2,
      memBytes: 16 * 2 ** 20,
      params: ["quiet", "loglevel=3", ...params],
      programs: [...drawn.programs.slice(0, 3), { steps, isPlain: false, at: 0, count: 1 }],
      recordings: [],
      killCycles: 20_000_000,
    };
  };
}

async function findPlanted(draw: (seed: string, nr: number) => FuzzCase): Promise<Finding> {
  const { findings } = await run({ draw });
  expect(findings).toHaveLength(1);
  return findings[0] as Finding;
}

describe("what is drawn", () => {
  it("FUZ-2 the same case for the same seed and number, others for others", () => {
    const text = (seed: string, nr: number): string => caseText(drawCase(createDraw(seed, nr)), FUZZ_DRIVERS);
    expect(text("a", 3)).toBe(text("a", 3));
    expect(new Set([text("a", 3), text("a", 4), text("b", 3)]).size).toBe(3);
  });

  it("every built-in program and every kernel parameter has its turn", () => {
    const names = [...builtinPrograms().keys()].filter((path) => path !== "/sbin/init").map((path) => path.slice(5));
    expect(Object.keys(PROGRAM_ARGUMENTS).sort()).toEqual(names.sort());
    expect(Object.keys(PARAMETER_VALUES).sort()).toEqual(Object.keys(PARAMETERS).sort());
    expect(FUZZ_DRIVERS).not.toContain("buggy");
  });

  it("every case is a scenario that can be read", async () => {
    for (let nr = 0; nr < 30; nr++) {
      const drawn = drawCase(createDraw("read", nr));
      const set = await loadScenario(inputFromBytes("case.yaml", caseText({ ...drawn, recordings: [] }, FUZZ_DRIVERS)));
      expect(set.rules.finally).not.toHaveLength(0);
    }
  });

  it("contents are compared unless two programs write one file or a device spoils them", () => {
    const drawn = { ...drawCase(createDraw("contents", 1)), devices: {}, recordings: [] };
    const textOf = (...commands: readonly string[][]): string => {
      const programs = commands.map((words) => ({ steps: [words], isPlain: true, at: 0, count: 1 }));
      return caseText({ ...drawn, programs }, FUZZ_DRIVERS);
    };
    const text = (...names: readonly string[]): string => textOf(...names.map((name) => ["iotest", name]));
    expect(text("/tmp/a", "/tmp/b")).toContain("corrupt: 0");
    // Found by the fuzzer in itself: two iotests on one file; and `run` fails of itself if nothing is said (MB1-1209).
    expect(text("/tmp/a", "/tmp/a")).toContain('corrupt: ">= 0"');
    expect(textOf(["iotest", "/dev/sda"], ["dd", "if=/dev/zero", "of=/dev/sda"])).toContain('corrupt: ">= 0"');
    // MC2-1729: both in one pipe.
    expect(textOf(["iotest", "/tmp/a", "|", "iotest", "/tmp/a"])).toContain('corrupt: ">= 0"');
    // MB1-372: random system calls write to some files.
    expect(textOf(["iotest", "/tmp/b"], ["sysfuzz", "7", "0-9"])).toContain('corrupt: ">= 0"');
    expect(textOf(["iotest", "/tmp/alone"], ["sysfuzz", "7", "0-9"])).toContain("corrupt: 0");
  });

  it("words reach the program as they were drawn", () => {
    const program = {
      steps: [["echo", "a b", "'", "", ">", "/tmp/a"], ["ps", "&"], ["true"]],
      isPlain: false,
      at: 0,
      count: 1,
    };
    expect(runText(program)).toBe(
      `sh -c 'echo '\\''a b'\\'' '\\'''\\''\\'\\'''\\'''\\'' '\\'''\\'' > /tmp/a; ps & true'`,
    );
  });

  it("borders have their turns among the machines", () => {
    const all = ["machines", "readers", "scenarios", "cli"] as const;
    const turns = Array.from({ length: 18 }, (_, nr) => targetOf(nr, all));
    expect(turns.filter((target) => target === "machines")).toHaveLength(12);
    expect(new Set(turns).size).toBe(4);
    expect(targetOf(5, ["cli"])).toBe("cli");
  });
});

describe("system calls", () => {
  it("each has its turn, but for the one that ends the machine", () => {
    const fuzzed = new Set(FUZZED_CALLS.map(({ nr }) => nr));
    const missing = Object.entries(sys).filter(([name, nr]) => name.startsWith("SYS_") && !fuzzed.has(nr));
    expect(missing.map(([name]) => name)).toEqual(["SYS_reboot"]);
  });

  it("SYS-1 thousands of them, on machines with swap and without: nothing found, the same again", async () => {
    const result = await run({ targets: ["syscalls"], seed: "short", nrRuns: 3 });
    expect(result.findings).toEqual([]);
    expect(result.activity.syscalls).toBeGreaterThan(4000);
    const again = await run({ targets: ["syscalls"], seed: "short", nrRuns: 1 });
    expect(await run({ targets: ["syscalls"], seed: "short", nrRuns: 1 })).toEqual(again);
  });

  it("a result that is no errno is told of as wrong, and which call it was", async () => {
    const set = await loadScenario(inputFromBytes("wrong.yaml", "programs: [{ run: sysfuzz 7 0-300 }]\n"));
    const sysfuzz = set.programs.get("/bin/sysfuzz") as Program;
    // A kernel whose getppid() fails with an errno that does not exist, in this program and in its children.
    const lieTo = (env: ProgramEnv): ProgramEnv => ({
      ...env,
      syscall: (nr, ...args) => (nr === sys.SYS_getppid ? -999 : env.syscall(nr, ...args)),
      entryOf: (fn) => env.entryOf((child) => fn(lieTo(child))),
    });
    const programs = new Map([...set.programs, ["/bin/sysfuzz", (env: ProgramEnv) => sysfuzz(lieTo(env))] as const]);
    const machine = { nrCpus: 1, ramBytes: 16 * 2 ** 20, seed: "1", cmdline: "quiet" };
    const { result, kernel } = await runWorkloads({ machine, set: { ...set, programs } });
    expect(result.nrCorrupt).toBeGreaterThan(0);
    expect(kernel.check()).toBeNull();
    const honest = await runWorkloads({ machine, set });
    expect(honest.result.nrCorrupt).toBe(0);
  });
});

describe("planted bugs", () => {
  it.each([
    ["forgets_memory", [], "report"],
    ["lock_in_both", ["prove_locking=on"], "report"],
  ])("FUZ-3 %s is found, shrunk to one command, and seen again in the file", async (bug, params, kind) => {
    const finding = await findPlanted(withBug(bug, params));
    expect(finding.failure.kind).toBe(kind);
    const text = String(finding.file.content);
    expect(text).toContain(`bug=${bug}`);
    expect(text.match(/- run:/g)).toHaveLength(1);
    expect(text).not.toContain("; ps");
    expect(text).not.toMatch(/^(modules|devices):/m);
    const again = await runCase(text, { reason: "none" });
    expect(signatureOf(again.failure ?? { kind: "other", what: "" })).toBe(signatureOf(finding.failure));
  });

  it("a program that SIGKILL does not end, and one that leaves a module, are found", async () => {
    const load = (text: string) => loadScenario(inputFromBytes("planted.yaml", text));
    const judged = async (text: string, program?: Program): Promise<readonly string[]> => {
      const loaded = await load(text);
      const programs = new Map([
        ...loaded.programs,
        ...(program === undefined ? [] : [["/bin/true", program] as const]),
      ]);
      const machine = { nrCpus: 1, ramBytes: 16 * 2 ** 20, seed: "1", cmdline: "quiet" };
      const { result } = await runWorkloads({ machine, set: { ...loaded, programs } });
      return judge(result, loaded.expectations).failures;
    };
    const stubborn: Program = function* (env) {
      const libc = createLibc(env);
      for (;;) {
        try {
          yield* libc.sleep(5_000_000_000);
        } catch {
          // What a program cannot do on a real kernel.
        }
      }
    };
    const rules = 'kill: 5M\nexpect: { exit_status: ">= 0" }\n';
    expect(await judged(`programs: [{ run: "true" }]\n${rules}`, stubborn)).toContainEqual(
      expect.stringContaining("stuck"),
    );
    expect(await judged(`programs: [{ run: sleep 9 }]\n${rules}`)).toEqual([]);
    expect(await judged('programs: [{ run: insmod rtc }]\nfinally: ["true"]\n')).toEqual([
      expect.stringContaining("left behind at the end: 1 modules"),
    ]);
    expect(await judged("programs: [{ run: insmod rtc }]\nfinally: [rmmod rtc]\n")).toEqual([]);
  });
});

describe("shrinking", () => {
  it("finds the two entries that matter, and stops at its budget", async () => {
    const list = Array.from({ length: 40 }, (_, i) => i);
    const isAlike = async (rest: readonly number[]): Promise<boolean> => rest.includes(7) && rest.includes(31);
    const whole = await shrink<readonly number[]>(list, (rest) => shorter(rest), isAlike, 1000);
    expect(whole.smallest).toEqual([7, 31]);
    const cut = await shrink<readonly number[]>(list, (rest) => shorter(rest), isAlike, 5);
    expect(cut.nrRuns).toBe(5);
    expect(cut.smallest.length).toBeGreaterThan(2);
  });
});

describe("a short run", () => {
  it("machines, readers and scenarios: nothing found, the same again, everything counted", async () => {
    const options = { targets: ["machines", "readers", "scenarios"], nrRuns: 7 } as const;
    const result = await run(options);
    expect(result.findings).toEqual([]);
    const part = await run({ ...options, nrRuns: 2 });
    expect(await run({ ...options, nrRuns: 2 })).toEqual(part);
    expect(result.activity.allocations).toBeGreaterThan(300);
    expect(result.nrInputs).toBeGreaterThan(50);
    const summary = { result, seed: "test", again: "slabtown fuzz", files: [], hostSeconds: 1 };
    expect(fuzzText(summary)).toContain("runs with programs");
    expect(fuzzDocument(summary, false)).toMatchObject({ schema: "slabtown/fuzz/v1", findings: [] });
  });

  it("stops at Ctrl-C with what it has", async () => {
    const stop: FuzzRequest["stop"] = { reason: "none" };
    const onProgress = (nr: number): void => {
      if (nr === 2) stop.reason = "interrupt";
    };
    const result = await run({ targets: ["scenarios"], nrRuns: 9, stop, onProgress });
    expect(result).toMatchObject({ isInterrupted: true, nrRuns: { scenarios: 2 } });
  });
});
