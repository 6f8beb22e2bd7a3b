/**
 * Goal: processes have more memory than there is RAM and notice it by the time it takes only; what a disk does wrong
 * reaches the process that needs the page, and nobody else.
 * Method: whole kernels with a disk; memhog stamps every page and looks at it again; faults are set on the device.
 */
import { describe, expect, it } from "vitest";
import type { BootOptions } from "../../kernel/entry/kernel.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { EAGAIN } from "../../kernel/uapi/errno.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import { SYS_fork, SYS_mlock, SYS_mmap, SYS_nanosleep, SYS_wait4 } from "../../kernel/uapi/syscall.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const MIB = 1024 * 1024;
const PAGE = 4096;
const FAST = { seek_cycles: 2_000, kib_cycles: 200 };

function bootSwap(
  settings: Readonly<Record<string, number | string>> = {},
  options: Partial<BootOptions> = {},
  programs: Readonly<Record<string, Program>> = {},
) {
  const defaults = { ramBytes: 16 * MIB, cmdline: "quiet modules=disk swiotlb=256K" };
  const t = bootDrivers({ ...defaults, devices: { disk0: { ...FAST, ...settings } }, ...options }, programs);
  expect(t.sh("mkswap /dev/sda; swapon /dev/sda")).toBe(0);
  return t;
}

const counter = ({ kernel }: DriverKernel, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(kernel.readFile("/proc/vmstat") ?? "")?.[1]);

function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "number" ? result : yield* result;
}

