/**
 * strace reader: whole calls from interleaved lines, tasks from pids.
 *
 * Goal: SYR-1 … SYR-4 for whatever the file holds, and the right rows for what tracers write. Method: hand-written
 * traces, a real one whose lines are cut, shuffled, doubled and flipped.
 */

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SC_NOBODY, type SyscallRecording } from "../../kernel/uapi/recording.ts";
import { checkSyscallRecording } from "../../scripts/readers/check_syscalls.ts";
import { InputError } from "../../scripts/readers/input_error.ts";
import { isStraceCall, readStrace } from "../../scripts/readers/strace.ts";
import { cpuMsOf, HANG_MS } from "../support/cpu_time.ts";
import { inputErrorOf, textFile } from "./fixtures.ts";

const STRICT = { lenient: false };
const CALLS = (
  "brk mmap munmap mprotect mremap madvise fork vfork thread execve exit exit_group wait killed " +
  "mlock munlock mlockall munlockall kill"
).split(" ");

function read(...lines: string[]): SyscallRecording {
  const recording = readStrace(textFile(`${lines.join("\n")}\n`, "p.strace"), STRICT);
  checkSyscallRecording(recording);
  return recording;
}

/** The rows as `task call` and what is not 0 or nobody. */
function rows(rec: SyscallRecording): string[] {
  return Array.from({ length: rec.nrEvents }, (_, i) => {
    const hex = (value = 0): string => `0x${value.toString(16)}`;
    const parts = [`${rec.task[i]} ${CALLS[rec.call[i] as number]}`];
    if (rec.addr[i] !== 0) parts.push(hex(rec.addr[i]));
    if (rec.bytes[i] !== 0) parts.push(String(rec.bytes[i]));
    if (rec.extra[i] !== 0) parts.push(`+${rec.extra[i]}`);
    if (rec.arg[i] !== 0) parts.push(`arg ${rec.arg[i]}`);
    if (rec.flags[i] !== 0) parts.push(`flags ${hex(rec.flags[i])}`);
    if (rec.fd[i] !== -1) parts.push(`fd ${rec.fd[i]}`);
    if (rec.target[i] !== SC_NOBODY) parts.push(`of ${rec.target[i]}`);
    if (rec.child[i] !== SC_NOBODY) parts.push(`child ${rec.child[i]}`);
    if (rec.result[i] !== 0) parts.push(`= ${(rec.result[i] as number) < 0 ? rec.result[i] : hex(rec.result[i])}`);
    return parts.join(" ");
  });
}

