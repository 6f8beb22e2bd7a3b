/**
 * Random machines: CPUs, RAM, kernel parameters, modules, devices with faults, recordings; and programs on them.
 *
 * Left out on purpose, because what follows is no bug of the kernel: `insmod buggy bug=…`, and devices that write where
 * they should not (`stray_write`) unless an IOMMU holds them back.
 */

import { DEVICE_SETTINGS, type DeviceSetting, type DeviceSettings, DRIVER_TYPES } from "../../drivers/index.ts";
import type { ParameterName } from "../../kernel/cmdline.ts";
import { PAGE_SIZE } from "../../kernel/params.ts";
import type { Draw } from "./draw.ts";
import { drawProgram } from "./draw_program.ts";
import type { FuzzCase, FuzzRecording } from "./fuzz_case.ts";

const MIB = 2 ** 20;

/** Drivers that are drawn. */
export const FUZZ_DRIVERS: readonly string[] = DRIVER_TYPES.map(({ name }) => name).filter((name) => name !== "buggy");

const fourNumbers = (d: Draw): string =>
  [d.spread(0, 50), d.of([0, 1, 3, 10, 50, 100]), d.spread(0, 100_000), d.of([-1, 1, 5, 100])].join(",");
const onOff = (d: Draw): string => d.of(["on", "off", "on", "maybe"]);
const mebibytes = (d: Draw): string => `${d.spread(0, 32)}M`;

/** A value for each kernel parameter; "" for none. */
export const PARAMETER_VALUES: Readonly<Record<ParameterName, (d: Draw) => string>> = {
  quiet: () => "",
  loglevel: (d) => String(d.whole(0, 9)),
  dma32_limit: (d) => d.of(["8M", "16M", "17M", "24M", "1M", "4095K"]),
  movablecore: mebibytes,
  cma: mebibytes,
  min_free_kbytes: (d) => String(d.spread(0, 4096)),
  object_cache: (d) => d.of(["magazine", "passthrough", "none"]),
  irqsoff: onOff,
  stacktrace: () => "off",
  irq_unhandled_limit: (d) => String(d.spread(1, 200_000)),
  modules: (d) => d.list(1, 2, () => d.of(FUZZ_DRIVERS)).join(","),
  dma_debug: onOff,
  dma_guard: onOff,
  iommu: onOff,
  swiotlb: (d) => d.of(["64K", "256K", "1M", "4M", "0", "1", "64M"]),
  depot: (d) => d.of(["locked", "lockfree", "lockfree"]),
  memblock: () => "debug",
  prove_locking: onOff,
  failslab: fourNumbers,
  fail_page_alloc: fourNumbers,
  fail_nth: (d) => `${d.spread(1, 3000)}${d.chance(25) ? "+" : ""}`,
  norandmaps: () => "",
  pi: onOff,
  reclaim: (d) => d.of(["lists", "mglru", "mglru", "clock"]),
  swap: (d) => d.of(["1M", "16M", "64M", "256M", "0", "1"]),
  compaction: onOff,
  debug_tlb: onOff,
  init_on_alloc: (d) => d.of(["1", "0", "on", "maybe"]),
  init_on_free: (d) => d.of(["1", "0", "off", "maybe"]),
  transparent_hugepage: (d) => d.of(["always", "madvise", "never", "perhaps"]),
  "sysctl.vm.overcommit_ratio": (d) => String(d.spread(0, 200)),
  "sysctl.vm.panic_on_oom": (d) => (d.chance(10) ? String(d.whole(1, 3)) : "0"),
  "sysctl.vm.oom_kill_allocating_task": (d) => String(d.whole(0, 1)),
  "sysctl.vm.oom_dump_tasks": (d) => String(d.whole(0, 1)),
  "sysctl.vm.overcommit_memory": (d) => String(d.whole(0, 3)),
};

/** Parameters that are drawn less often: they make everything fail, or slow. */
const SELDOM: ReadonlySet<string> = new Set(["failslab", "fail_page_alloc", "fail_nth", "dma_guard", "memblock"]);

function drawParameters(d: Draw): string[] {
  const percent = d.of([0, 8, 20, 45]);
  const params = Object.entries(PARAMETER_VALUES).flatMap(([name, value]) => {
    if (name === "quiet" ? !d.chance(90) : !d.chance(SELDOM.has(name) ? percent / 3 : percent)) return [];
    const text = value(d);
    return [text === "" ? name : `${name}=${text}`];
  });
  return d.chance(5) ? [...params, d.of(["nonsense", "cma=", "=", "pi", "failslab=1", "loglevel=-1"])] : params;
}