/** Three processes that share pages, sleep until it is time, and look at them. Status 0: each word is what it was. */
function* family(env: ProgramEnv, isTime: () => boolean): Sleeping<number> {
  const bytes = 2048 * PAGE;
  const va = yield* call(env, SYS_mmap, 0, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (let at = 0; at < bytes; at += PAGE) env.mem.st32(va + at, at + 1);
  function* sleepAndLook(self: ProgramEnv): Sleeping<number> {
    while (!isTime()) yield* call(self, SYS_nanosleep, 10e6);
    for (let at = 0; at < bytes; at += PAGE) if (self.mem.ld32(va + at) !== at + 1) return 1;
    return 0;
  }
  const children = [];
  for (let i = 0; i < 2; i++) children.push(yield* call(env, SYS_fork, env.entryOf(sleepAndLook), 0));
  let status = yield* sleepAndLook(env);
  for (const child of children) {
    yield* call(env, SYS_wait4, child, va + bytes, 0);
    status |= env.mem.ld32(va + bytes);
  }
  return status;
}

function swapOff(t: DriverKernel): void {
  expect(t.sh("swapoff /dev/sda")).toBe(0);
  expect(t.kernel.readFile("/proc/swaps")?.split("\n")).toHaveLength(2);
  expect(t.sh("rmmod disk")).toBe(0);
  t.expectUnloaded();
}

describe("swap on a disk", () => {
  it("SWAP-1 SWAP-2 a process of twice the memory loses nothing, and everything is given back", () => {
    const t = bootSwap();
    expect(t.sh("memhog 25M")).toBe(0);
    expect(t.output()).toContain("6400 pages verified, 0 wrong");
    for (const name of ["pswpin", "pswpout", "pgmajfault", "pgsteal_kswapd", "pgscan_kswapd", "pageoutrun"]) {
      expect([name, counter(t, name) > 0]).toEqual([name, true]);
    }
    expect(counter(t, "nr_isolated_anon")).toBe(0);
    // B11: pageblocks were claimed on the way; each boost was heard of, and is gone.
    expect(counter(t, "compact_daemon_wake")).toBeGreaterThan(0);
    t.kernel.run();
    const boosts = [...(t.kernel.readFile("/proc/zoneinfo") ?? "").matchAll(/^ +boost +(\d+)$/gm)].map(([, nr]) => nr);
    expect([boosts.length > 0, boosts.filter((nr) => nr !== "0")]).toEqual([true, []]);
    expect(t.kernel.check()).toBeNull();
    expect(t.kernel.tasks().map((task) => task.comm)).toContain("kswapd0");
    swapOff(t);
  });

  it("THP-2 huge pages go out in pieces, with every CPU's TLB flushed in time, and come back right", () => {
    const t = bootSwap({}, { seed: "thp", cmdline: "quiet modules=disk swiotlb=256K debug_tlb=on" });
    expect(t.sh("memhog 20M --huge")).toBe(0);
    expect(t.kernel.readFile("/proc/vmstat")).toMatch(/thp_fault_alloc [1-9]/);
    expect(t.kernel.readFile("/proc/vmstat")).toMatch(/thp_split_page [1-9]/);
    expect(t.kernel.readFile("/proc/vmstat")).toMatch(/pswpout [1-9]\d{3}/);
    expect(t.kernel.nrReports()).toBe(0);
    swapOff(t);
  });

  it("SWAP-2 GEN-1 GEN-2 the same with pages in generations: two processes lose nothing", () => {
    const t = bootSwap({}, { seed: "gen", cmdline: "quiet modules=disk swiotlb=256K reclaim=mglru" });
    const { kernel } = t;
    expect(kernel.readFile("/sys/kernel/mm/lru_gen/enabled")).toBe("0x0001\n");
    const [a, b] = [t.start("/bin/memhog", "12M"), t.start("/bin/memhog", "12M")];
    for (let i = 0; i < 40 && kernel.exitStatus(a) === undefined; i++) {
      kernel.run({ untilCycles: kernel.now() + 20_000_000 });
      expect(kernel.check()).toBeNull();
    }
    kernel.run();
    expect([kernel.exitStatus(a), kernel.exitStatus(b)]).toEqual([0, 0]);
    expect(t.output().match(/3072 pages verified, 0 wrong/g)).toHaveLength(2);
    expect(counter(t, "nr_isolated_anon")).toBe(0);
    swapOff(t);
  });

  it("RCL-4 two processes at once, on two CPUs: the auditor is content all the way", () => {
    const t = bootSwap({}, { seed: "two" });
    const [a, b] = [t.start("/bin/memhog", "12M"), t.start("/bin/memhog", "12M")];
    const { kernel } = t;
    for (let i = 0; i < 40 && kernel.exitStatus(a) === undefined; i++) {
      kernel.run({ untilCycles: kernel.now() + 20_000_000 });
      expect(kernel.check()).toBeNull();
    }
    kernel.run();
    expect([kernel.exitStatus(a), kernel.exitStatus(b)]).toEqual([0, 0]);
    expect(t.output().match(/3072 pages verified, 0 wrong/g)).toHaveLength(2);
    swapOff(t);
  });

  it("AREA-2 swapoff brings the pages of living processes back", () => {
    const t = bootSwap();
    const hog = t.start("/bin/memhog", "12M", "--hold", "5000000000");
    const other = t.start("/bin/memhog", "8M");
    const { kernel } = t;
    kernel.run({ untilCycles: kernel.now() + 4_000_000_000, shouldStop: () => kernel.exitStatus(other) !== undefined });
    const [, used] = /partition\t\d+\t+(\d+)/.exec(kernel.readFile("/proc/swaps") ?? "") ?? [];
    expect(Number(used)).toBeGreaterThan(1000);
    expect(t.sh("swapoff -a")).toBe(0);
    expect(kernel.check()).toBeNull();
    kernel.run();
    expect(kernel.exitStatus(hog)).toBe(0);
    expect(t.sh("rmmod disk")).toBe(0);
    t.expectUnloaded();
  });

  it("AREA-7 swapoff without room for pages that processes share ends, and they are as before", () => {
    // A fuzzed run (syscalls, SY1-146) went on for ever: what had come back to one process and not yet to the other
    // went out again to make room, for the same slot.
    let isTime = false;
    const t = bootSwap({}, {}, { "/bin/family": (env) => family(env, () => isTime) });
    const { kernel } = t;
    const pid = t.start("/bin/family");
    expect(t.sh("memhog 12M")).toBe(0);
    expect(t.sh("dd if=/dev/zero of=/ballast bs=64K count=144")).toBe(0);
    expect(t.sh("swapoff /dev/sda")).toBe(1);
    expect(t.output()).toContain("swapoff: /dev/sda: swapoff failed: Cannot allocate memory");
    expect(kernel.check()).toBeNull();
    expect(t.sh("rm /ballast")).toBe(0);
    isTime = true;
    kernel.run({ shouldStop: () => kernel.exitStatus(pid) !== undefined });
    expect(kernel.exitStatus(pid)).toBe(0);
    swapOff(t);
  });

  // Regression: random system calls (SY5-318).
  it("LCK-1 what swapoff brings back to a mapping that is locked is locked", () => {
    let isTime = false;
    const t: DriverKernel = bootSwap(
      {},
      {},
      {
        *"/bin/locker"(env) {
          const bytes = 512 * PAGE;
          const rights = PROT_READ | PROT_WRITE;
          const va = yield* call(env, SYS_mmap, 0, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          env.mem.fill(va, 0x5a, bytes);
          while (!isTime) yield* call(env, SYS_nanosleep, 10e6);
          // Locked all the same, as in Linux; what could not be read stays where it is.
          const disk = t.kernel.drivers.device("disk0");
          disk?.faults.setRule("corrupt", 1);
          if ((yield* call(env, SYS_mlock, va, bytes)) !== -EAGAIN) return 1;
          disk?.faults.setRule("corrupt", 0);
          while (isTime) yield* call(env, SYS_nanosleep, 10e6);
          return env.mem.read(va, bytes).every((byte) => byte === 0x5a) ? 0 : 2;
        },
      },
    );
    const { kernel } = t;
    const pid = t.start("/bin/sh", "-c", "ulimit -l unlimited; locker");
    expect(t.sh("memhog 14M")).toBe(0);
    isTime = true;
    kernel.run({ untilCycles: kernel.now() + 100_000_000 });
    expect(t.sh("swapoff /dev/sda")).toBe(0);
    expect(kernel.check()).toBeNull();
    isTime = false;
    kernel.run({ shouldStop: () => kernel.exitStatus(pid) !== undefined });
    expect(kernel.exitStatus(pid)).toBe(0);
    expect(t.sh("rmmod disk")).toBe(0);
    t.expectUnloaded();
  });

  it("AREA-1 AREA-3 what is no swap area is refused, and leaves nothing behind", () => {
    const t = bootDrivers({ ramBytes: 16 * MIB, cmdline: "quiet modules=disk", devices: { disk0: FAST } });
    expect(t.sh("swapon /dev/sda")).toBe(1);
    expect(t.output()).toContain("swapon: /dev/sda: swapon failed: Invalid argument");
    expect(t.log()).toContain("Unable to find swap-space signature");
    expect(t.sh("swapon /dev/null")).toBe(1);
    expect(t.sh("swapon /dev/nosuch")).toBe(1);
    expect(t.sh("swapoff /dev/sda")).toBe(1);
    expect(t.sh("mkswap /dev/sda; swapon /dev/sda; swapon /dev/sda")).toBe(1);
    expect(t.output()).toContain("Device or resource busy");
    expect(t.sh("rmmod disk")).toBe(1);
    swapOff(t);
  });
});

describe("a disk that fails", () => {
  it("RCL-3 pages that cannot be written stay, and nothing is lost", () => {
    const t = bootSwap();
    const { kernel } = t;
    const disk = kernel.drivers.device("disk0");
    // Each command is tried four times: one write in sixty fails. Hardly anything is read before the second pass.
    disk?.faults.setRule("corrupt", 0.35);
    const pid = t.start("/bin/memhog", "20M");
    kernel.run({ shouldStop: () => t.output().includes("touched") || kernel.exitStatus(pid) !== undefined });
    disk?.faults.setRule("corrupt", 0);
    expect(t.log()).toContain("Write-error on swap-device");
    expect(kernel.check()).toBeNull();
    kernel.run();
    expect(kernel.exitStatus(pid)).toBe(0);
    expect(t.output()).toContain("5120 pages verified, 0 wrong");
    swapOff(t);
  });

  it("SWAP-2 SWAP-4 a page that cannot be read is a SIGBUS for its process; the others live", () => {
    const t = bootSwap();
    const { kernel } = t;
    const victim = t.start("/bin/memhog", "8M", "--hold", "3000000000");
    t.sh("memhog 11M");
    kernel.drivers.device("disk0")?.faults.setRule("corrupt", 1);
    kernel.run({
      untilCycles: kernel.now() + 20_000_000_000,
      shouldStop: () => kernel.exitStatus(victim) !== undefined,
    });
    expect(kernel.exitStatus(victim)).toBe(128 + 7);
    expect(t.log()).toMatch(/memhog\[\d+\]: page at [0-9a-f]+ cannot be read from swap/);
    kernel.drivers.device("disk0")?.faults.setRule("corrupt", 0);
    expect(t.sh("memhog 15M")).toBe(0);
    expect(kernel.check()).toBeNull();
    swapOff(t);
  });

  it.each([
    ["lost_irq", 0.2],
    ["late", 0.2],
    ["corrupt", 0.1],
    ["twice", 0.2],
    ["never", "#40"],
    ["stray_write", 0.2],
  ])("content survives a disk with %s", (fault, rule) => {
    const t = bootSwap({ [fault]: rule }, { seed: String(fault) });
    expect(t.sh("memhog 20M")).toBe(0);
    expect(t.output()).toContain("5120 pages verified, 0 wrong");
    expect(t.kernel.check()).toBeNull();
  });

  it("a disk that is pulled out takes its pages along, not the kernel", () => {
    const t = bootSwap();
    const { kernel } = t;
    const victim = t.start("/bin/memhog", "20M", "--hold", "3000000000");
    kernel.run({ untilCycles: kernel.now() + 1_000_000_000 });
    expect(counter(t, "pswpout")).toBeGreaterThan(0);
    kernel.drivers.device("disk0")?.unplug();
    kernel.run({
      untilCycles: kernel.now() + 20_000_000_000,
      shouldStop: () => kernel.exitStatus(victim) !== undefined,
    });
    expect(kernel.exitStatus(victim)).toBeGreaterThan(128);
    expect(t.sh("memhog 4M")).toBe(0);
    expect(kernel.check()).toBeNull();
  });
});
