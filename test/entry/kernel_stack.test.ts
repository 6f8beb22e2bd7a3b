/**
 * Kernel stacks with a page below that is not there, in a whole kernel.
 *
 * Goal: KST-2, KST-3; what LKDTM provokes is caught and said as Linux says it. Method: crash points by the shell; the
 * process dies, the machine goes on, nothing leaks.
 */

import { describe, expect, it } from "vitest";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const DIRECT = "/sys/kernel/debug/provoke-crash/DIRECT";

function session(script: string) {
  const t = bootKernel(Object.fromEntries(builtinPrograms()), { cmdline: "quiet" });
  const status = t.run("/bin/sh", "-c", script);
  const log = t.kernel.readFile("/proc/kmsg") ?? "";
  return { t, status, log, out: t.output() };
}

const provoke = (point: string): string => `sh -c 'echo ${point} > ${DIRECT}'; echo status $?; echo alive`;

describe("crash points", () => {
  it("KST-2 EXHAUST_STACK hits the guard page: the task dies, the kernel lives", () => {
    const { t, log, out } = session(provoke("EXHAUST_STACK"));
    const [, hit = "", base = "", end = ""] =
      /BUG: TASK stack guard page was hit at ([0-9a-f]{16}) \(stack is ([0-9a-f]{16})\.\.([0-9a-f]{16})\)/.exec(log) ??
      [];
    const [at, from, to] = [hit, base, end].map((text) => Number.parseInt(text, 16)) as [number, number, number];
    expect(to - from).toBe(16 * 1024 - 1);
    expect(at).toBeLessThan(from);
    expect(from - at).toBeLessThanOrEqual(4096);
    expect(log).toContain("kernel stack overflow");
    expect(log).toMatch(/Call Trace:[\s\S]*recurse/);
    expect(out).toContain("status 137");
    expect(out).toContain("alive");
    t.kernel.removeFiles();
    t.expectNoLeak();
    expect(t.kernel.nrReports()).toBeGreaterThan(0);
  });

  it("STACK_GUARD_PAGE_LEADING the byte below a stack is not there, VMALLOC_LINEAR_OVERFLOW nor the one behind an area", () => {
    const below = session(provoke("STACK_GUARD_PAGE_LEADING"));
    expect(below.log).toContain("BUG: TASK stack guard page was hit at");
    expect(below.out).toContain("alive");
    below.t.expectNoLeak();
    const behind = session(provoke("VMALLOC_LINEAR_OVERFLOW"));
    expect(behind.log).toContain("unable to handle page fault for address");
    expect(behind.log).not.toContain("guard page was hit");
    expect(behind.t.kernel.readFile("/proc/vmallocinfo")).not.toContain("lkdtm");
    behind.t.expectNoLeak();
  });

  it("PANIC stops the machine; a name that is none is refused", () => {
    const { t } = session(provoke("PANIC"));
    expect(t.kernel.panicReport).toBe("Kernel panic - not syncing: dumptest");
    expect(session(`echo NONE > ${DIRECT}`).out).toContain("Invalid argument");
  });
});

describe("stacks", () => {
  it("KST-3 are 16 KiB in pages of the window with a guard each, and go with their task", () => {
    const { t, out } = session("cat /proc/vmallocinfo; cat /proc/meminfo");
    const rows = out.match(/^0x[0-9a-f]{16}-0x[0-9a-f]{16} {3}20480 alloc_thread_stack_node pages=4 vmalloc$/gm) ?? [];
    expect(rows.length).toBeGreaterThan(1);
    const kib = Number(/^KernelStack: +(\d+) kB$/m.exec(out)?.[1]);
    expect(kib % 16).toBe(0);
    const used = Number(/^VmallocUsed: +(\d+) kB$/m.exec(out)?.[1]);
    expect(used).toBe(kib);
    t.expectNoLeak();
    expect(t.kernel.readFile("/proc/vmallocinfo")).toBe("");
  });

  it("a hundred tasks at once need a second table, which goes with them", () => {
    const { t } = session(`${"sleep 0.01 & ".repeat(100)} wait`);
    t.expectNoLeak();
  });
});
