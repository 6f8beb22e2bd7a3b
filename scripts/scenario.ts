/**
 * Scenarios: a YAML file that says which machine to boot, what to run on it, and what to expect.
 *
 *   machine: { cpus: 4, mem: 128M, seed: 7 }       all optional; options on the command line go first
 *   cmdline: slub_debug=FZP                        kernel parameters
 *   modules:                                       drivers to load before the programs start, with parameters
 *     - nic
 *     - sensor buffer=ring
 *   devices:                                       how the devices of the machine are to be (drivers/index.ts)
 *     nic0: { rate: 50000, lost_irq: 0.01 }
 *     sensor0: { period: 100000, late: "#3" }      a fault: a probability, or the N-th time
 *   programs:
 *     - run: stress --ops 1000                     name of a built-in program and its arguments
 *       at: 5M                                     virtual time after the start, cycles; default 0
 *       count: 3                                   so many of them; default 1
 *   recordings:
 *     - file: ../samples/sqlite3.rep.gz            relative to the scenario
 *       touch: first                               which bytes the replay writes: none, first, all
 *       verify: true                               stamps its blocks and looks at the stamps; default false
 *       limit: 5000                                the first so many operations; default: all
 *     - ops: "+100,+24,-0,+80"                     or a heap as a list, as --ops has it
 *   check: 500k                                    looks at invariants and identities every so many cycles
 *   kill: 1G                                       kills programs that still run so many cycles after the start
 *   finally:                                       programs that put things in order, one after another, at the end;
 *     - rmmod nic                                  then the machine may hold no more than one that ran only these
 *   expect:
 *     leaks: 0                                     see expectations.ts for the metrics
 *     latency.malloc.p999: < 900 cycles
 *
 * The shape is a valibot schema; places in the file come from yaml_document.ts.
 */

import * as v from "valibot";
import { DEVICE_SETTINGS, type DeviceSettings, DRIVER_TYPES, settingProblem } from "../drivers/index.ts";
import { type Expectation, expectationForm, isMetric, METRIC_NAMES, parseExpectation } from "./expectations.ts";
import { didYouMean } from "./nearest.ts";
import { type MachineRequest, parseCmdline, parseCpus, parseCycles, parseMem, parseSeed } from "./options.ts";
import type { InputFile } from "./readers/input.ts";
import { InputError, quoted } from "./readers/input_error.ts";
import { readOps } from "./readers/ops.ts";
import { TOUCH_MODES, type TouchMode } from "./recording_words.ts";
import { splitWords } from "./words.ts";
import { readYaml, type YamlDocument } from "./yaml_document.ts";

export interface ScenarioProgram {
  /** Name and arguments. */
  readonly words: readonly string[];
  readonly atCycles: number;
  readonly count: number;
  /** An error at this entry, for whoever finds that there is no such program. */
  error(what: string, hint?: string): InputError;
}

export interface ScenarioRecording {
  /** A file, or a list of operations. */
  readonly source: { readonly file: string } | { readonly ops: string };
  readonly atCycles: number;
  readonly touch: TouchMode | undefined;
  readonly verify: boolean;
  readonly limit: number | undefined;
}

/** How a run is watched and ended. */
export interface ScenarioRules {
  readonly checkCycles: number | undefined;
  readonly killCycles: number | undefined;
  readonly finally: readonly ScenarioProgram[];
}

export interface Scenario {
  readonly machine: MachineRequest;
  readonly programs: readonly ScenarioProgram[];
  readonly recordings: readonly ScenarioRecording[];
  readonly expectations: readonly Expectation[];
  /** Lines for insmod. */
  readonly modules: readonly string[];
  readonly devices: Readonly<Record<string, DeviceSettings>>;
  readonly rules: ScenarioRules;
}

const MAX_COUNT = 1000;
const MAX_WORKLOADS = 10_000;

/** True if `parse` takes the text; its own message is not used, the schema's is. */
function takes(parse: (text: string) => unknown, value: string | number): boolean {
  try {
    parse(String(value));
    return true;
  } catch {
    return false;
  }
}

