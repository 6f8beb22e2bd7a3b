/**
 * The 34 virtual-memory cases of Pintos (tests/vm), under their names, over our system calls.
 *
 * Expectations, not text. Where Pintos and Unix differ, Unix counts: fork hands mappings on, so mmap-inherit looks at a
 * process behind its execve; a mapping is asked for at a place that is taken with MAP_FIXED_NOREPLACE; what lies beyond
 * the end of a file is SIGBUS.
 */

import { PAGE_SIZE, USER_TEXT_BASE } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { EBADF, EEXIST, EFAULT, EINVAL } from "../../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_PRIVATE,
  MAP_SHARED,
  O_RDONLY,
  PROT_READ,
  PROT_WRITE,
  SIGBUS,
} from "../../kernel/uapi/mman.ts";
import { SYS_lseek, SYS_mmap, SYS_munmap, SYS_nanosleep, SYS_read } from "../../kernel/uapi/syscall.ts";
import { createRandom } from "../programs/random.ts";
import { CASE_FILES, SEGFAULT, type TestProcess, type UserTest } from "./harness.ts";

const RW = PROT_READ | PROT_WRITE;
const [SAMPLE_PATH] = CASE_FILES;
/** A page and a bit, so that the end of the file lies inside a page. */
const SAMPLE = Uint8Array.from({ length: PAGE_SIZE + 794 }, (_, i) => 32 + ((i * 7 + (i >> 8)) % 90));
const WORK_BYTES = 1024 * 1024;

function* sample(t: TestProcess): Sleeping<number> {
  return yield* t.file(SAMPLE_PATH, SAMPLE);
}
function* mapFile(t: TestProcess, fd: number, bytes: number, flags = MAP_SHARED, addr = 0): Sleeping<number> {
  return yield* t.sys(SYS_mmap, addr, bytes, RW, flags, fd, 0);
}
function* mapSample(t: TestProcess): Sleeping<{ fd: number; va: number }> {
  const fd = yield* sample(t);
  const va = yield* mapFile(t, fd, SAMPLE.length);
  t.check(va > 0, `mmap of a file: ${va}`);
  return { fd, va };
}
function expectSample(t: TestProcess, va: number): void {
  const got = t.mem.read(va, SAMPLE.length);
  t.check(
    got.every((byte, i) => byte === SAMPLE[i]),
    "the mapping does not show the file",
  );
  const rest = t.mem.read(va + SAMPLE.length, 2 * PAGE_SIZE - SAMPLE.length);
  t.check(
    rest.every((byte) => byte === 0),
    "the rest of the last page is not zero",
  );
}
const isTaken = (result: number): boolean => result === -EEXIST || result === -EINVAL;

/** Stores and loads all of a buffer, transformed twice with the same stream: what page-linear does. */
function* transform(t: TestProcess, va: number, bytes: number): Sleeping<void> {
  for (let at = 0; at < bytes; at += 4) t.mem.st32(va + at, at);
  for (let round = 0; round < 2; round++) {
    const random = createRandom(5);
    for (let at = 0; at < bytes; at += 64) {
      t.mem.st32(va + at, t.mem.ld32(va + at) ^ random.below(2 ** 31));
      if (at % PAGE_SIZE === 0) yield* t.breathe();
    }
  }
  for (let at = 0; at < bytes; at += 64) t.equal(t.mem.ld32(va + at), at, `the word at ${at}`);
}

/** Fisher and Yates over the bytes at `va`, several times: their sum stays what it is. */
function* shuffle(t: TestProcess, va: number, bytes: number, rounds: number): Sleeping<void> {
  const random = createRandom(9);
  const sum = (): number => t.mem.read(va, bytes).reduce((total, byte) => total + byte, 0);
  for (let i = 0; i < bytes; i++) t.mem.st8(va + i, (i * 257) & 0xff);
  const before = sum();
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < bytes; i++) {
      const j = i + random.below(bytes - i);
      const [a, b] = [t.mem.ld8(va + i), t.mem.ld8(va + j)];
      t.mem.st8(va + i, b);
      t.mem.st8(va + j, a);
      if (i % PAGE_SIZE === 0) yield* t.breathe();
    }
    t.equal(sum(), before, "the sum of the bytes");
  }
}

const NR_CHUNKS = 8;

