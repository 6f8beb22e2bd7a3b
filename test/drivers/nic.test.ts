/**
 * The network card and its driver: traffic in both directions, with everything that can go wrong.
 *
 * Goal: NIC-1, NIC-2, SKT-1, SKT-2, NAPI-3, DRV-1 … DRV-5, FLT-1. Method: a whole kernel, seeded traffic, programs that
 * check every packet; after each test the module is unloaded and pages, objects and mappings are as at boot.
 */

import { describe, expect, it } from "vitest";
import type { DeviceSettings } from "../../drivers/index.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

/** A machine with the driver loaded and these settings of the card. */
const bootNic = (nic0: DeviceSettings, nrCpus = 2, driver = "nic"): DriverKernel =>
  bootDrivers({ nrCpus, cmdline: "quiet", modules: [driver], devices: { nic0 } });

const stat = (t: DriverKernel, name: string): number => t.stat("nic0", name);

/** Every packet that came out of the ring is accounted for: delivered, or dropped with a reason. */
function expectBalance(t: DriverKernel): void {
  const reasons = ["drop_queue_full", "drop_no_reader", "drop_corrupt", "drop_checksum"];
  const dropped = reasons.reduce((sum, name) => sum + stat(t, name), 0);
  expect(stat(t, "rx_delivered") + dropped).toBe(stat(t, "rx_packets"));
}

/** Unloads and looks for leaks, with all accounts balanced before. */
function finish(t: DriverKernel): void {
  expectBalance(t);
  expect(t.kernel.check()).toBeNull();
  expect(t.sh("rmmod nic")).toBe(0);
  t.expectUnloaded();
}

const seen = (t: DriverKernel): number => Number(/pktsink: (\d+) packets/.exec(t.output())?.[1]);

describe("receiving", () => {
  it("packets go from the wire to the program, all of them and unharmed", () => {
    const t = bootNic({ count: 300, rate: 50_000 });
    expect(t.sh("pktsink")).toBe(0);
    expect(t.output()).toMatch(
      /pktsink: 300 packets, \d+ KiB, [\d.]+ kpps, 0 not seen here, 0 corrupt, 0 out of order/,
    );
    expect([stat(t, "rx_packets"), stat(t, "rx_delivered")]).toEqual([300, 300]);
    expect(stat(t, "alloc_softirq")).toBeGreaterThanOrEqual(300);
    expect(stat(t, "alloc_hardirq")).toBe(0);
    expect(t.kernel.machine.dmaBus.nrFaults()).toBe(0);
    finish(t);
  });

  it("one interrupt announces many packets of a burst; NAPI-3 a poll that uses its budget goes on", () => {
    const t = bootNic({ count: 600, burst: 200, rate: 1_000_000, size: 64 }, 1, "nic ring=256");
    expect(t.sh("pktsink")).toBe(0);
    expect(stat(t, "rx_packets")).toBe(600);
    expect(stat(t, "irqs")).toBeLessThan(30);
    expect(stat(t, "budget_exhausted")).toBeGreaterThan(0);
    finish(t);
  });

  it("SKT-1 a reader that cannot keep up loses packets, and the counter says why", () => {
    const t = bootNic({ count: 200, burst: 50, rate: 1_000_000, size: 64 }, 1, "nic queue=8");
    expect(t.sh("pktsink")).toBe(0);
    expect(stat(t, "drop_queue_full")).toBeGreaterThan(0);
    expect(seen(t)).toBe(stat(t, "rx_delivered"));
    finish(t);
  });

  it("a burst longer than the ring is missed by the card: drop_no_buffer", () => {
    const t = bootNic({ count: 100, burst: 100, rate: 1_000_000, size: 64 }, 1, "nic ring=8");
    expect(t.sh("pktsink")).toBe(0);
    expect(stat(t, "drop_no_buffer")).toBeGreaterThan(0);
    expect(stat(t, "drop_no_buffer") + stat(t, "rx_packets")).toBe(100);
    finish(t);
  });

  it("SKT-2 several readers share the traffic by flow, each in order", () => {
    const t = bootNic({ rate: 100_000 });
    const first = t.start("/bin/pktsink");
    const second = t.start("/bin/pktsink");
    expect(t.sh("pktgen --wire 200 --rate 100000 --burst 4")).toBe(0);
    t.kernel.run();
    expect([t.kernel.exitStatus(first), t.kernel.exitStatus(second)]).toEqual([0, 0]);
    const counts = [...t.output().matchAll(/pktsink: (\d+) packets/g)].map((match) => Number(match[1]));
    expect(counts.length).toBe(2);
    expect(Math.min(...counts)).toBeGreaterThan(20);
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(200);
    finish(t);
  });

  it("with nobody there to read, packets are dropped for that reason", () => {
    const t = bootNic({ count: 50, loopback: 1 });
    expect(t.sh("pktgen 20")).toBe(0);
    t.kernel.run();
    expect(stat(t, "drop_no_reader") + stat(t, "drop_no_buffer")).toBeGreaterThan(0);
    expect(stat(t, "rx_delivered")).toBe(0);
    finish(t);
  });

  it("interrupts go round the CPUs with spread=1, and each takes packets", () => {
    const t = bootNic({ count: 400, rate: 20_000 }, 4, "nic spread=1");
    expect(t.sh("pktsink")).toBe(0);
    const perCpu = [0, 1, 2, 3].map((cpu) => stat(t, `rx_cpu${cpu}`));
    expect(perCpu.reduce((sum, n) => sum + n, 0)).toBe(400);
    expect(Math.min(...perCpu)).toBeGreaterThan(20);
    finish(t);
  });

  it("the same seed gives the same packets, times and counters", () => {
    const run = (): string => {
      const t = bootNic({ count: 150, burst: 8, corrupt: 0.05, lost_irq: 0.05 });
      t.sh("pktsink");
      return `${t.output()}${t.kernel.readFile("/sys/devices/nic0/stats")}${t.kernel.now()}`;
    };
    expect(run()).toBe(run());
  });
});

