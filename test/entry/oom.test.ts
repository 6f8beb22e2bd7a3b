/**
 * Goal: when nothing is left, the right process dies, Linux's report says why, and everybody else goes on.
 * Method: mm/oom.ts by itself; then whole kernels in which files of the ramfs take the memory that was promised.
 */
import { describe, expect, it } from "vitest";
import type { Pfn } from "../../kernel/types.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { type OomCandidate, oomBadness, oomTasksText, oomVictimText, selectVictim } from "../../mm/oom.ts";
import { bootDrivers, type DriverKernel } from "../support/driver_kernel.ts";
import { recorded } from "../support/recorded.ts";

const MIB = 1024 * 1024;
const TAIL: OomCandidate = {
  pid: 167,
  comm: "tail",
  totalVm: 15794,
  rssAnon: 15264,
  rssFile: 0,
  rssShmem: 331,
  swapEnts: 0,
  tablePages: 40,
  adj: 0,
  isSpared: false,
};

describe("badness", () => {
  it("G5 rss, swap entries and page tables, and a thousandth of memory for each unit of the adjustment", () => {
    expect(oomBadness(TAIL, 100_000)).toBe(15264 + 331 + 40);
    expect(oomBadness({ ...TAIL, swapEnts: 1000, adj: 500 }, 100_999)).toBe(15635 + 1000 + 500 * 100);
    expect(oomBadness({ ...TAIL, adj: -999 }, 100_000)).toBe(15635 - 99_900);
  });

  it("OOM-1 OOM-2 the most points, the first of equals; never who is spared or has −1000", () => {
    const big = { ...TAIL, pid: 2, rssAnon: 50_000 };
    expect(selectVictim([TAIL, big, { ...big, pid: 3 }], 100_000)?.pid).toBe(2);
    expect(selectVictim([TAIL, { ...big, adj: -1000 }], 100_000)?.pid).toBe(167);
    expect(selectVictim([{ ...TAIL, isSpared: true }], 100_000)).toBeUndefined();
    expect(selectVictim([TAIL, { ...TAIL, pid: 9, rssAnon: 1, adj: 1000 }], 100_000)?.pid).toBe(9);
  });

  it("the texts are Linux's", () => {
    const oom = recorded("linux-6.12-128M/oom");
    const lines = [...oomTasksText([TAIL]).split("\n"), ...oomVictimText(TAIL)];
    for (const line of lines) expect(oom).toContain(line.replace(" UID:0", " UID:0"));
  });
});

/** Maps, sleeps, then touches: the promise is kept late, or not. */
const lateToucher = (mib: number, cycles: number, before: () => void = () => {}): Program =>
  function* (env) {
    const call = function* (nr: number, ...args: number[]) {
      const result = env.syscall(nr, ...args);
      return typeof result === "number" ? result : yield* result;
    };
    const va = yield* call(SYS_mmap, 0, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (va < 0) return 1;
    yield* call(SYS_nanosleep, cycles);
    before();
    for (let at = 0; at < mib * MIB; at += 4096) env.mem.st32(va + at, at);
    for (let at = 0; at < mib * MIB; at += 4096) if (env.mem.ld32(va + at) !== at) return 2;
    return 0;
  };

function bootOom(mib: number): DriverKernel {
  return bootDrivers({ ramBytes: 32 * MIB }, { "/bin/late": lateToucher(mib, 300_000_000) });
}

/** The kernel takes what there is but `leftBytes`, as drivers may; what gives it back. */
function takeMemory({ kernel }: DriverKernel, leftBytes: number): () => void {
  const { pageAlloc, zones } = kernel.memory;
  const ctx = kernel.contexts.taskContext(0);
  const taken: Pfn[] = [];
  while (zones.totalFree() * 4096 > leftBytes) taken.push(pageAlloc.tryAllocPages(ctx, 0, GFP_KERNEL));
  return () => {
    for (const pfn of taken) pageAlloc.freePages(ctx, pfn, 0);
  };
}

// Regression: pages of the ramfs were added to the unevictable list's, on which they have been since they are mapped.
it("LRU-2 pages of a ramfs are unevictable, those of a tmpfs are not, and both are counted once", () => {
  const t = bootOom(1);
  expect(t.sh("dd if=/dev/zero of=/file bs=64K count=32")).toBe(0);
  expect(t.sh("filehog 4M --hold 200000000 & sleep 0.05; cat /proc/meminfo; wait; rm /file")).toBe(0);
  const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(t.output())?.[1]);
  expect(kib("Cached")).toBe(6144);
  expect(kib("Unevictable")).toBe(2048);
  expect(kib("Shmem")).toBe(4096);
  t.expectUnloaded();
});

