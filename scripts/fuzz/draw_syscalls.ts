/**
 * Machines for system calls: some `sysfuzz` programs at once, on few CPUs and little RAM, with swap or without.
 *
 * `sysfuzz` makes its calls from the seed in its arguments, so the case is a scenario like all others. The calls are
 * several ranges, of which shrinking can leave out one after another.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import type { Draw } from "./draw.ts";
import type { FuzzCase, FuzzProgram } from "./fuzz_case.ts";

const MIB = 2 ** 20;
const NR_RANGES = 16;
const MAX_CALLS = 6000;
const CHECK_CYCLES = 40_000_000;
/** Long enough for all calls, which take a tenth of a second: two. What goes on for ever does so this long. */
const KILL_CYCLES = 2_000_000_000;
const DRIVERS = ["disk", "nic", "rtc", "uart", "sensor", "balloon"];

function drawCalls(d: Draw, drivers: readonly string[]): FuzzProgram {
  const perRange = d.whole(1, Math.floor(MAX_CALLS / NR_RANGES));
  const ranges = Array.from({ length: NR_RANGES }, (_, i) => `${i * perRange}-${(i + 1) * perRange - 1}`);
  const words = ["sysfuzz", String(d.whole(1, 2 ** 31)), ...ranges, ...drivers];
  return { steps: [words], isPlain: true, at: d.chance(60) ? 0 : d.spread(1, 5_000_000), count: 1 };
}

function drawFaults(d: Draw): string[] {
  const numbers = (): string => [d.whole(1, 20), d.of([1, 1, 10]), d.whole(0, 200), d.of([-1, 20])].join(",");
  return [
    ...(d.chance(15) ? [`fail_page_alloc=${numbers()}`] : []),
    ...(d.chance(15) ? [`failslab=${numbers()}`] : []),
  ];
}

/** A whole case. */
export function drawSyscallCase(d: Draw): FuzzCase {
  const drivers = d.chance(40) ? d.list(1, 3, () => d.of(DRIVERS)) : [];
  const params = [
    "quiet",
    ...(d.chance(50) ? [`swap=${d.of([1, 4, 16, 32])}M`] : []),
    ...(d.chance(20) ? ["debug_tlb=on"] : []),
    ...(d.chance(10) ? ["prove_locking=on"] : []),
    ...(d.chance(30) ? [`sysctl.vm.overcommit_memory=${d.whole(0, 2)}`] : []),
    ...drawFaults(d),
  ];
  return {
    cpus: d.of([1, 2, 2, 3, 4]),
    memBytes: Math.floor(d.spread(10 * MIB, 48 * MIB) / PAGE_SIZE) * PAGE_SIZE,
    seed: String(d.whole(1, 999_999)),
    params,
    modules: [],
    devices: {},
    programs: d.list(1, 4, () => drawCalls(d, [...new Set(drivers)])),
    recordings: [],
    checkCycles: CHECK_CYCLES,
    killCycles: KILL_CYCLES,
  };
}
