/**
 * Virtual time of a machine that sleeps: how far it goes, and that the host's limits hold.
 *
 * Goal: SCH-8, and `at:` of scenarios. Method: programs that sleep for lengths from nothing to 2^53, on whole kernels
 * that are run up to a moment; a scenario through the same door as `slabtown run`.
 */

import { describe, expect, it } from "vitest";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_eventcount, SYS_eventcount_await, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { resolveMachine } from "../../scripts/options.ts";
import { inputFromBytes } from "../../scripts/readers/input.ts";
import { runWorkloads } from "../../scripts/run_workloads.ts";
import { loadScenario } from "../../scripts/workloads.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const sleeper = (cycles: number): Program =>
  function* (env) {
    const rest = env.syscall(SYS_nanosleep, cycles);
    return typeof rest === "number" ? 1 : yield* rest;
  };

const awaiter = (cycles: number): Program =>
  function* (env) {
    const fd = env.syscall(SYS_eventcount) as number;
    const rest = env.syscall(SYS_eventcount_await, fd, 1, cycles);
    return typeof rest === "number" ? 1 : -(yield* rest);
  };

describe("SCH-8 a machine that sleeps", () => {
  // Regression: the jump to the first sleeper went over `untilCycles`.
  it("is not run beyond the moment that its host named, and goes on from there", () => {
    const { kernel } = bootKernel({ "/bin/nap": sleeper(40e9) });
    const pid = kernel.spawn("/bin/nap", ["nap"]);
    expect(kernel.run({ untilCycles: 1e9 })).toBe("budget");
    expect(kernel.now()).toBe(1e9);
    expect(kernel.quietUntil()).toBeGreaterThan(39e9);
    expect(kernel.run({ untilCycles: 30e9 })).toBe("budget");
    expect([kernel.now(), kernel.exitStatus(pid)]).toEqual([30e9, undefined]);
    expect(kernel.run({ untilCycles: 90e9 })).toBe("idle");
    expect(kernel.exitStatus(pid)).toBe(0);
    expect(kernel.now()).toBeLessThan(41e9);
    expect(kernel.check()).toBeNull();
  });

  // Regression: the clock leapt to 2^53, where a cycle more is no other number (random system calls).
  it.each([2 ** 52, 2 ** 53 - 1])("sleeps for ever when it is told to sleep %d cycles, and can be killed", (cycles) => {
    const t = bootKernel({ "/bin/nap": sleeper(cycles), "/bin/wait": awaiter(cycles) });
    const pids = ["/bin/nap", "/bin/wait"].map((path) => t.kernel.spawn(path, [path]));
    expect(t.kernel.run()).toBe("idle");
    expect(t.kernel.now()).toBeLessThan(1e9);
    for (const pid of pids) t.kernel.kill(pid, 9);
    expect(t.kernel.run()).toBe("idle");
    expect(pids.map((pid) => t.kernel.exitStatus(pid))).toEqual([137, 137]);
    t.expectNoLeak();
  });
});

describe("at: of a scenario", () => {
  const run = async (text: string) => {
    const set = await loadScenario(inputFromBytes("at.yaml", text));
    return (await runWorkloads({ machine: resolveMachine(16 * 1024 * 1024, set.machine), set })).result;
  };

  // Regression: on an idle machine the second began when the first had ended.
  it("starts two programs of the same moment together, at that moment", async () => {
    const { end, virtualCycles } = await run("programs:\n  - { run: sleep 2, at: 1G }\n  - { run: sleep 2, at: 1G }\n");
    expect(end).toBe("done");
    expect(virtualCycles).toBeGreaterThanOrEqual(3e9);
    expect(virtualCycles).toBeLessThan(3.1e9);
  });

  it("an idle machine that is looked at every so often sleeps through, and a time limit ends it", async () => {
    const { end, virtualCycles } = await run("check: 500k\nprograms: [{ run: sleep 100000 }]\n");
    expect(end).toBe("done");
    expect(virtualCycles).toBeGreaterThanOrEqual(1e14);
    const killed = await run("kill: 2G\nprograms: [{ run: sleep 100000 }]\n");
    expect(killed.virtualCycles).toBeLessThan(2.1e9);
  });
});
