/**
 * The current directory of a process: chdir, getcwd, and paths that do not begin with a slash.
 *
 * Method: the shell and small programs on a booted kernel.
 */

import { describe, expect, it } from "vitest";
import { resolvePath } from "../../kernel/entry/paths.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { EFAULT, ENAMETOOLONG, ENOENT, ENOTDIR, ERANGE } from "../../kernel/uapi/errno.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import { SYS_getcwd } from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { createLibc, type Libc } from "../../userland/libc.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const shell = (commands: string): string => {
  const kernel = bootKernel(Object.fromEntries(builtinPrograms()));
  kernel.run("/bin/sh", "-c", commands);
  return kernel.output();
};

function runProgram(body: (libc: Libc, env: ProgramEnv) => Sleeping<void>): void {
  const program: Program = function* (env) {
    yield* body(createLibc(env), env);
    return 0;
  };
  const kernel = bootKernel({ ...Object.fromEntries(builtinPrograms()), "/bin/test": program });
  expect(kernel.run("/bin/test")).toBe(0);
}

describe("resolvePath", () => {
  it.each([
    ["/", "a", "/a"],
    ["/proc", "self/maps", "/proc/self/maps"],
    ["/a/b", "../c/./d//e", "/a/c/d/e"],
    ["/a", "../../..", "/"],
    ["/a", "/x/../y", "/y"],
    ["/a", ".", "/a"],
  ])("%s + %s = %s", (cwd, path, wanted) => expect(resolvePath(cwd, path)).toBe(wanted));
});

describe("the shell", () => {
  it("names of files are arguments as they are (bug: `ls | grep proc` looked for /proc, `echo proc` printed it)", () => {
    expect(shell("ls | grep proc")).toContain("proc/");
    expect(shell("echo proc bin tmp")).toBe("proc bin tmp\n");
    expect(shell("cd /proc; echo meminfo | grep meminfo")).toBe("meminfo\n");
  });

  it("programs start where the shell is, and find relative names there; cd in a child is the child's", () => {
    expect(shell("cd /tmp; echo x > f; ls; cat f; cat ./f ../tmp/f; rm f; ls; sh -c 'cd /; pwd'; pwd")).toBe(
      "f\nx\nx\nx\n/\n/tmp\n",
    );
    expect(shell("cd /proc; head -n 1 meminfo; cd self; grep Name status; cd; pwd")).toMatch(
      /^MemTotal: .*\nName:\tgrep\n\/\n$/,
    );
    expect(shell("cd /bin; ./echo here; ../bin/echo there")).toBe("here\nthere\n");
  });

  it("says what is no directory", () => {
    expect(shell("cd /nope")).toContain("sh: cd: /nope: No such file or directory");
    expect(shell("cd /proc/meminfo")).toContain("sh: cd: /proc/meminfo: Not a directory");
    expect(shell("cd ''")).toContain("No such file or directory");
    expect(shell("cd /proc; cat nope")).toContain("cat: nope: No such file or directory");
  });

  it("sysctl says that there is no such value (bug: Permission denied)", () => {
    expect(shell("sysctl vm.nosuch=1")).toContain("cannot stat /proc/sys/vm/nosuch: No such file or directory");
  });

  it("ps and ls take what people type", () => {
    for (const asked of ["ps aux", "ps -ef", "ps ax"]) expect(shell(asked)).toBe(shell("ps -e"));
    expect(shell("ps aud")).toContain("usage: ps");
    expect(shell("ls -la /proc/sys")).toBe(shell("ls -1 /proc/sys"));
  });
});

describe("the calls", () => {
  it("errors have no effect", () => {
    runProgram(function* (libc, env) {
      expect(yield* libc.chdir("/proc")).toBe(0);
      expect(yield* libc.chdir("nowhere")).toBe(-ENOENT);
      expect(yield* libc.chdir("meminfo")).toBe(-ENOTDIR);
      expect(yield* libc.chdir("")).toBe(-ENOENT);
      expect(yield* libc.chdir("x".repeat(300))).toBe(-ENAMETOOLONG);
      expect(yield* libc.getcwd()).toBe("/proc");
      const buf = env.argv;
      expect(yield* libc.call(SYS_getcwd, buf, 5)).toBe(-ERANGE);
      expect(yield* libc.call(SYS_getcwd, 16, 100)).toBe(-EFAULT);
      expect(yield* libc.open("self/nothing", 0)).toBe(-ENOENT);
      const fd = yield* libc.open("self/status", 0);
      expect(fd).toBeGreaterThanOrEqual(0);
    });
  });

  it("fork copies it", () => {
    runProgram(function* (libc) {
      const child: Program = function* (childEnv) {
        const own = createLibc(childEnv);
        expect(yield* own.getcwd()).toBe("/proc");
        expect(yield* own.chdir("/tmp")).toBe(0);
        return 0;
      };
      expect(yield* libc.chdir("/proc")).toBe(0);
      const pid = yield* libc.fork(child);
      expect((yield* libc.wait(pid)).status).toBe(0);
      expect(yield* libc.getcwd()).toBe("/proc");
    });
  });
});
