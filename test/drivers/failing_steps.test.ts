/**
 * Everything that a driver takes while it works fails once: no leak, no hang, a clear end.
 *
 * Goal: DRV-1, DRV-2, LED-1 for every driver that comes with the kernel. Method: one run counts the things taken from
 * loading to unloading; then one run for each of them, in which that one is refused. What a program makes of it is its
 * own business (status 0, 1 or 2); afterwards the module goes and nothing is left.
 */

import { expect, it } from "vitest";
import { DRIVER_TYPES } from "../../drivers/index.ts";
import { bootDrivers } from "../support/driver_kernel.ts";

/** Module and parameters → what is done with it, with RAM to spare for a framebuffer. */
const WORK: readonly (readonly [insmod: string, use: string])[] = [
  ["rtc rate=512", "dd if=/dev/rtc0 of=/dev/null bs=4 count=3"],
  ["uart", "echo hello > /dev/ttyS1"],
  ["sensor buffer=kmalloc", "sensord /dev/sensor0 40"],
  ["sensor buffer=mempool", "sensord /dev/sensor0 40"],
  ["sensor buffer=ring", "sensord /dev/sensor0 40"],
  ["disk", "iotest /dev/sda --direct --size 16K --block 4K"],
  ["nic", "pktgen 20; pktgen --wire 30; pktsink"],
  ["framebuffer", "fbtest"],
  ["balloon", "echo 600 > /sys/devices/balloon0/host_target; sleep 0.01"],
  ["buggy", "true"],
];

const MAX_CYCLES = 20_000_000_000;

function attempt(insmod: string, use: string, failing: number): { nrSteps: number; log: string } {
  const t = bootDrivers({ ramBytes: 64 * 1024 * 1024, port: "raw" });
  const module = insmod.split(" ")[0];
  t.kernel.drivers.failStep(failing);
  const started = t.kernel.now();
  t.sh(`insmod ${insmod}`);
  if ((t.kernel.readFile("/proc/modules") ?? "") !== "") t.sh(use);
  const nrSteps = t.kernel.drivers.nrSteps();
  t.kernel.drivers.failStep(0);
  if ((t.kernel.readFile("/proc/modules") ?? "") !== "") t.sh(`rmmod ${module}`);
  expect(t.kernel.now() - started).toBeLessThan(MAX_CYCLES);
  const log = t.log();
  t.expectUnloaded();
  return { nrSteps, log };
}

it.each(WORK)("insmod %s; %s: each thing taken is refused once", (insmod, use) => {
  const { nrSteps } = attempt(insmod, use, 0);
  expect(nrSteps).toBeGreaterThan(1);
  for (let failing = 1; failing <= Math.min(nrSteps, 80); failing++) attempt(insmod, use, failing);
});

it("no driver is left out", () => {
  const names = new Set(WORK.map(([insmod]) => insmod.split(" ")[0]));
  expect(DRIVER_TYPES.map(({ name }) => name).filter((name) => !names.has(name))).toEqual([]);
});