describe("calls", () => {
  test("every call of memory, with flags by name and by number", () => {
    const recording = read(
      '7 0.000000 execve("/usr/bin/my prog", ["a, b)", "{"], 0x7ffd51d498f0 /* 1 var */) = 0',
      "7 0.000001 brk(NULL)           = 0x34a63000",
      "7 0.000001 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7fc6935a8000",
      "7 0.000001 mmap(0x7fc693598000, 8192, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE, 3, 0x1000) = 0x7fc693598000",
      "7 0.000001 mmap(NULL, 99, PROT_NONE, 0x8000|MAP_SHARED, 4</lib/x>, 0) = -1 ENOMEM (Cannot allocate memory)",
      "7 0.000001 mprotect(0x7fc6935a8000, 4096, PROT_READ) = 0",
      "7 0.000001 mremap(0x7fc6935a8000, 8192, 16384, MREMAP_MAYMOVE) = 0x7fc690000000",
      "7 0.000001 madvise(0x7fc690000000, 4096, MADV_DONTNEED) = 0",
      "7 0.000001 madvise(0x7fc690000000, 4096, MADV_COLD) = 0",
      "7 0.000001 munmap(0x7fc690000000, 16384) = 0",
      "7 0.000001 exit_group(3)       = ?",
      "7 0.000001 +++ exited with 3 +++",
    );
    expect(rows(recording)).toEqual([
      "0 execve",
      "0 brk = 0x34a63000",
      "0 mmap 8192 arg 3 flags 0x22 = 0x7fc6935a8000",
      "0 mmap 0x7fc693598000 8192 +4096 arg 5 flags 0x12 fd 3 = 0x7fc693598000",
      "0 mmap 99 flags 0x8001 fd 4 = -12",
      "0 mprotect 0x7fc6935a8000 4096 arg 1",
      "0 mremap 0x7fc6935a8000 8192 +16384 flags 0x1 = 0x7fc690000000",
      "0 madvise 0x7fc690000000 4096 arg 4",
      "0 munmap 0x7fc690000000 16384",
      "0 exit_group arg 3",
    ]);
    expect(recording).toMatchObject({ name: "t", names: ["my_prog"], warnings: [], nrImplied: 0 });
  });

  test("mlock and its family; what is locked when touched is passed over", () => {
    const recording = read(
      "7 mlock(0x7fc6935a8010, 5000) = 0",
      "7 mlock2(0x7fc6935a8000, 4096, 0) = -1 ENOMEM (Cannot allocate memory)",
      "7 mlock2(0x7fc6935a8000, 4096, MLOCK_ONFAULT) = 0",
      "7 munlock(0x7fc6935a8010, 5000) = 0",
      "7 mlockall(MCL_CURRENT|MCL_FUTURE) = 0",
      "7 mlockall(MCL_FUTURE|MCL_ONFAULT) = 0",
      "7 munlockall() = 0",
      "7 mlockall(nonsense) = 0",
      "7 exit_group(0) = ?",
    );
    expect(rows(recording)).toEqual([
      "0 mlock 0x7fc6935a8010 5000",
      "0 mlock 0x7fc6935a8000 4096 = -12",
      "0 munlock 0x7fc6935a8010 5000",
      "0 mlockall arg 3",
      "0 munlockall",
      "0 mlockall",
      "0 exit_group",
    ]);
  });

  test("waitid names whom it reaps in its third argument", () => {
    const recording = read(
      "1 fork() = 2",
      "1 fork() = 3",
      "1 waitid(P_ALL, 0, {}, WNOHANG|WEXITED, NULL) = 0",
      "2 exit_group(4) = ?",
      "1 waitid(P_PID, 2, {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=2, si_uid=0}, WEXITED|WNOWAIT, NULL) = 0",
      "1 waitid(P_PID, 2, {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=2, si_uid=0}, WEXITED, NULL) = 0",
      "1 waitid(P_PID, 3, {si_signo=SIGCHLD, si_code=CLD_STOPPED, si_pid=3, si_uid=0}, WSTOPPED, NULL) = 0",
      "1 waitid(P_PIDFD, 9,  <unfinished ...>",
      "3 exit_group(0) = ?",
      "1 <... waitid resumed>{si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=3, si_uid=0}, WEXITED, NULL) = 0",
      "1 waitid(P_ALL, 0, 0x7ffd, WEXITED, NULL) = -1 ECHILD (No child processes)",
      "1 exit_group(0) = ?",
    );
    expect(rows(recording).filter((row) => row.includes("wait"))).toEqual([
      "0 wait arg 1",
      "0 wait of 1 child 1",
      "0 wait of 2 child 2",
      "0 wait = -10",
    ]);
  });

  test("kill is taken if its receiver is a recorded process that lives", () => {
    const recording = read(
      "1 fork() = 2",
      "1 kill(2, SIGTERM) = 0",
      "2 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---",
      "2 +++ killed by SIGTERM +++",
      "1 kill(2, 0) = 0",
      "1 kill(77, SIGTERM) = -1 ESRCH (No such process)",
      "1 kill(-1, SIGTERM) = 0",
      "1 kill(1, 0) = 0",
      "1 wait4(-1, [{WIFSIGNALED(s)}], 0, NULL) = 2",
      "1 exit_group(0) = ?",
    );
    expect(rows(recording)).toEqual([
      "0 fork child 1",
      "0 kill arg 15 of 1",
      "1 killed arg 15",
      "0 kill of 0",
      "0 wait child 1",
      "0 exit_group",
    ]);
  });

  test.each([
    "brk(NULL) = 0x10",
    "     0.000061 brk(NULL) = 0x10",
    "12:30:01.123456 brk(NULL) = 0x10",
    "1700000000.123456 brk(NULL) = 0x10 <0.000007>",
    "[pid 71] brk(NULL) = 0x10",
    "[pid    71] 12:30:01 brk(NULL) = 0x10",
    "71 1700000000.123456 (+     0.000123) brk(NULL) = 0x10",
    "71    0.000061 brk(NULL)           = 0x10",
  ])("%s", (line) => {
    expect(isStraceCall(line)).toBe(true);
    expect(rows(read(line))[0]).toBe("0 brk = 0x10");
  });

  test.each(["malloc(24) = 0x10", "a 0 24", 'write(1, "x", 1) = 1', "brk(", "brk(NULL) 5", "+++ exited with 0 +++"])(
    "%s is none of ours",
    (line) => expect(isStraceCall(line)).toBe(false),
  );
});

