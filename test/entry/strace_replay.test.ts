/**
 * Replay of system calls: the processes of recordings, on a booted kernel.
 *
 * Goal: results as recorded, contents as written, nothing left behind, whatever fails; SPC-1, SPC-2. Method: the shipped
 * recordings and small ones written here; invariants walked at every few steps of the scheduler; each allocation
 * refused once; a process killed at any step.
 */

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../kernel/params.ts";
import { SIGKILL } from "../../kernel/uapi/mman.ts";
import type { SyscallRecording } from "../../kernel/uapi/recording.ts";
import { brokenIdentity } from "../../scripts/identities.ts";
import { type EndedProcess, faultTotals, processAtEnd } from "../../scripts/process_table.ts";
import { inputFromBytes } from "../../scripts/readers/input.ts";
import { readStrace } from "../../scripts/readers/strace.ts";
import { forget, gapsOf, newSpace, partsOf, remember } from "../../userland/recorded_space.ts";
import { type SyscallReplayOptions, syscallReplay } from "../../userland/strace_replay.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

const STRICT = { lenient: false };
const MIB = 2 ** 20;

const recordingOf = (...lines: string[]): SyscallRecording =>
  readStrace(inputFromBytes("p.strace", `${lines.join("\n")}\n`), STRICT);

const sample = (name: string): SyscallRecording =>
  readStrace(
    inputFromBytes(name, readFileSync(new URL(`../../scripts/samples/${name}.strace.gz`, import.meta.url))),
    STRICT,
  );

interface Setup {
  readonly options?: SyscallReplayOptions;
  readonly cmdline?: string;
  readonly ramBytes?: number;
  /** Looks at the machine after each step of the scheduler. */
  readonly onStep?: (t: TestKernel, step: number) => void;
  /** Gets each process at the end of its image. */
  readonly onEnd?: (process: EndedProcess) => void;
}

/** Replays on a fresh machine, and looks for leaks; the report and the exit status of the first process. */
function replay(recording: SyscallRecording, setup: Setup = {}) {
  const { options, cmdline = "quiet", ramBytes = 64 * MIB, onStep, onEnd } = setup;
  const { programs, report } = syscallReplay(recording, "/bin/replay", options);
  const t = bootKernel(Object.fromEntries(programs), { cmdline, ramBytes });
  const observer = { operation: () => {}, beforeEnd: (pid: number) => onEnd?.(processAtEnd(t.kernel, pid)) };
  const pid = t.kernel.spawn("/bin/replay", ["replay"], { observer });
  let step = 0;
  t.kernel.run({
    pause: () => {
      onStep?.(t, step++);
      return false;
    },
  });
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
  return { ...report(), status: pid > 0 ? t.kernel.exitStatus(pid) : pid, t };
}

const FAMILY = recordingOf(
  '1 execve("/bin/sh", ["sh"], 0x7ffd /* 9 vars */) = 0',
  "1 brk(NULL) = 0x55550000",
  "1 brk(0x55556000) = 0x55556000",
  "1 mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000",
  "1 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 2",
  "2 munmap(0x7f0000000000, 8192) = 0",
  "1 brk(0x55553000) = 0x55553000",
  "2 brk(0x55558000) = 0x55558000",
  "2 fork() = 3",
  "3 mprotect(0x7f0000004000, 8192, PROT_READ) = 0",
  "2 exit_group(7) = ?",
  "3 exit_group(0) = ?",
  "1 wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 7}], 0, NULL) = 2",
  "1 vfork( <unfinished ...>",
  '4 execve("/bin/ls", ["ls"], 0x7ffd /* 9 vars */) = 0',
  "1 <... vfork resumed>) = 4",
  "4 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000",
  "4 exit_group(0) = ?",
  "1 wait4(4, [{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 4",
  "1 wait4(-1, 0x7ffd, WNOHANG, NULL) = -1 ECHILD (No child processes)",
  "1 exit_group(5) = ?",
);

