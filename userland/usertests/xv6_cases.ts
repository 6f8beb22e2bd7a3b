/**
 * The memory cases of xv6's usertests, under their names, over our system calls: pointers, sbrk, text, stack.
 *
 * Expectations, not text, of user/usertests.c. Our user memory ends at TASK_SIZE (xv6: MAXVA); memory is given at the
 * first touch, as by xv6's sbrklazy().
 */

import { KERNEL_IMAGE_BASE, PAGE_SIZE, TASK_SIZE, USER_TEXT_BASE } from "../../kernel/params.ts";
import { E2BIG, EFAULT, ENAMETOOLONG } from "../../kernel/uapi/errno.ts";
import { O_CREAT, O_RDONLY, O_RDWR, O_WRONLY } from "../../kernel/uapi/mman.ts";
import {
  SYS_brk,
  SYS_execve,
  SYS_lseek,
  SYS_pipe2,
  SYS_read,
  SYS_unlink,
  SYS_write,
} from "../../kernel/uapi/syscall.ts";
import type { UserTest } from "./harness.ts";

/** What no process can have: the first page, the kernel, the end of user memory, and worse. */
const NOWHERE = [0, KERNEL_IMAGE_BASE, TASK_SIZE - PAGE_SIZE, TASK_SIZE, 2 * TASK_SIZE, 2 ** 52, -1];
const GIB = 2 ** 30;

