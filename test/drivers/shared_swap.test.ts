/**
 * Shared memory and files of a tmpfs in swap: their pages go, come back as they were, and every count follows.
 *
 * Goal: FMAP-6, FMAP-2, RFS-2, RFS-3, AREA-2. Method: whole kernels with a swap disk; programs stamp shared memory and
 * files, memhog presses, stamps are compared; the auditor looks on the way.
 */
import { describe, expect, it } from "vitest";
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  O_CREAT,
  O_RDWR,
  PROT_READ,
  PROT_WRITE,
} from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { createLibc } from "../../userland/libc.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const MIB = 1024 * 1024;
const PAGE = 4096;
const SHARED_MIB = 2;
const SECOND = 1_000_000_000;
const FAST = { seek_cycles: 2_000, kib_cycles: 200 };
const stamp = (page: number): number => (Math.imul(page + 1, 0x9e37_79b1) ^ 0x1357_9bdf) >>> 0;

/** Parent and child share memory: the parent stamps, the child looks much later, and stamps anew; the parent looks. */
const sharers: Program = function* (env) {
  const libc = createLibc(env);
  const bytes = SHARED_MIB * MIB;
  const flags = MAP_SHARED | MAP_ANONYMOUS;
  const at = yield* libc.call(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  for (let i = 0; i < bytes / PAGE; i++) env.mem.st32(at + i * PAGE, stamp(i));
  const child = yield* libc.fork(function* (child) {
    const own = createLibc(child);
    yield* own.call(SYS_nanosleep, 30 * SECOND);
    for (let i = 0; i < bytes / PAGE; i++) {
      if (child.mem.ld32(at + i * PAGE) !== stamp(i)) return 1;
      child.mem.st32(at + i * PAGE, stamp(i + 1));
    }
    return 0;
  });
  yield* libc.call(SYS_nanosleep, 60 * SECOND);
  const { status } = yield* libc.wait(child);
  if (status !== 0) return status;
  for (let i = 0; i < bytes / PAGE; i++) if (env.mem.ld32(at + i * PAGE) !== stamp(i + 1)) return 2;
  return 0;
};

function bootSwap(cmdline = "") {
  const t = bootDrivers(
    {
      ramBytes: 16 * MIB,
      cmdline: `quiet modules=disk swiotlb=256K ${cmdline}`,
      devices: { disk0: FAST },
    },
    { "/bin/sharers": sharers },
  );
  expect(t.sh("mkswap /dev/sda; swapon /dev/sda")).toBe(0);
  return t;
}

const counter = ({ kernel }: DriverKernel, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(kernel.readFile("/proc/vmstat") ?? "")?.[1]);

function swapOff(t: DriverKernel): void {
  expect(t.sh("swapoff /dev/sda; rmmod disk")).toBe(0);
  t.expectUnloaded();
}

/** Runs until `pid` has ended, and has the auditor look. */
function finish(t: DriverKernel, pid: number): number | undefined {
  const { kernel } = t;
  for (let i = 0; i < 40 && kernel.exitStatus(pid) === undefined; i++) {
    kernel.run({ untilCycles: kernel.now() + 20 * SECOND });
    expect(kernel.check()).toBeNull();
  }
  return kernel.exitStatus(pid);
}

describe.each(["", "reclaim=mglru"])("under pressure %s", (cmdline) => {
  it("FMAP-2 FMAP-6 shared memory goes to swap and comes back, for both who share it", () => {
    const t = bootSwap(cmdline);
    const pid = t.start("/bin/sharers");
    t.kernel.run({ untilCycles: t.kernel.now() + 50_000_000 });
    expect(counter(t, "nr_shmem")).toBe((SHARED_MIB * MIB) / PAGE);
    const hog = t.start("/bin/memhog", "16M");
    t.kernel.run({ untilCycles: t.kernel.now() + 5 * SECOND });
    expect(t.kernel.exitStatus(hog)).toBe(0);
    expect(t.output()).toContain("4096 pages verified, 0 wrong");
    expect(counter(t, "nr_shmem")).toBeLessThan((SHARED_MIB * MIB) / PAGE / 2);
    const smaps = t.kernel.readFile(`/proc/${pid}/smaps`) ?? "";
    const inSwap = [...smaps.matchAll(/^Swap: +(\d+) kB$/gm)].reduce((sum, [, kib]) => sum + Number(kib), 0);
    expect(inSwap / 4 + counter(t, "nr_shmem")).toBeGreaterThanOrEqual((SHARED_MIB * MIB) / PAGE);
    expect(finish(t, pid)).toBe(0);
    t.kernel.run();
    expect(counter(t, "nr_shmem")).toBe(0);
    swapOff(t);
  });
});

describe("files in /tmp", () => {
  it("FMAP-6 RFS-2 are larger than memory, keep their content, and give their slots back when they go", () => {
    const t = bootSwap();
    expect(t.sh("iotest /tmp/a --size 16M --block 64K")).toBe(0);
    expect(t.output()).toContain("256 read, 0 wrong");
    expect(counter(t, "pswpout")).toBeGreaterThan(1000);
    expect(t.kernel.check()).toBeNull();
    expect(t.sh("rm /tmp/a")).toBe(0);
    t.kernel.run();
    expect(t.kernel.readFile("/proc/swaps")).toMatch(/partition\t\d+\t+0\t/);
    swapOff(t);
  });

  it("AREA-2 swapoff brings the pages of a file back; a shorter file has lost nothing that it still has", () => {
    const t = bootSwap();
    expect(t.sh("iotest /tmp/a --size 3M --mmap; memhog 15M; cat /proc/swaps")).toBe(0);
    expect(Number(/partition\t\d+\t+(\d+)/.exec(t.output())?.[1])).toBeGreaterThan(1000);
    expect(t.sh("dd if=/tmp/a of=/dev/null bs=64K; swapoff /dev/sda")).toBe(0);
    expect(t.output()).toContain("48+0 records in");
    expect(counter(t, "nr_shmem")).toBe(768);
    expect(t.kernel.check()).toBeNull();
    expect(t.sh("rm /tmp/a; rmmod disk")).toBe(0);
    t.expectUnloaded();
  });

  it("RFS-3 SWAP-2 a page that cannot be read is an error, not other content", () => {
    const t = bootSwap();
    expect(t.sh("iotest /tmp/a --size 3M; memhog 15M")).toBe(0);
    t.kernel.drivers.device("disk0")?.faults.setRule("corrupt", 1);
    expect(t.sh("dd if=/tmp/a of=/dev/null bs=64K")).toBe(1);
    expect(t.output()).toContain("Input/output error");
    t.kernel.drivers.device("disk0")?.faults.setRule("corrupt", 0);
    expect(t.sh("dd if=/tmp/a of=/dev/null bs=64K; rm /tmp/a")).toBe(0);
    expect(t.output()).toContain("48+0 records in");
    expect(t.kernel.check()).toBeNull();
    swapOff(t);
  });
});

// Regression: fork counted pages of a tmpfs that a private mapping shows as pages of a file. Found by random system calls.
it("MMAP-2 fork with a private mapping of a file in /tmp counts its pages as shared memory, in the child, too", () => {
  const problems: (string | null)[] = [];
  const t: DriverKernel = bootDrivers(
    { ramBytes: 16 * MIB },
    {
      *"/bin/forker"(env) {
        const libc = createLibc(env);
        const fd = yield* libc.open("/tmp/x", O_RDWR | O_CREAT);
        yield* libc.writeAll(fd, new Uint8Array(4 * PAGE).fill(7));
        const at = yield* libc.call(SYS_mmap, 0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        for (let i = 0; i < 4; i++) env.mem.ld32(at + i * PAGE);
        const child = yield* libc.fork(function* () {
          problems.push(t.kernel.check());
          return 0;
        });
        yield* libc.wait(child);
        problems.push(t.kernel.check());
        return 0;
      },
    },
  );
  expect(t.sh("forker; rm /tmp/x")).toBe(0);
  expect(problems).toEqual([null, null]);
  t.expectUnloaded();
});
