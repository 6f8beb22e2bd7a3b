/**
 * libc: system calls with strings and buffers, for programs.
 *
 * The kernel takes integers and user pointers. So each call here lays what it passes into a scratch area of the
 * process's own memory (libc_scratch.ts), and fetches what comes back from there. Each thread makes a libc of its own,
 * and a thread does one call at a time, so nobody else is in its area.
 *
 * Results are the kernel's: ≥ 0, or −errno; where something better than a number comes back, that or −errno. A short
 * write goes on until all is written. −ENOMEM may also mean that there was no memory for the scratch area.
 *
 * Context: generators may sleep, plain functions do not. Line buffers are kept on the host, as a program's variables.
 */

import { BLOCKED, type MaySleep, PREEMPTED, type Sleeping } from "../kernel/types.ts";
import { E2BIG, EFBIG, ENAMETOOLONG } from "../kernel/uapi/errno.ts";
import { O_CREAT, O_RDONLY, O_TRUNC, O_WRONLY } from "../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../kernel/uapi/program.ts";
import { RLIM_INFINITY } from "../kernel/uapi/resource.ts";
import {
  SYS_chdir,
  SYS_clone,
  SYS_close,
  SYS_delete_module,
  SYS_execve,
  SYS_exit,
  SYS_exit_group,
  SYS_fork,
  SYS_getcwd,
  SYS_getdents64,
  SYS_getpid,
  SYS_init_module,
  SYS_kill,
  SYS_nanosleep,
  SYS_openat,
  SYS_pipe2,
  SYS_prlimit64,
  SYS_read,
  SYS_sched_yield,
  SYS_spawn,
  SYS_swapoff,
  SYS_swapon,
  SYS_thread_join,
  SYS_uname,
  SYS_unlink,
  SYS_vfork,
  SYS_wait4,
  SYS_write,
} from "../kernel/uapi/syscall.ts";
import { decodeUtf8, encodeUtf8 } from "../kernel/uapi/utf8.ts";
import { BUFFER_BYTES, createScratch, STRING_BYTES } from "./libc_scratch.ts";

/** What a program reads at once lies on the host: no more than this. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const AT_FDCWD = -100;
const POINTER_BYTES = 8;
const UTSNAME_FIELDS = 6;
const UTSNAME_BYTES = 65;
const NEWLINE = 10;

/** What wait() learnt. */
export interface Waited {
  /** The child that ended; 0 with WNOHANG if none has; −errno. */
  readonly pid: number;
  /** Its exit status, or 128 + the signal that killed it, as a shell counts. */
  readonly status: number;
}

export interface Limit {
  readonly soft: number;
  readonly hard: number;
}

