/**
 * Goal: a scenario is read as it is meant, and every mistake in one is named with its line and column.
 * Method: texts in memory; of the bad ones the formatted error is compared, place included.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { METRIC_NAMES, parseExpectation, unmetExpectations } from "../../scripts/expectations.ts";
import { packageFile } from "../../scripts/package_files.ts";
import { inputFromBytes } from "../../scripts/readers/input.ts";
import { InputError } from "../../scripts/readers/input_error.ts";
import { readScenario } from "../../scripts/scenario.ts";
import { cpuMsOf, HANG_MS } from "../support/cpu_time.ts";

function read(content: string | Uint8Array) {
  return readScenario(inputFromBytes("s.yaml", content));
}

function complaint(content: string | Uint8Array): string {
  try {
    read(content);
  } catch (error) {
    if (error instanceof InputError) return error.format();
    throw error;
  }
  throw new Error("the scenario was taken");
}

const GOOD = `
machine: { cpus: 4, mem: 128M, seed: 7 }
cmdline: quiet
programs:
  - run: stress --ops 1000
    at: 5M
    count: 3
recordings:
  - { file: a.rep.gz, touch: first }
expect:
  leaks: 0
  latency.malloc.p999: "< 900 cycles"
`;

describe("good scenarios", () => {
  it("every part is read", () => {
    const scenario = read(GOOD);
    expect(scenario.machine).toEqual({ nrCpus: 4, ramBytes: 128 * 1024 * 1024, seed: "7", cmdline: "quiet" });
    expect(scenario.programs[0]).toMatchObject({ words: ["stress", "--ops", "1000"], atCycles: 5e6, count: 3 });
    const common = { atCycles: 0, verify: false, limit: undefined };
    expect(scenario.recordings).toEqual([{ ...common, source: { file: "a.rep.gz" }, touch: "first" }]);
    expect(scenario.expectations).toEqual([
      { metric: "leaks", operator: "==", value: 0 },
      { metric: "latency.malloc.p999", operator: "<", value: 900 },
    ]);
  });

  it("modules and devices are read, faults as they are written", () => {
    const scenario = read(
      'modules: [rtc rate=8]\ndevices:\n  rtc0: { lost_irq: "#3", never: 0.25 }\nprograms: [{ run: free }]\n',
    );
    expect(scenario.modules).toEqual(["rtc rate=8"]);
    expect(scenario.devices).toEqual({ rtc0: { lost_irq: "#3", never: 0.25 } });
  });

  it("a metric of a device may be expected, whatever its driver counts", () => {
    const { expectations } = read("programs: [{ run: free }]\nexpect: { device.rtc0.lost: 0 }\n");
    expect(expectations).toEqual([{ metric: "device.rtc0.lost", operator: "==", value: 0 }]);
  });

  it("how a run is watched and ended, and heaps as lists", () => {
    const { recordings, rules } = read(
      'recordings: [{ ops: "+1,-0", verify: true, limit: 1 }]\ncheck: 500k\nkill: 1G\nfinally: [rmmod rtc, "true"]\n',
    );
    expect(recordings).toMatchObject([{ source: { ops: "+1,-0" }, verify: true, limit: 1 }]);
    expect(rules).toMatchObject({ checkCycles: 5e5, killCycles: 1e9, finally: [{ words: ["rmmod", "rtc"] }, {}] });
  });

  it.each(["demo", "mixed"])("%s.yaml, which ships, is one", (name) => {
    const path = packageFile(`scenarios/${name}.yaml`);
    expect(readScenario(inputFromBytes(path, readFileSync(path))).recordings.length).toBeGreaterThan(1);
  });
});

describe("bad scenarios", () => {
  const PROGRAM = "programs: [{ run: free }]\n";

  it.each([
    ["unknown key", "programms: []\n", 's.yaml:1:1: unknown key "programms"'],
    ["unknown key inside", "machine:\n  cpu: 4\n", 's.yaml:2:3: unknown key "cpu" (expected cpus, mem, seed)'],
    ["unknown key in a list", "programs:\n  - run: free\n    when: 3\n", 's.yaml:3:5: unknown key "when"'],
    ["wrong type", "machine: { cpus: [1] }\n", "s.yaml:1:18: machine.cpus is a list (expected 1 to 64)"],
    ["out of range", "machine:\n  cpus: 65\n", "s.yaml:2:9: machine.cpus is 65 (expected 1 to 64)"],
    ["fraction", "machine: { cpus: 1.5 }\n", "s.yaml:1:18: machine.cpus is 1.5"],
    ["size", "machine: { mem: 1K }\n", 's.yaml:1:17: machine.mem is "1K" (expected a size'],
    ["list expected", "programs: stress\n", 's.yaml:1:11: programs is "stress" (expected a list'],
    ["count", "programs: [{ run: free, count: 0 }]\n", "s.yaml:1:32: programs.0.count is 0 (expected 1 to 1000)"],
    ["missing key", "programs:\n  - at: 5\n", "s.yaml:2:5: programs.0.run is missing"],
    ["open quote in run", `programs: [{ run: "echo 'x" }]\n`, "s.yaml:1:19: programs.0.run is"],
    ["module", "modules: [rtcc]\n", 's.yaml:1:11: no module "rtcc"'],
    ["parameter", "modules:\n  - rtc speed=8\n", 's.yaml:2:5: rtc has no parameter "speed=8"'],
    ["parameter without value", "modules: [rtc rate]\n", 's.yaml:1:11: rtc has no parameter "rate"'],
    ["device", "devices: { rtc9: {} }\n", 's.yaml:1:12: no device "rtc9"'],
    ["setting", "devices:\n  rtc0: { lost: 1 }\n", 's.yaml:2:11: rtc0 has no setting "lost"'],
    ["fault", "devices:\n  rtc0: { lost_irq: 2 }\n", 's.yaml:2:21: lost_irq is "2" (expected a probability'],
    ["setting named __proto__", "devices: { rtc0: { __proto__: 1 } }\n", "s.yaml:1:20:"],
    ["no device mapping", "devices: [rtc0]\n", "s.yaml:1:10: devices is a list"],
    ["no recording", "recordings: [{ touch: all }]\n", "s.yaml:1:14: names no recording"],
    ["two in one", 'recordings: [{ file: a, ops: "+1" }]\n', "names a file and operations"],
    ["operations", 'recordings: [{ ops: "+1,-3" }]\n', "s.yaml:1:21: allocation 3 does not exist yet"],
    ["check", `${PROGRAM}check: soon\n`, "s.yaml:2:8: check is"],
    ["finally", `${PROGRAM}finally: [3]\n`, "s.yaml:2:11: finally.0 is 3"],
    ["touch", "recordings: [{ file: a, touch: some }]\n", "(expected none, first, all)"],
    ["duplicate key", "cmdline: a\ncmdline: b\n", "s.yaml:2:1: not valid YAML: map keys must be unique"],
    ["__proto__", `${PROGRAM}__proto__: { x: 1 }\n`, 's.yaml:2:1: "__proto__" is no key'],
    ["constructor", `machine: { constructor: 1 }\n${PROGRAM}`, 's.yaml:1:12: "constructor" is no key'],
    ["list as key", "? [a]\n: 1\n", "s.yaml:1:3: a key has to be a word"],
    ["own tag", "cmdline: !run x\n", "s.yaml:1:10: not valid YAML: unresolved tag: !run"],
    ["tag of JavaScript", "cmdline: !!js/function x\n", "s.yaml:1:10: not valid YAML"],
    ["two documents", "cmdline: a\n---\ncmdline: b\n", "multiple documents"],
    ["open bracket", "programs: [\n", "not valid YAML"],
    ["tab", "\tcmdline: a\n", "s.yaml:1:1: not valid YAML: tabs are not allowed"],
    ["unknown alias", "cmdline: *x\n", "not valid YAML: unresolved alias"],
    ["runs nothing", "cmdline: quiet\n", "s.yaml:1:1: runs nothing"],
    ["a list", "- a\n", "s.yaml:1:1: the file is a list"],
    ["a word", "hello\n", 's.yaml:1:1: the file is "hello"'],
    ["only comments", "# nothing\n", "holds no scenario"],
    ["a number for metrics", `${PROGRAM}expect: 3\n`, "s.yaml:2:9: expect is 3 (expected metrics with values)"],
    ["a list for metrics", `${PROGRAM}expect: []\n`, "s.yaml:2:9: expect is a list"],
    ["a list for a mapping", `machine: []\n${PROGRAM}`, "s.yaml:1:10: machine is a list"],
    ["a word for a program", "programs:\n  - free\n", 's.yaml:2:5: programs.0 is "free"'],
    ["too many", `programs:\n${"  - { run: a, count: 1000 }\n".repeat(11)}`, "starts 11000 programs (expected at most"],
  ])("%s", (_kind, content, expected) => {
    expect(complaint(content)).toContain(expected);
  });

  it("an empty file", () => {
    expect(complaint("")).toBe("s.yaml: the file is empty");
  });

  it("binary data, and text that is not UTF-8", () => {
    expect(complaint("cmdline: a\0b\n")).toContain("is binary data");
    expect(complaint(new Uint8Array([0x63, 0xff, 0xfe, 0x0a]))).toContain("is not UTF-8 text");
  });

  it("an anchor bomb is refused, and quickly", () => {
    const row = (name: string, of: string) => `${name}: &${name} [${`*${of}, `.repeat(9)}*${of}]\n`;
    const letters = [..."bcdefghi"];
    const bomb = `a: &a [x, x]\n${letters.map((name, i) => row(name, "abcdefgh"[i] ?? "a")).join("")}`;
    const cpuMs = cpuMsOf(() => expect(complaint(bomb)).toContain("aliases repeat too much"));
    expect(cpuMs).toBeLessThan(HANG_MS);
  });

  it("nesting without end is refused, and quickly", () => {
    for (const bomb of ["[".repeat(100_000), "{".repeat(100_000), "- ".repeat(100_000)]) {
      const cpuMs = cpuMsOf(() => expect(complaint(bomb)).toMatch(/nested more than|not valid YAML/));
      expect(cpuMs).toBeLessThan(HANG_MS);
    }
  });

  it("no object's prototype changes", () => {
    complaint("__proto__: { polluted: 1 }\n");
    expect("polluted" in {}).toBe(false);
  });

  it("suggests the nearest key and the nearest metric", () => {
    expect(complaint("programm: []\n")).toContain('did you mean "programs"?');
    const metric = complaint(`${PROGRAM}expect:\n  latency.maloc.p99: 3\n`);
    expect(metric).toContain('s.yaml:3:3: unknown metric "latency.maloc.p99"');
    expect(metric).toContain('did you mean "latency.malloc.p99"?');
  });

  it("an expectation that is none", () => {
    const text = complaint(`${PROGRAM}expect: { leaks: "about 3" }\n`);
    expect(text).toContain('s.yaml:2:18: leaks: "about 3" is no expectation');
  });
});

describe("expectations", () => {
  it.each([
    ["< 3", 2, true],
    ["< 3", 3, false],
    ["<= 3", 3, true],
    ["> 3", 3, false],
    [">=3", 3, true],
    ["== 3", 3, true],
    ["3", 4, false],
  ])("%s holds of %d: %s", (text, seen, holds) => {
    const expectation = parseExpectation("leaks", text);
    if (expectation === null) throw new Error("not parsed");
    expect(unmetExpectations([expectation], new Map([["leaks", seen]])).length === 0).toBe(holds);
  });

  it("a unit has to be the metric's own", () => {
    expect(parseExpectation("latency.free.p99", "< 9 cycles")).not.toBeNull();
    expect(parseExpectation("latency.free.count", "< 9 cycles")).toBeNull();
    expect(parseExpectation("leaks", "< 9 bytes")).toBeNull();
    expect(parseExpectation("leaks", Number.NaN)).toBeNull();
  });

  it("a metric without a value is not met", () => {
    expect(unmetExpectations([{ metric: "leaks", operator: "==", value: 0 }], new Map())).toHaveLength(1);
    expect(new Set(METRIC_NAMES).size).toBe(METRIC_NAMES.length);
  });
});
