/**
 * Goal: the longest windows with interrupts and preemption off are found, with their place (IOF-1), and measuring changes
 * nothing (IOF-2).
 * Method: windows of known length are made by hand on a small machine; whole kernels run the same workload twice.
 */
import { describe, expect, it } from "vitest";
import { traceOff } from "../../kernel/irqsoff.ts";
import { PREEMPTED } from "../../kernel/types.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";
import { createIrqWorld } from "../support/irq_world.ts";

function tracked() {
  const world = createIrqWorld();
  const tracker = traceOff(world.machine, world.contexts);
  const spend = (cycles: number): void => {
    world.machine.harts.clock[0] = (world.machine.harts.clock[0] as number) + cycles;
  };
  return { ...world, tracker, contexts: tracker.contexts, spend };
}

describe("windows", () => {
  it("IOF-1 the longest is kept, and nested ones are one", () => {
    const { tracker, contexts, ctx, spend } = tracked();
    expect(tracker.maxIrqsOff(0)).toBeUndefined();
    const outer = contexts.localIrqSave(ctx);
    spend(100);
    const inner = contexts.localIrqSave(ctx);
    spend(50);
    contexts.localIrqRestore(ctx, inner);
    spend(7);
    contexts.localIrqRestore(ctx, outer);
    expect(tracker.maxIrqsOff(0)).toMatchObject({ cpu: 0, cycles: 157, comm: "swapper", pid: 0 });
    const short = contexts.localIrqSave(ctx);
    spend(156);
    contexts.localIrqRestore(ctx, short);
    expect(tracker.maxIrqsOff(0)?.cycles).toBe(157);
    expect(tracker.maxIrqsOff(1)).toBeUndefined();
    tracker.reset();
    expect(tracker.maxIrqsOff(0)).toBeUndefined();
  });

  it("preemption off is from the first count to the last", () => {
    const { tracker, contexts, ctx, spend } = tracked();
    contexts.preemptDisable(ctx);
    spend(10);
    contexts.add(ctx, 0x200);
    contexts.preemptEnable(ctx);
    spend(20);
    contexts.subtract(ctx, 0x200);
    spend(1000);
    expect(tracker.maxPreemptOff(0)?.cycles).toBe(30);
    expect(tracker.maxIrqsOff(0)).toBeUndefined();
  });
});

const busy: Program = function* (env) {
  for (let i = 0; i < 200; i++) {
    const result = env.syscall(222, 0, 64 * 4096, 3, 0x22, -1, 0);
    const va = typeof result === "object" ? yield* result : result;
    for (let page = 0; page < 64; page++) env.mem.st32(va + page * 4096, i);
    const undone = env.syscall(215, va, 64 * 4096);
    if (typeof undone === "object") yield* undone;
    if (env.timeIsUp()) yield PREEMPTED;
  }
  return 0;
};

describe("irqsoff=on", () => {
  const play = (cmdline: string) => {
    const t = bootKernel({ "/bin/busy": busy }, { cmdline, seed: "7" });
    expect(t.run("/bin/busy")).toBe(0);
    expect(t.run("/bin/busy")).toBe(0);
    t.expectNoLeak();
    return t;
  };

  it("IOF-2 the run is the same to the cycle, and without the parameter nothing is there", () => {
    const plain = play("quiet");
    const traced = play("quiet irqsoff=on");
    expect(traced.kernel.now()).toBe(plain.kernel.now());
    expect(plain.kernel.interrupts.offTracker).toBeNull();
    expect(plain.kernel.readFile("/sys/kernel/debug/tracing/trace")).toBeNull();
  });

  it("the files of Linux's tracers say how long and where", () => {
    const t = play("quiet irqsoff=on");
    const dir = "/sys/kernel/debug/tracing";
    const trace = t.kernel.readFile(`${dir}/trace`) as string;
    const worst = [0, 1].map((cpu) => t.kernel.interrupts.offTracker?.maxIrqsOff(cpu)?.cycles ?? 0);
    expect(Math.max(...worst)).toBeGreaterThan(0);
    const micros = Math.floor(Math.max(...worst) / 1000);
    expect(t.kernel.readFile(`${dir}/tracing_max_latency`)).toBe(`${micros}\n`);
    expect(trace).toMatch(/^# tracer: irqsoff\n#\n# irqsoff latency trace v1\.1\.5 on 6\.12\.0-slabtown\n/);
    expect(trace).toContain(`# latency: ${micros} us, #0/0, CPU#`);
    expect(trace).toMatch(/# {2}=> started at: \w+\n# {2}=> ended at: {3}\w+\n/);
  });

  it("current_tracer chooses, tracing_max_latency forgets", () => {
    const t = bootKernel(Object.fromEntries(builtinPrograms()), { cmdline: "quiet irqsoff=on" });
    const dir = "/sys/kernel/debug/tracing";
    const script = `echo preemptoff > ${dir}/current_tracer; cat ${dir}/current_tracer; echo 0 > ${dir}/tracing_max_latency`;
    const pid = t.kernel.spawn("/bin/sh", ["sh", "-c", `${script}; echo nonsense > ${dir}/current_tracer`]);
    t.kernel.run({ untilCycles: 10_000_000_000, shouldStop: () => t.kernel.exitStatus(pid) !== undefined });
    expect(t.kernel.exitStatus(pid)).not.toBe(0);
    expect(t.kernel.readFile(`${dir}/trace`)).toContain("# tracer: preemptoff");
  });
});