describe("order", () => {
  test("two threads: what one gives back the other may get", () => {
    const recording = read(
      "1 clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x7f0000, stack_size=0x7fff80} => {parent_tid=[2]}, 88) = 2",
      "1 munmap(0x7000, 4096 <unfinished ...>",
      "2 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0 <unfinished ...>",
      "1 <... munmap resumed>) = 0",
      "1 brk(0x9000 <unfinished ...>",
      "2 <... mmap resumed>) = 0x7000",
      "1 <... brk resumed>) = 0x9000",
      "2 exit(0) = ?",
      "1 exit_group(0) = ?",
    );
    expect(rows(recording)).toEqual([
      "0 thread child 1",
      "0 munmap 0x7000 4096",
      "1 mmap 4096 arg 1 flags 0x22 = 0x7000",
      "0 brk 0x9000 = 0x9000",
      "1 exit",
      "0 exit_group",
    ]);
  });

  test("a vforked child executes before its parent returns; wait comes behind the end", () => {
    const recording = read(
      "1 vfork( <unfinished ...>",
      '2 execve("/bin/ls", ["ls"], 0x2dedf5f0 /* 6 vars */ <unfinished ...>',
      "1 <... vfork resumed>) = 2",
      "1 wait4(2,  <unfinished ...>",
      "2 <... execve resumed>) = 0",
      "2 exit_group(1 <unfinished ...>",
      "1 <... wait4 resumed>[{WIFEXITED(s) && WEXITSTATUS(s) == 1}], 0, NULL) = 2",
      "2 <... exit_group resumed>) = ?",
      "2 +++ exited with 1 +++",
      "1 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=2, si_uid=0, si_status=1} ---",
      "1 wait4(-1, 0x7ffd622b1e10, WNOHANG, NULL) = -1 ECHILD (No child processes)",
      "1 exit_group(0) = ?",
    );
    expect(rows(recording)).toEqual([
      "0 vfork child 1",
      "1 execve",
      "1 exit_group arg 1",
      "0 wait of 1 child 1",
      "0 wait arg 1 = -10",
      "0 exit_group",
    ]);
  });

  test("a child that is heard of before the call that made it waits for it", () => {
    const recording = read(
      "1 brk(NULL) = 0x10",
      "2 brk(NULL) = 0x20",
      "2 exit_group(0) = ?",
      "1 fork() = 2",
      "1 wait4(2, NULL, 0, NULL) = 2",
      "1 exit_group(0) = ?",
    );
    expect(rows(recording)).toEqual([
      "0 brk = 0x10",
      "0 fork child 1",
      "1 brk = 0x20",
      "1 exit_group",
      "0 wait of 1 child 1",
      "0 exit_group",
    ]);
  });

  test("a pid used again is another process", () => {
    const recording = read(
      "1 fork() = 2",
      "2 exit_group(0) = ?",
      "2 +++ exited with 0 +++",
      "1 fork() = 2",
      "2 brk(NULL) = 0x20",
      "2 exit_group(0) = ?",
    );
    expect(rows(recording)).toEqual([
      "0 fork child 1",
      "1 exit_group",
      "0 fork child 2",
      "2 brk = 0x20",
      "2 exit_group",
      "0 exit_group",
    ]);
  });
});

