/**
 * The network card and its driver: traffic in both directions, with everything that can go wrong.
 *
 * Goal: NIC-1, NIC-2, SKT-1, SKT-2, NAPI-1 … NAPI-3, DRV-1 … DRV-5. Method: a whole kernel, seeded traffic, programs
 * that check every packet; after each test the module is unloaded and pages, objects and mappings are as at boot.
 */

import { describe, expect, it } from "vitest";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

/** Every packet that arrived is accounted for: delivered or dropped with a reason. */
function expectBalance(t: DriverKernel): void {
  const of = (name: string): number => t.stat("nic0", name);
  const dropped = of("drop_queue_full") + of("drop_no_reader") + of("drop_corrupt") + of("drop_checksum");
  expect(of("rx_delivered") + dropped).toBe(of("rx_packets"));
}

describe("receiving", () => {
  it("packets go from the wire to the program, all of them and unharmed", () => {
    const t = bootDrivers({ cmdline: "quiet modules=nic", devices: { nic0: { count: 500, rate: 50_000 } } });
    expect(t.sh("pktsink")).toBe(0);
    expect(t.output()).toMatch(
      /pktsink: 500 packets, \d+ KiB, [\d.]+ kpps, 0 not seen here, 0 corrupt, 0 out of order/,
    );
    expect(t.stat("nic0", "rx_packets")).toBe(500);
    expectBalance(t);
    t.sh("rmmod nic");
    t.expectUnloaded();
  });
});

describe("a probe that fails", () => {
  it("DRV-1 at step N for every N: nothing is left, the log says so, and insmod works afterwards", () => {
    const t = bootDrivers();
    t.kernel.drivers.failStep(0);
    expect(t.sh("insmod nic ring=8; rmmod nic")).toBe(0);
    const nrSteps = t.kernel.drivers.nrSteps();
    expect(nrSteps).toBeGreaterThan(20);
    for (let nth = 1; nth <= nrSteps; nth++) {
      t.kernel.drivers.failStep(nth);
      expect(t.sh("insmod nic ring=8"), `step ${nth}`).toBe(1);
      expect(t.log()).toContain(`nic nic0: probe with driver nic failed with error ${-ENOMEM}`);
      t.expectUnloaded();
      expect(t.sh("insmod nic ring=8 && rmmod nic"), `after step ${nth}`).toBe(0);
    }
    t.expectUnloaded();
  });
});
