/**
 * Disks through the page cache: what one writes, everybody reads, and in the end the disk has it.
 *
 * Goal: DSC-1 … DSC-3, WBK-1 … WBK-4, BLK-1 … BLK-3, DTY-1 … DTY-3 in use. Method: whole kernels with a disk; small
 * programs read, write and map it; faults are set on the device; the auditor looks on the way, and nothing is left.
 */
import { describe, expect, it } from "vitest";
import type { BootOptions } from "../../kernel/entry/kernel.ts";
import { EIO, ENODEV, ENOMEM } from "../../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  MS_ASYNC,
  MS_SYNC,
  O_RDONLY,
  O_RDWR,
  PROT_READ,
  PROT_WRITE,
  SEEK_SET,
} from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import {
  SYS_fsync,
  SYS_ftruncate,
  SYS_lseek,
  SYS_mmap,
  SYS_msync,
  SYS_nanosleep,
  SYS_read,
  SYS_write,
} from "../../kernel/uapi/syscall.ts";
import { createLibc, type Libc } from "../../userland/libc.ts";
import { createRandom } from "../../userland/programs/random.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";

const MIB = 1024 * 1024;
const PAGE = 4096;
const SECOND = 1_000_000_000;
const FAST = { seek_cycles: 2_000, kib_cycles: 200 };

type Body = (libc: Libc, env: Parameters<Program>[0]) => Generator<unknown, number>;

/** A program /bin/play, and a machine with a disk to play it on. */
function bootDisk(
  body: Body,
  settings: Readonly<Record<string, number | string>> = {},
  more: Partial<BootOptions> = {},
) {
  const play: Program = function* (env) {
    return yield* body(createLibc(env), env) as ReturnType<Program>;
  };
  return bootDrivers(
    {
      ramBytes: 32 * MIB,
      cmdline: "quiet modules=disk swiotlb=256K",
      devices: { disk0: { ...FAST, ...settings } },
      ...more,
    },
    { "/bin/play": play },
  );
}

const counter = ({ kernel }: DriverKernel, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(kernel.readFile("/proc/vmstat") ?? "")?.[1]);
const fault = ({ kernel }: DriverKernel, name: "corrupt", rule: number): void =>
  kernel.drivers.device("disk0")?.faults.setRule(name, rule);

function unload(t: DriverKernel): void {
  expect(t.sh("rmmod disk")).toBe(0);
  t.expectUnloaded();
  for (const name of ["nr_dirty", "nr_writeback", "nr_file_pages"]) expect([name, counter(t, name)]).toEqual([name, 0]);
}

const text = (bytes: Uint8Array | number): string =>
  typeof bytes === "number" ? `${bytes}` : String.fromCharCode(...bytes);
const bytesOf = (s: string): Uint8Array => Uint8Array.from(s, (c) => c.charCodeAt(0));

