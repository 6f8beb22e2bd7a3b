/**
 * Names of files: what may be created where, and what a directory lists. Method: the shell on a booted kernel.
 */

import { describe, expect, it } from "vitest";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

function runShell(commands: string): { output: string; status: number | undefined } {
  const kernel = bootKernel(Object.fromEntries(builtinPrograms()));
  const status = kernel.run("/bin/sh", "-c", commands);
  return { output: kernel.output(), status };
}

describe("the file tree", () => {
  it("a file needs its directory", () => {
    expect(runShell("echo x > /tmp/a/b").output).toContain("No such file or directory");
    expect(runShell("echo x > /nowhere/b").output).toContain("No such file or directory");
    expect(runShell("echo x > /tmp/f; echo y > /tmp/f/g").output).toContain("Not a directory");
    expect(runShell("echo x > /proc/new").status).not.toBe(0);
  });

  it("a directory lists its own files, not those below", () => {
    const { output } = runShell("echo x > /tmp/inner; echo x > /outer; ls /");
    expect(output).toContain("outer");
    expect(output).not.toContain("inner");
    expect(runShell("echo x > /tmp/inner; ls /tmp").output).toContain("inner");
  });
});

it("the census knows pages of files", () => {
  const kernel = bootKernel(Object.fromEntries(builtinPrograms()));
  const files = (): number => kernel.kernel.census().files;
  const before = files();
  kernel.run("/bin/sh", "-c", "dd if=/dev/zero of=/tmp/f bs=4K count=5");
  expect(files()).toBe(before + 5);
  kernel.run("/bin/sh", "-c", "rm /tmp/f");
  expect(files()).toBe(before);
});

it("CommitLimit follows vm.overcommit_ratio (bug: it said half of RAM whatever the ratio was)", () => {
  const limit = (text: string): number => Number(/CommitLimit: +(\d+) kB/.exec(text)?.[1]);
  const total = (text: string): number => Number(/MemTotal: +(\d+) kB/.exec(text)?.[1]);
  const half = runShell("cat /proc/meminfo").output;
  const all = runShell("sysctl vm.overcommit_ratio=100; cat /proc/meminfo").output;
  expect(limit(half)).toBe(Math.floor(total(half) / 8) * 4);
  expect(limit(all)).toBe(total(all));
});
