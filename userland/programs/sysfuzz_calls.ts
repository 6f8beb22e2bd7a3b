/**
 * Random system calls: for each of them how often it is made, and how its arguments are drawn.
 *
 * An argument is mostly one that the call can do something with (an address that was mapped, an open descriptor, a path
 * that leads somewhere), else a neighbour of one or junk: calls that are wrong all over are refused at the door, and
 * then nothing is tried. Strings and structures are laid into the scratch pages of the program that calls.
 *
 * SYS_reboot is left out; the rest of the machine may be done to as the calls allow.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import * as mman from "../../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../../kernel/uapi/program.ts";
import { RLIM_NLIMITS } from "../../kernel/uapi/resource.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { encodeUtf8 } from "../../kernel/uapi/utf8.ts";
import type { Random } from "./random.ts";

/** What the arguments are drawn from. */
export interface CallWorld {
  readonly mem: ProgramEnv["mem"];
  readonly random: Random;
  /** Addresses that calls gave, and pids. */
  readonly known: readonly number[];
  readonly pids: readonly number[];
  /** Text addresses for forks and threads; none: this process has no further ones. */
  readonly entries: readonly number[];
  /** End of the stack, and start of the heap. */
  readonly stackTop: number;
  readonly heapStart: number;
  /** Two pages for strings. */
  readonly scratch: number;
  /** Where in them the next string goes. */
  slot: number;
  /** Position of this call: the argument of a thread. */
  readonly position: number;
  readonly drivers: readonly string[];
  /** Pids that no signal may go to. */
  readonly spared: readonly number[];
}

export const SCRATCH_BYTES = 2 * PAGE_SIZE;
const SLOT_BYTES = 512;

type Draw = (world: CallWorld) => number;

const of = <T>({ random }: CallWorld, list: readonly T[]): T => list[random.below(list.length)] as T;
const oneOf =
  (...values: readonly number[]): Draw =>
  (world) =>
    of(world, values);
const upTo =
  (n: number): Draw =>
  ({ random }) =>
    random.below(n);
/** `often` in most cases, else `seldom`. */
const mostly =
  (percent: number, often: Draw, seldom: Draw): Draw =>
  (world) =>
    world.random.below(100) < percent ? often(world) : seldom(world);

const JUNK: readonly number[] = [
  ...[0, 1, -1, -4096, 7, 4095, 4097, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 35, 2 ** 38, 2 ** 39, 2 ** 52],
  ...[Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 53, 0.5, Number.NaN, -(2 ** 31), 0x10_0000, 10_000_000],
];
const junk: Draw = (world) => of(world, JUNK);

// ── Memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A few pages that calls with fixed addresses meet in. */
const POOL = 0x3000_0000;
const POOL_PAGES = 24;

const poolPage: Draw = ({ random }) => POOL + PAGE_SIZE * random.below(POOL_PAGES);
const knownPage: Draw = (world) => {
  const { known, random } = world;
  return known.length === 0 ? poolPage(world) : of(world, known) + PAGE_SIZE * (random.below(5) - 1);
};
const oddPlace: Draw = (world) =>
  mostly(50, knownPage, oneOf(world.scratch, ...[64, 0, 0x80_0000].map((below) => world.stackTop - below)))(world) +
  world.random.below(PAGE_SIZE);
const page: Draw = mostly(50, poolPage, mostly(75, knownPage, mostly(60, oddPlace, junk)));
const hint: Draw = mostly(60, page, oneOf(0));
const oddBytes: Draw = ({ random }) => random.size(100_000);
const bytes: Draw = mostly(
  80,
  ({ random }) => PAGE_SIZE * random.below(10),
  mostly(70, oddBytes, mostly(50, oneOf(0x20_0000, 0x40_0000, 0x100_0000), junk)),
);
const prot: Draw = mostly(60, oneOf(mman.PROT_READ | mman.PROT_WRITE), mostly(90, upTo(8), junk));