/** Chunks are sorted by children, each in its own memory, and handed back through files; then they are merged. */
function* mergeSort(t: TestProcess, va: number, bytes: number, isParallel: boolean, isMapped: boolean): Sleeping<void> {
  const random = createRandom(3);
  const chunk = bytes / NR_CHUNKS;
  const counts = new Float64Array(256);
  for (let i = 0; i < bytes; i++) {
    const byte = random.below(256);
    counts[byte] = (counts[byte] as number) + 1;
    t.mem.st8(va + i, byte);
  }
  const path = (nr: number): string => CASE_FILES[nr + 1] as string;
  let nrRunning = 0;
  const reap = function* (): Sleeping<void> {
    t.equal((yield* t.libc.wait(-1)).status, 0, "a child that sorts");
    nrRunning--;
  };
  for (let nr = 0; nr < NR_CHUNKS; nr++) {
    const pid = yield* t.fork(function* (child) {
      const at = va + nr * chunk;
      child.mem.write(at, child.mem.read(at, chunk).sort());
      const fd = yield* child.file(path(nr), isMapped ? new Uint8Array(chunk) : child.mem.read(at, chunk));
      if (!isMapped) return;
      const shown = yield* mapFile(child, fd, chunk);
      child.check(shown > 0, "mmap of a chunk");
      child.mem.copy(shown, at, chunk);
    });
    t.check(pid > 0, "fork");
    nrRunning++;
    if (!isParallel) yield* reap();
  }
  while (nrRunning > 0) yield* reap();
  const heads = new Array<number>(NR_CHUNKS).fill(0);
  const chunks: Uint8Array[] = [];
  for (let nr = 0; nr < NR_CHUNKS; nr++) {
    const got = yield* t.libc.readFileBytes(path(nr));
    yield* t.libc.unlink(path(nr));
    if (typeof got === "number") return t.equal(got, 0, "read of a chunk");
    chunks.push(got);
  }
  for (let i = 0; i < bytes; i++) {
    let least = -1;
    for (let nr = 0; nr < NR_CHUNKS; nr++) {
      const head = chunks[nr]?.[heads[nr] as number] ?? 256;
      if (head < 256 && (least < 0 || head < (chunks[least]?.[heads[least] as number] ?? 256))) least = nr;
    }
    t.mem.st8(va + i, chunks[least]?.[heads[least] as number] ?? 0);
    heads[least] = (heads[least] ?? 0) + 1;
    if (i % PAGE_SIZE === 0) yield* t.breathe();
  }
  let at = 0;
  for (let byte = 0; byte < 256; byte++) {
    for (let k = 0; k < (counts[byte] as number); k++) t.equal(t.mem.ld8(va + at++), byte, "a byte in order");
  }
}

const MERGE_BYTES = 64 * 1024;
/** A place on the stack with `bytes` above it, up to the page with the arguments. */
const onStack = (t: TestProcess, bytes: number): number => t.stackPage() - bytes;

const PAGE_CASES: Readonly<Record<string, UserTest["run"]>> = {
  *"pt-grow-stack"(t) {
    const at = onStack(t, 40 * 1024);
    t.mem.fill(at, 0x5a, 4096);
    t.equal(t.mem.ld8(at + 4095), 0x5a, "the stack");
  },
  *"pt-grow-pusha"(t) {
    t.mem.st32(onStack(t, 8 * PAGE_SIZE) - 32, 7);
  },
  *"pt-grow-bad"(t) {
    yield* t.dies("a store far below the stack", (child) => child.mem.st32(child.stackPage() - 64 * 2 ** 20, 1));
  },
  *"pt-big-stk-obj"(t) {
    yield* transform(t, onStack(t, 64 * 1024), 64 * 1024);
  },
  *"pt-bad-addr"(t) {
    yield* t.dies("a load of 0x04000000", (child) => child.mem.ld32(0x0400_0000));
  },
  *"pt-bad-read"(t) {
    const fd = yield* sample(t);
    yield* t.sys(SYS_lseek, fd, 0, 0);
    t.equal(yield* t.sys(SYS_read, fd, 0x0400_0000, 123), -EFAULT, "read to a bad address");
  },
  *"pt-write-code"(t) {
    yield* t.dies("a store into the text", (child) => child.mem.st32(USER_TEXT_BASE, 0));
  },
  *"pt-write-code2"(t) {
    const fd = yield* sample(t);
    yield* t.sys(SYS_lseek, fd, 0, 0);
    t.equal(yield* t.sys(SYS_read, fd, USER_TEXT_BASE, 1), -EFAULT, "read into the text");
  },
  *"pt-grow-stk-sc"(t) {
    const fd = yield* sample(t);
    yield* t.sys(SYS_lseek, fd, 0, 0);
    const at = onStack(t, 24 * 1024);
    t.equal(yield* t.sys(SYS_read, fd, at, SAMPLE.length), SAMPLE.length, "read onto the stack");
    t.equal(t.mem.ld8(at + 100), SAMPLE[100] as number, "what was read");
  },
  *"page-linear"(t) {
    yield* transform(t, yield* t.pages(WORK_BYTES / PAGE_SIZE), WORK_BYTES);
  },
  *"page-parallel"(t) {
    for (let nr = 0; nr < 4; nr++) {
      yield* t.fork(function* (child) {
        yield* transform(child, yield* child.pages(64), 64 * PAGE_SIZE);
      });
    }
    for (let nr = 0; nr < 4; nr++) t.equal((yield* t.libc.wait(-1)).status, 0, "a child");
  },
  *"page-merge-seq"(t) {
    yield* mergeSort(t, yield* t.pages(MERGE_BYTES / PAGE_SIZE), MERGE_BYTES, false, false);
  },
  *"page-merge-par"(t) {
    yield* mergeSort(t, yield* t.pages(MERGE_BYTES / PAGE_SIZE), MERGE_BYTES, true, false);
  },
  *"page-merge-stk"(t) {
    yield* mergeSort(t, onStack(t, MERGE_BYTES), MERGE_BYTES, true, false);
  },
  *"page-merge-mm"(t) {
    yield* mergeSort(t, yield* t.pages(MERGE_BYTES / PAGE_SIZE), MERGE_BYTES, true, true);
  },
  *"page-shuffle"(t) {
    yield* shuffle(t, yield* t.pages(8), 8 * PAGE_SIZE, 3);
  },
};

