/**
 * Goal: libc passes strings, buffers and structures to the kernel as the kernel reads them, and hands back results
 * and errors unchanged. Method: a fake kernel that reads user memory by the pointers it gets; calls that sleep are
 * generators, as in the real one.
 */
import { describe, expect, it } from "vitest";
import { BLOCKED, type MaySleep, type Sleeping } from "../../kernel/types.ts";
import { E2BIG, EINVAL, ENAMETOOLONG, ENOENT, ENOMEM } from "../../kernel/uapi/errno.ts";
import { O_CREAT, O_TRUNC, O_WRONLY } from "../../kernel/uapi/mman.ts";
import type { UserMemory } from "../../kernel/uapi/program.ts";
import {
  SYS_close,
  SYS_exit_group,
  SYS_getcwd,
  SYS_getdents64,
  SYS_getpid,
  SYS_mmap,
  SYS_openat,
  SYS_read,
  SYS_spawn,
  SYS_uname,
  SYS_wait4,
  SYS_write,
} from "../../kernel/uapi/syscall.ts";
import { createLibc, type Libc } from "../../userland/libc.ts";
import { createFakeProcess, type FakeOptions, type FakeProcess, type SyscallHook } from "../support/fake_env.ts";

/** Runs `body` as a program and returns what it returned. */
function runIn<T>(options: FakeOptions, body: (libc: Libc) => Sleeping<T>): { result: T; process: FakeProcess } {
  const process = createFakeProcess(options);
  const results: T[] = [];
  process.run(function* (env) {
    results.push(yield* body(createLibc(env)));
    return 0;
  });
  return { result: results[0] as T, process };
}

function cString(mem: UserMemory, at: number): string {
  let end = at;
  while (mem.ld8(end) !== 0) end++;
  return new TextDecoder().decode(mem.read(at, end - at));
}

function* later(value: number): Sleeping<number> {
  yield BLOCKED;
  return value;
}

/** A file of `content` behind descriptor 5, given out at most `step` bytes at a time, every other read sleeping. */
function fileHook(content: Uint8Array, step: number, log: string[] = []): SyscallHook {
  let at = 0;
  return (nr, args, mem): MaySleep<number> | undefined => {
    const [a = 0, b = 0, c = 0] = args;
    if (nr === SYS_openat) {
      const path = cString(mem, b);
      log.push(`open ${path} ${c}`);
      at = 0;
      return path === "/missing" ? -ENOENT : 5;
    }
    if (nr === SYS_close) {
      log.push(`close ${a}`);
      return 0;
    }
    if (nr !== SYS_read && nr !== SYS_getdents64) return undefined;
    const part = content.subarray(at, at + Math.min(step, c));
    mem.write(b, part);
    at += part.length;
    return at % 2 === 0 ? later(part.length) : part.length;
  };
}

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("arguments", () => {
  it("args() decodes the pointers that the kernel left", () => {
    const argv = ["prog", "", "a b", "größe", "日本 🐚", "x".repeat(3000)];
    expect(
      runIn({ argv }, function* (libc) {
        return libc.args();
      }).result,
    ).toEqual(argv);
    expect(
      runIn({ argv: [] }, function* (libc) {
        return libc.args();
      }).result,
    ).toEqual([]);
  });
});