const MAP_EXTRAS: readonly (readonly [percent: number, flag: number])[] = [
  [25, mman.MAP_FIXED],
  [5, mman.MAP_FIXED_NOREPLACE],
  [6, mman.MAP_GROWSDOWN],
  [10, mman.MAP_LOCKED],
  [20, mman.MAP_NORESERVE],
  [30, mman.MAP_POPULATE],
];
const mapFlags: Draw = (world) => {
  const { random } = world;
  let flags = mostly(98, oneOf(mman.MAP_SHARED, mman.MAP_PRIVATE), upTo(4))(world);
  if (random.below(100) < 65) flags |= mman.MAP_ANONYMOUS;
  for (const [percent, flag] of MAP_EXTRAS) if (random.below(100) < percent) flags |= flag;
  return random.below(100) < 97 ? flags : junk(world);
};
const advice: Draw = mostly(70, oneOf(mman.MADV_DONTNEED, mman.MADV_FREE, mman.MADV_WILLNEED), upTo(24));
const small: Draw = mostly(90, upTo(4), junk);

// ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Not 1: that is where the findings go. */
const fd: Draw = (world) => {
  const drawn = mostly(85, upTo(9), mostly(80, upTo(66), junk))(world);
  return drawn === 1 ? 0 : drawn;
};

/** `text` in the scratch pages: its address. */
function lay(world: CallWorld, content: Uint8Array): number {
  const at = world.scratch + SLOT_BYTES * (world.slot++ % (SCRATCH_BYTES / SLOT_BYTES));
  world.mem.write(at, content.subarray(0, SLOT_BYTES));
  return at;
}
const layWords = (world: CallWorld, words: readonly number[]): number =>
  lay(
    world,
    Uint8Array.from(words.flatMap((word) => [0, 1, 2, 3].map((byte) => Math.floor(word / 256 ** byte) % 256))),
  );
const layString = (world: CallWorld, text: string): number => lay(world, encodeUtf8(`${text}\0`));

const PATHS: readonly string[] = [
  ...["/tmp/a", "/tmp/b", "/tmp/c", "/tmp/d", "/tmp/a", "/tmp/b", "/dev/zero", "/dev/null", "/dev/sda", "/dev/sdb"],
  ...["/proc/meminfo", "/proc/vmstat", "/proc/buddyinfo", "/proc/zoneinfo", "/proc/slabinfo", "/proc/swaps", "/proc"],
  ...["/proc/1/maps", "/proc/2/smaps", "/proc/3/status", "/proc/4/oom_score_adj", "/proc/5/stat", "/proc/6/smaps"],
  ...["/proc/sys/vm/min_free_kbytes", "/proc/sys/vm/swappiness", "/proc/sys/vm/overcommit_memory", "/dev/kmsg"],
  ...["/proc/sys/vm/compact_memory", "/proc/sys/vm/drop_caches", "/proc/sys/vm/overcommit_ratio", "/dev/nic0"],
  ...["/", "", "nope", "/tmp", "/nope/x", "/tmp/a/b", "/bin/true", "/tmp/../tmp/./c", "x".repeat(300), "/tmp/ä€😀"],
];
const aPath: Draw = (world) => layString(world, of(world, PATHS));
const path: Draw = mostly(93, aPath, page);
const swapPath: Draw = mostly(90, (world) => layString(world, of(world, ["/dev/sdb", "/dev/sda", "/tmp/a"])), path);
const openFlags: Draw = mostly(
  90,
  oneOf(
    0,
    1,
    2,
    2,
    mman.O_CREAT | 2,
    mman.O_CREAT | 2,
    mman.O_CREAT | mman.O_TRUNC | 1,
    mman.O_APPEND | 2,
    mman.O_DIRECT | 2,
  ),
  junk,
);
const TEXTS: readonly string[] = ["0\n", "1\n", "2\n", "100\n", "-1\n", "4096\n", "", "x", "1e9\n", "9".repeat(40)];
const aText: Draw = (world) => layString(world, of(world, TEXTS));
const source: Draw = mostly(30, aText, page);
const place: Draw = mostly(8, ({ scratch }) => scratch + SLOT_BYTES, page);

// ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────────────