const MMAP_CASES: Readonly<Record<string, UserTest["run"]>> = {
  *"mmap-read"(t) {
    const { va } = yield* mapSample(t);
    expectSample(t, va);
    t.equal(yield* t.sys(SYS_munmap, va, SAMPLE.length), 0, "munmap");
  },
  *"mmap-close"(t) {
    const { fd, va } = yield* mapSample(t);
    yield* t.libc.close(fd);
    expectSample(t, va);
  },
  *"mmap-unmap"(t) {
    const { va } = yield* mapSample(t);
    yield* t.sys(SYS_munmap, va, SAMPLE.length);
    yield* t.dies("a load of what was unmapped", (child) => child.mem.ld8(va));
  },
  *"mmap-overlap"(t) {
    const { fd, va } = yield* mapSample(t);
    t.equal(yield* mapFile(t, fd, PAGE_SIZE, MAP_SHARED | MAP_FIXED_NOREPLACE, va), -EEXIST, "mmap over a mapping");
  },
  *"mmap-twice"(t) {
    const { fd, va } = yield* mapSample(t);
    const again = yield* mapFile(t, fd, SAMPLE.length);
    t.check(again > 0 && again !== va, "the second mapping");
    expectSample(t, again);
    t.mem.st8(va + 5, 0xee);
    t.equal(t.mem.ld8(again + 5), 0xee, "a store seen through the other mapping");
  },
  *"mmap-write"(t) {
    const fd = yield* t.file(SAMPLE_PATH, new Uint8Array(SAMPLE.length));
    const va = yield* mapFile(t, fd, SAMPLE.length);
    t.mem.write(va, SAMPLE);
    yield* t.sys(SYS_munmap, va, SAMPLE.length);
    const got = yield* t.libc.readFileBytes(SAMPLE_PATH);
    t.check(typeof got !== "number" && got.every((byte, i) => byte === SAMPLE[i]), "the file after the stores");
  },
  *"mmap-exit"(t) {
    yield* t.file(SAMPLE_PATH, new Uint8Array(SAMPLE.length));
    const status = yield* t.child(function* (child) {
      const fd = yield* child.libc.open(SAMPLE_PATH, 2);
      const va = yield* mapFile(child, fd, SAMPLE.length);
      child.mem.write(va, SAMPLE);
    });
    t.equal(status, 0, "the child");
    const got = yield* t.libc.readFileBytes(SAMPLE_PATH);
    t.check(typeof got !== "number" && got.every((byte, i) => byte === SAMPLE[i]), "the file after the child's end");
  },
  *"mmap-shuffle"(t) {
    const fd = yield* t.file(SAMPLE_PATH, new Uint8Array(4 * PAGE_SIZE));
    yield* shuffle(t, yield* mapFile(t, fd, 4 * PAGE_SIZE), 4 * PAGE_SIZE, 3);
  },
  *"mmap-bad-fd"(t) {
    for (const fd of [-1, 63, 12345]) t.equal(yield* mapFile(t, fd, PAGE_SIZE), -EBADF, `mmap of descriptor ${fd}`);
  },
  *"mmap-clean"(t) {
    const { fd, va } = yield* mapSample(t);
    expectSample(t, va);
    yield* t.sys(SYS_lseek, fd, 0, 0);
    yield* t.libc.write(fd, "overwritten");
    yield* t.sys(SYS_munmap, va, SAMPLE.length);
    const got = yield* t.libc.readFile(SAMPLE_PATH);
    t.check(typeof got === "string" && got.startsWith("overwritten"), "an unmapped clean page undid a write");
  },
  *"mmap-inherit"(t) {
    const { va } = yield* mapSample(t);
    t.equal(
      yield* t.child(function* (child) {
        expectSample(child, va);
      }),
      0,
      "a forked child",
    );
    const pid = yield* t.fork(function* (child) {
      yield* child.libc.execve("/bin/sleep", ["sleep", "0.01"]);
    });
    yield* t.sys(SYS_nanosleep, 1_000_000);
    const maps = yield* t.libc.readFile(`/proc/${pid}/maps`);
    t.check(typeof maps === "string" && maps !== "" && !/ ...s /.test(maps), "a mapping has survived execve");
    yield* t.libc.wait(pid);
  },
  *"mmap-misalign"(t) {
    const fd = yield* sample(t);
    t.equal(yield* mapFile(t, fd, PAGE_SIZE, MAP_SHARED | MAP_FIXED, 0x2000_1234), -EINVAL, "mmap inside a page");
    t.equal(yield* t.sys(SYS_mmap, 0, PAGE_SIZE, RW, MAP_SHARED, fd, 123), -EINVAL, "mmap of a part of a page");
  },
  *"mmap-null"(t) {
    const fd = yield* sample(t);
    t.check((yield* mapFile(t, fd, PAGE_SIZE, MAP_SHARED | MAP_FIXED, 0)) < 0, "mmap at address 0");
  },
  *"mmap-over-code"(t) {
    const fd = yield* sample(t);
    const at = USER_TEXT_BASE - (USER_TEXT_BASE % PAGE_SIZE);
    const got = yield* mapFile(t, fd, PAGE_SIZE, MAP_SHARED | MAP_FIXED_NOREPLACE, at);
    // Our text takes no pages: a mapping there may be had, and must not change what runs.
    t.check(got === at || isTaken(got), "mmap over the text");
    const status = yield* t.child(function* () {
      return 3;
    });
    t.equal(status, 3, "a child after it");
  },
  *"mmap-over-data"(t) {
    const fd = yield* sample(t);
    const page = yield* t.pageBreak();
    yield* t.sbrk(PAGE_SIZE);
    const flags = MAP_SHARED | MAP_FIXED_NOREPLACE;
    t.equal(yield* mapFile(t, fd, PAGE_SIZE, flags, page), -EEXIST, "mmap over the heap");
  },
  *"mmap-over-stk"(t) {
    const fd = yield* sample(t);
    const at = t.stackPage();
    const flags = MAP_SHARED | MAP_FIXED_NOREPLACE;
    t.equal(yield* mapFile(t, fd, PAGE_SIZE, flags, at), -EEXIST, "mmap over the stack");
  },
  *"mmap-remove"(t) {
    const { fd, va } = yield* mapSample(t);
    yield* t.libc.close(fd);
    yield* t.libc.unlink(SAMPLE_PATH);
    t.check((yield* t.libc.open(SAMPLE_PATH, O_RDONLY)) < 0, "the file is still there");
    expectSample(t, va);
  },
  *"mmap-zero"(t) {
    const fd = yield* t.file(SAMPLE_PATH, new Uint8Array(0));
    const va = yield* mapFile(t, fd, PAGE_SIZE);
    if (va < 0) return;
    const status = yield* t.child(function* (child) {
      child.mem.ld8(va);
    });
    t.check(status === 128 + SIGBUS || status === SEGFAULT, `a load beyond the end of the file ended with ${status}`);
    t.check((yield* t.sys(SYS_mmap, 0, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) === -EINVAL, "mmap of nothing");
  },
};

const SLOW = ["page-merge-seq", "page-merge-par", "page-merge-stk", "page-merge-mm", "page-shuffle", "mmap-shuffle"];

export const PINTOS_CASES: readonly UserTest[] = Object.entries({ ...PAGE_CASES, ...MMAP_CASES }).map(
  ([name, run]) => ({ name, origin: "Pintos", isSlow: SLOW.includes(name), run }),
);