describe("what is left out", () => {
  test("processes that were there already, ends without a call, deaths by signal", () => {
    const recording = read(
      "1 brk(NULL) = 0x10",
      "5 brk(NULL) = 0x50",
      "1 fork() = 6",
      "6 +++ killed by SIGSEGV (core dumped) +++",
      "5 +++ exited with 2 +++",
    );
    expect(rows(recording)).toEqual([
      "0 brk = 0x10",
      "0 fork child 1",
      "1 brk = 0x50",
      "0 fork child 2",
      "2 killed arg 11",
      "1 exit_group arg 2",
      "0 exit_group",
    ]);
    expect(recording.nrImplied).toBe(3);
    expect(recording.warnings).toEqual([
      "1 processes that were running already: forked off the oldest one",
      "1 processes ran on at the end of the recording: they exit there",
    ]);
  });

  test("calls to be restarted, other calls, notes of the tracer", () => {
    const recording = read(
      "strace: Process 2 attached",
      "1 wait4(-1, 0x7ffd, 0, NULL) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)",
      '1 write(1, "brk(NULL) = 0x5", 15) = 15',
      "1 read(0, <unfinished ...>",
      "1 <... read resumed>0x7f, 10) = 0",
      "1 --- stopped by SIGTTOU ---",
      "1 brk(NULL) = 0x10",
    );
    expect(rows(recording)).toEqual(["0 brk = 0x10", "0 exit_group"]);
  });

  test("a thread's leader that exits first ends with the last", () => {
    const recording = read(
      "1 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD) = 2",
      "1 exit(0) = ?",
      "2 brk(NULL) = 0x10",
      "2 exit(0) = ?",
    );
    expect(rows(recording)).toEqual(["0 thread child 1", "1 brk = 0x10", "1 exit", "0 exit_group"]);
  });
});

describe("broken files", () => {
  const good = (nr: number): string[] => Array.from({ length: nr }, () => "1 brk(NULL) = 0x10");

  test("bad lines are counted and shown, more than 1 % are refused", () => {
    expect(read(...good(200), "1 mmap(NULL, 4096").warnings[0]).toContain(
      "line 201: the arguments of mmap have no end",
    );
    expect(read(...good(200), "???").warnings[0]).toContain('line 201: "???" is no traced call');
    expect(inputErrorOf(() => read("1 brk(NULL)", ...good(3))).line).toBe(1);
    expect(read(...good(200), "1 mmap(x, y, PROT_READ, 0, -1, 0) = 0x5").warnings[0]).toContain("line 201: mmap(x, y");
    expect(read(...good(200), "9 <... brk resumed>) = 0").warnings[0]).toContain("resumed without a beginning");
  });

  test("a file without a call of ours is refused with what to record", () => {
    const error = inputErrorOf(() => read('1 write(1, "x", 1) = 1'));
    expect(`${error.message}`).toContain("holds no call");
  });

  const sample = gunzipSync(readFileSync(new URL("../../scripts/samples/gcc-O2.strace.gz", import.meta.url)));
  const soundOrRefused = (bytes: Uint8Array, lenient: boolean): void => {
    try {
      checkSyscallRecording(readStrace({ path: "t", name: "t", bytes }, { lenient }));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
    }
  };

  test("cut anywhere, flipped anywhere: refused or sound", () => {
    const at = fc.nat(sample.length - 1);
    fc.assert(
      fc.property(at, fc.array(fc.tuple(at, fc.nat(255)), { maxLength: 8 }), fc.boolean(), (end, flips, lenient) => {
        const bytes = Uint8Array.from(sample.subarray(0, end + 1));
        for (const [where, byte] of flips) if (where <= end) bytes[where] = byte;
        soundOrRefused(bytes, lenient);
      }),
      { numRuns: 150 },
    );
  });

  test("lines doubled, dropped and out of order: refused or sound", () => {
    const lines = sample.toString("latin1").split("\n");
    const nr = fc.nat(lines.length - 1);
    fc.assert(
      fc.property(fc.array(fc.tuple(nr, nr, fc.nat(2)), { minLength: 1, maxLength: 40 }), (edits) => {
        const changed = [...lines];
        for (const [from, to, kind] of edits) {
          const line = changed[from] ?? "";
          if (kind !== 0) changed.splice(from, 1);
          if (kind !== 1) changed.splice(to, 0, line);
        }
        soundOrRefused(new TextEncoder().encode(changed.join("\n")), true);
      }),
      { numRuns: 150 },
    );
  });

  test("hostile lines take bounded time", () => {
    for (const unit of [" ", "(", ")", '"', "\\", ") = ", "{", ",", "1 ", "brk(", "<... ", "1:", "+++ ", "A|"]) {
      const text = `${unit.repeat(65536)}x\n`.repeat(5);
      const cpuMs = cpuMsOf(() => soundOrRefused(new TextEncoder().encode(`1 brk(${text}`), true));
      expect(cpuMs).toBeLessThan(HANG_MS);
    }
  });
});
