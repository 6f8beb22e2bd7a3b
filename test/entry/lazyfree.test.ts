/**
 * Lazily freed memory, from the program's side.
 *
 * Goal: LZF-1 … LZF-3. Method: programs that know what each of their pages may read as: what was written to it last, or
 * zeros if it was given up since; with memory to spare, without any, with both policies of reclaim, after forks, and with
 * the pages in swap. The auditor walks everything after each step of a random family of processes.
 */

import { describe, expect, it } from "vitest";
import type { Sleeping } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import * as mman from "../../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { createLibc } from "../../userland/libc.ts";
import { createRandom } from "../../userland/programs/random.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";
import { bootDrivers } from "../support/driver_kernel.ts";

const RW = mman.PROT_READ | mman.PROT_WRITE;
const ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS;
const PAGE = 4096;
const MIB = 2 ** 20;

function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "number" ? result : yield* result;
}
const map = (env: ProgramEnv, bytes: number): Sleeping<number> => call(env, sys.SYS_mmap, 0, bytes, RW, ANON, -1, 0);
const free = (env: ProgramEnv, va: number, bytes: number): Sleeping<number> =>
  call(env, sys.SYS_madvise, va, bytes, mman.MADV_FREE);

const counter = ({ kernel }: TestKernel, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(kernel.readFile("/proc/vmstat") ?? "")?.[1]);
/** A row of smaps of a process, all its mappings together, in KiB. */
const smaps = ({ kernel }: TestKernel, pid: number, row: string): number =>
  Number(new RegExp(`^${row}: +(\\d+) kB$`, "m").exec(kernel.readFile(`/proc/${pid}/smaps_rollup`) ?? "")?.[1]);

/** Writes to page `i` what only this page of this round has: its first and last word. */
function stamp(env: ProgramEnv, va: number, i: number, round: number): void {
  env.mem.st32(va + i * PAGE, 0x1000_0000 * round + i + 1);
  env.mem.st32(va + i * PAGE + PAGE - 4, i + 1);
}
/** "kept", "zero", or "wrong". */
function look(env: ProgramEnv, va: number, i: number, round: number): "kept" | "zero" | "wrong" {
  const [first, last] = [env.mem.ld32(va + i * PAGE), env.mem.ld32(va + i * PAGE + PAGE - 4)];
  if (first === 0 && last === 0) return "zero";
  return first === 0x1000_0000 * round + i + 1 && last === i + 1 ? "kept" : "wrong";
}

