/**
 * Goal: dd and iotest move the bytes they say, and notice bytes that are not what was written.
 * Method: the real kernel with its ramfs; damage is done by another program between the writing and the reading.
 */
import { describe, expect, it } from "vitest";
import { O_CREAT, O_WRONLY, SEEK_SET } from "../../kernel/uapi/mman.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_lseek } from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { createLibc } from "../../userland/libc.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

function shell(
  commands: string,
  more: Readonly<Record<string, Program>> = {},
): TestKernel & { readonly status: number | undefined } {
  const kernel = bootKernel({ ...Object.fromEntries(builtinPrograms()), ...more });
  const status = kernel.run("/bin/sh", "-c", commands);
  return { ...kernel, status };
}

describe("dd", () => {
  it("copies whole and partial blocks, and counts both", () => {
    const { output, status } = shell("echo 0123456789 > /tmp/a; dd if=/tmp/a of=/tmp/b bs=4; cat /tmp/b");
    expect(output()).toContain("2+1 records in\n2+1 records out\n11 bytes copied");
    expect(output().endsWith("0123456789\n")).toBe(true);
    expect(status).toBe(0);
  });

  it("skip, seek and count are in blocks, and seek keeps what is there", () => {
    const { output } = shell(
      "echo abcdefgh > /tmp/a; echo ABCDEFGH > /tmp/b; dd if=/tmp/a of=/tmp/b bs=2 skip=1 seek=2 count=1; cat /tmp/b",
    );
    expect(output()).toContain("ABCDcdGH");
  });

  it.each(["dd bs=0", "dd bs=2M", "dd if=a if=b", "dd count=x", "dd of", "dd nonsense"])("%s: usage, 2", (command) => {
    const { output, status } = shell(command);
    expect(output()).toContain("usage: dd");
    expect(status).toBe(2);
  });

  it("a missing file is named", () => {
    expect(shell("dd if=/nope").output()).toContain("dd: /nope: No such file or directory");
  });
});

describe("iotest", () => {
  it("writes, reads back in another order, and finds nothing wrong", () => {
    const { output, status } = shell("iotest /tmp/disk --size 256K --block 8K --seed 5");
    expect(output()).toContain("32 blocks of 8192 bytes written, 32 read, 0 wrong");
    expect(status).toBe(0);
  });

  it("notices damage that happens meanwhile", () => {
    const damage: Program = function* (env) {
      const libc = createLibc(env);
      const fd = yield* libc.open("/tmp/disk", O_WRONLY | O_CREAT);
      for (let i = 0; i < 5000; i++) {
        yield* libc.call(SYS_lseek, fd, 64_000, SEEK_SET);
        yield* libc.write(fd, "0123456789abcdef");
        yield* libc.yieldNow();
      }
      return 0;
    };
    const { output } = shell("damage & iotest /tmp/disk --size 8M; wait", { "/bin/damage": damage });
    expect(output()).toMatch(/[1-9]\d* wrong/);
  });

  it.each(["iotest", "iotest /tmp/a --block 0", "iotest /tmp/a --size 1 --block 2", "iotest a b"])(
    "%s: usage",
    (command) => {
      expect(shell(command).status).toBe(2);
    },
  );
});