describe("one set of pages", () => {
  it("DSC-1 BLK-1 what write() wrote, read(), a mapping and, after close(), the disk have", () => {
    const seen: string[] = [];
    const t = bootDisk(function* (libc, { mem }) {
      const [a, b] = [yield* libc.open("/dev/sda", O_RDWR), yield* libc.open("/dev/sda", O_RDWR)];
      yield* libc.call(SYS_lseek, a, 5 * PAGE - 2, SEEK_SET);
      yield* libc.writeAll(a, bytesOf("over the edge"));
      yield* libc.call(SYS_lseek, b, 5 * PAGE - 2, SEEK_SET);
      seen.push(text(yield* libc.read(b, 13)));
      const at = yield* libc.call(SYS_mmap, 0, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
      seen.push(text(mem.read(at + 5 * PAGE - 2, 13)));
      mem.write(at + 5 * PAGE - 2, bytesOf("OVER"));
      yield* libc.call(SYS_lseek, a, 5 * PAGE - 2, SEEK_SET);
      seen.push(text(yield* libc.read(a, 13)));
      seen.push(`${yield* libc.call(SYS_ftruncate, a, 0)}`);
      return 0;
    });
    expect(t.sh("play")).toBe(0);
    expect(seen).toEqual(["over the edge", "over the edge", "OVER the edge", "-22"]);
    expect(t.sh("dd if=/dev/sda iflag=direct bs=2 skip=10239 count=7")).toBe(0);
    expect(t.output()).toContain("OVER the edge");
    unload(t);
  });

  it("BLK-1 O_DIRECT sees what the cache has, and the cache what O_DIRECT has written", () => {
    const t = bootDisk(function* (libc) {
      const fd = yield* libc.open("/dev/sda", O_RDWR);
      yield* libc.writeAll(fd, bytesOf("cached"));
      yield* libc.call(SYS_nanosleep, 100 * SECOND);
      yield* libc.call(SYS_lseek, fd, 0, SEEK_SET);
      const got = text(yield* libc.read(fd, 6));
      yield* libc.print(`[${got}]`);
      return 0;
    });
    const pid = t.start("/bin/play");
    expect(t.sh("dd if=/dev/sda iflag=direct bs=6 count=1")).toBe(0);
    expect(t.output()).toContain("cached");
    expect(t.sh("echo direct > /tmp/x; dd if=/tmp/x of=/dev/sda oflag=direct bs=6 count=1; rm /tmp/x")).toBe(0);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(0);
    expect(t.output()).toContain("[direct]");
    unload(t);
  });

  it("DSC-3 a page is read once, until drop_caches; read ahead in fewer and fewer commands", () => {
    const marks: number[] = [];
    const t: DriverKernel = bootDisk(function* (libc) {
      const fd = yield* libc.open("/dev/sda");
      for (let pass = 0; pass < 3; pass++) {
        yield* libc.call(SYS_lseek, fd, 0, SEEK_SET);
        for (let i = 0; i < 128; i++) yield* libc.read(fd, PAGE);
        marks.push(counter(t, "pgpgin"), t.stat("disk0", "reads"));
        if (pass === 1) yield* libc.writeFile("/proc/sys/vm/drop_caches", "1\n");
      }
      return 0;
    });
    expect(t.sh("play")).toBe(0);
    const [first, nrReads, second, , third] = marks as [number, number, number, number, number];
    expect([first - (first % 512), second - first]).toEqual([512, 0]);
    expect(third - second).toBeGreaterThanOrEqual(512);
    expect(nrReads).toBeLessThan(10);
    expect(t.log()).toMatch(/play \(\d+\): drop_caches: 1/);
    expect(counter(t, "drop_pagecache")).toBe(1);
    unload(t);
  });
});

describe("the flusher", () => {
  /** Writes a page and keeps the file open for `seconds`. */
  const keeper = (seconds: number): Body =>
    function* (libc) {
      const fd = yield* libc.open("/dev/sda", O_RDWR);
      yield* libc.writeAll(fd, new Uint8Array(PAGE).fill(0x5a));
      yield* libc.call(SYS_nanosleep, seconds * SECOND);
      return 0;
    };

  it("writes what has been dirty for dirty_expire_centisecs, and sleeps for good when nothing is", () => {
    const t = bootDisk(keeper(100));
    const pid = t.start("/bin/play");
    const { kernel } = t;
    const until = (seconds: number): boolean => kernel.run({ untilCycles: seconds * SECOND }) === "budget";
    expect(until(29)).toBe(true);
    expect([counter(t, "nr_dirty"), counter(t, "nr_written")]).toEqual([1, 0]);
    expect(kernel.check()).toBeNull();
    until(36);
    expect([counter(t, "nr_dirty"), counter(t, "nr_written")]).toEqual([0, 1]);
    expect(t.stat("disk0", "writes")).toBe(1);
    kernel.run();
    expect(kernel.exitStatus(pid)).toBe(0);
    unload(t);
  });

  it("obeys dirty_expire_centisecs and dirty_writeback_centisecs, and sync", () => {
    const t = bootDisk(keeper(100));
    expect(t.sh("sysctl -w vm.dirty_expire_centisecs=100 vm.dirty_writeback_centisecs=0")).toBe(0);
    expect(t.sh("sysctl -w vm.dirty_ratio=101")).toBe(1);
    t.start("/bin/play");
    t.kernel.run({ untilCycles: 50 * SECOND });
    expect(counter(t, "nr_dirty")).toBe(1);
    expect(t.sh("sync")).toBe(0);
    expect([counter(t, "nr_dirty"), counter(t, "nr_written")]).toEqual([0, 1]);
    t.kernel.run();
    unload(t);
  });

  it("WBK-3 a writer that is faster than the disk is held up at the limit", () => {
    const t = bootDisk(keeper(0), { kib_cycles: 5_000 });
    const { kernel } = t;
    const pid = t.start("/bin/iotest", "/dev/sda", "--size", "8M", "--block", "64K");
    let most = 0;
    while (kernel.exitStatus(pid) === undefined) {
      kernel.run({ untilCycles: kernel.now() + 120_000_000 });
      const over = counter(t, "nr_dirty") - counter(t, "nr_dirty_threshold");
      most = Math.max(most, over);
      expect(kernel.check()).toBeNull();
    }
    expect(kernel.exitStatus(pid)).toBe(0);
    expect(most).toBeLessThanOrEqual(0);
    expect(counter(t, "nr_written")).toBeGreaterThan(1500);
    unload(t);
  });
});

describe("errors", () => {
  it("WBK-1 BLK-3 fsync says −EIO once to each file, keeps what could not be written, and writes it later", () => {
    const results: number[] = [];
    const t: DriverKernel = bootDisk(function* (libc) {
      const [a, b] = [yield* libc.open("/dev/sda", O_RDWR), yield* libc.open("/dev/sda", O_RDONLY)];
      yield* libc.writeAll(a, bytesOf("not lost"));
      fault(t, "corrupt", 1);
      results.push(yield* libc.call(SYS_fsync, a));
      fault(t, "corrupt", 0);
      results.push(yield* libc.call(SYS_fsync, a), yield* libc.call(SYS_fsync, b), yield* libc.call(SYS_fsync, b));
      return 0;
    });
    expect(t.sh("play")).toBe(0);
    expect(results).toEqual([-EIO, 0, -EIO, 0]);
    expect(t.log()).toContain("Buffer I/O error on dev sda, logical block 0, async page write, will be tried again");
    expect(t.sh("dd if=/dev/sda iflag=direct bs=8 count=1")).toBe(0);
    expect(t.output()).toContain("not lost");
    unload(t);
  });

  it("msync(MS_SYNC) of a mapping does the same; a page that cannot be read is a SIGBUS, and is not there", () => {
    const results: number[] = [];
    const t: DriverKernel = bootDisk(function* (libc, { mem }) {
      const fd = yield* libc.open("/dev/sda", O_RDWR);
      const at = yield* libc.call(SYS_mmap, 0, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      mem.st32(at, 0x1234_5678);
      fault(t, "corrupt", 1);
      for (let i = 0; i < 2; i++) {
        results.push(yield* libc.call(SYS_msync, at, PAGE, MS_SYNC));
        fault(t, "corrupt", 0);
      }
      fault(t, "corrupt", 1);
      mem.ld32(at + 40 * PAGE);
      return 0;
    });
    expect(t.sh("play")).toBe(128 + 7);
    fault(t, "corrupt", 0);
    expect(results).toEqual([-EIO, 0]);
    expect(t.kernel.check()).toBeNull();
    t.kernel.run();
    unload(t);
  });

  it("WBK-6 msync writes the dirty pages of its range, through whichever mapping they came, and no others", () => {
    const wrong: string[] = [];
    const t: DriverKernel = bootDisk(function* (libc, { mem }) {
      const fd = yield* libc.open("/dev/sda", O_RDWR);
      const map = (page: number, nr: number) =>
        libc.call(SYS_mmap, 0, nr * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page * PAGE);
      // Pages 32 to 63 can be reached by both.
      const views = [
        { at: yield* map(0, 64), first: 0 },
        { at: yield* map(32, 64), first: 32 },
      ];
      const random = createRandom(7);
      const dirty = new Set<number>();
      for (let round = 0; round < 60; round++) {
        for (let i = random.below(40); i > 0; i--) {
          const view = views[random.below(2)] as { at: number; first: number };
          const page = random.below(64);
          mem.st32(view.at + page * PAGE, round + 1);
          dirty.add(view.first + page);
        }
        const view = views[random.below(2)] as { at: number; first: number };
        const from = random.below(64);
        const nr = 1 + random.below(64 - from);
        const result = yield* libc.call(SYS_msync, view.at + from * PAGE, nr * PAGE - random.below(PAGE), MS_SYNC);
        for (let page = from; page < from + nr; page++) dirty.delete(view.first + page);
        if (result !== 0 || counter(t, "nr_dirty") !== dirty.size) {
          wrong.push(`${round}: ${result}, ${counter(t, "nr_dirty")} dirty instead of ${dirty.size}`);
        }
      }
      // MS_ASYNC writes nothing; beyond the mappings there is a hole, which does not keep the rest from being written.
      mem.st32(views[1]?.at as number, 1);
      const nrDirty = counter(t, "nr_dirty");
      const lower = Math.min(...views.map(({ at }) => at));
      const results = [
        yield* libc.call(SYS_msync, lower, 64 * PAGE, MS_ASYNC),
        counter(t, "nr_dirty") - nrDirty,
        yield* libc.call(SYS_msync, lower - 8 * PAGE, (8 + 2 * 64) * PAGE, MS_SYNC),
        counter(t, "nr_dirty"),
      ];
      expect(results).toEqual([0, 0, -ENOMEM, 0]);
      return 0;
    });
    expect(t.sh("play")).toBe(0);
    expect(wrong).toEqual([]);
    expect(t.kernel.check()).toBeNull();
    unload(t);
  });

  it("BLK-2 a disk that is pulled out: dirty pages are lost with a line in the log, and everybody is told", () => {
    const results: number[] = [];
    const t: DriverKernel = bootDisk(function* (libc) {
      const fd = yield* libc.open("/dev/sda", O_RDWR);
      yield* libc.writeAll(fd, bytesOf("lost"));
      t.kernel.drivers.device("disk0")?.unplug();
      results.push(yield* libc.call(SYS_fsync, fd));
      results.push(yield* libc.writeAll(fd, bytesOf("more")));
      const got = yield* libc.read(fd, 4);
      results.push(typeof got === "number" ? got : got.length);
      return 0;
    });
    expect(t.sh("play")).toBe(0);
    expect(results[0]).toBe(-EIO);
    expect(results.slice(1)).toEqual([-ENODEV, -ENODEV]);
    expect(t.log()).toContain("lost async page write");
    expect(t.kernel.check()).toBeNull();
    t.kernel.run();
    unload(t);
  });

  it("a mixture of faults: what is reported as written is written", () => {
    const faults = { lost_irq: 0.05, corrupt: 0.05, twice: 0.05, never: 0.02, stray_write: 0.02 };
    const t = bootDisk(function* () {
      return 0;
    }, faults);
    expect(t.sh("iotest /dev/sda --size 512K --block 8K --sync; iotest /dev/sda --size 512K --mmap --sync")).toBe(0);
    unload(t);
  });

  it("REQ-1 a program that is killed while it reads, writes or waits leaves nothing behind", () => {
    for (const moment of [150_000, 900_000, 3_000_000, 20_000_000]) {
      const t = bootDisk(
        function* () {
          return 0;
        },
        { seek_cycles: 300_000, kib_cycles: 5_000 },
      );
      const pid = t.kernel.spawn("/bin/iotest", ["iotest", "/dev/sda", "--size", "1M", "--block", "6K", "--sync"]);
      t.kernel.run({ untilCycles: t.kernel.now() + moment });
      t.sh(`kill -9 ${pid}`);
      t.kernel.run();
      expect(t.kernel.exitStatus(pid)).toBe(137);
      unload(t);
    }
  });

  // Regression: fuzzed machine MB1-1969. The module was in use until its disk, which was gone, had timed out.
  it("BLK-5 a module can be removed as soon as the last user of its disk is killed, however slow the disk is", () => {
    for (const isGone of [false, true]) {
      const t = bootDisk(
        function* (libc) {
          const fd = yield* libc.open("/dev/sda", O_RDWR);
          for (let i = 0; i < 16; i++) yield* libc.writeAll(fd, new Uint8Array(4096));
          yield* libc.sleep(1e12);
          return 0;
        },
        { seek_cycles: 3_000_000, kib_cycles: 50_000 },
      );
      const pid = t.start("/bin/play");
      t.kernel.run({ untilCycles: t.kernel.now() + 500_000_000 });
      if (isGone) t.kernel.drivers.device("disk0")?.unplug();
      t.kernel.kill(pid, 9);
      expect([isGone, t.sh("rmmod disk")]).toEqual([isGone, 0]);
      expect(t.kernel.exitStatus(pid)).toBe(137);
      expect(t.log().includes("lost async page write")).toBe(isGone);
      t.expectUnloaded();
    }
  });

  // Regression: the pages that a read brought in came into a file that was freed already. Found by random system calls.
  it("BLK-4 another thread may close the file while one reads, writes, or waits for fsync", () => {
    for (const nr of [SYS_read, SYS_write, SYS_fsync]) {
      const t: DriverKernel = bootDisk(
        function* (libc) {
          const fd = yield* libc.open("/dev/sda", O_RDWR);
          yield* libc.writeAll(fd, bytesOf("dirty"));
          const at = yield* libc.call(
            SYS_mmap,
            0,
            64 * PAGE,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0,
          );
          const tid = yield* libc.startThread(function* (env) {
            return (yield* createLibc(env).call(nr, fd, at, 6 * PAGE + 17)) < 0 ? 1 : 0;
          });
          yield* libc.call(SYS_nanosleep, 100_000);
          yield* libc.close(fd);
          return yield* libc.joinThread(tid);
        },
        { seek_cycles: 1_000_000 },
      );
      expect(t.sh("play")).toBe(0);
      expect(t.kernel.check()).toBeNull();
      unload(t);
    }
  });

  it("DSC-2 an allocation fails here and there: programs see an error or nothing, and no page is left", () => {
    for (let nth = 12; nth <= 180; nth += 21) {
      const t = bootDisk(
        function* () {
          return 0;
        },
        {},
        { cmdline: `quiet modules=disk swiotlb=256K fail_nth=${nth}` },
      );
      t.sh("iotest /dev/sda --size 48K --block 6K --sync; iotest /dev/sda --size 48K --block 8K --mmap --sync");
      t.kernel.run();
      expect(t.kernel.check()).toBeNull();
      expect(t.kernel.nrReports()).toBe(0);
      for (const name of ["nr_dirty", "nr_writeback", "nr_file_pages"]) expect(counter(t, name)).toBe(0);
    }
  });

  it("DSC-2 everything that is taken on the way fails once: an error or a retry, no leak", () => {
    const run = (t: DriverKernel): number | undefined =>
      t.sh("iotest /dev/sda --size 24K --block 6K --sync; iotest /dev/sda --size 24K --mmap --sync");
    const first = bootDisk(function* () {
      return 0;
    });
    first.kernel.drivers.failStep(0);
    run(first);
    const nrSteps = first.kernel.drivers.nrSteps();
    expect(nrSteps).toBeGreaterThan(5);
    for (let n = 1; n <= nrSteps; n++) {
      const t = bootDisk(function* () {
        return 0;
      });
      t.kernel.drivers.failStep(n);
      expect([0, 1]).toContain(run(t));
      unload(t);
    }
  });
});
