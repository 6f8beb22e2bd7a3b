/**
 * Anonymous memory against pages of files: who gives way, by vm.swappiness and by what each kind has cost.
 *
 * Goal: RCL-6, WSET-1 for files, RCL-2 and RCL-3 of dirty pages of disks. Method: a program that holds memory and does
 * not use it beside one that writes and reads a disk larger than what is left, at several values of swappiness; contents
 * are compared, and the auditor looks.
 */
import { describe, expect, it } from "vitest";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const MIB = 1024 * 1024;
const SECOND = 1_000_000_000;
const FAST = { seek_cycles: 2_000, kib_cycles: 200 };

function bootPair(cmdline = ""): DriverKernel {
  return bootDrivers({
    ramBytes: 16 * MIB,
    cmdline: `quiet modules=disk swap=16M swiotlb=256K ${cmdline}`,
    devices: { disk0: FAST, disk1: FAST },
  });
}
const counter = ({ kernel }: DriverKernel, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(kernel.readFile("/proc/vmstat") ?? "")?.[1]);

interface Outcome {
  readonly nrOut: number;
  readonly nrFile: number;
  readonly nrRefaults: number;
  readonly kibRead: number;
}

/** What goes where while one holds memory and the other moves blocks of a disk. */
function pressed(swappiness: number, cmdline = ""): Outcome {
  const t = bootPair(cmdline);
  const { kernel } = t;
  expect(t.sh(`sysctl -w vm.swappiness=${swappiness}`)).toBe(0);
  const holder = t.start("/bin/memhog", "6M", "--hold", `${100 * SECOND}`);
  const mover = t.start("/bin/iotest", "/dev/sda", "--size", "8M", "--block", "64K");
  kernel.run({ untilCycles: kernel.now() + 20 * SECOND });
  expect(kernel.exitStatus(mover)).toBe(0);
  expect(kernel.check()).toBeNull();
  const outcome = {
    nrOut: counter(t, "pswpout"),
    nrFile: counter(t, "pgsteal_file"),
    nrRefaults: counter(t, "workingset_refault_file"),
    kibRead: counter(t, "pgpgin"),
  };
  kernel.run();
  expect(kernel.exitStatus(holder)).toBe(0);
  expect(t.output()).toContain("1536 pages verified, 0 wrong");
  expect(t.output()).toContain("128 read, 0 wrong");
  return outcome;
}

describe.each([[""], ["reclaim=mglru"]])("vm.swappiness %s", (cmdline) => {
  it("RCL-6 WSET-1 spares anonymous memory at 0, and pages of files at 200", () => {
    const [never, often] = [pressed(0, cmdline), pressed(200, cmdline)];
    expect(never.nrOut).toBe(0);
    expect(often.nrOut).toBeGreaterThan(300);
    expect(never.nrFile).toBeGreaterThan(often.nrFile);
    expect(never.nrRefaults).toBeGreaterThan(often.nrRefaults);
    expect(never.nrRefaults).toBeGreaterThan(100);
    expect(never.kibRead).toBeGreaterThan(0);
  });
});

it("RCL-3 DTY-3 a mapping larger than memory: dirty pages are written by whoever needs room, and come back", () => {
  const t = bootPair();
  const { kernel } = t;
  const pid = t.start("/bin/iotest", "/dev/sda", "--size", "16M", "--block", "64K", "--mmap");
  while (kernel.exitStatus(pid) === undefined) {
    kernel.run({ untilCycles: kernel.now() + 200_000_000 });
    expect(kernel.check()).toBeNull();
  }
  expect(kernel.exitStatus(pid)).toBe(0);
  kernel.run();
  expect(t.output()).toContain("256 read, 0 wrong");
  expect(counter(t, "nr_written")).toBeGreaterThan(4000);
  expect(counter(t, "pgmajfault")).toBeGreaterThan(200);
});