describe("the killer", () => {
  it("OOM-1 OOM-3 the process with most memory dies, with a report, and who asked goes on", () => {
    const t = bootOom(6);
    const { kernel } = t;
    const hog = t.start("/bin/memhog", "9M", "--hold", "9000000000");
    const late = t.start("/bin/late");
    const giveBack = takeMemory(t, 3 * MIB);
    kernel.run({ untilCycles: kernel.now() + 2_000_000_000, shouldStop: () => kernel.exitStatus(late) !== undefined });
    expect([kernel.exitStatus(late), kernel.exitStatus(hog)]).toEqual([0, 137]);
    const log = t.log();
    expect(log).toMatch(
      /late invoked oom-killer: gfp_mask=0x[0-9a-f]+\(GFP_HIGHUSER_MOVABLE\), order=0, oom_score_adj=0/,
    );
    for (const part of ["Mem-Info:", "Tasks state (memory values in pages):", "oom-kill:constraint=CONSTRAINT_NONE"]) {
      expect(log).toContain(part);
    }
    expect(log).toMatch(
      new RegExp(`Out of memory: Killed process ${hog} \\(memhog\\) total-vm:\\d+kB, anon-rss:9\\d{3}kB`),
    );
    expect(log).toContain(`oom_reaper: reaped process ${hog} (memhog), now anon-rss:0kB`);
    expect(kernel.readFile("/proc/vmstat")).toContain("\noom_kill 1\n");
    giveBack();
    kernel.run();
    t.expectUnloaded();
  });

  it("OOM-2 an adjustment of −1000 saves a process, and the next one dies instead: here, who asked", () => {
    const t = bootOom(6);
    const { kernel } = t;
    const hog = t.start("/bin/memhog", "9M", "--hold", "4000000000");
    expect(t.sh(`echo -1000 > /proc/${hog}/oom_score_adj`)).toBe(0);
    const late = t.start("/bin/late");
    const giveBack = takeMemory(t, 3 * MIB);
    kernel.run();
    expect([kernel.exitStatus(late), kernel.exitStatus(hog)]).toEqual([137, 0]);
    expect(t.log()).toContain(`Killed process ${late} (late)`);
    giveBack();
    t.expectUnloaded();
  });

  /** Both programs in a kernel that keeps 3 MiB, after `settings`; what the late one does before it touches. */
  const shortOfMemory = (settings: string, isHogDying = false, lateLine = "late") => {
    const world: { t?: DriverKernel; hog?: number } = {};
    const touch = lateToucher(6, 300_000_000, () => {
      if (isHogDying) world.t?.kernel.kill(world.hog as number, 9);
    });
    const t = bootDrivers({ ramBytes: 32 * MIB, nrCpus: 1 }, { "/bin/late": touch });
    const hog = t.start("/bin/memhog", "9M", "--hold", "4000000000");
    Object.assign(world, { t, hog });
    if (settings !== "") expect(t.sh(settings.replaceAll("HOG", String(hog)))).toBe(0);
    const late = lateLine === "late" ? t.start("/bin/late") : t.start("/bin/sh", "-c", lateLine);
    const giveBack = takeMemory(t, 3 * MIB);
    const stop = t.kernel.run();
    return { t, hog, late, stop, giveBack, statuses: [t.kernel.exitStatus(late), t.kernel.exitStatus(hog)] };
  };

  // Regression: the request failed, with a report for each of thousands of them.
  it("OOM-5 nobody may be killed: the kernel panics, with one report, and says nothing more", () => {
    const spareHog = "echo -1000 > /proc/HOG/oom_score_adj";
    const { t, stop } = shortOfMemory(spareHog, false, "echo -1000 > /proc/self/oom_score_adj; late");
    expect(stop).toBe("panic");
    expect(t.kernel.panicReport).toBe("Kernel panic - not syncing: System is deadlocked on memory");
    expect(t.log().match(/invoked oom-killer/g)).toHaveLength(1);
    expect(t.log()).toMatch(/Out of memory and no killable processes\.\.\.\nKernel panic - not syncing: System/);
    expect(t.log()).toMatch(/<\/TASK>\nMemory map: [^[]*\n---\[ end Kernel panic [^\n]*$/);
    expect(t.kernel.check()).toBeNull();
  });

  it.each([
    ["1", "system-wide"],
    ["2", "compulsory"],
  ])("vm.panic_on_oom=%s panics instead of killing", (value, word) => {
    const { t, stop } = shortOfMemory(`sysctl vm.panic_on_oom=${value}`);
    expect(stop).toBe("panic");
    expect(t.kernel.panicReport).toBe(`Kernel panic - not syncing: Out of memory: ${word} panic_on_oom is enabled`);
    expect(t.log()).toContain("Tasks state");
    expect(t.log()).not.toContain("Killed process");
  });

  it("vm.oom_kill_allocating_task=1: who asked dies; vm.oom_dump_tasks=0: without a table", () => {
    const { t, late, statuses, giveBack } = shortOfMemory("sysctl vm.oom_kill_allocating_task=1 vm.oom_dump_tasks=0");
    expect(statuses).toEqual([137, 0]);
    expect(t.log()).toContain(`Out of memory (oom_kill_allocating_task): Killed process ${late} (late)`);
    expect(t.log()).toContain("Mem-Info:");
    expect(t.log()).not.toContain("Tasks state");
    expect(t.sh("sysctl vm.panic_on_oom=3")).not.toBe(0);
    giveBack();
    t.expectUnloaded();
  });

  it("OOM-6 a process that is dying anyway is reaped without a report", () => {
    // Killed by the late one right before it touches its memory, so that it has not run since.
    const { t, statuses, giveBack } = shortOfMemory("", true);
    expect(statuses).toEqual([0, 137]);
    expect(t.log()).not.toContain("oom-killer");
    giveBack();
    t.expectUnloaded();
  });
});

describe("oom_score_adj", () => {
  it("is handed on to what a process starts", () => {
    const t = bootOom(1);
    expect(t.sh("echo 77 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj")).toBe(0);
    expect(t.output()).toContain("77\n");
    t.expectUnloaded();
  });
});
