/**
 * A7-A10, B1, B2, B4, A12, S1, S2 and D4: figures of the whole kernel that have no peer, or a floor instead of one.
 */

import { spawn } from "node:child_process";
import { packageFile } from "../package_files.ts";
import type { BenchRun } from "./bench_run.ts";
import { builtFile, runTask } from "./child.ts";
import type { Sample } from "./child_tasks.ts";
import type { Figure, FigureSubject } from "./figures.ts";
import type { MetadataReply } from "./kernel_child.ts";
import type { MemoryReply } from "./memory_child.ts";
import { BENCH_RAM_BYTES } from "./single_workloads.ts";
import { LOOP_NAME, OWN_NAME } from "./stream_figures.ts";

/** What the shell prints when it is there. */
const READY = "ready";
const SWEEP_RUNS = 40;

/** Loaded in front of what is measured: says at its end, on a pipe of its own, what CPU time the process took. */
const CPU_REPORT = `data:text/javascript,import { writeSync } from "node:fs"; process.on("exit", () => {
  const { user, system } = process.cpuUsage();
  writeSync(3, String((user + system) / 1000));
});`;

/** A process of Node: milliseconds from its start until it prints `until`, or to its end; CPU time of all of it. */
function processTime(args: readonly string[], until: string | null, run: BenchRun): Promise<Sample | null> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const argv = ["--import", CPU_REPORT, ...args];
    const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "ignore", "pipe"] });
    let [output, cpu, ms] = ["", "", Number.NaN];
    const timer = setInterval(() => {
      if (run.isStopped()) child.kill("SIGKILL");
    }, 50);
    child.stdout?.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (until !== null && Number.isNaN(ms) && output.includes(`${until}\n`)) ms = performance.now() - start;
    });
    child.stdio[3]?.on("data", (chunk: Buffer) => {
      cpu += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearInterval(timer);
      if (until === null) ms = performance.now() - start;
      if (run.isStopped() || signal === "SIGINT") resolve(null);
      else if (code !== 0 || Number.isNaN(ms))
        reject(new Error(`bench: ${args.join(" ")} ended with ${code ?? signal}`));
      else resolve({ value: ms, cpu: Number(cpu), worst: null, nrOps: 1, failures: 0, fault: null });
    });
  });
}

/** Until the shell has run its first command. */
const bootTime = (mem: string, run: BenchRun): Promise<Sample | null> => {
  const args = ["boot", "--mem", mem, "--seed", run.seed, "--exec", `echo ${READY}`];
  return processTime([builtFile("slabtown.js"), ...args], READY, run);
};

/** Node alone: a process that does nothing. */
const nodeStart = (run: BenchRun): Promise<Sample | null> => processTime(["-e", "0"], null, run);

function bootFigure(id: string, mem: string, title: string, bar: number, run: BenchRun): Figure {
  return {
    id,
    title,
    unit: "ms",
    bar,
    better: "lower",
    note: "loop alone: Node itself, a process that does nothing",
    prepare: async () => [
      { name: OWN_NAME, role: "slabtown", measure: () => bootTime(mem, run) },
      { name: LOOP_NAME, role: "loop", measure: () => nodeStart(run) },
    ],
  };
}

function metadataFigures(run: BenchRun): Figure[] {
  const own = (of: (reply: MetadataReply) => Sample): FigureSubject => ({
    name: OWN_NAME,
    role: "slabtown",
    async measure() {
      const reply = await runTask<MetadataReply>({ do: "metadata", ramBytes: BENCH_RAM_BYTES, seed: run.seed }, run);
      return reply === null ? null : of(reply);
    },
  });
  const common = { better: "lower", isCounted: true } as const;
  return [
    {
      ...common,
      id: "A8",
      title: "struct page, bytes a frame",
      unit: "B",
      bar: 32,
      prepare: async () => [own(({ bytesPerFrame }) => bytesPerFrame)],
    },
    {
      ...common,
      id: "A8b",
      title: "RAM that boot keeps for metadata and kernel, 256 MiB",
      unit: "%",
      bar: 1.2,
      prepare: async () => [own(({ share }) => share)],
    },
  ];
}

function ownFigure(figure: Omit<Figure, "prepare">, measure: () => Promise<Sample | null>): Figure {
  return { ...figure, prepare: async () => [{ name: OWN_NAME, role: "slabtown", measure }] };
}

function recordingFigure(
  id: string,
  name: string,
  title: string,
  bar: number,
  run: BenchRun,
  what: "recording" | "syscalls" = "recording",
): Figure {
  return ownFigure({ id, title, unit: "M/s", bar, better: "higher" }, () =>
    runTask<Sample>({ do: what, file: packageFile(`samples/${name}`), seed: run.seed }, run),
  );
}

/** B1, B2: one sample of the child has all three. */
function memoryFigures(run: BenchRun): readonly Figure[] {
  const own = (id: string, title: string, unit: string, bar: number, of: (reply: MemoryReply) => Sample): Figure =>
    ownFigure({ id, title, unit, bar, better: "lower" }, async () => {
      const reply = await runTask<MemoryReply>({ do: "memory", seed: run.seed }, run);
      return reply === null ? null : of(reply);
    });
  return [
    own("B1", "page fault of a program, beyond zeroing", "ns", 1000, ({ fault }) => fault),
    own("B2", "fork of a process with 64 MiB", "ms", 3, ({ fork }) => fork),
    own("B2b", "a store that copies its page, beyond copying", "ns", 1500, ({ cow }) => cow),
  ];
}

/** A7-A10, B1, B2, B4. */
export const bootAndReplayFigures = (run: BenchRun): readonly Figure[] => [
  bootFigure("A7", "64M", "boot, 64 MiB, process start to first command", 400, run),
  bootFigure("A7b", "4G", "boot, 4 GiB, process start to first command", 900, run),
  ...metadataFigures(run),
  recordingFigure("A9", "redis.mtc.gz", "replay of redis: malloc of a program, 2.1 M operations", 5, run),
  recordingFigure("A10", "redis-net.ftrace.gz", "replay of a kernel's allocations, 165,000 events", 3, run),
  ...memoryFigures(run),
  recordingFigure("B4", "gcc-O2.strace.gz", "replay of system calls, a hundred compiler runs", 0.3, run, "syscalls"),
];

/** A12, S1, S2 and D4. */
export const callFigures = (run: BenchRun): readonly Figure[] => [
  ownFigure({ id: "A12", title: "getpid() from a program and back", unit: "ns", bar: 300, better: "lower" }, () =>
    runTask<Sample>({ do: "getpid", seed: run.seed, nrCalls: Math.ceil(run.nrOps / 5) }, run),
  ),
  ownFigure({ id: "S1", title: "save, 64 MiB, warm buffers", unit: "ms", bar: 10, better: "lower" }, () =>
    runTask<Sample>({ do: "save", seed: run.seed }, run),
  ),
  ownFigure({ id: "S2", title: "restore, 64 MiB, warm buffers", unit: "ms", bar: 10, better: "lower" }, () =>
    runTask<Sample>({ do: "restore", seed: run.seed }, run),
  ),
  ownFigure(
    { id: "B3", title: "reclaim under 2x overcommit with swap", unit: "pages/s", bar: 200_000, better: "higher" },
    () => runTask<Sample>({ do: "reclaim", seed: run.seed }, run),
  ),
  ownFigure(
    { id: "D4", title: "fault sweep over a boot and a command", unit: "runs/s", bar: 7_000, better: "higher" },
    () => runTask<Sample>({ do: "sweep", seed: run.seed, nrRuns: SWEEP_RUNS }, run),
  ),
];