const PROGRAMS: readonly string[] = [
  "/bin/true",
  "/bin/false",
  "/bin/free",
  "/bin/ls",
  "/nope",
  "/tmp/a",
  "/bin/sleep",
];
const program: Draw = mostly(90, (world) => layString(world, of(world, PROGRAMS)), path);
const pointerTo = (address: number): number[] => [address % 2 ** 32, Math.floor(address / 2 ** 32)];
const argv: Draw = mostly(
  85,
  (world) => layWords(world, [...pointerTo(layString(world, "x")), ...pointerTo(layString(world, of(world, TEXTS)))]),
  page,
);
const argc: Draw = mostly(90, upTo(3), mostly(50, upTo(200), junk));
const threeFds: Draw = mostly(90, (world) => layWords(world, [fd(world), fd(world), fd(world)].map(Math.abs)), page);
const aPid: Draw = (world) => (world.pids.length === 0 ? 0 : of(world, world.pids));
const pid: Draw = mostly(70, aPid, mostly(60, oneOf(0, -1, 1), mostly(70, upTo(60), junk)));
/** Nobody may kill whoever counts the calls. */
const target: Draw = (world) => {
  const drawn = pid(world);
  return world.spared.includes(drawn) ? -1 : drawn;
};
const signal: Draw = mostly(60, oneOf(0, mman.SIGCHLD, mman.SIGCONT, mman.SIGURG), mostly(80, upTo(66), junk));
const entry: Draw = (world) => (world.entries.length === 0 ? junk(world) : mostly(92, aEntry, junk)(world));
const aEntry: Draw = (world) => of(world, world.entries);
const resource: Draw = mostly(90, upTo(RLIM_NLIMITS), junk);
const LIMITS: readonly number[] = [0, 1, 10, 64, 4096, 65_536, 0x40_0000, 0x400_0000, 2 ** 32, 2 ** 52];
const limits: Draw = mostly(
  60,
  oneOf(0),
  mostly(80, (world) => layWords(world, [...pointerTo(of(world, LIMITS)), ...pointerTo(2 ** 52)]), page),
);
const cycles: Draw = mostly(90, ({ random }) => random.size(100_000), mostly(50, oneOf(0, 1_000_000, -5), junk));
const word: Draw = (world) => page(world) + 4 * world.random.below(4);
const driver: Draw = (world) =>
  world.drivers.length === 0 ? path(world) : mostly(80, (w) => layString(w, of(w, w.drivers)), path)(world);
const driverArgs: Draw = mostly(80, (world) => layString(world, of(world, ["", "", "ring=8", "rate=4", "x=y"])), page);

export interface FuzzedCall {
  readonly nr: number;
  /** How often, against the others. */
  readonly weight: number;
  readonly args: readonly Draw[];
}

const call = (weight: number, nr: number, ...args: readonly Draw[]): FuzzedCall => ({ nr, weight, args });