describe("files", () => {
  it("readFile() reads to the end, through short reads and reads that sleep, and closes", () => {
    const text = `${"0123456789".repeat(5000)}ü`;
    const log: string[] = [];
    const { result } = runIn({ hook: fileHook(bytesOf(text), 7001, log) }, (libc) => libc.readFile("/etc/motd"));
    expect(result).toBe(text);
    expect(log).toEqual(["open /etc/motd 0", "close 5"]);
  });

  it("errors come back as they are", () => {
    const options = { hook: fileHook(bytesOf(""), 1) };
    expect(runIn(options, (libc) => libc.readFile("/missing")).result).toBe(-ENOENT);
    expect(runIn(options, (libc) => libc.readFileBytes("/missing")).result).toBe(-ENOENT);
    expect(runIn(options, (libc) => libc.writeFile("/missing", "x")).result).toBe(-ENOENT);
    expect(runIn({}, (libc) => libc.read(9, 10)).result).toBeLessThan(0);
  });

  it("readLine() gives lines, the unfinished last one too, then null", () => {
    const text = `first\n\nthird, ${"long ".repeat(9000)}\nlast`;
    for (const step of [1000, 16_384, 3]) {
      const short = step === 3 ? "a\nbc\n\nd" : text;
      const lines = runIn({ hook: fileHook(bytesOf(short), step) }, function* (libc) {
        const found: (string | null)[] = [];
        while (found.at(-1) !== null) found.push(yield* libc.readLine(5));
        return found;
      }).result;
      expect(lines).toEqual([...short.split("\n"), null]);
    }
  });

  it("read() after readLine() goes on behind the line", () => {
    const { result } = runIn({ hook: fileHook(bytesOf("line\nthe rest"), 100) }, function* (libc) {
      const line = yield* libc.readLine(5);
      const some = yield* libc.read(5, 3);
      const rest = yield* libc.read(5, 100);
      return [line, some, rest].map((x) => (x instanceof Uint8Array ? new TextDecoder().decode(x) : x));
    });
    expect(result).toEqual(["line", "the", " rest"]);
  });

  it("print() and eprint() write everything, through short writes", () => {
    const text = "täxt ".repeat(10_000);
    let nrWrites = 0;
    const seen: number[] = [];
    const hook: SyscallHook = (nr, args, mem) => {
      if (nr !== SYS_write) return undefined;
      const n = Math.min(args[2] as number, 1000 + nrWrites++ * 777);
      seen.push(...mem.read(args[1] as number, n));
      return nrWrites % 3 === 0 ? later(n) : n;
    };
    expect(runIn({ hook }, (libc) => libc.print(text)).result).toBe(bytesOf(text).length);
    expect(new TextDecoder().decode(Uint8Array.from(seen))).toBe(text);
    const { process } = runIn({}, (libc) => libc.eprint("oops\n"));
    expect(process.written.get(2)).toBe("oops\n");
  });

  it("writeFile() creates and truncates", () => {
    const log: string[] = [];
    expect(runIn({ hook: fileHook(bytesOf(""), 1, log) }, (libc) => libc.writeFile("/tmp/a", "abc")).result).toBe(3);
    expect(log).toEqual([`open /tmp/a ${O_WRONLY | O_CREAT | O_TRUNC}`, "close 5"]);
  });

  it("getdents() splits names at NUL", () => {
    const hook = fileHook(bytesOf("bin/\0etc/\0motd\0"), 4096);
    expect(runIn({ hook }, (libc) => libc.getdents(5)).result).toEqual(["bin/", "etc/", "motd"]);
  });

  it("refuses paths that are too long or have a NUL inside", () => {
    expect(runIn({}, (libc) => libc.open("/".repeat(20_000))).result).toBe(-ENAMETOOLONG);
    expect(runIn({}, (libc) => libc.open("/a\0b")).result).toBe(-EINVAL);
    expect(runIn({}, (libc) => libc.unlink("\0")).result).toBe(-EINVAL);
  });

  it("pipe() returns both ends", () => {
    const { result } = runIn({}, function* (libc) {
      const ends = yield* libc.pipe();
      if (typeof ends === "number") return ends;
      yield* libc.write(ends[1], "through");
      return yield* libc.read(ends[0], 100);
    });
    expect(result).toEqual(bytesOf("through"));
  });

  it("without memory for the scratch area every call is -ENOMEM", () => {
    const hook: SyscallHook = (nr) => (nr === SYS_mmap ? -ENOMEM : undefined);
    expect(runIn({ hook }, (libc) => libc.print("x")).result).toBe(-ENOMEM);
    expect(runIn({ hook }, (libc) => libc.open("/x")).result).toBe(-ENOMEM);
    expect(runIn({ hook }, (libc) => libc.wait(-1)).result).toEqual({ pid: -ENOMEM, status: 0 });
  });
});

