/**
 * Drivers with bugs: each gets the report that names it, and the run's verdict is bad.
 *
 * Goal: BUGS classes 15, 23, 24, 26 at the level of a driver; MOD-2. Method: one driver with one bug at a time, and
 * its clean twin, which must stay silent under every checker.
 */

import { describe, expect, it } from "vitest";
import { BUGS, type Bug } from "../../drivers/buggy.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const bootBuggy = (cmdline: string): DriverKernel => bootDrivers({ nrCpus: 1, cmdline: `quiet ${cmdline}` });

/** Loads and unloads the driver with its bug; the kernel's log. */
function runBuggy(bug: Bug, cmdline = ""): DriverKernel {
  const t = bootBuggy(cmdline);
  t.sh(`insmod buggy bug=${bug}; rmmod buggy`);
  return t;
}

const CASES: readonly (readonly [bug: Bug, report: RegExp, cmdline?: string])[] = [
  ["maps_twice", /DMA-API: buggy buggy0: cacheline tracking EEXIST, overlapping mappings aren't supported/],
  [
    "wrong_size",
    /DMA-API: buggy buggy0: device driver frees DMA memory with different size \[device address=0x[0-9a-f]+\] \[map size=64 bytes\] \[unmap size=32 bytes\]/,
  ],
  ["wrong_direction", /DMA-API: buggy buggy0: device driver frees DMA memory with different direction/],
  ["unmaps_twice", /DMA-API: buggy buggy0: device driver tries to free DMA memory it has not allocated/],
  [
    "never_unmaps",
    /DMA-API: buggy buggy0: device driver has pending DMA allocations while released from device \[count=1\]/,
  ],
  ["unchecked", /DMA-API: buggy buggy0: device driver failed to check map error/],
  ["touches", /DMA-API: buggy buggy0: CPU load from memory while the device owns it/, "dma_guard=on"],
  ["sleeps_in_handler", /BUG: sleeping function called from invalid context at/],
  ["lock_in_both", /inconsistent \{HARDIRQ-ON-W\} -> \{IN-HARDIRQ-W\} usage/, "prove_locking=on"],
  ["keeps_lock", /irq 20: buggy0 preempt leak: 00010000 -> 00010001\?/],
  ["frees_in_handler", /WARNING: CPU: 0 PID: \d+ at mm\/dma.ts:freeCoherent: coherent memory freed in interrupt/],
  ["forgets_memory", /BUG: module buggy still holds 1 kmalloc \(128 bytes\)/],
  ["forgets_node", /BUG: module buggy still holds \/dev\/buggy/],
];

it("every bug of the driver has its case", () => {
  const known = [...CASES.map(([bug]) => bug), "none", "never_answers", "gives_away"];
  expect([...known].sort()).toEqual([...BUGS].sort());
});

it("a bug that it does not have: EINVAL", () => {
  const t = bootBuggy("");
  expect(t.sh("insmod buggy bug=many")).toBe(1);
  expect(t.log()).toContain("buggy: parameter bug=many: expected one of none, maps_twice");
  t.expectUnloaded();
});

describe("a driver with a bug", () => {
  it.each(CASES.map(([bug, report, cmdline = ""]) => ({ bug, report, cmdline })))(
    "$bug is reported by its name, and the verdict is bad",
    ({ bug, report, cmdline }) => {
      const t = runBuggy(bug, cmdline);
      expect(t.log()).toMatch(report);
      expect(t.kernel.nrReports()).toBeGreaterThan(0);
    },
  );

  it("a device that is not answered storms: its line is switched off, the machine lives, the module goes", () => {
    const t = bootBuggy("irq_unhandled_limit=1000");
    expect(t.sh("insmod buggy bug=never_answers")).toBe(0);
    expect(t.log()).toMatch(/^irq 20: .*\n[\s\S]*^handlers:\n\[<buggy0>\]\nDisabling IRQ #20$/m);
    expect(t.sh("echo alive && rmmod buggy")).toBe(0);
    expect(t.output()).toContain("alive");
    t.expectUnloaded();
  });

  // What is seen of gives_away: test/mm/auto_init.test.ts.
  it("its clean twin is silent under every checker", () => {
    const t = runBuggy("none", "prove_locking=on dma_guard=on");
    expect(t.log()).not.toMatch(/BUG|WARNING|DMA-API|inconsistent/);
    t.expectUnloaded();
  });
});
