/**
 * Per-CPU caches in a whole kernel: emptied when a CPU goes, reaped while the machine is awake, silent while it is not.
 *
 * Goal: M8 as boot wires it, MAG-11 and PCP-4 by CPU hot-plug. Method: programs from the shell; the counters of the
 * memory subsystem that boot shows to its host.
 */

import { describe, expect, it } from "vitest";
import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

const CPU1 = "/sys/devices/system/cpu/cpu1/online";
const programs = Object.fromEntries(builtinPrograms());

function sh(t: TestKernel, script: string): number | undefined {
  const pid = t.kernel.spawn("/bin/sh", ["sh", "-c", script]);
  t.kernel.run({ shouldStop: () => t.kernel.exitStatus(pid) !== undefined });
  return t.kernel.exitStatus(pid);
}

const cachedOn = (t: TestKernel, cpu: number): { objects: number; pages: number } => {
  const { slab, pcp } = t.kernel.memory;
  let pages = 0;
  for (let zone = 0; zone < 4; zone++) pages += pcp.info(cpu, zone).count;
  return { objects: slab.cpuStats(cpu).cached, pages };
};

for (const depot of ["locked", "lockfree"]) {
  it(`MAG-11 PCP-4 nothing stays cached on a CPU that went offline under load (depot=${depot})`, () => {
    const t = bootKernel(programs, { cmdline: `quiet depot=${depot}` });
    expect(sh(t, "ls / | cat; ls /proc | cat | cat > /dev/null; ps | cat")).toBe(0);
    expect(cachedOn(t, 1).objects + cachedOn(t, 1).pages).toBeGreaterThan(0);
    for (let round = 0; round < 3; round++) {
      expect(sh(t, `ls / | cat > /dev/null & ls /proc | cat > /dev/null & echo 0 > ${CPU1}; wait`)).toBe(0);
      expect(cachedOn(t, 1)).toEqual({ objects: 0, pages: 0 });
      expect(t.kernel.check()).toBeNull();
      expect(
        sh(t, `ls / | cat > /dev/null; echo 1 > ${CPU1}; ls / | cat > /dev/null & ps | cat > /dev/null; wait`),
      ).toBe(0);
      expect(t.kernel.check()).toBeNull();
    }
  });
}

describe("M8 reaping in a kernel", () => {
  it("ticks once in 15 s while somebody is awake, and not at all in a machine at rest", () => {
    const t = bootKernel(programs);
    const { slab } = t.kernel.memory;
    expect(slab.nrReapTicks()).toBe(0);
    expect(sh(t, new Array(8).fill("sleep 5").join("; "))).toBe(0);
    expect(slab.nrReapTicks()).toBeGreaterThanOrEqual(2);
    expect(slab.nrReapTicks()).toBeLessThanOrEqual(3);
    const before = t.kernel.now();
    t.kernel.run();
    expect(t.kernel.now() - before).toBeLessThan(CYCLES_PER_SECOND);
    expect(t.kernel.check()).toBeNull();
  });
});