/** A string that `parse` takes. */
function textFor(parse: (text: string) => unknown, expected: string) {
  return v.pipe(
    v.string(expected),
    v.check((value) => takes(parse, value), expected),
  );
}

/** A string or number that `parse` takes. The message of a schema is what it expected. */
function scalar(parse: (text: string) => unknown, expected: string) {
  return v.pipe(
    v.union([v.string(), v.number()], expected),
    v.check((value) => takes(parse, value), expected),
  );
}

/** A mapping with these keys and no others. Valibot alone would take a list for one. */
function mapping<const E extends v.ObjectEntries>(entries: E, expected: string) {
  return v.pipe(notAList(expected), v.strictObject(entries, expected));
}

function notAList(expected: string) {
  const isMapping = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);
  return v.custom<Record<string, unknown>>(isMapping, expected);
}

const MODULE = "a module and its parameters, as in `sensor buffer=ring`";
const WORDS = "a program and its arguments, as in `stress --ops 1000`";
const LIMIT = "a whole number of operations";
const at = v.optional(v.union([v.literal(0), scalar(parseCycles, "")], "cycles, as in 500000 or 5M"));
const text = (expected: string) => v.pipe(v.string(expected), v.nonEmpty(expected));
const count = v.pipe(v.number(`1 to ${MAX_COUNT}`), v.integer(`1 to ${MAX_COUNT}`), v.minValue(1, `1 to ${MAX_COUNT}`));

/** What a scenario may say; scripts/schema/scenario.schema.json is made from it for editors. */
export const SCENARIO_SCHEMA = mapping(
  {
    machine: v.optional(
      mapping(
        {
          cpus: v.optional(scalar(parseCpus, "1 to 64")),
          mem: v.optional(scalar(parseMem, "a size from 8M to 4G, as in 64M")),
          seed: v.optional(scalar(parseSeed, "a short text or a number")),
        },
        "keys cpus, mem, seed",
      ),
    ),
    cmdline: v.optional(textFor(parseCmdline, "one line of text")),
    modules: v.optional(v.array(text(MODULE), "a list of modules")),
    devices: v.optional(
      v.pipe(
        notAList("devices with settings"),
        v.record(
          v.string(),
          v.pipe(
            notAList("settings with values"),
            v.record(v.string(), v.union([v.number(), v.string()], "a number or a fault"), "settings with values"),
          ),
          "devices with settings",
        ),
      ),
    ),
    programs: v.optional(
      v.array(
        mapping(
          {
            run: textFor(splitWords, WORDS),
            at,
            count: v.optional(v.pipe(count, v.maxValue(MAX_COUNT, `1 to ${MAX_COUNT}`))),
          },
          "keys run, at, count",
        ),
        "a list of programs",
      ),
    ),
    recordings: v.optional(
      v.array(
        mapping(
          {
            file: v.optional(text("a file name")),
            ops: v.optional(text("operations, as in `+100,+24,-0`")),
            at,
            touch: v.optional(v.picklist(TOUCH_MODES, TOUCH_MODES.join(", "))),
            verify: v.optional(v.boolean("true or false")),
            limit: v.optional(v.pipe(v.number(LIMIT), v.integer(LIMIT), v.minValue(1, LIMIT))),
          },
          "keys file, ops, at, touch, verify, limit",
        ),
        "a list of recordings",
      ),
    ),
    check: v.optional(scalar(parseCycles, "cycles, as in 500k")),
    kill: v.optional(scalar(parseCycles, "cycles, as in 1G")),
    finally: v.optional(v.array(textFor(splitWords, WORDS), "a list of programs")),
    expect: v.optional(
      v.pipe(
        notAList("metrics with values"),
        v.record(v.string(), v.union([v.number(), v.string()], "a number or a comparison"), "metrics with values"),
      ),
    ),
  },
  "a scenario: keys machine, cmdline, modules, devices, programs, recordings, check, kill, finally, expect",
);

type RawScenario = v.InferOutput<typeof SCENARIO_SCHEMA>;

