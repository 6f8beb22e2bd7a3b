/**
 * The contiguous area in a whole kernel: boot messages, files, and processes that live through its allocations.
 *
 * Goal: what a person at the prompt sees, and that a grant from the area never touches what processes have written.
 * Method: `cma=8M`; programs that fill memory and verify it while the debug files take and give back the area.
 */

import { describe, expect, it } from "vitest";
import { PREEMPTED } from "../../kernel/types.ts";
import { O_WRONLY } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import { SYS_mmap, SYS_openat, SYS_write } from "../../kernel/uapi/syscall.ts";
import { encodeUtf8 } from "../../kernel/uapi/utf8.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const DEBUG = "/sys/kernel/debug/cma/reserved";
const RW = 3;
const PRIVATE_ANON = 0x22;

function* call(env: ProgramEnv, nr: number, ...args: number[]) {
  let result = env.syscall(nr, ...args);
  if (typeof result === "object") result = yield* result;
  return result;
}

/** Writes a text to a file: what write() says. */
function* writeTo(env: ProgramEnv, path: string, text: string) {
  const at = yield* call(env, SYS_mmap, 0, 4096, RW, PRIVATE_ANON, -1, 0);
  env.mem.write(at, encodeUtf8(`${path}\0`));
  const fd = yield* call(env, SYS_openat, -100, at, O_WRONLY);
  if (fd < 0) return fd;
  env.mem.write(at, encodeUtf8(text));
  return yield* call(env, SYS_write, fd, at, text.length);
}

describe("a kernel with cma=", () => {
  it("reserves the area, says so, and shows it in /proc and /sys", () => {
    const t = bootKernel({}, { cmdline: "cma=7M" });
    const log = t.output();
    expect(log).toMatch(/cma: Reserved 8 MiB at 0x0000000001[0-9a-f]00000 on node -1/);
    expect(log).toMatch(/Memory: \d+K\/\d+K available \(.* 8192K cma-reserved\)/);
    const read = (path: string): string => t.kernel.readFile(path) ?? "";
    expect(read("/proc/meminfo")).toMatch(/^CmaTotal: +8192 kB\nCmaFree: +8192 kB$/m);
    expect(read("/proc/zoneinfo")).toMatch(/^ {8}cma {6}2048$/m);
    expect(read("/proc/zoneinfo")).toMatch(/^ {6}nr_free_cma +2048$/m);
    expect(read("/proc/vmstat")).toMatch(/^nr_free_cma 2048$/m);
    expect(read("/proc/vmstat")).toMatch(/^htlb_buddy_alloc_fail 0\ncma_alloc_success 0\ncma_alloc_fail 0$/m);
    expect(read("/proc/pagetypeinfo")).toMatch(/HighAtomic +CMA +Isolate/);
    expect(read("/sys/kernel/mm/cma/reserved/total_pages")).toBe("2048\n");
    expect(read("/sys/kernel/debug/cma/reserved/maxchunk")).toBe("2048\n");
    t.expectNoLeak();
  });

  it("without the parameter nothing of it is to be seen", () => {
    const t = bootKernel({}, { cmdline: "" });
    expect(t.output()).not.toContain("cma: ");
    expect(t.output()).toContain("0K cma-reserved");
    for (const file of ["meminfo", "vmstat"]) {
      expect(t.kernel.readFile(`/proc/${file}`)).not.toMatch(/^(Cma|cma_)/m);
    }
    expect(t.kernel.readFile("/proc/pagetypeinfo")).not.toContain("CMA");
    expect(t.kernel.readFile("/sys/kernel/mm/cma/reserved/total_pages")).toBeNull();
  });

  it("an area larger than memory is refused, and the machine boots", () => {
    const t = bootKernel({}, { cmdline: "cma=64M" });
    expect(t.output()).toContain("cma: Failed to reserve 64 MiB");
    expect(t.kernel.check()).toBeNull();
  });

  it("programs keep what they wrote while the area is taken from under them, given back, and taken again", () => {
    const nrPages = 1500;
    const hog: Program = function* (env) {
      const base = yield* call(env, SYS_mmap, 0, nrPages * 4096, RW, PRIVATE_ANON, -1, 0);
      if (base < 0) return 3;
      for (let i = 0; i < nrPages; i++) env.mem.st32(base + i * 4096, i);
      for (let round = 1; round < 60; round++) {
        yield PREEMPTED;
        for (let i = 0; i < nrPages; i++) if (env.mem.ld32(base + i * 4096) !== i) return 1;
        if (env.mem.ld8(base + 4095) !== round - 1) return 2;
        env.mem.st8(base + 4095, round);
      }
      return 0;
    };
    const taker: Program = function* (env) {
      for (let round = 0; round < 4; round++) {
        yield PREEMPTED;
        if ((yield* writeTo(env, `${DEBUG}/alloc`, "2048\n")) !== 5) return 1;
        yield PREEMPTED;
        if ((yield* writeTo(env, `${DEBUG}/alloc`, "1\n")) !== -12) return 2;
        if ((yield* writeTo(env, `${DEBUG}/free`, "1000\n")) !== 5) return 3;
        if ((yield* writeTo(env, `${DEBUG}/free`, "1048\n")) !== 5) return 4;
        if ((yield* writeTo(env, `${DEBUG}/alloc`, "many\n")) !== -22) return 5;
      }
      return 0;
    };
    const t = bootKernel({ "/bin/hog": hog, "/bin/taker": taker }, { cmdline: "cma=8M", ramBytes: 40 * 2 ** 20 });
    const hogs = [1, 2].map(() => t.kernel.spawn("/bin/hog", ["hog"]));
    t.kernel.run({ untilCycles: t.kernel.now() + 4_000_000 });
    const pid = t.kernel.spawn("/bin/taker", ["taker"]);
    t.kernel.run();
    expect(t.kernel.exitStatus(pid)).toBe(0);
    for (const hogPid of hogs) expect(t.kernel.exitStatus(hogPid)).toBe(0);
    expect(t.kernel.readFile("/proc/vmstat")).toMatch(/^pgmigrate_success [1-9]\d{2,}$/m);
    expect(t.kernel.readFile("/proc/vmstat")).toMatch(/^cma_alloc_success 4$/m);
    expect(t.kernel.readFile("/sys/kernel/mm/cma/reserved/release_pages_success")).toBe("8192\n");
    t.expectNoLeak();
  });
});