describe("CPUs that come and go", () => {
  it("a CPU goes offline in the middle of a flood: all packets are still accounted for", () => {
    const t = bootNic({ count: 3000, burst: 64, rate: 500_000, size: 64 }, 4, "nic ring=256 queue=4096 spread=1");
    const sink = t.start("/bin/pktsink");
    for (const cpu of [1, 2, 3]) expect(t.sh(`echo 0 > /sys/devices/system/cpu/cpu${cpu}/online`)).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(sink)).toBe(0);
    expect(stat(t, "rx_packets") + stat(t, "drop_no_buffer")).toBe(3000);
    finish(t);
  });
});

describe("webserver --nic", () => {
  it("serves what the wire brings and answers each", () => {
    const t = bootNic({ count: 100, rate: 5_000 });
    expect(t.sh("webserver --nic")).toBe(0);
    expect(t.output()).toMatch(/webserver: 100 requests, 0 failed/);
    t.kernel.run();
    expect(stat(t, "tx_packets")).toBe(100);
    finish(t);
  });

  it("says so when there is no card, and needs --requests without --nic", () => {
    const t = bootDrivers();
    expect(t.sh("webserver --nic")).toBe(1);
    expect(t.output()).toContain("webserver: /dev/nic0: No such file or directory");
    expect(t.sh("webserver")).toBe(2);
    t.expectUnloaded();
  });
});

describe("sending", () => {
  it("packets go out, and with loopback they come back unharmed", () => {
    const t = bootNic({ loopback: 1 });
    const sink = t.start("/bin/pktsink", "--packets", "100");
    expect(t.sh("pktgen 100")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(sink)).toBe(0);
    expect(t.output()).toMatch(/pktgen: 100 packets, \d+ KiB sent, 0 refused/);
    expect(t.output()).toMatch(/pktsink: 100 packets, .* 0 corrupt, 0 out of order/);
    expect([stat(t, "tx_packets"), stat(t, "tx_errors")]).toEqual([100, 0]);
    finish(t);
  });

  it("a writer waits while the ring is full; every packet is sent once", () => {
    const t = bootNic({}, 1, "nic ring=8 moderation=1000000");
    expect(t.sh("pktgen 64 --size 1518")).toBe(0);
    t.kernel.run();
    expect(stat(t, "tx_packets")).toBe(64);
    finish(t);
  });

  it.each(["count=x", "rate=5", "count=0", "count=1 colour=2", "count=9999999999"])("traffic refuses %s", (text) => {
    const t = bootNic({});
    expect(t.sh(`echo ${text} > /sys/devices/nic0/traffic`)).not.toBe(0);
    finish(t);
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
    }
    expect(t.sh("insmod nic ring=8 && rmmod nic")).toBe(0);
    t.expectUnloaded();
  });
});