describe("replay", () => {
  it.each(["gcc-O2", "qsort-realloc"])("%s: every result as recorded, every page as written", (name) => {
    const recording = sample(name);
    const result = replay(recording);
    expect(result).toMatchObject({ status: 0, nrDifferent: 0, nrCorrupt: 0, nrSkipped: 0, firstDifference: null });
    expect(result.nrPlayed).toBe(recording.nrEvents);
    expect(result.nrChecked).toBeGreaterThanOrEqual(result.nrTouched);
  });

  it("fork, vfork, execve, wait: parent and child keep what each has written", () => {
    const result = replay(FAMILY);
    expect(result).toMatchObject({ status: 5, nrDifferent: 0, nrCorrupt: 0, nrSkipped: 0, recordedStatus: 5 });
  });

  it("invariants and the identities between the files of /proc hold after every step", () => {
    replay(FAMILY, {
      onStep: ({ kernel }, step) => {
        if (step % 3 === 0) expect([step, kernel.check()]).toEqual([step, null]);
        else expect([step, brokenIdentity(kernel)]).toEqual([step, null]);
      },
    });
  });

  it("SMAP-1, SMAP-2 the shares of all processes (PSS) add up to the pages that are mapped", () => {
    const forks = recordingOf(
      "1 mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000",
      "1 fork() = 2",
      "2 mprotect(0x7f0000000000, 4096, PROT_READ) = 0",
      "1 fork() = 3",
      "3 munmap(0x7f0000002000, 8192) = 0",
      "2 exit_group(0) = ?",
      "3 exit_group(0) = ?",
      "1 exit_group(0) = ?",
    );
    let nrShared = 0;
    replay(forks, {
      onStep: ({ kernel }, step) => {
        const number = (path: string, name: string): number =>
          Number(new RegExp(`^${name}:?\\s+(\\d+)`, "m").exec(kernel.readFile(path) ?? "")?.[1] ?? 0);
        const pids = kernel.tasks().flatMap(({ isKernelThread, pid }) => (isKernelThread ? [] : [pid]));
        const pss = pids.reduce((sum, pid) => sum + number(`/proc/${pid}/smaps_rollup`, "Pss"), 0);
        const shared = pids.reduce((sum, pid) => sum + number(`/proc/${pid}/smaps_rollup`, "Shared_Dirty"), 0);
        const mapped = 4 * number("/proc/vmstat", "nr_anon_pages");
        nrShared += shared;
        // Three shares of a third are a little less than one; each process rounds down once more.
        expect([step, pss <= mapped && pss >= mapped - pids.length]).toEqual([step, true]);
      },
    });
    expect(nrShared).toBeGreaterThan(0);
  });

  it("the table of processes: pages while they are there, faults of each address space once", () => {
    const forks = recordingOf(
      "1 mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000",
      "1 vfork() = 2",
      "2 exit_group(0) = ?",
      "1 fork() = 3",
      "3 exit_group(0) = ?",
      "1 exit_group(0) = ?",
    );
    const table: EndedProcess[] = [];
    replay(forks, { onEnd: (process) => table.push(process) });
    const [borrower, child, parent] = table as [EndedProcess, EndedProcess, EndedProcess];
    expect(table.map(({ isVforked }) => isVforked)).toEqual([true, false, false]);
    expect(borrower).toMatchObject({ vszKib: parent.vszKib, rssKib: borrower.pssKib, cowFaults: 0 });
    // Every eighth of its 16 pages, and what it shares beside them: a copy for each that the child writes.
    expect(child.cowFaults).toBeGreaterThanOrEqual(2);
    expect(child.pssKib).toBeLessThan(child.rssKib);
    expect(child.pssKib).toBeGreaterThan(child.rssKib / 2);
    expect(parent.pssKib).toBe(parent.rssKib);
    expect(faultTotals(table)).toEqual({
      minorFaults: child.minorFaults + parent.minorFaults,
      majorFaults: 0,
      cowFaults: child.cowFaults + parent.cowFaults,
    });
  });

  it("waitid, kill, mlock and its family", () => {
    const result = replay(
      recordingOf(
        "1 mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000",
        "1 mlock(0x7f0000001010, 5000) = 0",
        "1 munlock(0x7f0000002000, 4096) = 0",
        "1 mlockall(MCL_CURRENT|MCL_FUTURE) = 0",
        "1 mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7e0000000000",
        "1 munlockall() = 0",
        "1 fork() = 2",
        "1 kill(2, SIGTERM) = 0",
        "2 +++ killed by SIGTERM +++",
        "1 waitid(P_PID, 2, {si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=2, si_uid=0}, WEXITED, NULL) = 0",
        "1 kill(1, 0) = 0",
        "1 exit_group(3) = ?",
      ),
    );
    expect(result).toMatchObject({ status: 3, nrDifferent: 0, nrCorrupt: 0, nrSkipped: 0, nrPlayed: 12 });
  });

  it("the touch model decides what is written", () => {
    const touched = (touch: "none" | "first" | "all"): number => replay(FAMILY, { options: { touch } }).nrTouched;
    expect(touched("none")).toBe(0);
    expect(touched("first")).toBeGreaterThan(4);
    expect(touched("all")).toBeGreaterThan(touched("first"));
  });

  it("threads share their process's memory; one ends before the other", () => {
    const result = replay(
      recordingOf(
        "1 mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_STACK, -1, 0) = 0x7f0000000000",
        "1 mprotect(0x7f0000000000, 8192, PROT_READ|PROT_WRITE) = 0",
        "1 clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x7f0000000000, stack_size=0x2000} => {}, 88) = 2",
        "2 munmap(0x7f0000000000, 4096) = 0",
        "2 exit(0) = ?",
        "1 munmap(0x7f0000001000, 4096) = 0",
        "1 exit_group(0) = ?",
      ),
    );
    expect(result).toMatchObject({ status: 0, nrDifferent: 0, nrCorrupt: 0, nrThreads: 1 });
  });

  it("MAP_FIXED inside an older mapping stays at its offset; elsewhere it is a mapping of its own", () => {
    const result = replay(
      recordingOf(
        "1 mmap(NULL, 32768, PROT_READ, MAP_PRIVATE, 3, 0) = 0x7f0000000000",
        "1 mmap(0x7f0000002000, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, 3, 0x2000) = 0x7f0000002000",
        "1 mmap(0x7f0000007000, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, 3, 0) = 0x7f0000007000",
        "1 mmap(0x600000, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x600000",
        "1 munmap(0x7f0000000000, 36864) = 0",
        "1 mprotect(0x400000, 4096, PROT_READ) = 0",
        "1 mremap(0x600000, 4096, 40960, MREMAP_MAYMOVE) = 0x7f1000000000",
        "1 mremap(0x7f1000000000, 40960, 8192, MREMAP_MAYMOVE) = 0x7f1000000000",
        "1 madvise(0x7f1000000000, 8192, MADV_DONTNEED) = 0",
        "1 exit_group(0) = ?",
      ),
    );
    expect(result).toMatchObject({ status: 0, nrDifferent: 0, nrCorrupt: 0, nrFileMappings: 3, nrImpliedRanges: 1 });
  });

  it("differences are counted, and the first is told", () => {
    const result = replay(
      recordingOf(
        "1 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = -1 ENOMEM (Cannot allocate memory)",
        "1 mmap(NULL, 0, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = -1 EINVAL (Invalid argument)",
        "1 wait4(-1, NULL, 0, NULL) = -1 EINTR (Interrupted system call)",
        '1 execve("/bin/none", ["none"], 0x7ffd) = -1 ENOENT (No such file or directory)',
        "1 exit_group(0) = ?",
      ),
    );
    expect(result).toMatchObject({ status: 0, nrDifferent: 2 });
    expect(result.firstDifference).toBe("row 0, mmap: recorded ENOMEM, here success");
  });

  it("a process that a signal ended ends by it", () => {
    const result = replay(
      recordingOf(
        "1 fork() = 2",
        "2 +++ killed by SIGSEGV +++",
        "1 wait4(2, NULL, 0, NULL) = 2",
        "1 exit_group(3) = ?",
      ),
    );
    expect(result).toMatchObject({ status: 3, nrDifferent: 0, nrPlayed: 4 });
  });
});