export interface Libc {
  /** Gets the memory that messages need now, before the program uses up the rest. */
  reserve(): Sleeping<void>;
  /** The program's arguments, its name first. */
  args(): string[];
  /** Any system call, slept through. */
  call(nr: number, ...args: readonly number[]): Sleeping<number>;
  open(path: string, flags?: number): Sleeping<number>;
  close(fd: number): Sleeping<number>;
  /** At most `max` bytes; none at the end of the file. */
  read(fd: number, max: number): Sleeping<Uint8Array | number>;
  /** One line without its newline; null at the end of the file, on an error, or if the line is endless. Reads ahead. */
  readLine(fd: number): Sleeping<string | null>;
  /** Writes `text` as UTF-8, all of it: the number of bytes. */
  write(fd: number, text: string): Sleeping<number>;
  writeAll(fd: number, bytes: Uint8Array): Sleeping<number>;
  print(text: string): Sleeping<number>;
  eprint(text: string): Sleeping<number>;
  readFile(path: string): Sleeping<string | number>;
  readFileBytes(path: string): Sleeping<Uint8Array | number>;
  /** Creates or overwrites a file: the number of bytes. */
  writeFile(path: string, text: string): Sleeping<number>;
  /** Names in the directory open at `fd`, directories with a trailing slash. */
  getdents(fd: number): Sleeping<string[] | number>;
  unlink(path: string): Sleeping<number>;
  /** `flags`: SWAP_FLAG_PREFER and a priority, or 0. */
  swapon(path: string, flags?: number): Sleeping<number>;
  swapoff(path: string): Sleeping<number>;
  pipe(): Sleeping<readonly [readEnd: number, writeEnd: number] | number>;
  /** Starts a child; `argv[0]` is its name, `fds` become its 0, 1 and 2. */
  spawn(path: string, argv: readonly string[], fds?: readonly [number, number, number]): Sleeping<number>;
  /** A child that goes on at `entry`, with a copy of this process's memory: its pid. */
  fork(entry: Program): Sleeping<number>;
  /** The same in this process's memory; comes back when the child has ended or become another program. */
  vfork(entry: Program): Sleeping<number>;
  /** Becomes another program; comes back only to say why not. */
  execve(path: string, argv: readonly string[]): Sleeping<number>;
  /** A limit of this process; `next` sets it. RLIM_INFINITY: none. */
  prlimit(resource: number, next?: Limit): Sleeping<Limit | number>;
  /** Waits for child `pid`, or any with −1. */
  wait(pid: number, options?: number): Sleeping<Waited>;
  /** Ends the process. */
  exit(status: number): Sleeping<never>;
  exitThread(status: number): Sleeping<never>;
  /** Starts a thread, which finds `arg` in its `env.argv`: its id. */
  startThread(entry: Program, arg?: number): Sleeping<number>;
  joinThread(tid: number): Sleeping<number>;
  getpid(): Sleeping<number>;
  getcwd(): Sleeping<string | number>;
  chdir(path: string): Sleeping<number>;
  kill(pid: number, signal: number): Sleeping<number>;
  sleep(cycles: number): Sleeping<number>;
  yieldNow(): Sleeping<number>;
  /** sysname, nodename, release, version, machine, domainname. */
  uname(): Sleeping<string[] | number>;
  /** Loads a driver by name; `params` are `name=value` words. */
  initModule(name: string, params: string): Sleeping<number>;
  deleteModule(name: string): Sleeping<number>;
}