describe("an allocation or mapping that fails in traffic", () => {
  it("each one once: no leak, no hang, and the counters tell", () => {
    const devices: DeviceSettings = { count: 12, rate: 100_000, loopback: 1, size: 64 };
    const load = "pktsink & pktgen 6 ; wait";
    const count = bootNic(devices, 1, "nic ring=8");
    count.kernel.drivers.failStep(0);
    count.sh(load);
    const nrSteps = count.kernel.drivers.nrSteps();
    expect(nrSteps).toBeGreaterThan(30);
    let nrNoticed = 0;
    for (let nth = 1; nth <= nrSteps; nth++) {
      const t = bootNic(devices, 1, "nic ring=8");
      t.kernel.drivers.failStep(nth);
      expect(t.sh(load), `step ${nth}`).toBeDefined();
      t.kernel.drivers.failStep(0);
      t.kernel.run();
      if (stat(t, "refill_failed") + stat(t, "tx_errors") > 0 || /Cannot allocate|refused/.test(t.output()))
        nrNoticed++;
      finish(t);
    }
    expect(nrNoticed).toBe(nrSteps);
  });
});

describe("a card that misbehaves", () => {
  it("lost_irq: the watchdog polls, nothing is lost", () => {
    const t = bootNic({ count: 40, rate: 50, lost_irq: 0.5 });
    expect(t.sh("pktsink")).toBe(0);
    expect(t.kernel.drivers.device("nic0")?.faults.nrStruck("lost_irq")).toBeGreaterThan(5);
    expect(stat(t, "irqs_lost")).toBeGreaterThan(0);
    expect(stat(t, "rx_delivered") + stat(t, "drop_no_buffer")).toBe(40);
    finish(t);
  });

  it("lost_irq of a transmission, the only one: the watchdog completes it", () => {
    const t = bootNic({ lost_irq: "#1" });
    expect(t.sh("pktgen 1")).toBe(0);
    t.kernel.run();
    expect([stat(t, "irqs_lost"), stat(t, "tx_packets"), stat(t, "tx_timeouts")]).toEqual([1, 1, 0]);
    finish(t);
  });

  it("never: a transmission that does not complete is timed out and the card reset", () => {
    const t = bootNic({ never: "#1" });
    expect(t.sh("pktgen 1")).toBe(0);
    t.kernel.run();
    expect(t.log()).toContain("NETDEV WATCHDOG: nic0: transmit queue timed out 50 ms");
    expect([stat(t, "tx_timeouts"), stat(t, "resets"), stat(t, "tx_errors")]).toEqual([1, 1, 1]);
    expect(t.sh("pktgen 5")).toBe(0);
    t.kernel.run();
    expect(stat(t, "tx_packets")).toBe(5);
    finish(t);
  });

  it("never: a receive descriptor that does not complete stops the ring until the reset", () => {
    const t = bootNic({ count: 400, rate: 2_000, never: "#5" });
    expect(t.sh("pktsink")).toBe(0);
    expect(t.log()).toContain("NETDEV WATCHDOG: nic0: receive queue timed out");
    expect(stat(t, "resets")).toBe(1);
    expect(seen(t)).toBeGreaterThan(200);
    finish(t);
  });

  it("late: the packet waits, those behind it too, none is lost", () => {
    const t = bootNic({ count: 60, rate: 50_000, late: "#7", late_cycles: 100_000 });
    expect(t.sh("pktsink")).toBe(0);
    expect(seen(t)).toBe(60);
    finish(t);
  });

  it("corrupt: damaged packets are dropped, by the card's word or by their checksum; none reaches a program", () => {
    const t = bootNic({ count: 200, corrupt: 0.2 });
    expect(t.sh("pktsink")).toBe(0);
    expect(stat(t, "drop_corrupt")).toBeGreaterThan(0);
    expect(stat(t, "drop_checksum")).toBeGreaterThan(0);
    expect(t.output()).toContain(" 0 corrupt");
    finish(t);
  });

  it("twice: a second report of an old completion is noticed by its cookie", () => {
    const t = bootNic({ count: 300, rate: 20_000, twice: 0.1 }, 1, "nic ring=16");
    expect(t.sh("pktsink")).toBe(0);
    t.kernel.run();
    expect(t.kernel.drivers.device("nic0")?.faults.nrStruck("twice")).toBeGreaterThan(10);
    expect(stat(t, "bad_completions")).toBeGreaterThan(0);
    expect(t.output()).toContain("0 corrupt, 0 out of order");
    finish(t);
  });

  it("stray_write: the bus refuses and reports; the driver goes on", () => {
    const t = bootNic({ count: 50, stray_write: "#10" });
    expect(t.sh("pktsink")).toBe(0);
    expect(seen(t)).toBe(50);
    const { faults } = t.kernel.machine.dmaBus;
    expect(faults.map(({ master, reason }) => [master, reason])).toEqual([
      ["nic0", "is outside what is mapped for it"],
    ]);
    finish(t);
  });

  it("vanish: readers are told, the module can be removed, and rescan brings the card back", () => {
    const t = bootNic({ count: 50, vanish: "#20" });
    expect(t.sh("pktsink")).toBe(1);
    expect(t.output()).toContain("pktsink: /dev/nic0: No such device");
    expect(t.log()).toContain("nic nic0: device is gone: its registers read as all ones");
    expect(t.sh("pktgen 1")).toBe(1);
    expect(t.sh("echo 1 > /sys/devices/nic0/remove && echo 1 > /sys/bus/slab/rescan")).toBe(0);
    expect(t.sh("pktsink")).toBe(0);
    finish(t);
  });
});