describe("trouble on the way", () => {
  it("each allocation refused once: no hang, no leak, no wrong page", () => {
    let nrRefused = 0;
    for (let nth = 1; nth < 2000; nth += 7) {
      const { nrCorrupt, nrPlayed, nrSkipped, nrEvents, status, t } = replay(FAMILY, {
        cmdline: `quiet fail_nth=${nth}`,
        ramBytes: 32 * MIB,
      });
      expect([nth, nrCorrupt]).toEqual([nth, 0]);
      if (Number(status) > 0 && status === 5) expect([nth, nrPlayed + nrSkipped]).toEqual([nth, nrEvents]);
      if (t.kernel.faultStats()?.nrForced === 0) break;
      nrRefused++;
    }
    expect(nrRefused).toBeGreaterThan(10);
  });

  it("whoever is killed when: the others go on to the end", () => {
    for (let at = 1; at < 60; at += 2) {
      const killed: number[] = [];
      const result = replay(FAMILY, {
        onStep: ({ kernel }, step) => {
          const youngest = kernel.tasks().filter(({ isKernelThread, state }) => !isKernelThread && state !== "Z");
          const victim = youngest[youngest.length - 1];
          if (step === at && victim !== undefined && kernel.kill(victim.pid, SIGKILL) === 0) killed.push(victim.pid);
        },
      });
      expect([at, result.nrCorrupt]).toEqual([at, 0]);
      const isFirst = killed.includes(1);
      if (killed.length > 0 && !isFirst) expect([at, result.status]).toEqual([at, 5]);
      if (!isFirst) expect([at, result.nrPlayed + result.nrSkipped]).toEqual([at, result.nrEvents]);
    }
  });

  it("the same seed gives the same run", () => {
    const print = (): string => {
      const { t, ...report } = replay(FAMILY);
      return `${JSON.stringify(report)} ${t.kernel.now()} ${t.kernel.readFile("/proc/vmstat")}`;
    };
    expect(print()).toBe(print());
  });
});

