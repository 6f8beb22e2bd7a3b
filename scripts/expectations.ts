/**
 * Expectations: what a scenario demands of its run, `metric: "< 900 cycles"`, and whether it came true.
 *
 *   leaks                 pages still held by programs or the kernel after the last workload has ended
 *   failures              operations that returned an error
 *   reports               oopses, splats and bad frees
 *   oom_kills             processes killed for want of memory
 *   exit_status           the greatest exit status of all programs
 *   corrupt               blocks, packets and stamps that are not what was written
 *   differences           results of replayed system calls that are not the recorded ones
 *   panic                 1 if the kernel panicked, else 0
 *   warnings              what the readers noticed in the recordings
 *   operations            operations replayed
 *   virtual_time          cycles from the first start to the last end
 *   peak_memory           bytes reserved at boot or out of the free lists at the worst moment
 *   frag.order0 … 10      part of the free memory that is of no use for a block of this order, 0 to 1
 *   latency.KIND.WHAT     KIND: malloc, free, kmalloc, mmap, …; WHAT: count, p50, p99, p999, max
 *
 *   device.NAME.WHAT      what the driver of a device counts: device.nic0.rx_dropped; /sys/devices/NAME/stats has them
 *   vmstat.NAME           a line of /proc/vmstat at the end: vmstat.compact_success
 *   irqs_off              the longest time with interrupts off on any CPU (kernel parameter irqsoff=on)
 *   preempt_off           the longest time with preemption off (same)
 *   magazine.hit_rate     part of the object allocations that a magazine served, 0 to 1
 *
 * A number alone means `==`. The unit behind a number is for the reader, but it has to be the metric's own.
 */

import { OBSERVED_KINDS } from "./observer.ts";

export type Operator = "<" | "<=" | ">" | ">=" | "==";

export interface Expectation {
  readonly metric: string;
  readonly operator: Operator;
  readonly value: number;
}

/** Value of a metric, or undefined if the run has none (no operation of this kind happened). */
export type Metrics = ReadonlyMap<string, number>;

const UNIT_OF: ReadonlyMap<string, string> = new Map([
  ["leaks", "pages"],
  ["virtual_time", "cycles"],
  ["peak_memory", "bytes"],
  ["irqs_off", "cycles"],
  ["preempt_off", "cycles"],
]);
const NR_ORDERS = 11;

export const LATENCY_STATS: readonly string[] = ["count", "p50", "p99", "p999", "max"];

/** Every metric that an expectation may name, besides those of devices. */
export const METRIC_NAMES: readonly string[] = [
  "leaks",
  "failures",
  "reports",
  "oom_kills",
  "exit_status",
  "corrupt",
  "differences",
  "panic",
  "warnings",
  "operations",
  "virtual_time",
  "peak_memory",
  "irqs_off",
  "preempt_off",
  "magazine.hit_rate",
  ...Array.from({ length: NR_ORDERS }, (_, order) => `frag.order${order}`),
  ...[...new Set(Object.values(OBSERVED_KINDS).flat())].flatMap((kind) =>
    LATENCY_STATS.map((stat) => `latency.${kind}.${stat}`),
  ),
];

/** What the driver of a device counts: known only while the driver is loaded. */
const DEVICE_METRIC = /^device\.[a-z]\w*\.\w+$/;

const VMSTAT_METRIC = /^vmstat\.[a-z]\w*$/;

export const isMetric = (name: string): boolean =>
  METRIC_NAMES.includes(name) || DEVICE_METRIC.test(name) || VMSTAT_METRIC.test(name);

const PATTERN = /^(<=|>=|==|<|>)?\s*(-?\d+(?:\.\d+)?)\s*([a-z]*)$/;

/** The expectation that `value` spells for `metric`; null if it spells none. */
export function parseExpectation(metric: string, value: number | string): Expectation | null {
  if (typeof value === "number") return Number.isFinite(value) ? { metric, operator: "==", value } : null;
  const match = PATTERN.exec(value.trim());
  if (match === null) return null;
  const unit = match[3] ?? "";
  if (unit !== "" && unit !== unitOf(metric)) return null;
  return { metric, operator: asOperator(match[1]), value: Number(match[2]) };
}

/** How an expectation of `metric` may look, for messages. */
export function expectationForm(metric: string): string {
  const unit = unitOf(metric);
  return `a number, or < <= > >= == and a number${unit === "" ? "" : ` of ${unit}`}`;
}

/** One line for each expectation that `metrics` does not meet. */
export function unmetExpectations(expectations: readonly Expectation[], metrics: Metrics): string[] {
  return expectations.flatMap(({ metric, operator, value }) => {
    const seen = metrics.get(metric);
    const demand = `${operator} ${value}`;
    if (seen === undefined) return [`expected ${metric} ${demand}, but the run has no value for it`];
    return holds(seen, operator, value) ? [] : [`expected ${metric} ${demand}, but it is ${seen}`];
  });
}

function unitOf(metric: string): string {
  if (metric.startsWith("latency.") && !metric.endsWith(".count")) return "cycles";
  return UNIT_OF.get(metric) ?? "";
}

function asOperator(text: string | undefined): Operator {
  return text === "<" || text === "<=" || text === ">" || text === ">=" ? text : "==";
}

function holds(seen: number, operator: Operator, value: number): boolean {
  switch (operator) {
    case "<":
      return seen < value;
    case "<=":
      return seen <= value;
    case ">":
      return seen > value;
    case ">=":
      return seen >= value;
    case "==":
      return seen === value;
  }
}
