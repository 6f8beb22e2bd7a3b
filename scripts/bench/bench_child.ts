/**
 * One task of the bench in a process of its own (child_tasks.ts): its only argument is the task as JSON, its output one
 * line of JSON. Entry file of child processes; child.ts starts it.
 */

import { checkedSubject } from "./checked_subject.ts";
import type { ChildTask, Sample, StreamTask } from "./child_tasks.ts";
import { drawGrowth, sampleGrowth } from "./growth_child.ts";
import { inlineForSteadyState } from "./inlining.ts";
import { compileAssemblyScript, JS_PEERS } from "./js_peers.ts";
import {
  sampleGetpid,
  sampleMetadata,
  sampleRecording,
  sampleSnapshot,
  sampleSweep,
  sampleSyscalls,
} from "./kernel_child.ts";
import { sampleMemory } from "./memory_child.ts";
import { sampleReclaim } from "./reclaim_child.ts";
import { NO_ALLOCATOR, type Replay, replayPairs, replayStream, type Subject, sampleOf, timeReplay } from "./replay.ts";
import { bootForBench, SINGLE_WORKLOADS, type SingleWorkload } from "./single_workloads.ts";
import { readStream, writeStream } from "./stream_file.ts";

function workloadOf(id: string): SingleWorkload {
  const workload = SINGLE_WORKLOADS.find((candidate) => candidate.id === id);
  if (workload === undefined) throw new Error(`bench: no workload ${id}`);
  return workload;
}

/** A subject with the walk that ends its run. */
interface Tested {
  readonly subject: Subject;
  /** Peers: sizes as they are asked for. */
  readonly shift: number;
  readonly holdsObjects: boolean;
  check(): string | null;
}

async function testedSubject(task: StreamTask, workload: SingleWorkload): Promise<Tested> {
  if (task.subject === "slabtown") {
    const kernel = bootForBench(task.seed);
    return { subject: workload.createSubject(kernel), shift: 0, holdsObjects: false, check: () => kernel.check() };
  }
  const fine = (): null => null;
  if (task.subject === "loop alone") return { subject: NO_ALLOCATOR, shift: 0, holdsObjects: false, check: fine };
  const peer = JS_PEERS.find(({ name }) => name === task.subject);
  if (peer === undefined) throw new Error(`bench: no peer ${task.subject}`);
  const subject = await peer.create(workload.arenaBytes, task.compiled);
  const { shift } = workload;
  if (task.isChecking !== true) return { subject, shift, holdsObjects: peer.holdsObjects === true, check: fine };
  const checked = checkedSubject(subject);
  return { ...checked, shift, holdsObjects: peer.holdsObjects === true };
}

async function sampleStream(task: StreamTask): Promise<Sample> {
  inlineForSteadyState();
  const workload = workloadOf(task.id);
  const { subject, shift, holdsObjects, check } = await testedSubject(task, workload);
  let replay: Replay;
  if (task.file === null) {
    replay = replayPairs(shift === 0 ? workload.size : 2 ** (shift + workload.size), workload.burst, subject);
  } else {
    const stream = readStream(task.file);
    // Peers are asked for bytes: orders become sizes before the clock starts.
    const sizes = shift === 0 ? stream.sizes : Int32Array.from(stream.sizes, (order) => 2 ** (shift + order));
    replay = replayStream({ ...stream, sizes }, subject, holdsObjects);
    timeReplay(replay, stream.nrFill, task.maxMs);
  }
  timeReplay(replay, task.nrWarmup, task.maxMs);
  const timing = timeReplay(replay, task.nrOps, task.maxMs);
  return sampleOf(timing, replay, check());
}

async function answer(task: ChildTask): Promise<unknown> {
  switch (task.do) {
    case "stream":
      return sampleStream(task);
    case "draw": {
      const { createStream } = workloadOf(task.id);
      if (createStream === null) throw new Error(`bench: ${task.id} has no stream`);
      writeStream(task.file, createStream(bootForBench(task.seed), task.seed, task.nrOps));
      return null;
    }
    case "compile":
      await compileAssemblyScript(task.file);
      return null;
    case "draw-growth":
      drawGrowth(task);
      return null;
    case "growth":
      return sampleGrowth(task);
    case "metadata":
      return sampleMetadata(task.seed, task.ramBytes);
    case "syscalls":
      return sampleSyscalls(task.file, task.seed);
    case "recording":
      return sampleRecording(task.file, task.seed);
    case "getpid":
      return sampleGetpid(task.seed, task.nrCalls);
    case "memory":
      return sampleMemory(task.seed);
    case "save":
    case "restore":
      return sampleSnapshot(task.do, task.seed);
    case "reclaim":
      return sampleReclaim(task.seed);
    case "sweep":
      return sampleSweep(task.seed, task.nrRuns);
  }
}

const reply = await answer(JSON.parse(process.argv[2] ?? "{}") as ChildTask);
process.stdout.write(`${JSON.stringify(reply)}\n`);
