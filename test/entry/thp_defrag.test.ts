/**
 * How hard a page fault tries to get a huge page, and where mappings lie that could have some.
 *
 * Goal: THP-5, THP-6, MAP-4. Method: a fragmented machine, on which no 2 MiB are free side by side; a program that touches huge
 * ranges, advised or not, under each word of `defrag`; the counters tell who compacted.
 */

import { describe, expect, it } from "vitest";
import type { Sleeping } from "../../kernel/types.ts";
import {
  MADV_HUGEPAGE,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from "../../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../../kernel/uapi/program.ts";
import { SYS_madvise, SYS_mmap } from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const HUGE = 2 ** 21;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const DEFRAG = "/sys/kernel/mm/transparent_hugepage/defrag";

function* call(env: ProgramEnv, nr: number, ...args: number[]): Sleeping<number> {
  const result = env.syscall(nr, ...args);
  return typeof result === "number" ? result : yield* result;
}

/** Touches two huge ranges; `advised` as an argument: after MADV_HUGEPAGE. */
function* want(env: ProgramEnv): Sleeping<number> {
  const va = yield* call(env, SYS_mmap, 0, 2 * HUGE, RW, ANON, -1, 0);
  if (env.argc > 1) yield* call(env, SYS_madvise, va, 2 * HUGE, MADV_HUGEPAGE);
  env.mem.st32(va, 1);
  env.mem.st32(va + HUGE, 2);
  return env.mem.ld32(va) + env.mem.ld32(va + HUGE) === 3 ? 0 : 1;
}

/** Runs a script beside a storm; the counters afterwards. */
function withStorm(script: string, cmdline = "") {
  const t = bootKernel(
    { ...Object.fromEntries(builtinPrograms()), "/bin/want": want },
    { cmdline: `quiet transparent_hugepage=always ${cmdline}`, ramBytes: 24 * 2 ** 20 },
  );
  const storm = "sysctl vm.compaction_proactiveness=0; fragment 18M --hold 900000000 > /tmp/out & sleep 0.2";
  t.run("/bin/sh", "-c", `${storm}; ${script}; sleep 0.1; cat /proc/vmstat; wait; cat /tmp/out`);
  t.kernel.removeFiles();
  t.expectNoLeak();
  const text = t.output();
  expect(text).toMatch(/fragment: \d+ of \d+ pages kept/);
  expect(text).not.toMatch(/wrong/);
  const counter = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1]);
  const [stalls, wakes] = [counter("compact_stall"), counter("compact_daemon_wake")];
  return { text, stalls, wakes, done: counter("compact_success"), fell: counter("thp_fault_fallback") };
}
const set = (mode: string): string => `echo ${mode} > ${DEFRAG}`;

describe("a fault on a fragmented machine", () => {
  it("THP-5 takes what is free and no more with never, and where madvise was not said", () => {
    const { stalls, wakes, fell } = withStorm(`${set("never")}; want advised; ${set("madvise")}; want`);
    expect([stalls, wakes]).toEqual([0, 0]);
    expect(fell).toBeGreaterThanOrEqual(4);
  });

  it("THP-5 compacts directly in an advised range, which is the default, and with always in any", () => {
    for (const script of ["want advised", `${set("always")}; want`, `${set("defer+madvise")}; want advised`]) {
      const { stalls, wakes, done } = withStorm(script);
      expect([script, stalls > 0, wakes, done > 0]).toEqual([script, true, 0, true]);
    }
  });

  it("THP-5 leaves it to kcompactd with defer, and with defer+madvise where madvise was not said", () => {
    for (const script of [`${set("defer")}; want advised`, `${set("defer+madvise")}; want`]) {
      const { stalls, wakes } = withStorm(script);
      expect([script, stalls, wakes > 0]).toEqual([script, 0, true]);
    }
  });

  it("defrag takes one of its five words", () => {
    const { text } = withStorm(`cat ${DEFRAG}; ${set("defer+madvise")}; cat ${DEFRAG}; ${set("often")}; echo $?`);
    expect(text).toContain("always defer defer+madvise [madvise] never\n");
    expect(text).toContain("always defer [defer+madvise] madvise never\n");
    expect(text).toContain("Invalid argument");
  });
});

it("THP-6 on a full machine a fault reclaims where madvise was said, not for a request that can do without", () => {
  const programs = { ...Object.fromEntries(builtinPrograms()), "/bin/want": want };
  const t = bootKernel(programs, { cmdline: "quiet swap=16M", ramBytes: 16 * 2 ** 20, port: "raw" });
  const begin =
    "sysctl vm.watermark_boost_factor=0; memhog 15M --hold 900000000 > /tmp/out & sleep 0.6; echo always > /sys/kernel/mm/transparent_hugepage/enabled";
  // __GFP_NORETRY; then kswapd's; then a full effort.
  const tries = [`${set("always")}; want`, `${set("defer")}; want`, `${set("madvise")}; want advised`];
  const look = "cat /proc/vmstat";
  t.run(
    "/bin/sh",
    "-c",
    [begin, look, ...tries.map((script) => `${script}; ${look}`), "wait; cat /tmp/out"].join("; "),
  );
  expect(t.kernel.check()).toBeNull();
  expect(t.output()).toMatch(/memhog: \d+ pages verified, 0 wrong/);
  const grown = (name: string): number[] => {
    const all = [...t.output().matchAll(new RegExp(`^${name} (\\d+)$`, "gm"))].map(([, n]) => Number(n));
    return all.slice(1).map((n, i) => n - (all[i] as number));
  };
  expect([grown("thp_fault_alloc"), grown("thp_fault_fallback"), grown("oom_kill")]).toEqual([
    [0, 0, 2],
    [2, 2, 0],
    [0, 0, 0],
  ]);
  expect(grown("pgsteal_direct")[2]).toBeGreaterThan(500);
});

describe("mmap", () => {
  it("MAP-4 begins private anonymous memory of whole huge pages at a multiple of one, without holes between", () => {
    const places: number[] = [];
    const t = bootKernel({
      *"/bin/mapper"(env) {
        for (const [bytes, flags] of [
          [4096, ANON],
          [HUGE, ANON],
          [3 * HUGE, ANON],
          [HUGE + 4096, ANON],
          [HUGE, MAP_SHARED | MAP_ANONYMOUS],
        ] as const) {
          places.push(yield* call(env, SYS_mmap, 0, bytes, RW, flags, -1, 0));
        }
        return 0;
      },
    });
    expect(t.run("/bin/mapper")).toBe(0);
    const [small = 0, one = 0, three = 0, odd = 0, shared = 0] = places;
    expect([one % HUGE, three % HUGE]).toEqual([0, 0]);
    expect(one + HUGE).toBe(small - (small % HUGE));
    expect(three + 3 * HUGE).toBe(one);
    // Neither a length with a remainder nor shared memory: the highest gap that is large enough.
    expect([odd + HUGE + 4096, shared + HUGE]).toEqual([three, odd]);
    t.expectNoLeak();
  });
});