/** The keys that a mapping may have, by the path to it with `*` for list positions. */
const KEYS: ReadonlyMap<string, readonly string[]> = new Map([
  ["", ["machine", "cmdline", "modules", "devices", "programs", "recordings", "check", "kill", "finally", "expect"]],
  ["machine", ["cpus", "mem", "seed"]],
  ["programs.*", ["run", "at", "count"]],
  ["recordings.*", ["file", "ops", "at", "touch", "verify", "limit"]],
]);

/** The scenario in `input`. Throws `InputError` with the place of the first mistake. */
export function readScenario(input: InputFile): Scenario {
  const doc = readYaml(input);
  const result = v.safeParse(SCENARIO_SCHEMA, doc.value);
  if (!result.success) throw issueError(doc, result.issues[0]);
  const raw = result.output;
  const [modules, devices] = [readModules(doc, raw), readDevices(doc, raw)];
  const programs = readPrograms(doc, raw);
  const recordings = readRecordings(doc, raw);
  if (programs.length + recordings.length === 0) {
    throw doc.errorAt([], "runs nothing", { expected: "programs or recordings", hint: EXAMPLE_HINT });
  }
  const nrWorkloads = recordings.length + programs.reduce((sum, program) => sum + program.count, 0);
  if (nrWorkloads > MAX_WORKLOADS) {
    throw doc.errorAt(["programs"], `starts ${nrWorkloads} programs`, { expected: `at most ${MAX_WORKLOADS}` });
  }
  return {
    machine: readMachine(raw),
    programs,
    recordings,
    expectations: readExpectations(doc, raw),
    modules,
    devices,
    rules: readRules(doc, raw),
  };
}

const EXAMPLE_HINT = "scripts/scenarios/demo.yaml is a scenario to start from";

function readMachine(raw: RawScenario): MachineRequest {
  const { cpus, mem, seed } = raw.machine ?? {};
  return {
    nrCpus: cpus === undefined ? undefined : parseCpus(String(cpus)),
    ramBytes: mem === undefined ? undefined : parseMem(String(mem)),
    seed: seed === undefined ? undefined : String(seed),
    cmdline: raw.cmdline,
  };
}

function readPrograms(doc: YamlDocument, raw: RawScenario): ScenarioProgram[] {
  return (raw.programs ?? []).map((entry, index) => ({
    words: splitWords(entry.run),
    atCycles: cyclesOf(entry.at),
    count: entry.count ?? 1,
    error: (what, hint) => doc.errorAt(["programs", index, "run"], what, { hint }),
  }));
}

function readRecordings(doc: YamlDocument, raw: RawScenario): ScenarioRecording[] {
  return (raw.recordings ?? []).map(({ file, ops, at: start, touch, verify = false, limit }, index) => {
    if ((file === undefined) === (ops === undefined)) {
      const what = file === undefined ? "names no recording" : "names a file and operations";
      throw doc.errorAt(["recordings", index], what, { expected: 'either the key "file" or the key "ops"' });
    }
    if (ops !== undefined) checkOps(doc, index, ops);
    const source = file === undefined ? { ops: ops ?? "" } : { file };
    return { source, atCycles: cyclesOf(start), touch, verify, limit };
  });
}

function checkOps(doc: YamlDocument, index: number, ops: string): void {
  try {
    readOps(ops);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw doc.errorAt(["recordings", index, "ops"], error.message, { expected: error.expected, hint: error.hint });
  }
}

function readRules(doc: YamlDocument, { check, kill, finally: last }: RawScenario): ScenarioRules {
  return {
    checkCycles: check === undefined ? undefined : parseCycles(String(check)),
    killCycles: kill === undefined ? undefined : parseCycles(String(kill)),
    finally: (last ?? []).map((run, index) => ({
      words: splitWords(run),
      atCycles: 0,
      count: 1,
      error: (what, hint) => doc.errorAt(["finally", index], what, { hint }),
    })),
  };
}

