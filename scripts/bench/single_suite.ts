/**
 * The suite of one thread: each sample of each figure in a fresh process, medians over the samples.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { BenchRun } from "./bench_run.ts";
import { SINGLE_WORKLOADS, type SingleWorkload, SUBJECTS, type SubjectName } from "./single_workloads.ts";
import { median } from "./statistics.ts";

/** What a child is asked to measure. */
export interface ChildRequest {
  readonly id: string;
  readonly subject: SubjectName;
  readonly seed: string;
  readonly nrWarmup: number;
  readonly nrOps: number;
}

/** One sample. */
export interface ChildReply {
  readonly nsPerOp: number;
  readonly cpuNsPerOp: number;
  readonly nrFailed: number;
  /** Violated invariant after the run, or null. */
  readonly fault: string | null;
}

export interface SingleResult {
  readonly id: string;
  readonly title: string;
  readonly subject: SubjectName;
  /** Medians over `samples`. */
  readonly nsPerOp: number;
  readonly cpuNsPerOp: number;
  readonly bar: number;
  /** Allocations that failed although memory was there. */
  readonly failures: number;
  readonly fault: string | null;
  readonly samples: readonly number[];
}

function childFile(): string {
  for (const path of ["./single_child.js", "../../dist/scripts/bench/single_child.js"]) {
    const file = fileURLToPath(new URL(path, import.meta.url));
    if (existsSync(file)) return file;
  }
  throw new Error("the package is incomplete: dist/scripts/bench/single_child.js is missing");
}

/** Runs one child; null if it was stopped. */
function runChild(request: ChildRequest, run: BenchRun): Promise<ChildReply | null> {
  return new Promise((resolve, reject) => {
    const child: ChildProcess = spawn(process.execPath, [childFile(), JSON.stringify(request)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [output, errors] = ["", ""];
    child.stdout?.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const timer = setInterval(() => {
      if (run.isStopped()) child.kill();
    }, 50);
    child.on("error", reject);
    child.on("close", (code) => {
      clearInterval(timer);
      if (run.isStopped()) resolve(null);
      else if (code === 0) resolve(JSON.parse(output) as ChildReply);
      else reject(new Error(`bench: ${request.id} ended with ${code}: ${errors.trim().split("\n").at(-1) ?? ""}`));
    });
  });
}

async function measure(workload: SingleWorkload, subject: SubjectName, run: BenchRun): Promise<SingleResult | null> {
  const replies: ChildReply[] = [];
  for (let sample = 0; sample < run.nrSamples && !run.isStopped(); sample++) {
    run.progress(`${workload.id} ${workload.title}: ${subject}, sample ${sample + 1} of ${run.nrSamples}`);
    const { seed, nrOps } = run;
    const reply = await runChild({ id: workload.id, subject, seed, nrOps, nrWarmup: Math.ceil(nrOps / 10) }, run);
    if (reply !== null) replies.push(reply);
  }
  if (replies.length === 0) return null;
  return {
    id: workload.id,
    title: workload.title,
    subject,
    nsPerOp: median(replies.map((reply) => reply.nsPerOp)),
    cpuNsPerOp: median(replies.map((reply) => reply.cpuNsPerOp)),
    bar: workload.bar,
    failures: Math.max(...replies.map((reply) => reply.nrFailed)),
    fault: replies.find((reply) => reply.fault !== null)?.fault ?? null,
    samples: replies.map((reply) => reply.nsPerOp),
  };
}

/** Names that `--filter` is compared with. */
export const SINGLE_NAMES: readonly string[] = SINGLE_WORKLOADS.map(({ id, title }) => `${id} ${title}`);

/** All figures whose name the run wants, subject by subject. Fewer when the run is stopped. */
export async function runSingleSuite(run: BenchRun): Promise<readonly SingleResult[]> {
  const results: SingleResult[] = [];
  for (const workload of SINGLE_WORKLOADS) {
    if (!run.wants(`${workload.id} ${workload.title}`)) continue;
    for (const subject of SUBJECTS) {
      const result = run.isStopped() ? null : await measure(workload, subject, run);
      if (result !== null) results.push(result);
    }
  }
  return results;
}
