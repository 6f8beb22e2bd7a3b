/**
 * Goal: what the fuzzer found stays mended. Method: each bug is the shrunk scenario that showed it; it has to pass.
 */

import { describe, expect, it } from "vitest";
import { MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED } from "../../kernel/uapi/mman.ts";
import { SYS_mmap, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { BootPanic } from "../../scripts/boot_panic.ts";
import { runCase } from "../../scripts/fuzz/run_case.ts";
import { brokenIdentity } from "../../scripts/identities.ts";
import { resolveMachine } from "../../scripts/options.ts";
import { inputFromBytes } from "../../scripts/readers/input.ts";
import { runWorkloads } from "../../scripts/run_workloads.ts";
import { loadScenario } from "../../scripts/workloads.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const END = 'kill: 5M\nfinally: ["true"]\nexpect: { exit_status: ">= 0", corrupt: 0 }\n';

const failureOf = async (text: string): Promise<unknown> => (await runCase(text + END, { reason: "none" })).failure;

const SMALL = "machine: { cpus: 1, mem: 16M, seed: 1 }\ncmdline: quiet\n";

describe("found by the fuzzer", () => {
  it("two replays of one recording at once had caches of one name: an oops and a corrupt free list", async () => {
    const replay = "  - { file: gcc-compile.ftrace.gz, limit: 200 }\n";
    expect(await failureOf(`${SMALL}check: 20k\nrecordings:\n${replay}${replay}`)).toBeNull();
  });

  it("kernel parameters that leave no memory to boot with were a bug of slabtown, not a panic", async () => {
    const machine = "machine: { cpus: 1, mem: 8M }\ncmdline: cma=5M min_free_kbytes=1425\nprograms: [{ run: dmesg }]\n";
    const set = await loadScenario(inputFromBytes("case.yaml", machine));
    const run = runWorkloads({ machine: resolveMachine(0, set.machine), set });
    await expect(run).rejects.toThrow(BootPanic);
    expect(await failureOf(machine)).toBeNull();
  });

  it("a thread that looked for its swap disk for a second, and one whose disk is slow, was taken for left behind", async () => {
    const program = 'programs: [{ run: "true" }]\n';
    // The driver finds no memory; each interrupt of the disk is lost, so that each transfer waits for the watchdog.
    expect(await failureOf(`${SMALL.trim()} swap=1M failslab=2,100,187,-1\n${program}`)).toBeNull();
    const disk = "devices: { disk1: { lost_irq: 1 } }\n";
    expect(await failureOf(`${SMALL.trim()} swap=1M\n${disk}${program}`)).toBeNull();
  });

  it("a run did not show that its swap disk could not be written: the boot log has no reader there", async () => {
    const text = `${SMALL.trim()} swap=1M\ndevices: { disk1: { corrupt: 1.0 } }\nprograms: [{ run: "true" }]\n`;
    const set = await loadScenario(inputFromBytes("case.yaml", text));
    let shown = "";
    const console = (more: string): void => void (shown += more);
    await runWorkloads({ machine: resolveMachine(0, set.machine), set, console });
    expect(shown).toMatch(/^\[ .*\] disk disk1: I\/O error, sector 0.*\n\[.*swap: no swap area on \/dev\/sdb: .*\n$/);
  });

  it("a page of a disk that another had brought in while its read slept was put into the file twice", async () => {
    const text = `machine:
  cpus: 1
  mem: 16436K
  seed: "724486"
modules:
  - disk
programs:
  - run: sh -c 'iotest /dev/sda --size 46M --block 1K --sync | echo a=b < /tmp/a; sensord /dev/sensor0 23 --pause 16314713; swapon -p 5 /dev/null; echo 0 > /sys/devices/system/cpu/cpu0/online; insmod disk'
    count: 2
check: 2319580
kill: 100765856
finally:
  - swapoff /dev/sda
  - swapoff /dev/sdb
  - rmmod disk
  - rmmod sensor
expect:
  exit_status: ">= 0"
`;
    expect((await runCase(text, { reason: "none" })).failure).toBeNull();
  });

  it("sysfuzz whose seed is the number of a call told of a wrong result that was none: its seal was 0", async () => {
    expect(await failureOf(`${SMALL}programs: [{ run: sysfuzz 0 0-0 }]\n`)).toBeNull();
  });

  it.each(["tail -n 1 /dev/zero", "head /dev/zero", "wc /dev/zero", "grep x /dev/zero"])(
    "%s kept its CPU for ever and the host's memory with it",
    async (program) => {
      expect(await failureOf(`${SMALL}programs: [{ run: ${program} }]\n`)).toBeNull();
    },
  );

  it("OOM-5 a machine that is deadlocked on memory is no failure, and one that says so in a run is a panic", async () => {
    const hog = 'sh -c "echo -1000 > /proc/self/oom_score_adj; memhog 15M"';
    const text = `machine: { cpus: 1, mem: 16M, seed: 1 }\ncmdline: quiet\nprograms:\n  - run: ${hog}\n`;
    const set = await loadScenario(inputFromBytes("case.yaml", text));
    const { result } = await runWorkloads({ machine: resolveMachine(0, set.machine), set });
    expect([result.end, result.panicReport]).toEqual(["panic", expect.stringContaining("deadlocked on memory")]);
    expect((await runCase(text, { reason: "none" })).failure).toBeNull();
  });

  it("Σ smaps Swap counts what shared memory has in swap, and VmSwap does not: the identity said it was broken", () => {
    const MIB = 1 << 20;
    const broken: (string | null)[] = [];
    const t = bootKernel(
      {
        *"/bin/sharer"(env) {
          const map = (bytes: number, flags: number) => env.syscall(SYS_mmap, 0, bytes, 3, flags, -1, 0) as number;
          const rest = env.syscall(SYS_nanosleep, 100_000_000);
          if (typeof rest === "object") yield* rest;
          const shared = map(6 * MIB, MAP_SHARED | MAP_ANONYMOUS);
          for (let at = 0; at < 6 * MIB; at += 4096) env.mem.st32(shared + at, at);
          const own = map(12 * MIB, MAP_PRIVATE | MAP_ANONYMOUS);
          for (let at = 0; at < 12 * MIB; at += 4096) env.mem.st32(own + at, at);
          const swapped = t.kernel.mappings(t.kernel.tasks().find(({ comm }) => comm === "sharer")?.pid ?? 0);
          expect(swapped.reduce((sum, { pages }) => sum + pages.swapShared, 0)).toBeGreaterThan(0);
          broken.push(brokenIdentity(t.kernel));
          return 0;
        },
      },
      { ramBytes: 16 * MIB, cmdline: "quiet swap=32M", nrCpus: 1 },
    );
    expect(t.run("/bin/sharer")).toBe(0);
    expect(broken).toEqual([null]);
  });
});
