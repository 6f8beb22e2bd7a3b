/**
 * Samples of whole paths through the kernel: metadata (A8), recordings (A9, A10, B4), a system call (A12), copies of a
 * machine (S1, S2), the fault sweep (D4). Each runs in a process of its own and warms up by doing the same thing
 * before: once, or until enough operations were made.
 */

import { E820_RAM } from "../../kernel/arch/firmware_map.ts";
import { boot } from "../../kernel/entry/boot.ts";
import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import { SYS_getpid } from "../../kernel/uapi/syscall.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { initSet } from "../boot_command.ts";
import { faultSweep } from "../fault_sweep.ts";
import { RUN_RAM_BYTES } from "../options.ts";
import { runWorkloads } from "../run_workloads.ts";
import { loadWorkloads } from "../workloads.ts";
import type { Sample } from "./child_tasks.ts";
import { bootForBench } from "./single_workloads.ts";

const plain = (value: number, nrOps: number): Sample => ({
  value,
  cpu: null,
  worst: null,
  nrOps,
  failures: 0,
  fault: null,
});

/** Bytes of struct page for a frame, and the part (in %) of RAM that boot keeps from the buddies. */
export interface MetadataReply {
  readonly bytesPerFrame: Sample;
  readonly share: Sample;
}

export function sampleMetadata(seed: string, ramBytes: number): MetadataReply {
  const kernel = bootForBench(seed, ramBytes);
  const { pages, zones } = kernel.memory;
  const usable = kernel.machine.firmwareMap
    .filter(({ type }) => type === E820_RAM)
    .reduce((sum, { start, end }) => sum + end - start, 0);
  const kept = usable - zones.totalManaged() * PAGE_SIZE;
  // The rows of list heads belong to no frame; the share has them.
  const frameBytes = pages.bytes - pages.nrHeads * (pages.rowAt(1) - pages.rowAt(0));
  return {
    bytesPerFrame: { ...plain(frameBytes / pages.nrFrames, pages.nrFrames), fault: kernel.check() },
    share: plain((100 * kept) / usable, pages.nrFrames),
  };
}

/** Replayed before the replay that counts: a recording with few is over before V8 has compiled it. */
const WARM_UP_OPS = 1_000_000;

/** Operations per second of a replay as `slabtown run FILE` does it, reading of the file and boot not counted. */
export async function sampleRecording(file: string, seed: string): Promise<Sample> {
  const set = await loadWorkloads([file]);
  const machine = { nrCpus: 2, ramBytes: RUN_RAM_BYTES, seed, cmdline: "" };
  const replay = async (): Promise<Sample> => {
    const cpuBefore = process.cpuUsage();
    const { result } = await runWorkloads({ machine, set });
    const { user, system } = process.cpuUsage(cpuBefore);
    const nrOps = result.workloads.reduce((sum, workload) => sum + workload.nrOps, 0);
    return {
      value: nrOps / result.hostSeconds / 1e6,
      cpu: nrOps / (user + system),
      worst: null,
      nrOps,
      failures: result.workloads.reduce((sum, { nrFailed }) => sum + nrFailed, 0),
      fault: result.violation ?? result.panicReport,
    };
  };
  for (let nrOps = 0; nrOps < WARM_UP_OPS; ) nrOps += (await replay()).nrOps;
  return replay();
}

/** Replays on one machine, one after another and a little at once: one alone is over before V8 has compiled it. */
const NR_TREES = 100;
/** Cycles between their starts. */
const TREE_CYCLES = 1_000_000;
/** Whole rounds before the one that counts: the many functions of a process's life are called some times each. */
const WARM_UP_ROUNDS = 6;

/** Recorded system calls, played by their processes; no page is touched beside those that the calls themselves need. */
export async function sampleSyscalls(file: string, seed: string): Promise<Sample> {
  const trees = await loadWorkloads(new Array<string>(NR_TREES).fill(file), { touch: "none" });
  const workloads = trees.workloads.map((workload, i) => ({ ...workload, atCycles: i * TREE_CYCLES }));
  const set = { ...trees, workloads };
  const machine = { nrCpus: 2, ramBytes: RUN_RAM_BYTES, seed, cmdline: "" };
  const replay = async (): Promise<Sample> => {
    const cpuBefore = process.cpuUsage();
    const { result } = await runWorkloads({ machine, set });
    const { user, system } = process.cpuUsage(cpuBefore);
    const nrOps = result.workloads.reduce((sum, workload) => sum + workload.nrOps, 0);
    return {
      value: nrOps / result.hostSeconds / 1e6,
      cpu: nrOps / (user + system),
      worst: null,
      nrOps,
      failures: result.workloads.reduce((sum, { replay: played }) => sum + (played?.nrDifferent ?? 0), 0),
      fault: result.violation ?? result.panicReport,
    };
  };
  for (let i = 0; i < WARM_UP_ROUNDS; i++) await replay();
  return replay();
}

