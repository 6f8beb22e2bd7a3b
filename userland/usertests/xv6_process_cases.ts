/**
 * The process cases of xv6's usertests that are about memory, too: fork, exec, exit, wait, running out of it.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { EACCES, ECHILD, ENOENT } from "../../kernel/uapi/errno.ts";
import { SIGKILL } from "../../kernel/uapi/mman.ts";
import { SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { SEGFAULT, type TestProcess, type UserTest } from "./harness.ts";

const MIB = 2 ** 20;

/** Takes all memory there is, page by page, as xv6's mem(): how many blocks. */
function* takeAll(t: TestProcess): Sleeping<number> {
  let nr = 0;
  for (;;) {
    const at = yield* t.sbrk(64 * PAGE_SIZE);
    if (at < 0) return nr;
    // The last of them may be a promise that memory cannot keep, and kill.
    for (let page = 0; page < 64; page++) t.mem.st32(at + page * PAGE_SIZE, nr);
    nr++;
    yield* t.breathe();
  }
}

/** Dead by SIGKILL: the page that there was no memory for. */
const OUT_OF_MEMORY = 128 + SIGKILL;

const CASES: Readonly<Record<string, UserTest["run"]>> = {
  *exitwait(t) {
    for (let i = 0; i < 100; i++) {
      const status = yield* t.child(function* () {
        return i;
      });
      t.equal(status, i, "the status of a child");
    }
  },
  *twochildren(t) {
    for (let i = 0; i < 50; i++) {
      for (let child = 0; child < 2; child++) t.check((yield* t.fork(function* () {})) > 0, "fork");
      for (let child = 0; child < 2; child++) t.check((yield* t.libc.wait(-1)).pid > 0, "wait");
    }
  },
  *forkfork(t) {
    for (let i = 0; i < 2; i++) {
      yield* t.fork(function* (child) {
        for (let j = 0; j < 40; j++) {
          child.equal(yield* child.child(function* () {}), 0, "a grandchild");
        }
      });
    }
    for (let i = 0; i < 2; i++) t.equal((yield* t.libc.wait(-1)).status, 0, "a child that forks");
  },
  *forkforkfork(t) {
    const pid = yield* t.fork(function* (child) {
      for (;;) {
        // Nobody waits for them, and the last fork may find no room.
        if ((yield* child.fork(function* () {})) < 0) return 0;
        const { pid: ended } = yield* child.libc.wait(-1, 1);
        if (ended < 0 && ended !== -ECHILD) return 1;
        yield* child.breathe();
      }
    });
    yield* t.sys(SYS_nanosleep, 20_000_000);
    yield* t.libc.kill(pid, SIGKILL);
    yield* t.libc.wait(pid);
  },
  *reparent(t) {
    const master = yield* t.libc.getpid();
    for (let i = 0; i < 50; i++) {
      yield* t.child(function* (child) {
        child.check((yield* child.fork(function* () {})) > 0, "fork");
      });
    }
    t.equal(yield* t.libc.getpid(), master, "its own pid");
    t.equal((yield* t.libc.wait(-1)).pid, -ECHILD, "children of children");
  },
  *reparent2(t) {
    for (let i = 0; i < 40; i++) {
      yield* t.child(function* (child) {
        yield* child.fork(function* () {});
        yield* child.fork(function* () {});
      });
    }
  },
  *killstatus(t) {
    for (let i = 0; i < 50; i++) {
      const pid = yield* t.fork(function* (child) {
        for (;;) yield* child.libc.yieldNow();
      });
      yield* t.sys(SYS_nanosleep, 10_000);
      yield* t.libc.kill(pid, SIGKILL);
      t.equal((yield* t.libc.wait(pid)).status, 128 + SIGKILL, "the status of a killed child");
    }
  },
  *forktest(t) {
    let nr = 0;
    for (; nr < 1000; nr++) {
      const pid = yield* t.fork(function* (child) {
        yield* child.sys(SYS_nanosleep, 500_000_000);
      });
      if (pid < 0) break;
    }
    t.check(nr > 10 && nr < 1000, `fork worked ${nr} times`);
    for (let i = 0; i < nr; i++) t.check((yield* t.libc.wait(-1)).pid > 0, "wait stopped early");
    t.equal((yield* t.libc.wait(-1)).pid, -ECHILD, "wait got too many");
  },
  *mem(t) {
    const status = yield* t.child(function* (child) {
      child.check((yield* takeAll(child)) > 4, "no memory at all");
    });
    t.check(status === 0 || status === OUT_OF_MEMORY, `ended with ${status}`);
    t.check((yield* t.sbrk(MIB)) >= 0, "no memory afterwards");
  },
  *sbrkfail(t) {
    const pids: number[] = [];
    for (let i = 0; i < 10; i++) {
      const pid = yield* t.fork(function* (child) {
        const start = yield* child.sbrk(16 * MIB);
        for (let at = start; start >= 0 && at < start + 16 * MIB; at += 16 * PAGE_SIZE) {
          child.mem.st8(at, 1);
          yield* child.breathe();
        }
        yield* child.sys(SYS_nanosleep, 1e9);
      });
      if (pid > 0) pids.push(pid);
    }
    yield* t.sys(SYS_nanosleep, 50_000_000);
    for (const pid of pids) yield* t.libc.kill(pid, SIGKILL);
    for (const pid of pids) yield* t.libc.wait(pid);
    const page = yield* t.sbrk(PAGE_SIZE);
    t.check(page >= 0, "no page after all have gone");
    t.mem.st8(page, 1);
  },
  *exectest(t) {
    const status = yield* t.child(function* (child) {
      yield* child.libc.execve("/bin/false", ["false"]);
      return 7;
    });
    t.equal(status, 1, "the status of what was executed");
    t.check([-ENOENT, -EACCES].includes(yield* t.libc.execve("/bin/none", ["none"])), "execve of nothing");
  },
  *execout(t) {
    for (let avail = 0; avail < 6; avail++) {
      const status = yield* t.child(function* (child) {
        const start = yield* child.sbrk(0);
        yield* child.libc.reserve();
        const nr = yield* takeAll(child);
        // Some pages back, so that execve gets further each time.
        yield* child.sbrk(-Math.min(avail * 4, nr * 64) * PAGE_SIZE);
        child.check((yield* child.sbrk(0)) >= start, "the break");
        yield* child.libc.execve("/bin/true", ["true"]);
      });
      t.check(status === 0 || status === OUT_OF_MEMORY, `execve without memory ended with ${status}`);
    }
  },
  *cowtest(t) {
    // Not of usertests.c but of the lab that xv6 is used for: parent and children write what they share.
    const nrPages = 256;
    const va = yield* t.pages(nrPages);
    for (let i = 0; i < nrPages; i++) t.mem.st32(va + i * PAGE_SIZE, i);
    for (let n = 1; n <= 3; n++) {
      yield* t.fork(function* (child) {
        for (let i = 0; i < nrPages; i += n) child.mem.st32(va + i * PAGE_SIZE, 1000 * n + i);
        yield* child.libc.yieldNow();
        for (let i = 0; i < nrPages; i++) {
          child.equal(child.mem.ld32(va + i * PAGE_SIZE), i % n === 0 ? 1000 * n + i : i, "a page of a child");
        }
      });
    }
    for (let n = 0; n < 3; n++) t.equal((yield* t.libc.wait(-1)).status, 0, "a child");
    for (let i = 0; i < nrPages; i++) t.equal(t.mem.ld32(va + i * PAGE_SIZE), i, "a page of the parent");
  },
  *lazy_fork(t) {
    const start = yield* t.sbrk(16 * PAGE_SIZE);
    t.mem.st32(start + 4 * PAGE_SIZE, 44);
    const status = yield* t.child(function* (child) {
      child.equal(child.mem.ld32(start + 4 * PAGE_SIZE), 44, "a touched page");
      child.equal(child.mem.ld32(start + 5 * PAGE_SIZE), 0, "an untouched page");
      child.mem.st32(start + 5 * PAGE_SIZE, 55);
      yield* child.sbrk(-16 * PAGE_SIZE);
      child.mem.ld32(start);
    });
    t.equal(status, SEGFAULT, "a load above the break of the child");
    t.equal(t.mem.ld32(start + 5 * PAGE_SIZE), 0, "the parent's page");
  },
};

const SLOW = ["mem", "sbrkfail", "execout", "forktest", "forkforkfork"];

export const XV6_PROCESS_CASES: readonly UserTest[] = Object.entries(CASES).map(([name, run]) => ({
  name,
  origin: "xv6",
  isSlow: SLOW.includes(name),
  run,
}));