describe("recorded spaces", () => {
  const page = fc.nat(30);
  it("SPC-1 segments against a page-by-page model", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(page, fc.integer({ min: 1, max: 8 }), fc.boolean()), { maxLength: 30 }), (ops) => {
        const space = newSpace(0);
        const model = new Map<number, number>();
        ops.forEach(([first, nr, isNew], i) => {
          const [start, end] = [first * PAGE_SIZE, (first + nr) * PAGE_SIZE];
          const at = (i + 1) * 100 * PAGE_SIZE;
          if (isNew) remember(space, { start, end, at, prot: 3, isPrivate: true });
          else forget(space, start, end);
          for (let p = first; p < first + nr; p++) {
            if (isNew) model.set(p, at / PAGE_SIZE + p - first);
            else model.delete(p);
          }
        });
        const seen = new Map<number, number>();
        for (const { start, end, at } of partsOf(space, 0, 100 * PAGE_SIZE)) {
          for (let p = start / PAGE_SIZE; p < end / PAGE_SIZE; p++) seen.set(p, (at - start) / PAGE_SIZE + p);
        }
        expect([...seen].sort()).toEqual([...model].sort());
        const nrGaps = gapsOf(partsOf(space, 0, 40 * PAGE_SIZE), 0, 40 * PAGE_SIZE).reduce(
          (sum, [from, to]) => sum + (to - from) / PAGE_SIZE,
          0,
        );
        expect(nrGaps).toBe(40 - model.size);
      }),
      { numRuns: 300 },
    );
  });
});