const CALLS_PER_CHUNK = 1_024;

interface CallTiming {
  ns: number;
  cpuNs: number;
  worst: number;
}

/** A program that calls getpid `nrCalls` times and notes what the host's clock says. */
function getpidProgram(nrCalls: number, timing: CallTiming): Program {
  const callChunk = (env: ProgramEnv): number => {
    let sum = 0;
    for (let i = 0; i < CALLS_PER_CHUNK; i++) sum += env.syscall(SYS_getpid) as number;
    return sum;
  };
  return function* getpidLoop(env): Sleeping<number> {
    const pid = env.syscall(SYS_getpid) as number;
    const cpu = process.cpuUsage();
    const start = performance.now();
    let last = start;
    for (let done = 0; done < nrCalls; done += CALLS_PER_CHUNK) {
      if (callChunk(env) !== pid * CALLS_PER_CHUNK) return 1;
      if (env.timeIsUp()) yield PREEMPTED;
      const now = performance.now();
      timing.worst = Math.max(timing.worst, ((now - last) * 1e6) / CALLS_PER_CHUNK);
      last = now;
    }
    const { user, system } = process.cpuUsage(cpu);
    timing.ns = ((last - start) * 1e6) / nrCalls;
    timing.cpuNs = ((user + system) * 1000) / nrCalls;
    return 0;
  };
}

/** Nanoseconds of a getpid() from a program, by way of the system call table, and back. */
export function sampleGetpid(seed: string, nrCalls: number): Sample {
  const timing: CallTiming = { ns: 0, cpuNs: 0, worst: 0 };
  const rounded = Math.ceil(nrCalls / CALLS_PER_CHUNK) * CALLS_PER_CHUNK;
  const programs = new Map(builtinPrograms());
  programs.set("/bin/warmup", getpidProgram(rounded, { ...timing }));
  programs.set("/bin/getpid", getpidProgram(rounded, timing));
  const kernel = boot({
    nrCpus: 2,
    ramBytes: RUN_RAM_BYTES,
    seed,
    port: "raw",
    cmdline: "quiet",
    console: () => {},
    programs,
  });
  let fault: string | null = null;
  for (const path of ["/bin/warmup", "/bin/getpid"]) {
    const pid = kernel.spawn(path, [path]);
    while (pid > 0 && kernel.exitStatus(pid) === undefined) kernel.run({ untilCycles: kernel.now() + 1e9 });
    if (pid <= 0 || kernel.exitStatus(pid) !== 0) fault ??= `${path} ended with ${kernel.exitStatus(pid) ?? pid}`;
  }
  return {
    value: timing.ns,
    cpu: timing.cpuNs,
    worst: timing.worst,
    nrOps: rounded,
    failures: 0,
    fault: fault ?? kernel.check(),
  };
}

const SNAPSHOT_RAM_BYTES = 64 * 1024 * 1024;
const COPIES = 20;

/** Milliseconds to save a machine of 64 MiB into buffers that are there, or to put it back. Between two programs. */
export function sampleSnapshot(task: "save" | "restore", seed: string): Sample {
  const kernel = bootForBench(seed, SNAPSHOT_RAM_BYTES);
  let image = kernel.save();
  const copy = (): void => {
    if (task === "save") image = kernel.save(image);
    else kernel.restore(image);
  };
  for (let i = 0; i < COPIES; i++) copy();
  const before = process.cpuUsage();
  const start = performance.now();
  let [last, worst] = [start, 0];
  for (let i = 0; i < COPIES; i++) {
    copy();
    const now = performance.now();
    worst = Math.max(worst, now - last);
    last = now;
  }
  const { user, system } = process.cpuUsage(before);
  return {
    value: (last - start) / COPIES,
    cpu: (user + system) / 1000 / COPIES,
    worst,
    nrOps: COPIES,
    failures: 0,
    fault: kernel.check(),
  };
}

/** Runs per second of a fault sweep over a boot with one shell command. */
export async function sampleSweep(seed: string, nrRuns: number): Promise<Sample> {
  const set = initSet("true\n");
  const machine = { nrCpus: 2, ramBytes: 16 * 1024 * 1024, seed, cmdline: "" };
  const stop = { reason: "none" } as const;
  const sweep = (to: number) =>
    faultSweep({
      machine,
      set,
      from: 1,
      to,
      step: 1,
      nrPersistent: 0,
      stop,
      onProgress: () => {},
      onFinding: () => {},
    });
  await sweep(Math.ceil(nrRuns / 4));
  const { nrOnce, hostSeconds, findings } = await sweep(nrRuns);
  const [first] = findings;
  return { ...plain(nrOnce / hostSeconds, nrOnce), fault: first === undefined ? null : `${first.nth}: ${first.what}` };
}