const MODULE_PARAMETERS: Readonly<Record<string, (d: Draw) => string[]>> = {
  nic: (d) => [
    ...d.list(0, 1, () => `ring=${d.spread(8, 1024)}`),
    ...d.list(0, 1, () => `queue=${d.spread(1, 4096)}`),
    ...d.list(0, 1, () => `moderation=${d.spread(0, 1_000_000)}`),
    ...d.list(0, 1, () => `spread=${d.whole(0, 1)}`),
  ],
  disk: () => [],
  sensor: (d) => d.list(0, 1, () => `buffer=${d.of(["kmalloc", "mempool", "ring", "ring,kmalloc,mempool", "none"])}`),
  framebuffer: (d) => [`width=${d.spread(1, 1024)}`, `height=${d.spread(1, 512)}`, `rate=${d.whole(1, 240)}`],
  rtc: (d) => d.list(0, 1, () => `rate=${d.spread(1, 8192)}`),
  uart: () => [],
  balloon: () => [],
};

function drawModules(d: Draw): string[] {
  const names = FUZZ_DRIVERS.filter(() => d.chance(25));
  return names.map((name) => [name, ...(MODULE_PARAMETERS[name]?.(d) ?? [])].join(" "));
}

/** Rates of devices that keep a run short. */
const TAMED: Readonly<Record<string, readonly [min: number, max: number]>> = {
  rate: [1, 200_000],
  count: [0, 3000],
  period: [20_000, 10_000_000],
  seek_cycles: [1, 200_000],
  kib_cycles: [1, 20_000],
  capacity_mib: [1, 64],
  late_cycles: [1, 50_000_000],
};

function drawSetting(d: Draw, name: string, { kind, min, max }: DeviceSetting): number | string {
  if (kind === "fault") return d.chance(50) ? `#${d.spread(1, 50)}` : d.of([0, 0.001, 0.01, 0.05, 0.2, 1]);
  const [least, most] = TAMED[name] ?? [min, max];
  return d.spread(least, most);
}

function drawDevices(d: Draw, hasIommu: boolean): Record<string, DeviceSettings> {
  const devices: [string, DeviceSettings][] = [];
  for (const [name, table] of Object.entries(DEVICE_SETTINGS)) {
    if (Object.keys(table).length === 0 || !d.chance(25)) continue;
    const settings = Object.entries(table).flatMap(([setting, limits]): [string, number | string][] => {
      if (setting === "stray_write" && !hasIommu) return [];
      return d.chance(limits.kind === "fault" ? 20 : 40) ? [[setting, drawSetting(d, setting, limits)]] : [];
    });
    devices.push([name, Object.fromEntries(settings)]);
  }
  return Object.fromEntries(devices);
}

const SAMPLES = ["tar.rep.gz", "sqlite3.rep.gz", "python-json.rep.gz", "gcc-compile.ftrace.gz", "redis-net.ftrace.gz"];

function drawRecording(d: Draw, latest: number): FuzzRecording {
  const common = {
    at: d.spread(0, latest),
    touch: d.of(["none", "first", "all"]),
    limit: d.chance(50) ? d.whole(1, 40_000) : d.spread(1, 20_000),
  };
  if (d.chance(75)) return { source: { file: d.of(SAMPLES) }, ...common };
  return { source: { ops: drawOps(d) }, ...common };
}

/** A list of allocations and frees, each freed once at most. */
function drawOps(d: Draw): string {
  const live: number[] = [];
  let nr = 0;
  const items = d.list(1, 120, () => {
    if (live.length > 0 && d.chance(45)) return `-${live.splice(d.whole(0, live.length - 1), 1)[0]}`;
    live.push(nr++);
    return `+${d.chance(3) ? d.of([0, 2 ** 31, 2 ** 40, 2 ** 53 - 1]) : d.spread(0, 300_000)}`;
  });
  return items.join(",");
}

/** A whole case. */
export function drawCase(d: Draw): FuzzCase {
  const cpus = d.chance(70) ? d.whole(1, 4) : d.spread(1, 64);
  const memBytes = d.chance(90) ? d.spread(8 * MIB, 64 * MIB) : d.spread(64 * MIB, 256 * MIB);
  const params = drawParameters(d);
  const killCycles = d.chance(70) ? d.whole(5_000_000, 150_000_000) : d.spread(1_000_000, 250_000_000);
  const latest = Math.floor(killCycles / 2);
  const hasIommu = params.includes("iommu=on");
  const limits = { cpus, drivers: FUZZ_DRIVERS, devices: Object.keys(DEVICE_SETTINGS), latest };
  return {
    cpus,
    memBytes: Math.floor(memBytes / PAGE_SIZE) * PAGE_SIZE,
    seed: String(d.whole(1, 999_999)),
    params,
    modules: drawModules(d),
    devices: drawDevices(d, hasIommu),
    programs: d.list(1, 10, () => drawProgram(d, limits)),
    recordings: d.chance(60) ? d.list(1, 2, () => drawRecording(d, latest)) : [],
    checkCycles: d.spread(200_000, 20_000_000),
    killCycles,
  };
}
