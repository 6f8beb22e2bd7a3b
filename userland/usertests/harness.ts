/**
 * What user tests are made of: a process of its own for each, checks that end it, children, memory, files.
 *
 * A case is a generator that returns when all is well and throws CaseFailure where something is not. It runs in a
 * forked child, so that whatever it breaks is gone afterwards; a case about being killed forks once more and looks at
 * the status. After each case the machine has as many free pages as before: the rule by which xv6 judges the whole
 * suite.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { errnoName } from "../../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  O_CREAT,
  O_RDWR,
  O_TRUNC,
  PROT_READ,
  PROT_WRITE,
  SIGSEGV,
} from "../../kernel/uapi/mman.ts";
import type { ProgramEnv, UserMemory } from "../../kernel/uapi/program.ts";
import { SYS_brk, SYS_mmap, SYS_openat } from "../../kernel/uapi/syscall.ts";
import { encodeUtf8 } from "../../kernel/uapi/utf8.ts";
import { createLibc, type Libc } from "../libc.ts";

export interface UserTest {
  readonly name: string;
  readonly origin: "xv6" | "Pintos";
  /** Left out by -q. */
  readonly isSlow?: boolean;
  readonly run: (t: TestProcess) => Sleeping<void>;
}

/** The files that cases make: removed after each, for what is in them is not free. */
export const CASE_FILES = [
  "/tmp/sample.txt",
  ...Array.from({ length: 8 }, (_, nr) => `/tmp/chunk${nr}`),
  "/tmp/copyin",
  "/tmp/rwsbrk",
  "/tmp/sbrk",
  "/tmp/x",
] as [string, ...string[]];

export class CaseFailure extends Error {}

/** How a shell counts a death by SIGSEGV. */
export const SEGFAULT = 128 + SIGSEGV;
const AT_FDCWD = -100;

/** What a process of a case does; the number is its exit status. */
type CaseBody = (t: TestProcess) => Sleeping<void> | Sleeping<number>;

/** One process of a case. */
export class TestProcess {
  readonly env: ProgramEnv;
  readonly libc: Libc;
  readonly mem: UserMemory;

  constructor(env: ProgramEnv) {
    this.env = env;
    this.libc = createLibc(env);
    this.mem = env.mem;
  }

  /** The page of the stack that the arguments are in. */
  stackPage(): number {
    return this.env.argv - (this.env.argv % PAGE_SIZE);
  }

  /** Ends the case unless `condition`. */
  check(condition: boolean, what: string): void {
    if (!condition) throw new CaseFailure(what);
  }
  equal(got: number, expected: number, what: string): void {
    if (got === expected) return;
    const word = (value: number): string => (value < 0 ? errnoName(value) : String(value));
    throw new CaseFailure(`${what}: ${word(got)}, not ${word(expected)}`);
  }

  sys(nr: number, ...args: readonly number[]): Sleeping<number> {
    return this.libc.call(nr, ...args);
  }

  /** Moves the break: the old one, or −1 if it has not moved as asked. */
  *sbrk(bytes: number): Sleeping<number> {
    const old = yield* this.sys(SYS_brk, 0);
    return (yield* this.sys(SYS_brk, old + bytes)) === old + bytes ? old : -1;
  }
  /** Moves the break to a page boundary: the boundary. */
  *pageBreak(): Sleeping<number> {
    const top = yield* this.sbrk(0);
    yield* this.sbrk((PAGE_SIZE - (top % PAGE_SIZE)) % PAGE_SIZE);
    return yield* this.sbrk(0);
  }
  /** Private anonymous memory. */
  *pages(nrPages: number): Sleeping<number> {
    const rw = PROT_READ | PROT_WRITE;
    const va = yield* this.sys(SYS_mmap, 0, nrPages * PAGE_SIZE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    this.check(va > 0, `no memory for ${nrPages} pages: ${errnoName(va)}`);
    return va;
  }
  /** A string on the heap: its address. */
  *string(text: string): Sleeping<number> {
    const bytes = encodeUtf8(`${text}\0`);
    const at = yield* this.sbrk(Math.ceil(bytes.length / 8) * 8);
    this.check(at >= 0, "no heap for a string");
    this.mem.write(at, bytes);
    return at;
  }
  *openAt(address: number, flags: number): Sleeping<number> {
    return yield* this.sys(SYS_openat, AT_FDCWD, address, flags, 0);
  }
  /** A new file with this content, open for reading and writing. */
  *file(path: string, bytes: Uint8Array): Sleeping<number> {
    const fd = yield* this.libc.open(path, O_RDWR | O_CREAT | O_TRUNC);
    this.check(fd >= 0, `open ${path}: ${errnoName(fd)}`);
    if (bytes.length > 0) this.equal(yield* this.libc.writeAll(fd, bytes), bytes.length, `write ${path}`);
    return fd;
  }

  /** Forks: pid of a child that does `body` and ends with what it returns, 0 for nothing, or 1 when a check fails. */
  *fork(body: CaseBody): Sleeping<number> {
    return yield* this.libc.fork(function* (env) {
      return yield* runCase(new TestProcess(env), body);
    });
  }
  /** Forks and waits: the status as a shell counts. */
  *child(body: CaseBody): Sleeping<number> {
    const pid = yield* this.fork(body);
    this.check(pid > 0, `fork: ${errnoName(pid)}`);
    const { pid: got, status } = yield* this.libc.wait(pid);
    this.equal(got, pid, "wait");
    return status;
  }
  /** A child that does `access` has to be killed for it. */
  *dies(what: string, access: (child: TestProcess) => void): Sleeping<void> {
    const status = yield* this.child(function* (child) {
      access(child);
    });
    this.equal(status, SEGFAULT, what);
  }
  *breathe(): Sleeping<void> {
    if (this.env.timeIsUp()) yield PREEMPTED;
  }
}

/** Does `body`; the exit status. What a check has against it goes to fd 2. */
export function* runCase(t: TestProcess, body: CaseBody): Sleeping<number> {
  try {
    return (yield* body(t)) ?? 0;
  } catch (error) {
    if (!(error instanceof CaseFailure)) throw error;
    yield* t.libc.eprint(`usertests: ${error.message}\n`);
    return 1;
  }
}

/** Free pages, wherever they wait: in the buddy, in per-CPU lists, and in slabs, which caches keep as they like. */
export function* countFreePages(libc: Libc): Sleeping<number> {
  const meminfo = yield* libc.readFile("/proc/meminfo");
  const zoneinfo = yield* libc.readFile("/proc/zoneinfo");
  if (typeof meminfo === "number" || typeof zoneinfo === "number") return -1;
  const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(meminfo)?.[1] ?? 0);
  let pages = (kib("MemFree") + kib("Slab")) / 4;
  for (const [, count = "0"] of zoneinfo.matchAll(/^ +count: +(\d+)/gm)) pages += Number(count);
  return pages;
}