/** The calls of a program that wants to live on, and, seldom, those that end it. */
export const FUZZED_CALLS: readonly FuzzedCall[] = [
  call(30, sys.SYS_mmap, hint, bytes, prot, mapFlags, fd, bytes),
  call(14, sys.SYS_munmap, page, bytes),
  call(12, sys.SYS_mprotect, page, bytes, prot),
  call(14, sys.SYS_mremap, page, bytes, bytes, small, page),
  call(14, sys.SYS_madvise, page, bytes, advice),
  call(6, sys.SYS_mlock, page, bytes),
  call(5, sys.SYS_munlock, page, bytes),
  call(1, sys.SYS_mlockall, small),
  call(2, sys.SYS_munlockall),
  call(5, sys.SYS_mincore, page, bytes, place),
  call(5, sys.SYS_msync, page, bytes, mostly(90, upTo(8), junk)),
  call(
    6,
    sys.SYS_brk,
    mostly(
      40,
      oneOf(0),
      mostly(70, ({ random, heapStart }) => heapStart + random.size(0x20_0000), page),
    ),
  ),
  call(6, sys.SYS_ftruncate, fd, bytes),
  call(4, sys.SYS_fsync, fd),
  call(1, sys.SYS_fdatasync, fd),
  call(1, sys.SYS_sync),
  call(14, sys.SYS_openat, oneOf(-100), path, openFlags),
  call(7, sys.SYS_close, fd),
  call(3, sys.SYS_pipe2, place, small),
  call(3, sys.SYS_getdents64, fd, place, bytes),
  call(7, sys.SYS_lseek, fd, mostly(70, bytes, junk), small),
  call(30, sys.SYS_read, fd, place, bytes),
  call(25, sys.SYS_write, fd, source, bytes),
  call(3, sys.SYS_unlink, path),
  call(1, sys.SYS_getcwd, place, bytes),
  call(1, sys.SYS_chdir, path),
  call(
    3,
    sys.SYS_futex,
    word,
    mostly(80, oneOf(sys.FUTEX_WAKE, sys.FUTEX_LOCK_PI, sys.FUTEX_UNLOCK_PI), upTo(4)),
    mostly(50, upTo(3), junk),
  ),
  call(3, sys.SYS_nanosleep, cycles),
  call(2, sys.SYS_sched_yield),
  call(2, sys.SYS_kill, target, signal),
  call(1, sys.SYS_tgkill, target, pid, signal),
  call(1.5, sys.SYS_rt_sigaction, signal, mostly(80, source, oneOf(0)), mostly(50, oneOf(0), place), oneOf(8)),
  call(1, sys.SYS_rt_sigprocmask, upTo(3), mostly(80, source, oneOf(0)), mostly(50, oneOf(0), place), oneOf(8)),
  call(0.5, sys.SYS_rt_sigpending, place, oneOf(8)),
  call(0.1, sys.SYS_rt_sigsuspend, source, oneOf(8)),
  call(0.05, sys.SYS_rt_sigreturn),
  call(0.5, sys.SYS_sigaltstack, mostly(80, source, oneOf(0)), mostly(50, oneOf(0), place)),
  call(1, sys.SYS_uname, place),
  call(1, sys.SYS_personality, mostly(70, oneOf(sys.ADDR_NO_RANDOMIZE, 0, 0xffff_ffff), junk)),
  call(1, sys.SYS_getpid),
  call(1, sys.SYS_getppid),
  call(1, sys.SYS_gettid),
  call(4, sys.SYS_clone, junk, junk, entry, ({ position }) => position + 1),
  call(4, sys.SYS_fork, entry),
  call(2, sys.SYS_vfork, entry),
  call(0.4, sys.SYS_execve, program, argv, argc),
  call(2, sys.SYS_spawn, program, argv, argc, threeFds),
  call(6, sys.SYS_wait4, mostly(50, oneOf(-1), pid), mostly(70, oneOf(0), place), oneOf(mman.WNOHANG)),
  call(0.2, sys.SYS_wait4, pid, place, upTo(2)),
  call(2, sys.SYS_prlimit64, target, resource, limits, mostly(50, oneOf(0), place)),
  call(1, sys.SYS_thread_join, pid),
  call(1, sys.SYS_sched_setscheduler, target, upTo(3), mostly(80, upTo(3), junk)),
  call(0.3, sys.SYS_swapon, swapPath, mostly(80, oneOf(0, sys.SWAP_FLAG_PREFER | 3), junk)),
  call(0.2, sys.SYS_swapoff, swapPath),
  call(0.3, sys.SYS_init_module, driver, driverArgs),
  call(0.3, sys.SYS_delete_module, driver),
  call(2, sys.SYS_eventcount),
  call(
    2,
    sys.SYS_eventcount_await,
    fd,
    upTo(4),
    mostly(90, ({ random }) => 1 + random.size(100_000), junk),
  ),
  call(2, sys.SYS_eventcount_advance, fd, mostly(80, upTo(5), junk)),
  call(0.15, sys.SYS_exit, junk),
  call(0.15, sys.SYS_exit_group, junk),
  // Numbers that no call has.
  call(0.5, -1, junk, junk, junk),
];

const TOTAL_WEIGHT = FUZZED_CALLS.reduce((sum, { weight }) => sum + weight, 0);
const NR_ARGS = 6;

/** A call and its arguments: `[nr, a0 … a5]`. */
export function drawCall(world: CallWorld): number[] {
  const { random } = world;
  let at = (random.below(2 ** 32) / 2 ** 32) * TOTAL_WEIGHT;
  const chosen = FUZZED_CALLS.find(({ weight }) => {
    at -= weight;
    return at < 0;
  }) as FuzzedCall;
  const args = Array.from({ length: NR_ARGS }, (_, i) => {
    const draw = chosen.args[i];
    if (draw === undefined) return 0;
    return random.below(100) < 3 && draw !== target && draw !== fd ? junk(world) : draw(world);
  });
  return [chosen.nr < 0 ? random.below(2000) + 2000 : chosen.nr, ...args];
}