describe("MADV_FREE", () => {
  it("LZF-1 changes nothing while there is memory; smaps and vmstat say what may be lost", () => {
    const seen: number[] = [];
    const t = bootKernel({
      *"/bin/giver"(env) {
        const pid = yield* call(env, sys.SYS_getpid);
        const va = yield* map(env, 64 * PAGE);
        for (let i = 0; i < 64; i++) stamp(env, va, i, 1);
        seen.push(smaps(t, pid, "LazyFree"));
        if ((yield* free(env, va, 64 * PAGE)) !== 0) return 1;
        seen.push(smaps(t, pid, "LazyFree"), counter(t, "pglazyfree"), counter(t, "nr_inactive_file"));
        if (t.kernel.check() !== null) return 2;
        for (let i = 0; i < 64; i++) if (look(env, va, i, 1) !== "kept") return 3;
        for (let i = 0; i < 5; i++) stamp(env, va, i, 2);
        seen.push(smaps(t, pid, "LazyFree"), smaps(t, pid, "Anonymous") - smaps(t, pid, "Rss"));
        // A page given up twice counts once; freed memory goes as ever.
        yield* free(env, va, 64 * PAGE);
        seen.push(smaps(t, pid, "LazyFree"), counter(t, "pglazyfree"));
        yield* call(env, sys.SYS_munmap, va, 64 * PAGE);
        seen.push(counter(t, "nr_inactive_file"), counter(t, "pglazyfreed"));
        return t.kernel.check() === null ? 0 : 4;
      },
    });
    expect(t.run("/bin/giver")).toBe(0);
    expect(seen).toEqual([0, 256, 64, 64, 236, 0, 256, 64, 0, 0]);
    t.expectNoLeak();
  });

  it("LZF-1 is for private anonymous memory that is not locked", () => {
    const t = bootKernel({
      *"/bin/refused"(env) {
        const shared = yield* call(env, sys.SYS_mmap, 0, PAGE, RW, mman.MAP_SHARED | mman.MAP_ANONYMOUS, -1, 0);
        if ((yield* free(env, shared, PAGE)) !== -EINVAL) return 1;
        const va = yield* map(env, PAGE);
        yield* call(env, sys.SYS_mlock, va, PAGE);
        return (yield* free(env, va, PAGE)) === -EINVAL ? 0 : 2;
      },
    });
    expect(t.run("/bin/refused")).toBe(0);
    t.expectNoLeak();
  });

  for (const policy of ["lists", "mglru"]) {
    it(`LZF-1 LZF-2 LZF-3 reclaim drops what was not written to since, and nothing else (${policy})`, () => {
      const NR = 2048;
      const nr = { kept: 0, zero: 0, wrong: 0 };
      const t = bootKernel(
        {
          *"/bin/giver"(env) {
            const va = yield* map(env, NR * PAGE);
            for (let i = 0; i < NR; i++) stamp(env, va, i, 1);
            if ((yield* free(env, va, NR * PAGE)) !== 0) return 1;
            for (let i = 0; i < NR; i += 4) stamp(env, va, i, 2);
            for (let i = 1; i < NR; i += 4) if (look(env, va, i, 1) !== "kept") return 2;
            // More than there is without what was given up: no swap, so nothing else can go.
            const more = yield* map(env, 26 * MIB);
            for (let i = 0; i < 6656; i++) {
              stamp(env, more, i, 3);
              if (counter(t, "pglazyfreed") >= NR / 2) break;
            }
            if (t.kernel.check() !== null) return 3;
            // Pages of zeros need frames, too.
            yield* call(env, sys.SYS_munmap, more, 26 * MIB);
            for (let i = 0; i < NR; i++) {
              if (i % 4 === 0 && look(env, va, i, 2) !== "kept") return 4;
              if (i % 4 !== 0) nr[look(env, va, i, 1)]++;
            }
            return 0;
          },
        },
        { cmdline: `quiet reclaim=${policy}`, ramBytes: 32 * MIB },
      );
      expect(t.run("/bin/giver")).toBe(0);
      expect([nr.wrong, nr.kept + nr.zero]).toEqual([0, (NR * 3) / 4]);
      expect(nr.zero).toBe(counter(t, "pglazyfreed"));
      expect(nr.zero).toBeGreaterThan(500);
      expect(counter(t, "pgsteal_file")).toBe(nr.zero);
      expect([counter(t, "pswpout"), counter(t, "oom_kill")]).toEqual([0, 0]);
      t.expectNoLeak();
    });
  }

  it("LZF-2 of two processes that share a page only the one that gave it up may lose it", () => {
    const NR = 512;
    const t = bootKernel({
      *"/bin/parent"(env) {
        const va = yield* map(env, NR * PAGE);
        for (let i = 0; i < NR; i++) stamp(env, va, i, 1);
        const entry = env.entryOf(function* (child) {
          yield* free(child, va, NR * PAGE);
          for (let i = 0; i < NR; i += 2) stamp(child, va, i, 2);
          const more = yield* map(child, 24 * MIB);
          for (let i = 0; i < 4500; i++) child.mem.st32(more + i * PAGE, 1);
          for (let i = 0; i < NR; i++) if (look(child, va, i, i % 2 === 0 ? 2 : 1) === "wrong") return 1;
          return 0;
        });
        const pid = yield* call(env, sys.SYS_fork, entry, 0);
        yield* call(env, sys.SYS_wait4, pid, va, 0);
        const status = env.mem.ld32(va);
        for (let i = 1; i < NR; i++) if (look(env, va, i, 1) !== "kept") return 100;
        return status >>> 8;
      },
    });
    expect(t.run("/bin/parent")).toBe(0);
    t.expectNoLeak();
  });

  it("LZF-3 what is in swap already gives its slot up at once", () => {
    const slots: number[] = [];
    const used = (): number => {
      const [, total = "0", left = "0"] =
        /SwapTotal: +(\d+)[\s\S]*SwapFree: +(\d+)/.exec(t.kernel.readFile("/proc/meminfo") ?? "") ?? [];
      return (Number(total) - Number(left)) / 4;
    };
    const t = bootDrivers(
      {
        ramBytes: 32 * MIB,
        cmdline: "quiet modules=disk swiotlb=256K",
        devices: { disk0: { seek_cycles: 2_000, kib_cycles: 200 } },
      },
      {
        *"/bin/giver"(env) {
          const NR = 9000;
          const va = yield* map(env, NR * PAGE);
          for (let i = 0; i < NR; i++) stamp(env, va, i, 1);
          slots.push(used());
          yield* free(env, va, NR * PAGE);
          slots.push(used());
          if (t.kernel.check() !== null) return 1;
          const nr = { kept: 0, zero: 0, wrong: 0 };
          for (let i = 0; i < NR; i++) nr[look(env, va, i, 1)]++;
          return nr.wrong === 0 && nr.zero > 1000 && nr.kept > 100 ? 0 : 2;
        },
      },
    );
    expect(t.sh("mkswap /dev/sda; swapon /dev/sda; giver")).toBe(0);
    expect(slots[0]).toBeGreaterThan(1000);
    expect(slots[1]).toBeLessThan(200);
    expect(t.sh("swapoff -a; rmmod disk")).toBe(0);
    t.expectUnloaded();
  });

  it("LZF-1 LZF-2 random families of processes read nothing but what they may", () => {
    const NR = 96;
    for (const seed of [1, 2]) {
      const random = createRandom(seed);
      const t = bootKernel(
        {
          *"/bin/family"(env) {
            const va = yield* map(env, NR * PAGE);
            /** Per page: the round it was written in, and whether it may be zeros since. */
            const rounds = new Int32Array(NR);
            const mayBeZero = new Uint8Array(NR).fill(1);
            const live = function* (self: ProgramEnv, depth: number): Sleeping<number> {
              for (let step = 0; step < 24; step++) {
                const [from, nr] = [random.below(NR), 1 + random.below(24)];
                const end = Math.min(NR, from + nr);
                const kind = random.below(10);
                if (kind < 4) {
                  for (let i = from; i < end; i++) stamp(self, va, i, (rounds[i] = 1 + random.below(6)));
                  mayBeZero.fill(0, from, end);
                } else if (kind < 7) {
                  yield* free(self, va + from * PAGE, (end - from) * PAGE);
                  mayBeZero.fill(1, from, end);
                } else if (kind === 7 && depth < 2) {
                  const kept = [rounds.slice(), mayBeZero.slice()] as const;
                  const entry = self.entryOf((child) => live(child, depth + 1));
                  const pid = yield* call(self, sys.SYS_fork, entry, 0);
                  yield* call(self, sys.SYS_wait4, pid, 0, 0);
                  rounds.set(kept[0]);
                  mayBeZero.set(kept[1]);
                } else if (kind === 8) {
                  // All memory that is to be had, by somebody for whom nobody is killed.
                  const libc = createLibc(self);
                  for (const pages of ["8", "0"]) yield* libc.writeFile("/proc/sys/vm/nr_hugepages", pages);
                }
                for (let i = from; i < end; i++) {
                  const found = look(self, va, i, rounds[i] as number);
                  if (found === "wrong" || (found === "zero" && mayBeZero[i] === 0)) return 100 + kind;
                }
                const problem = step % 6 === 0 ? t.kernel.check() : null;
                if (problem !== null) throw new Error(problem);
              }
              return 0;
            };
            return yield* live(env, 0);
          },
        },
        { ramBytes: 16 * MIB, seed: `family ${seed}` },
      );
      expect([seed, t.run("/bin/family")]).toEqual([seed, 0]);
      expect(counter(t, "pglazyfree")).toBeGreaterThan(50);
      expect(counter(t, "pglazyfreed")).toBeGreaterThan(10);
      t.expectNoLeak();
    }
  });
});