function readModules(doc: YamlDocument, raw: RawScenario): readonly string[] {
  const names = DRIVER_TYPES.map(({ name }) => name);
  return (raw.modules ?? []).map((line, index) => {
    const [name = "", ...params] = line.trim().split(/\s+/);
    const driver = DRIVER_TYPES.find((type) => type.name === name);
    if (driver === undefined) {
      const details = { expected: names.join(", "), hint: didYouMean(name, names) };
      throw doc.errorAt(["modules", index], `no module ${quoted(name)}`, details);
    }
    const known = Object.keys(driver.params);
    for (const param of params) {
      const key = param.split("=")[0] ?? "";
      if (known.includes(key) && param.includes("=")) continue;
      const expected = known.length === 0 ? "no parameters" : known.map((word) => `${word}=…`).join(", ");
      const details = { expected, hint: didYouMean(key, known) };
      throw doc.errorAt(["modules", index], `${name} has no parameter ${quoted(param)}`, details);
    }
    return line;
  });
}

function readDevices(doc: YamlDocument, raw: RawScenario): Readonly<Record<string, DeviceSettings>> {
  const devices = raw.devices ?? {};
  const names = Object.keys(DEVICE_SETTINGS);
  for (const [device, settings] of Object.entries(devices)) {
    const table = Object.hasOwn(DEVICE_SETTINGS, device) ? DEVICE_SETTINGS[device] : undefined;
    if (table === undefined) {
      const details = { expected: names.join(", "), hint: didYouMean(device, names) };
      throw doc.errorAt(["devices", device], `no device ${quoted(device)}`, details, true);
    }
    for (const [name, value] of Object.entries(settings)) {
      const known = Object.keys(table);
      const setting = Object.hasOwn(table, name) ? table[name] : undefined;
      if (setting === undefined) {
        const details = { expected: known.join(", "), hint: didYouMean(name, known) };
        throw doc.errorAt(["devices", device, name], `${device} has no setting ${quoted(name)}`, details, true);
      }
      const problem = settingProblem(setting, value);
      if (problem === null) continue;
      const expected = problem.replace(/^expected /, "");
      throw doc.errorAt(["devices", device, name], `${name} is ${quoted(String(value))}`, { expected });
    }
  }
  return devices;
}

function readExpectations(doc: YamlDocument, raw: RawScenario): Expectation[] {
  return Object.entries(raw.expect ?? {}).map(([metric, value]) => {
    if (!isMetric(metric)) {
      throw doc.errorAt(
        ["expect", metric],
        `unknown metric ${quoted(metric)}`,
        { expected: "leaks, failures, latency.malloc.p99, …", hint: didYouMean(metric, METRIC_NAMES) },
        true,
      );
    }
    const expectation = parseExpectation(metric, value);
    if (expectation !== null) return expectation;
    const what = `${metric}: ${quoted(String(value))} is no expectation`;
    throw doc.errorAt(["expect", metric], what, { expected: expectationForm(metric) });
  });
}

function cyclesOf(start: string | number | undefined): number {
  return start === undefined || start === 0 ? 0 : parseCycles(String(start));
}

function issueError(doc: YamlDocument, issue: v.InferIssue<typeof SCENARIO_SCHEMA>): InputError {
  const path = (issue.path ?? []).map((item) => item.key as PropertyKey);
  const last = path.at(-1);
  const where = path.map(String).join(".");
  const parent = path.slice(0, -1).map((step) => (typeof step === "number" ? "*" : String(step)));
  if (issue.type === "strict_object" && last !== undefined && issue.expected === "never") {
    const keys = KEYS.get(parent.join(".")) ?? [];
    const details = { expected: keys.join(", "), hint: didYouMean(String(last), keys) };
    return doc.errorAt(path, `unknown key ${quoted(String(last))}`, details, true);
  }
  if (issue.type === "strict_object" && issue.input === undefined && last !== undefined) {
    return doc.errorAt(path.slice(0, -1), `${where} is missing`, { expected: `the key ${quoted(String(last))}` });
  }
  const subject = where === "" ? "the file" : where;
  return doc.errorAt(path, `${subject} is ${describe(issue.input)}`, {
    expected: issue.message,
    hint: where === "" ? EXAMPLE_HINT : undefined,
  });
}

function describe(value: unknown): string {
  if (value === null) return "empty";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a mapping";
  return typeof value === "string" ? quoted(value) : String(value);
}
