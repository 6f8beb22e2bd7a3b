/**
 * A sample of reclaim (B3): pages taken from a process of twice the memory, each written to swap and read again.
 *
 * memhog stamps every page and verifies it; the second run of the same machine is timed. What is divided are the pages
 * that reclaim freed, by everything that happened meanwhile: faults, disk model, program.
 */

import { boot } from "../../kernel/entry/boot.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { builtinPrograms } from "../../userland/index.ts";
import type { Sample } from "./child_tasks.ts";

const RAM_BYTES = 64 * 1024 * 1024;
/** Twice what the machine has left for programs. */
const HOG = "120M";
const MAX_CYCLES = 60e9;

const stolen = (kernel: Kernel): number => {
  const text = kernel.readFile("/proc/vmstat") ?? "";
  return [...text.matchAll(/^pgsteal_(?:kswapd|direct) (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
};

function hog(kernel: Kernel): number | undefined {
  const pid = kernel.spawn("/bin/memhog", ["memhog", HOG]);
  kernel.run({ untilCycles: kernel.now() + MAX_CYCLES, shouldStop: () => kernel.exitStatus(pid) !== undefined });
  return kernel.exitStatus(pid);
}

export function sampleReclaim(seed: string): Sample {
  const programs = builtinPrograms();
  const cmdline = "quiet swap=128M";
  const kernel = boot({ nrCpus: 2, ramBytes: RAM_BYTES, seed, port: "raw", cmdline, console: () => {}, programs });
  kernel.run({ untilCycles: kernel.now() + 50e6 });
  const warmedUp = hog(kernel);
  const before = stolen(kernel);
  const cpu = process.cpuUsage();
  const start = performance.now();
  const status = hog(kernel);
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const nrPages = stolen(kernel) - before;
  return {
    value: nrPages / seconds,
    cpu: nrPages / ((user + system) / 1e6),
    worst: null,
    nrOps: nrPages,
    failures: 0,
    fault: warmedUp === 0 && status === 0 ? kernel.check() : `memhog ended with ${warmedUp}, ${status}`,
  };
}
