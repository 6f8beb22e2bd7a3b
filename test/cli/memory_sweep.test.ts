/**
 * The fault sweep over address spaces: each allocation of each kind of call fails once, and some with all later ones.
 *
 * Goal: MAP-1, MRM-1, PRC-4, PRC-5, PFL-1, FRK-1: what fails is undone, and nobody reads what he did not write. Method: a
 * program per kind (files, anonymous memory, mremap, huge pages, execve), which goes on after a call that failed and
 * throws if content is wrong; each run is judged as scripts/fault_sweep.ts does: invariants, leaks, reports, hangs. Here
 * every seventh allocation; `npm run sweep:memory` takes all of them, `npm run sweep:swap` those of a machine that swaps.
 */

import { describe, expect, it } from "vitest";
import type { Sleeping } from "../../kernel/types.ts";
import * as mman from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import {
  SYS_ftruncate,
  SYS_madvise,
  SYS_mmap,
  SYS_mprotect,
  SYS_mremap,
  SYS_munmap,
} from "../../kernel/uapi/syscall.ts";
import { faultSweep } from "../../scripts/fault_sweep.ts";
import { loadWorkloads } from "../../scripts/workloads.ts";
import { createLibc, type Libc } from "../../userland/libc.ts";

const IS_WHOLE = process.env.SLABTOWN_SWEEP === "all";
const PAGE = 4096;
const HUGE = 512 * PAGE;
const RW = mman.PROT_READ | mman.PROT_WRITE;
const ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS;

const map = (libc: Libc, bytes: number, flags = ANON, fd = -1): Sleeping<number> =>
  libc.call(SYS_mmap, 0, bytes, RW, flags, fd, 0);
/** Content is wrong: no error that a lack of memory excuses. */
function expectWord({ mem }: ProgramEnv, va: number, value: number, what: string): void {
  if (mem.ld32(va) !== value) throw new Error(`${what}: ${mem.ld32(va)} instead of ${value}`);
}
/** Forks a child that runs `body`, and waits for it. */
function* inChild(libc: Libc, body: Program): Sleeping<void> {
  const pid = yield* libc.fork(body);
  if (pid > 0) yield* libc.wait(pid);
}

