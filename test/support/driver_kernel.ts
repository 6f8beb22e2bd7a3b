/**
 * Boots a kernel with the shell's programs for tests of drivers, and fails the test unless all that drivers took is
 * given back.
 */

import { expect } from "vitest";
import type { BootOptions } from "../../kernel/entry/kernel.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { isPermanentThread, permanentStackPages } from "../../scripts/end_state.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel, type TestKernel } from "./boot_kernel.ts";

export interface DriverKernel extends TestKernel {
  /** Starts a program and lets it run until it first sleeps for long; its pid. */
  start(path: string, ...args: string[]): number;
  /** Runs a line in the shell for as long as the shell lives; its exit status. */
  sh(line: string): number | undefined;
  log(): string;
  /** A number of /sys/devices/<device>/stats; NaN if there is none. */
  stat(device: string, name: string): number;
  /** No module, no report, every page as at boot. */
  expectUnloaded(): void;
}

/** How long a program started by start() runs before the test goes on. */
const START_CYCLES = 2_000_000;
const STACK_PAGES = 4;
const COHERENT_POOL_PAGES = 16;
/** Longest that a line of the shell may take. */
const SHELL_CYCLES = 60_000_000_000;

export function bootDrivers(
  options: Partial<BootOptions> = {},
  programs: Readonly<Record<string, Program>> = {},
): DriverKernel {
  const t = bootKernel({ ...Object.fromEntries(builtinPrograms()), ...programs }, options);
  const { kernel } = t;
  const atBoot = kernel.census();
  // The thread that loads the modules of the command line is there at this moment and gone at the end.
  const isLoading = kernel.tasks().some((task) => task.comm === "modprobe");
  const stacksAtRest = atBoot.kernelStacks - (isLoading ? STACK_PAGES : 0);
  kernel.run({ untilCycles: kernel.now() + START_CYCLES });
  return {
    ...t,
    start(path, ...args) {
      const pid = kernel.spawn(path, [path, ...args]);
      expect(pid).toBeGreaterThan(0);
      kernel.run({ untilCycles: kernel.now() + START_CYCLES });
      return pid;
    },
    sh(line) {
      const pid = kernel.spawn("/bin/sh", ["sh", "-c", line]);
      expect(pid).toBeGreaterThan(0);
      kernel.run({ untilCycles: kernel.now() + SHELL_CYCLES, shouldStop: () => kernel.exitStatus(pid) !== undefined });
      return kernel.exitStatus(pid);
    },
    log: () =>
      kernel.printk
        .records()
        .map((record) => record.text)
        .join("\n"),
    stat(device, name) {
      const rows = kernel.deviceStats().find((entry) => entry.device === device)?.rows ?? [];
      return rows.find(([row]) => row === name)?.[1] ?? Number.NaN;
    },
    expectUnloaded() {
      kernel.run();
      expect(kernel.readFile("/proc/modules")).toBe("");
      expect(kernel.nrReports()).toBe(0);
      expect(kernel.check()).toBeNull();
      expect(kernel.tasks().filter((task) => !isPermanentThread(task))).toEqual([]);
      const { anon, pageTables, kernelStacks, largeKmalloc, other } = kernel.census();
      expect({ anon, pageTables, kernelStacks, largeKmalloc }).toEqual({
        anon: atBoot.anon,
        pageTables: atBoot.pageTables,
        kernelStacks: stacksAtRest + permanentStackPages(kernel),
        largeKmalloc: atBoot.largeKmalloc,
      });
      // The first device that uses DMA makes the kernel set coherent memory aside for atomic requests.
      expect([0, COHERENT_POOL_PAGES]).toContain(other - atBoot.other);
    },
  };
}
