/**
 * Goal: STT-1, STT-2. Method: one program that faults, allocates, sleeps, on a kernel with the tracer and one without.
 */
import { expect, it } from "vitest";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap, SYS_munmap, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const DIR = "/sys/kernel/debug/tracing";

const toucher: Program = function* (env) {
  const at = env.syscall(SYS_mmap, 0, 65_536, 3, 0x22, -1, 0) as number;
  env.mem.fill(at, 1, 65_536);
  env.syscall(SYS_munmap, at, 65_536);
  const rest = env.syscall(SYS_nanosleep, 10_000_000);
  return typeof rest === "number" ? rest : yield* rest;
};

it("STT-1 STT-2 the deepest calls of each way into the kernel, and nobody notices", () => {
  const run = (parameter: string) => {
    const t = bootKernel({ "/bin/p": toucher }, { cmdline: `quiet ${parameter}` });
    expect(t.run("/bin/p")).toBe(0);
    t.expectNoLeak();
    return t.kernel;
  };
  const traced = run("stacktrace=on");
  const plain = run("");
  expect([traced.now(), traced.steps()]).toEqual([plain.now(), plain.steps()]);
  expect(plain.readFile(`${DIR}/stack_paths`)).toBeNull();

  const paths = traced.readFile(`${DIR}/stack_paths`) ?? "";
  const bytesOf = (way: string): number => Number(new RegExp(`^${way}: (\\d+) bytes`, "m").exec(paths)?.[1]);
  for (const way of ["page fault", "system call"]) {
    expect(bytesOf(way)).toBeGreaterThan(1000);
    expect(bytesOf(way)).toBeLessThan(16_384);
  }
  expect(paths).toMatch(/^page fault: .*handleFault .*allocBlock|^page fault: .*handleFault .*spinLock/m);
  expect(paths).not.toMatch(/toucher|bootKernel|\bresume\b/);
  const size = Number(traced.readFile(`${DIR}/stack_max_size`));
  const table = traced.readFile(`${DIR}/stack_trace`) ?? "";
  expect(table).toContain(`(${size / 128} entries)`);
  expect(table).toMatch(new RegExp(`^ {2}0\\) +${size} +128 {3}\\w+$`, "m"));
});
