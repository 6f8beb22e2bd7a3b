/**
 * Boots a whole kernel for a test, and fails the test if it leaked, oopsed or broke an invariant.
 */

import { expect } from "vitest";
import { boot } from "../../kernel/entry/boot.ts";
import type { BootOptions, Kernel } from "../../kernel/entry/kernel.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { isPermanentThread, permanentStackPages } from "../../scripts/end_state.ts";

export interface TestKernel {
  readonly kernel: Kernel;
  /** Everything printed on the console. */
  output(): string;
  /** Spawns, runs until nothing is left to do, returns the exit status. */
  run(path: string, ...args: string[]): number | undefined;
  /** Pages that programs and their kernel objects use: must be what it was at boot. */
  expectNoLeak(): void;
}

const MIB = 1024 * 1024;

export function bootKernel(
  programs: Readonly<Record<string, Program>>,
  options: Partial<BootOptions> = {},
): TestKernel {
  let output = "";
  const kernel = boot({
    nrCpus: 2,
    ramBytes: 32 * MIB,
    seed: "test",
    port: "bounds",
    cmdline: "quiet",
    console: (text) => {
      output += text;
    },
    programs: new Map(Object.entries(programs)),
    ...options,
  });
  const before = kernel.census();
  return {
    kernel,
    output: () => output,
    run(path, ...args) {
      const pid = kernel.spawn(path, [path, ...args]);
      expect(pid).toBeGreaterThan(0);
      kernel.run();
      return kernel.exitStatus(pid);
    },
    expectNoLeak() {
      expect(kernel.check()).toBeNull();
      expect(kernel.tasks().filter((task) => !isPermanentThread(task))).toEqual([]);
      const { anon, pageTables, kernelStacks, largeKmalloc, other } = kernel.census();
      expect({ anon, pageTables, kernelStacks, largeKmalloc, other }).toEqual({
        anon: before.anon,
        pageTables: before.pageTables,
        kernelStacks: before.kernelStacks + permanentStackPages(kernel),
        largeKmalloc: before.largeKmalloc,
        other: before.other,
      });
    },
  };
}