describe("processes", () => {
  interface Spawned {
    readonly path: string;
    readonly argv: readonly string[];
    readonly fds: readonly number[];
  }

  const spawnHook =
    (spawned: Spawned[]): SyscallHook =>
    (nr, args, mem) => {
      if (nr !== SYS_spawn) return undefined;
      const [path = 0, argv = 0, argc = 0, fds = 0] = args;
      const pointer = (i: number): number => mem.ld32(argv + i * 8) + mem.ld32(argv + i * 8 + 4) * 2 ** 32;
      spawned.push({
        path: cString(mem, path),
        argv: Array.from({ length: argc }, (_, i) => cString(mem, pointer(i))),
        fds: [0, 4, 8].map((at) => mem.ld32(fds + at)),
      });
      return 42;
    };

  it("spawn() lays out path, arguments and descriptors", () => {
    const spawned: Spawned[] = [];
    const argv = ["ls", "-l", "", "ä b"];
    expect(runIn({ hook: spawnHook(spawned) }, (libc) => libc.spawn("/bin/ls", argv, [0, 7, 2])).result).toBe(42);
    expect(runIn({ hook: spawnHook(spawned) }, (libc) => libc.spawn("/bin/true", [])).result).toBe(42);
    expect(spawned).toEqual([
      { path: "/bin/ls", argv, fds: [0, 7, 2] },
      { path: "/bin/true", argv: [], fds: [0, 1, 2] },
    ]);
  });

  it("spawn() says so when the arguments are too long or too many", () => {
    const options = { hook: spawnHook([]) };
    expect(runIn(options, (libc) => libc.spawn("/x", ["x".repeat(9000), "y".repeat(9000)])).result).toBe(-E2BIG);
    expect(runIn(options, (libc) => libc.spawn("/x", new Array(3000).fill("a"))).result).toBe(-E2BIG);
    expect(runIn(options, (libc) => libc.spawn("x".repeat(20_000), [])).result).toBe(-ENAMETOOLONG);
  });

  it("wait() decodes the status word: exit status, or 128 + signal", () => {
    const cases: [number, number, number][] = [
      [7, 0, 0],
      [7, 3 << 8, 3],
      [7, 9, 137],
      [7, 11, 139],
      [0, 3 << 8, 0],
      [-10, 0, 0],
    ];
    for (const [pid, word, status] of cases) {
      const hook: SyscallHook = (nr, args, mem) => {
        if (nr !== SYS_wait4) return undefined;
        mem.st32(args[1] as number, word);
        return later(pid);
      };
      expect(runIn({ hook }, (libc) => libc.wait(-1)).result).toEqual({ pid, status });
    }
  });

  it("exit() ends the process", () => {
    const process = createFakeProcess();
    const status = process.run(function* (env) {
      yield* createLibc(env).exit(5);
      return 0;
    });
    expect(status).toBe(5);
    expect(SYS_exit_group).toBe(94);
  });

  it("threads start with a function and are joined", () => {
    const { result } = runIn({}, function* (libc) {
      const tid = yield* libc.startThread(function* (env) {
        yield* createLibc(env).yieldNow();
        return 9;
      });
      return yield* libc.joinThread(tid);
    });
    expect(result).toBe(9);
  });

  it("uname(), getcwd() and getpid() fetch what the kernel wrote", () => {
    const hook: SyscallHook = (nr, args, mem) => {
      if (nr === SYS_getpid) return 17;
      if (nr === SYS_getcwd) mem.write(args[0] as number, bytesOf("/tmp\0"));
      if (nr === SYS_uname) {
        ["Slabtown", "box", "6", "v", "riscv64", "(none)"].forEach((field, i) => {
          mem.write((args[0] as number) + i * 65, bytesOf(`${field}\0`));
        });
      }
      return nr === SYS_uname ? 0 : nr === SYS_getcwd ? 5 : undefined;
    };
    expect(runIn({ hook }, (libc) => libc.uname()).result).toEqual(["Slabtown", "box", "6", "v", "riscv64", "(none)"]);
    expect(runIn({ hook }, (libc) => libc.getcwd()).result).toBe("/tmp");
    expect(runIn({ hook }, (libc) => libc.getpid()).result).toBe(17);
  });
});