const CASES: Readonly<Record<string, UserTest["run"]>> = {
  *copyin(t) {
    const fd = yield* t.libc.open("/tmp/copyin", O_CREAT | O_WRONLY);
    for (const address of NOWHERE) {
      t.equal(yield* t.sys(SYS_write, fd, address, 8192), -EFAULT, `write from ${address}`);
      t.equal(yield* t.sys(SYS_write, 1, address, 8192), -EFAULT, `write to the console from ${address}`);
    }
    yield* t.libc.unlink("/tmp/copyin");
  },
  *copyout(t) {
    const fd = yield* t.libc.open("/proc/meminfo", O_RDONLY);
    for (const address of NOWHERE) t.equal(yield* t.sys(SYS_read, fd, address, 512), -EFAULT, `read to ${address}`);
  },
  *copyinstr1(t) {
    for (const address of NOWHERE) t.equal(yield* t.openAt(address, O_CREAT | O_WRONLY), -EFAULT, `open ${address}`);
  },
  *copyinstr2(t) {
    const path = yield* t.string("/".padEnd(256, "x"));
    t.equal(yield* t.sys(SYS_unlink, path), -ENAMETOOLONG, "unlink of a long path");
    t.equal(yield* t.openAt(path, O_CREAT | O_WRONLY), -ENAMETOOLONG, "open of a long path");
    t.equal(yield* t.sys(SYS_execve, path, 0, 0), -ENAMETOOLONG, "execve of a long path");
    const huge = ["x".repeat(5000), "x"];
    t.equal(yield* t.libc.execve("/bin/true", huge), -E2BIG, "execve with a long argument");
  },
  *copyinstr3(t) {
    yield* t.sbrk(2 * PAGE_SIZE);
    // The last byte of the heap begins a string that has no end.
    const last = (yield* t.pageBreak()) - 1;
    t.mem.st8(last, 0x78);
    t.equal(yield* t.sys(SYS_unlink, last), -EFAULT, "unlink");
    t.equal(yield* t.openAt(last, O_CREAT | O_WRONLY), -EFAULT, "open");
    t.equal(yield* t.sys(SYS_execve, last, 0, 0), -EFAULT, "execve");
  },
  *rwsbrk(t) {
    const gone = (yield* t.sbrk(2 * PAGE_SIZE)) + PAGE_SIZE;
    t.mem.st8(gone, 1);
    yield* t.sbrk(-2 * PAGE_SIZE);
    const fd = yield* t.libc.open("/tmp/rwsbrk", O_CREAT | O_RDWR);
    t.equal(yield* t.sys(SYS_write, fd, gone, 1024), -EFAULT, "write from memory given back");
    const info = yield* t.libc.open("/proc/meminfo", O_RDONLY);
    t.equal(yield* t.sys(SYS_read, info, gone, 10), -EFAULT, "read into memory given back");
    yield* t.libc.unlink("/tmp/rwsbrk");
  },
  *sbrkbasic(t) {
    const pid = yield* t.child(function* (child) {
      // More than there can be: refused, or the page that cannot be had kills.
      const start = yield* child.sbrk(16 * GIB);
      if (start < 0) return 0;
      for (let at = start; at < start + 16 * GIB; at += PAGE_SIZE) child.mem.st8(at, 1);
      return 1;
    });
    t.check(pid !== 1, "16 GiB could be had");
    let end = yield* t.sbrk(0);
    for (let i = 0; i < 5000; i++) {
      t.equal(yield* t.sbrk(1), end, `sbrk number ${i}`);
      t.mem.st8(end++, 1);
    }
  },
  *sbrkmuch(t) {
    const bytes = 8 * 2 ** 20;
    const start = yield* t.sbrk(bytes);
    const last = start + bytes - 1;
    t.mem.st8(last, 99);
    t.equal(yield* t.sbrk(-PAGE_SIZE), start + bytes, "sbrk down");
    t.equal(yield* t.sbrk(PAGE_SIZE), start + bytes - PAGE_SIZE, "sbrk up again");
    t.equal(t.mem.ld8(last), 0, "a page given back and taken again");
    t.equal(yield* t.sbrk(-bytes), start + bytes, "sbrk to the start");
    yield* t.dies("a load above the break", (child) => child.mem.ld8(start + PAGE_SIZE));
  },
  *kernmem(t) {
    for (let i = 0; i < 40; i++) {
      yield* t.dies("a load of kernel memory", (child) => child.mem.ld8(KERNEL_IMAGE_BASE + 50_000 * i));
    }
  },
  *MAXVAplus(t) {
    for (let i = 0; i < 20; i++) {
      yield* t.dies("a store beyond user memory", (child) => child.mem.st8(TASK_SIZE * 2 ** i, 99));
    }
  },
  *sbrkarg(t) {
    const page = yield* t.sbrk(PAGE_SIZE);
    const fd = yield* t.libc.open("/tmp/sbrk", O_CREAT | O_WRONLY);
    t.equal(yield* t.sys(SYS_write, fd, page, PAGE_SIZE), PAGE_SIZE, "write from fresh memory");
    yield* t.libc.unlink("/tmp/sbrk");
    t.equal(yield* t.sys(SYS_pipe2, yield* t.sbrk(PAGE_SIZE), 0), 0, "pipe into fresh memory");
  },
  *sbrkbugs(t) {
    const start = yield* t.sbrk(10 * PAGE_SIZE);
    yield* t.sbrk(-10 * PAGE_SIZE);
    t.equal(yield* t.sbrk(0), start, "the break at its start");
    yield* t.sbrk(3500);
    t.equal(yield* t.sbrk(-(start + 3500)), -1, "sbrk below the heap");
    yield* t.sbrk(10 * PAGE_SIZE + 2048 - 3500);
    t.mem.st8((yield* t.sbrk(0)) - 1, 1);
    yield* t.sbrk(-10);
    t.equal(yield* t.sbrk(0), start + 10 * PAGE_SIZE + 2038, "the break inside a page");
  },
  *sbrklast(t) {
    yield* t.pageBreak();
    yield* t.sbrk(PAGE_SIZE);
    yield* t.sbrk(10);
    const name = (yield* t.sbrk(-20)) - 20 - 64;
    t.mem.write(name, Uint8Array.of(0x2f, 0x74, 0x6d, 0x70, 0x2f, 0x78, 0));
    const fd = yield* t.openAt(name, O_RDWR | O_CREAT);
    t.equal(yield* t.sys(SYS_write, fd, name + 5, 1), 1, "write from the last page");
    yield* t.sys(SYS_lseek, fd, 0, 0);
    t.mem.st8(name + 8, 0);
    t.equal(yield* t.sys(SYS_read, fd, name + 8, 1), 1, "read into the last page");
    t.equal(t.mem.ld8(name + 8), 0x78, "what was read");
    yield* t.sys(SYS_unlink, name);
  },
  *sbrk8000(t) {
    yield* t.sbrk(PAGE_SIZE);
    yield* t.sys(SYS_brk, 0x8000_0004);
    yield* t.sys(SYS_brk, (yield* t.sbrk(0)) - 0x7fff_fffc);
    const top = yield* t.sbrk(0);
    t.mem.st8(top - 1, t.mem.ld8(top - 1) + 1);
  },
  *validatetest(t) {
    for (let address = 0; address <= 1100 * 1024; address += PAGE_SIZE) {
      t.check((yield* t.sys(SYS_unlink, address)) < 0, `unlink of what is at ${address}`);
    }
  },
  *bsstest(t) {
    const start = yield* t.sbrk(10_000);
    t.check(
      t.mem.read(start, 10_000).every((byte) => byte === 0),
      "fresh memory is not zero",
    );
  },
  *bigargtest(t) {
    const many = Array.from({ length: 200 }, () => " ".repeat(40));
    t.equal(yield* t.libc.execve("/bin/true", many), -E2BIG, "execve with 200 arguments");
  },
  *argptest(t) {
    const fd = yield* t.libc.open("/proc/meminfo", O_RDONLY);
    const last = (yield* t.pageBreak()) - 1;
    t.check((yield* t.sys(SYS_read, fd, last, -1)) < 0, "read of −1 bytes");
  },
  *stacktest(t) {
    // Below the largest stack there is: the guard.
    yield* t.dies("a load below the stack", (child) => child.mem.ld8(child.stackPage() - 16 * 2 ** 20));
  },
  *nowrite(t) {
    for (const address of NOWHERE) yield* t.dies(`a store to ${address}`, (child) => child.mem.st8(address, 10));
  },
  *textwrite(t) {
    yield* t.dies("a store into the text", (child) => child.mem.st32(USER_TEXT_BASE, 10));
  },
  *pgbug(t) {
    const wild = 0x1a_eb0b_5b00_2f5e;
    t.equal(yield* t.sys(SYS_execve, wild, wild, 1), -EFAULT, "execve of a wild pointer");
    t.equal(yield* t.sys(SYS_pipe2, wild, 0), -EFAULT, "pipe into a wild pointer");
  },
  *badarg(t) {
    const path = yield* t.string("/bin/true");
    const argv = yield* t.sbrk(PAGE_SIZE);
    t.mem.st32(argv, 0xffff_ffff);
    for (let i = 0; i < 500; i++) t.equal(yield* t.sys(SYS_execve, path, argv, 1), -EFAULT, "execve");
  },
  *lazy_alloc(t) {
    const bytes = 16 * 2 ** 20;
    const start = yield* t.sbrk(bytes);
    t.check(start > 0, "no heap of 16 MiB");
    for (let at = start; at < start + bytes; at += 64 * PAGE_SIZE) t.mem.st32(at, at);
    for (let at = start; at < start + bytes; at += 64 * PAGE_SIZE) t.equal(t.mem.ld32(at), at, "a page");
  },
  *lazy_unmap(t) {
    const start = yield* t.pageBreak();
    for (const page of [0, 1, 200, 4095]) {
      yield* t.sbrk(16 * 2 ** 20);
      t.mem.st32(start + page * PAGE_SIZE, 1);
      t.check((yield* t.sbrk(-16 * 2 ** 20)) > 0, "sbrk down");
      yield* t.dies("a store into memory given back", (child) => child.mem.st32(start + page * PAGE_SIZE, 2));
    }
  },
  *lazy_copy(t) {
    const untouched = yield* t.sbrk(4 * PAGE_SIZE);
    t.check((yield* t.openAt(untouched + 2 * PAGE_SIZE, O_RDONLY)) < 0, "open of an empty path");
    const fd = yield* t.libc.open("/proc/meminfo", O_RDONLY);
    for (const address of [TASK_SIZE - PAGE_SIZE, TASK_SIZE, 2 * TASK_SIZE, 2 ** 39]) {
      t.equal(yield* t.sys(SYS_read, fd, address, 512), -EFAULT, `read to ${address}`);
    }
  },
  *lazy_copyinstr(t) {
    const start = yield* t.pageBreak();
    yield* t.sbrk(2 * PAGE_SIZE);
    t.mem.st8(start + PAGE_SIZE - 1, 0x2f);
    t.check((yield* t.openAt(start + PAGE_SIZE - 1, O_RDONLY)) > 0, "open of / whose end is in an untouched page");
  },
};

export const XV6_MEMORY_CASES: readonly UserTest[] = Object.entries(CASES).map(([name, run]) => ({
  name,
  origin: "xv6",
  run,
}));
