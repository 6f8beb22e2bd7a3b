/**
 * Goal: text and document of a run say the same, without anything of the host's, and the verdict gives the exit code.
 * Method: a result made by hand.
 */
import { describe, expect, it } from "vitest";
import { judge, metricsOf } from "../../scripts/metrics.ts";
import { createLatencyObserver, HEAP_KINDS } from "../../scripts/observer.ts";
import { createPaint } from "../../scripts/paint.ts";
import type { RunResult, WorkloadResult } from "../../scripts/run_workloads.ts";
import { grouped, summaryDocument, summaryText } from "../../scripts/summary.ts";

const WORKLOAD: WorkloadResult = { name: "redis", kind: "heap", pids: [2], exitStatus: 0, nrOps: 3, nrFailed: 1 };

function result(changes: Partial<RunResult> = {}): RunResult {
  const observer = createLatencyObserver(HEAP_KINDS);
  observer.operation(0, 10, false);
  observer.operation(0, 20, true);
  observer.operation(3, 5, false);
  return {
    machine: { nrCpus: 2, ramBytes: 64 * 1024 * 1024, seed: "1", cmdline: "" },
    end: "done",
    workloads: [WORKLOAD],
    observers: [observer],
    virtualCycles: 2_500_000,
    hostSeconds: 0.5,
    peakBytes: 1024 * 1024,
    census: {
      total: 100,
      reserved: 10,
      freeBuddy: 60,
      freePcp: 5,
      slab: 5,
      largeKmalloc: 1,
      anon: 9,
      pageTables: 5,
      kernelStacks: 5,
      dmaPools: 0,
      files: 0,
      balloon: 0,
      other: 0,
    },
    leakedPages: 0,
    warnings: [],
    nrReports: 0,
    oomKills: 0,
    magazines: [{ allocHits: 90, allocMisses: 10, freeHits: 0, freeMisses: 0, cached: 7 }],
    offWindows: {
      irqs: { cpu: 1, cycles: 1234, startedAt: "kmalloc", endedAt: "kfree", comm: "sh", pid: 2 },
      preempt: undefined,
    },
    devices: [
      {
        device: "nic0",
        driver: "nic",
        rows: [
          ["rx_packets", 1234],
          ["rx_dropped", 0],
        ],
      },
    ],
    buddyinfo: "Node 0, zone   Normal      4      2      1 \n",
    vmstat: "",
    nrCorrupt: 0,
    leftBehind: null,
    violation: null,
    panicReport: null,
    ...changes,
  };
}

function exitCode(changes: Partial<RunResult>, metric?: string): number {
  const expectations = metric === undefined ? [] : [{ metric, operator: "==" as const, value: 1 }];
  return judge(result(changes), expectations).exitCode;
}

function textOf(run: RunResult, level: 0 | 1 = 0): string {
  return summaryText({ result: run, verdict: judge(run, []), replay: "slabtown run x" }, createPaint(level));
}

describe("text", () => {
  it("has the facts, the table that adds up, the latencies and the replay line", () => {
    const text = textOf(result());
    expect(text).toMatch(/^2 CPUs, 64M of RAM, seed 1: all workloads ended$/m);
    expect(text).toMatch(/^ {2}operations +3 \(1 failed\)$/m);
    expect(text).toMatch(/^ {2}host speed +6 operations per second$/m);
    expect(text).toMatch(/^ {2}virtual time +2.500 ms \(2,500,000 cycles\)$/m);
    expect(text).toMatch(/^ {2}malloc +2 +10 +20 +20 +20 +1$/m);
    expect(text).toMatch(/^ {2}total +100 /m);
    expect(text.endsWith("replay: slabtown run x\n")).toBe(true);
  });

  it("says the same with and without colour, and no name drives the terminal", () => {
    const run = result({ workloads: [{ ...WORKLOAD, name: "\u001b[2Jx" }] });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes are control characters.
    expect(textOf(run, 1).replaceAll(/\u001b\[\d+m/g, "")).toBe(textOf(run));
    expect(textOf(run)).not.toContain("\u001b");
  });

  it("groups digits", () => {
    expect([0, 999, 1000, 1234567].map(grouped)).toEqual(["0", "999", "1,000", "1,234,567"]);
  });
});

describe("document", () => {
  const documentOf = (run: RunResult, withHost: boolean) =>
    JSON.stringify(summaryDocument({ result: run, verdict: judge(run, []), replay: "r" }, withHost));

  it("carries its schema, and the host only when asked", () => {
    expect(documentOf(result(), false)).toContain('"schema":"slabtown/run/v1"');
    expect(documentOf(result(), false)).toBe(documentOf(result({ hostSeconds: 99 }), false));
    expect(documentOf(result(), true)).toContain('"operationsPerSecond":6');
  });

  it("devices: what their drivers counted, in text, document and metrics", () => {
    expect(textOf(result())).toMatch(/nic0 \(nic\)\n +rx_packets +1,234\n\n/);
    expect(documentOf(result(), false)).toContain('"devices":{"nic0":{"rx_packets":1234,"rx_dropped":0}}');
    expect(metricsOf(result()).get("device.nic0.rx_packets")).toBe(1234);
  });

  it("magazines and the longest windows with interrupts off", () => {
    const text = textOf(result());
    expect(text).toMatch(/^ {2}CPU 0 +100 +90.0 % +0 +- +7$/m);
    expect(text).toMatch(/^ {2}interrupts +1,234 +1 +sh +kmalloc … kfree$/m);
    expect(metricsOf(result()).get("magazine.hit_rate")).toBe(0.9);
    expect(metricsOf(result()).get("irqs_off")).toBe(1234);
    expect(textOf(result({ offWindows: null }))).not.toContain("longest off");
  });

  it("tells no leaks of a run that was cut short", () => {
    expect(documentOf(result({ end: "cycles" }), false)).toContain('"leakedPages":null');
  });
});

describe("verdict", () => {
  it("0 fine, 1 failed, 3 panicked unless expected, 130 interrupted", () => {
    expect(exitCode({})).toBe(0);
    expect(exitCode({ violation: "BUD-1" })).toBe(1);
    expect(exitCode({ end: "stuck" })).toBe(1);
    expect(exitCode({ nrReports: 1 })).toBe(1);
    expect(exitCode({ nrReports: 1 }, "reports")).toBe(0);
    expect(exitCode({ workloads: [{ ...WORKLOAD, exitStatus: 139 }] })).toBe(1);
    expect(exitCode({ workloads: [{ ...WORKLOAD, exitStatus: -12 }] })).toBe(1);
    expect(exitCode({ workloads: [{ ...WORKLOAD, exitStatus: 1 }] }, "exit_status")).toBe(0);
    expect(exitCode({ end: "panic" })).toBe(3);
    expect(exitCode({ end: "panic" }, "panic")).toBe(0);
    expect(exitCode({}, "panic")).toBe(1);
    const unmet = [{ metric: "leaks", operator: "==" as const, value: 0 }];
    expect(judge(result({ end: "interrupt" }), unmet)).toEqual({ exitCode: 130, failures: [] });
    expect(exitCode({ end: "interrupt", workloads: [{ ...WORKLOAD, exitStatus: undefined }] })).toBe(130);
  });

  it("metrics: free space that is of no use for an order", () => {
    const metrics = metricsOf(result());
    expect(metrics.get("frag.order0")).toBe(0);
    expect(metrics.get("frag.order2")).toBeCloseTo(8 / 12, 5);
    expect(metrics.get("latency.malloc.max")).toBe(20);
    expect(metrics.has("latency.calloc.p50")).toBe(false);
  });
});