// Found by the first: fork counted pages of tmpfs in private mappings as pages of files, and exit as shared memory.
const KINDS: Readonly<Record<string, Program>> = {
  *"file mappings"(env) {
    const libc = createLibc(env);
    const fd = yield* libc.open("/tmp/f", mman.O_CREAT | mman.O_RDWR);
    if (fd < 0 || (yield* libc.writeAll(fd, new Uint8Array(3 * PAGE).fill(7))) !== 3 * PAGE) return 1;
    const shared = yield* map(libc, 3 * PAGE, mman.MAP_SHARED, fd);
    const own = yield* map(libc, 3 * PAGE, mman.MAP_PRIVATE, fd);
    if (shared > 0) env.mem.st32(shared + PAGE, 11);
    if (own > 0) env.mem.st32(own, 12);
    if (shared > 0 && own > 0) expectWord(env, own + PAGE, 11, "a page that only the other mapping has written");
    if (shared > 0) expectWord(env, shared, 0x0707_0707, "the file, after a store to a private mapping");
    yield* inChild(libc, function* (child) {
      if (own > 0) child.mem.st32(own, 13);
      if (shared > 0) child.mem.st32(shared + 2 * PAGE, 14);
      return 0;
    });
    if (own > 0) expectWord(env, own, 12, "a private page, after the child's store");
    yield* libc.call(SYS_ftruncate, fd, PAGE);
    if (shared > 0) expectWord(env, shared, 0x0707_0707, "what a truncation leaves");
    yield* libc.close(fd);
    yield* libc.unlink("/tmp/f");
    return 0;
  },
  *"anonymous memory, cut and copied"(env) {
    const libc = createLibc(env);
    const va = yield* map(libc, 9 * PAGE);
    if (va < 0) return 1;
    for (let i = 0; i < 9; i++) env.mem.st32(va + i * PAGE, i + 1);
    yield* libc.call(SYS_mprotect, va + 3 * PAGE, PAGE, mman.PROT_READ);
    yield* inChild(libc, function* (child) {
      for (let i = 0; i < 3; i++) child.mem.st32(va + i * PAGE, 100);
      yield* inChild(createLibc(child), function* (grandchild) {
        expectWord(grandchild, va, 100, "the parent's page");
        grandchild.mem.st32(va, 200);
        return 0;
      });
      expectWord(child, va, 100, "the child's page");
      return 0;
    });
    for (let i = 0; i < 9; i++) expectWord(env, va + i * PAGE, i + 1, "the first process's page");
    yield* libc.call(SYS_munmap, va + 5 * PAGE, PAGE);
    expectWord(env, va + 8 * PAGE, 9, "behind a hole");
    return 0;
  },
  *mremap(env) {
    const libc = createLibc(env);
    const va = yield* map(libc, 2 * HUGE + 3 * PAGE);
    if (va < 0) return 1;
    const places = [0, HUGE, 2 * HUGE + 2 * PAGE];
    for (const at of places) env.mem.st32(va + at, at + 1);
    const to = yield* libc.call(SYS_mremap, va, 2 * HUGE + 3 * PAGE, 4 * HUGE, mman.MREMAP_MAYMOVE);
    for (const at of places) expectWord(env, (to > 0 ? to : va) + at, at + 1, "a page that moved or stayed");
    if (to > 0) yield* libc.call(SYS_mremap, to, 4 * HUGE, PAGE, 0);
    if (to > 0) expectWord(env, to, 1, "what is left");
    return 0;
  },
  *"huge pages, and fork"(env) {
    const libc = createLibc(env);
    const va = yield* map(libc, HUGE);
    if (va < 0) return 1;
    yield* libc.call(SYS_madvise, va, HUGE, mman.MADV_HUGEPAGE);
    for (const at of [0, 5, 511]) env.mem.st32(va + at * PAGE, at + 1);
    yield* inChild(libc, function* (child) {
      child.mem.st32(va + 5 * PAGE, 50);
      expectWord(child, va + 511 * PAGE, 512, "the child's copy");
      return 0;
    });
    for (const at of [0, 5, 511]) expectWord(env, va + at * PAGE, at + 1, "the parent's huge page");
    yield* libc.call(SYS_madvise, va, HUGE, mman.MADV_COLLAPSE);
    for (const at of [0, 5, 511]) expectWord(env, va + at * PAGE, at + 1, "what was collapsed");
    return 0;
  },
  *execve(env) {
    const libc = createLibc(env);
    const va = yield* map(libc, PAGE);
    if (va < 0) return 1;
    env.mem.st32(va, 99);
    for (let i = 0; i < 2; i++) {
      yield* inChild(libc, function* (child) {
        const error = yield* createLibc(child).execve("/bin/uname", ["uname", "-a"]);
        // Still the old program, with its memory.
        expectWord(child, va, 99, `after execve failed with ${error}`);
        return 1;
      });
    }
    expectWord(env, va, 99, "the parent's page");
    return 0;
  },
};

describe("every allocation fails once", () => {
  for (const [kind, program] of Object.entries(KINDS)) {
    it(
      `MAP-1 MRM-1 PRC-4 PRC-5 PFL-1: ${kind}`,
      async () => {
        const set = await loadWorkloads(["true"]);
        const result = await faultSweep({
          machine: { nrCpus: 2, ramBytes: 16 * 2 ** 20, seed: "1", cmdline: "" },
          set: { ...set, programs: new Map([...set.programs, ["/bin/true", program]]) },
          from: IS_WHOLE ? 1 : 3,
          to: undefined,
          step: IS_WHOLE ? 1 : 11,
          nrPersistent: IS_WHOLE ? Number.POSITIVE_INFINITY : 2,
          stop: { reason: "none" },
          onProgress: () => {},
          onFinding: () => {},
        });
        expect(result.findings).toEqual([]);
        expect(result.nrRequests).toBeGreaterThan(25);
        expect(result.nrOnce).toBeGreaterThan(1);
        if (process.env.SLABTOWN_SWEEP !== undefined) process.stderr.write(`${kind}: ${result.nrRequests} requests\n`);
      },
      IS_WHOLE ? 1_800_000 : 60_000,
    );
  }
});