describe("gone under load", () => {
  for (const nrCpus of [1, 4]) {
    it(`hot-unplug with readers, writers and traffic, ${nrCpus} CPU(s): ENODEV, nothing leaks`, () => {
      const t = bootNic({ count: 100_000, burst: 16, rate: 500_000, loopback: 1 }, nrCpus, "nic spread=1");
      const programs = [t.start("/bin/pktsink"), t.start("/bin/pktsink"), t.start("/bin/pktgen", "100000")];
      expect(t.sh("rmmod nic")).toBe(1);
      expect(t.sh("echo 1 > /sys/devices/nic0/remove")).toBe(0);
      t.kernel.run();
      expect(programs.map((pid) => t.kernel.exitStatus(pid))).toEqual([1, 1, 1]);
      expect(t.output()).toContain("No such device");
      expect(t.sh("rmmod nic")).toBe(0);
      t.expectUnloaded();
    });

    it(`rmmod while the wire brings packets that nobody reads, ${nrCpus} CPU(s)`, () => {
      const t = bootNic({ rate: 500_000, burst: 32 }, nrCpus);
      expect(t.sh("pktgen --wire 50000")).toBe(0);
      const sink = t.start("/bin/pktsink", "--packets", "500");
      t.kernel.run({ untilCycles: t.kernel.now() + 20_000_000 });
      expect(t.kernel.exitStatus(sink)).toBe(0);
      expect(t.sh("rmmod nic")).toBe(0);
      t.expectUnloaded();
    });
  }

  it("a reader that is killed in its sleep, and one killed with packets queued, leave nothing", () => {
    const t = bootNic({ rate: 100_000 });
    const sleeping = t.start("/bin/pktsink");
    expect(t.sh(`kill -9 ${sleeping}`)).toBe(0);
    const busy = t.start("/bin/pktsink");
    expect(t.sh(`pktgen --wire 500; kill -9 ${busy}`)).toBe(0);
    t.kernel.run();
    expect([t.kernel.exitStatus(sleeping), t.kernel.exitStatus(busy)]).toEqual([137, 137]);
    finish(t);
  });
});