/** The libc of the program or thread that runs in `env`. */
export function createLibc(env: ProgramEnv): Libc {
  const { mem } = env;
  const pendingInput = new Map<number, Uint8Array>();

  function* finish(result: MaySleep<number>): Sleeping<number> {
    return typeof result === "object" ? yield* result : result;
  }

  function* call(nr: number, ...args: readonly number[]): Sleeping<number> {
    return yield* finish(env.syscall(nr, ...(args as [number?, number?, number?, number?, number?, number?])));
  }

  const { scratch, reserve, cString, storePointer, loadPointer, loadString } = createScratch(env, call);

  /** A call whose first pointer argument is the string `text`, at argument `position`. */
  function* callWithString(nr: number, text: string, position: number, ...rest: readonly number[]): Sleeping<number> {
    const address = yield* cString(text);
    if (address < 0) return address;
    const args = position === 0 ? [address, ...rest] : [AT_FDCWD, address, ...rest];
    return yield* call(nr, ...args);
  }

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** read or getdents of at most a buffer. */
  function* readWith(nr: number, fd: number, max: number): Sleeping<Uint8Array | number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const got = yield* call(nr, fd, base + STRING_BYTES, Math.min(max, BUFFER_BYTES));
    return got < 0 ? got : mem.read(base + STRING_BYTES, got);
  }

  function* read(fd: number, max: number): Sleeping<Uint8Array | number> {
    const pending = pendingInput.get(fd);
    if (pending === undefined) return yield* readWith(SYS_read, fd, max);
    pendingInput.delete(fd);
    if (pending.length > max) pendingInput.set(fd, pending.subarray(max));
    return pending.subarray(0, max);
  }

  /** Everything up to the end of the file; −EFBIG if that does not come: /dev/zero has none. */
  function* readToEnd(nr: number, fd: number): Sleeping<Uint8Array | number> {
    const parts: Uint8Array[] = [];
    for (let bytes = 0; bytes <= MAX_FILE_BYTES; ) {
      const part = yield* nr === SYS_read ? read(fd, BUFFER_BYTES) : readWith(nr, fd, BUFFER_BYTES);
      if (typeof part === "number") return part;
      if (part.length === 0) return concatenate(parts);
      parts.push(part);
      bytes += part.length;
      if (env.timeIsUp()) yield PREEMPTED;
    }
    return -EFBIG;
  }

  function* readLine(fd: number): Sleeping<string | null> {
    const parts: Uint8Array[] = [];
    for (;;) {
      const part = yield* read(fd, BUFFER_BYTES);
      if (parts.length * BUFFER_BYTES > MAX_FILE_BYTES) return null;
      if (typeof part === "number" || part.length === 0) {
        return parts.length === 0 ? null : decodeUtf8(concatenate(parts));
      }
      const end = part.indexOf(NEWLINE);
      parts.push(end < 0 ? part : part.subarray(0, end));
      if (env.timeIsUp()) yield PREEMPTED;
      if (end < 0) continue;
      const behind = part.subarray(end + 1);
      const later = pendingInput.get(fd);
      if (later !== undefined) pendingInput.set(fd, concatenate([behind, later]));
      else if (behind.length > 0) pendingInput.set(fd, behind);
      return decodeUtf8(concatenate(parts));
    }
  }

  function* writeAll(fd: number, bytes: Uint8Array): Sleeping<number> {
    const base = yield* scratch();
    if (base < 0) return base;
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + BUFFER_BYTES);
      mem.write(base + STRING_BYTES, part);
      const written = yield* call(SYS_write, fd, base + STRING_BYTES, part.length);
      if (written <= 0) return written;
      done += written;
    }
    return bytes.length;
  }

  function* write(fd: number, text: string): Sleeping<number> {
    return yield* writeAll(fd, encodeUtf8(text));
  }

  function* open(path: string, flags = O_RDONLY): Sleeping<number> {
    return yield* callWithString(SYS_openat, path, 1, flags, 0o644);
  }

  function* close(fd: number): Sleeping<number> {
    pendingInput.delete(fd);
    return yield* call(SYS_close, fd);
  }

  function* readFileBytes(path: string): Sleeping<Uint8Array | number> {
    const fd = yield* open(path);
    if (fd < 0) return fd;
    const bytes = yield* readToEnd(SYS_read, fd);
    yield* close(fd);
    return bytes;
  }

  function* writeFile(path: string, text: string): Sleeping<number> {
    const fd = yield* open(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0) return fd;
    const written = yield* write(fd, text);
    yield* close(fd);
    return written;
  }

  function* getdents(fd: number): Sleeping<string[] | number> {
    const bytes = yield* readToEnd(SYS_getdents64, fd);
    if (typeof bytes === "number") return bytes;
    return decodeUtf8(bytes)
      .split("\0")
      .filter((name) => name !== "");
  }

  function* pipe(): Sleeping<readonly [number, number] | number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const result = yield* call(SYS_pipe2, base, 0);
    return result < 0 ? result : [mem.ld32(base), mem.ld32(base + 4)];
  }

  // ── Processes and threads ────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Puts `argv` and `path` into the scratch area behind `reserved` bytes at its beginning: address of the pointer
   * array, behind which the strings are, `path` first; −E2BIG or another −errno.
   */
  function* programStrings(path: string, argv: readonly string[], reserved: number): Sleeping<number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const arrayAt = base + reserved;
    let at = reserved + argv.length * POINTER_BYTES;
    const strings = [path, ...argv];
    if (at >= STRING_BYTES) return -E2BIG;
    for (let i = 0; i < strings.length; i++) {
      const address = yield* cString(strings[i] as string, at);
      if (address < 0) return address === -ENAMETOOLONG && i > 0 ? -E2BIG : address;
      if (i > 0) storePointer(arrayAt + (i - 1) * POINTER_BYTES, address);
      at = at + encodeUtf8(strings[i] as string).length + 1;
    }
    return arrayAt;
  }

  function* spawn(
    path: string,
    argv: readonly string[],
    fds: readonly [number, number, number] = [0, 1, 2],
  ): Sleeping<number> {
    const fdBytes = 16;
    const arrayAt = yield* programStrings(path, argv, fdBytes);
    if (arrayAt < 0) return arrayAt;
    const fdsAt = arrayAt - fdBytes;
    for (let i = 0; i < fds.length; i++) mem.st32(fdsAt + i * 4, fds[i] as number);
    return yield* call(SYS_spawn, arrayAt + argv.length * POINTER_BYTES, arrayAt, argv.length, fdsAt);
  }

  function* execve(path: string, argv: readonly string[]): Sleeping<number> {
    const arrayAt = yield* programStrings(path, argv, 0);
    if (arrayAt < 0) return arrayAt;
    return yield* call(SYS_execve, arrayAt + argv.length * POINTER_BYTES, arrayAt, argv.length);
  }

  function* prlimit(resource: number, next?: Limit): Sleeping<Limit | number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const toWord = (limit: number): number => Math.min(limit, Number.MAX_SAFE_INTEGER + 1);
    if (next !== undefined) {
      storePointer(base, toWord(next.soft));
      storePointer(base + POINTER_BYTES, toWord(next.hard));
    }
    const oldAt = base + 2 * POINTER_BYTES;
    const result = yield* call(SYS_prlimit64, 0, resource, next === undefined ? 0 : base, oldAt);
    if (result < 0) return result;
    const fromWord = (limit: number): number => (Number.isSafeInteger(limit) ? limit : RLIM_INFINITY);
    return { soft: fromWord(loadPointer(oldAt)), hard: fromWord(loadPointer(oldAt + POINTER_BYTES)) };
  }

  function* wait(pid: number, options = 0): Sleeping<Waited> {
    const base = yield* scratch();
    if (base < 0) return { pid: base, status: 0 };
    mem.st32(base, 0);
    const got = yield* call(SYS_wait4, pid, base, options);
    const word = mem.ld32(base);
    const signal = word & 0x7f;
    return { pid: got, status: got <= 0 ? 0 : signal !== 0 ? 128 + signal : (word >>> 8) & 0xff };
  }

  /** exit and exit_group: the kernel unwinds this generator and never comes back. */
  function* end(nr: number, status: number): Sleeping<never> {
    yield* call(nr, status);
    for (;;) yield BLOCKED;
  }

  function* uname(): Sleeping<string[] | number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const result = yield* call(SYS_uname, base);
    if (result < 0) return result;
    return Array.from({ length: UTSNAME_FIELDS }, (_, i) => loadString(base + i * UTSNAME_BYTES));
  }

  function* initModule(name: string, params: string): Sleeping<number> {
    const paramsAt = yield* cString(params);
    if (paramsAt < 0) return paramsAt;
    const nameAt = yield* cString(name, encodeUtf8(params).length + 1);
    return nameAt < 0 ? nameAt : yield* call(SYS_init_module, nameAt, paramsAt);
  }

  function* getcwd(): Sleeping<string | number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const result = yield* call(SYS_getcwd, base, STRING_BYTES);
    return result < 0 ? result : loadString(base);
  }

  return {
    reserve,
    args: () => Array.from({ length: env.argc }, (_, i) => loadString(loadPointer(env.argv + i * POINTER_BYTES))),
    call,
    open,
    close,
    read,
    readLine,
    write,
    writeAll,
    print: (text) => write(1, text),
    eprint: (text) => write(2, text),
    *readFile(path) {
      const bytes = yield* readFileBytes(path);
      return typeof bytes === "number" ? bytes : decodeUtf8(bytes);
    },
    readFileBytes,
    writeFile,
    getdents,
    unlink: (path) => callWithString(SYS_unlink, path, 0),
    swapon: (path, flags = 0) => callWithString(SYS_swapon, path, 0, flags),
    swapoff: (path) => callWithString(SYS_swapoff, path, 0),
    pipe,
    spawn,
    fork: (entry) => call(SYS_fork, env.entryOf(entry)),
    vfork: (entry) => call(SYS_vfork, env.entryOf(entry)),
    execve,
    prlimit,
    wait,
    exit: (status) => end(SYS_exit_group, status),
    exitThread: (status) => end(SYS_exit, status),
    startThread: (entry, arg = 0) => call(SYS_clone, 0, 0, env.entryOf(entry), arg),
    joinThread: (tid) => call(SYS_thread_join, tid),
    getpid: () => call(SYS_getpid),
    getcwd,
    chdir: (path) => callWithString(SYS_chdir, path, 0),
    kill: (pid, signal) => call(SYS_kill, pid, signal),
    sleep: (cycles) => call(SYS_nanosleep, cycles),
    yieldNow: () => call(SYS_sched_yield),
    uname,
    initModule,
    deleteModule: (name) => callWithString(SYS_delete_module, name, 0),
  };
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
