/**
 * A machine whose CPUs are worker threads, from the host's side: starts them, boots them, watches them, ends them.
 *
 *   host ──boot──▶ thread 0 ──sum──▶ host ──boot──▶ thread 1 ──sum──▶ host …  equal? ──run──▶ all at once ──▶ replies
 *
 * The watchdog: a machine whose threads report no operation for `patienceMs` is stuck. The host then says what each
 * thread does, which lock it waits for and who holds it, and ends all threads. Nothing waits for ever.
 */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { type Control, controlBytes, createControl, END_SOON, GIVE_UP, RUN } from "./control.ts";
import type { RanReply, Reply, Request } from "./messages.ts";
import type { StressCounts, StressSpec } from "./parallel_stress.ts";
import { type ParallelWorkload, workloadWords } from "./parallel_workloads.ts";
import type { WorldSetup } from "./thread_world.ts";

export interface ParallelOptions {
  /** Threads that are started; CPU t is thread t. */
  readonly nrThreads: number;
  /** CPUs of the machine, at least as many. */
  readonly nrCpus: number;
  readonly ramBytes: number;
  readonly seed: string;
  readonly cmdline: string;
  readonly patienceMs: number;
  /** Test only: see WorldSetup. */
  readonly portModule?: string | undefined;
}

export interface RunSpec {
  readonly workload: ParallelWorkload;
  readonly warmupPairs: number;
  /** Per thread. */
  readonly nrPairs: number;
}

export interface ParallelMachine {
  /** Boots all threads, one after the other; throws if they do not agree on every byte of RAM. */
  boot(): Promise<void>;
  /** The first `nrActive` threads at once; one reply per thread. The others rest. */
  run(spec: RunSpec, nrActive: number): Promise<readonly RanReply[]>;
  stress(spec: Omit<StressSpec, "nrActive">): Promise<readonly StressCounts[]>;
  /** Walks every invariant of the resting machine: what is wrong, or null. */
  finish(): Promise<string | null>;
  /** Operations of all threads so far. */
  operations(): number;
  /** Ctrl-C: the threads end their run soon. */
  endSoon(): void;
  nameOfLock(address: number): string;
  /** Ends the threads. */
  end(): Promise<void>;
}

/** A thread failed, or the machine hangs. `details` has more for people. */
export class ParallelFailure extends Error {
  override readonly name = "ParallelFailure";
  readonly details: string;
  constructor(message: string, details: string) {
    super(message);
    this.details = details;
  }
}

const POLL_MS = 100;

/** The worker's file: always from the build, for workers cannot run TypeScript (Node 20). */
export function workerFile(): URL {
  for (const path of ["./parallel_worker.js", "../../dist/scripts/bench/parallel_worker.js"]) {
    const url = new URL(path, import.meta.url);
    if (existsSync(fileURLToPath(url))) return url;
  }
  throw new Error("the package is incomplete: dist/scripts/bench/parallel_worker.js is missing");
}

interface Thread {
  ask(request: Request): Promise<Reply>;
  end(): Promise<unknown>;
}

function startThread(setup: WorldSetup): Thread {
  const worker = new Worker(workerFile(), { workerData: setup, execArgv: [] });
  let settle: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined;
  let broken: Error | undefined;
  const breakDown = (error: Error): void => {
    broken ??= error;
    settle?.reject(error);
    settle = undefined;
  };
  worker.on("message", (reply: Reply) => {
    const waiting = settle;
    settle = undefined;
    if (reply.kind === "failed") waiting?.reject(new ParallelFailure(reply.message, reply.stack));
    else waiting?.resolve(reply);
  });
  worker.on("error", (error) => breakDown(new ParallelFailure(`CPU ${setup.cpu}: ${error.message}`, "")));
  worker.on("exit", () => breakDown(new ParallelFailure(`CPU ${setup.cpu}: its thread has ended`, "")));
  return {
    ask: (request) =>
      new Promise<Reply>((resolve, reject) => {
        if (broken !== undefined) return reject(broken);
        settle = { resolve, reject };
        worker.postMessage(request);
      }),
    end: () => worker.terminate(),
  };
}

/** What each thread does: for the report of a machine that hangs. */
function describeThreads(control: Control, nrThreads: number, nameOfLock: (address: number) => string): string {
  const lines: string[] = [];
  for (let thread = 0; thread < nrThreads; thread++) {
    const { state, operations, waitsFor, holder } = control.status(thread);
    const wait = waitsFor === 0 ? "" : `, waits for ${nameOfLock(waitsFor)}, last seen held by CPU ${holder}`;
    lines.push(`  CPU ${thread}: ${state}, ${operations} operations${wait}`);
  }
  return lines.join("\n");
}

/** Starts the threads of a machine. Throws where there is no shared memory. */
export function createParallelMachine(options: ParallelOptions): ParallelMachine {
  const { nrThreads, nrCpus, ramBytes, seed, cmdline, patienceMs } = options;
  const ram = new SharedArrayBuffer(ramBytes);
  const controlBuffer = new SharedArrayBuffer(controlBytes(nrThreads));
  const data = new SharedArrayBuffer(4 * workloadWords(nrThreads));
  const control = createControl(controlBuffer);
  const { portModule } = options;
  const common = { nrCpus, seed, cmdline, ram, control: controlBuffer, data, patienceMs, portModule };
  const threads = Array.from({ length: nrThreads }, (_, cpu) => startThread({ ...common, cpu }));
  let lockNames = new Map<number, string>();

  const nameOfLock = (address: number): string => lockNames.get(address) ?? `the lock 0x${address.toString(16)}`;
  const operations = (): number => {
    let sum = 0;
    for (let thread = 0; thread < nrThreads; thread++) sum += control.status(thread).operations;
    return sum;
  };

  /** Rejects when no thread has done anything for longer than the machine's patience. */
  const watch = (): { readonly stuck: Promise<never>; end(): void } => {
    let timer: NodeJS.Timeout | undefined;
    const stuck = new Promise<never>((_, reject) => {
      let last = operations();
      let since = performance.now();
      timer = setInterval(() => {
        const sum = operations();
        const now = performance.now();
        if (sum !== last) [last, since] = [sum, now];
        // A thread that waits for a lock loses its own patience first, and says more.
        else if (now - since > patienceMs * 2) {
          const details = describeThreads(control, nrThreads, nameOfLock);
          control.setStop(GIVE_UP);
          reject(new ParallelFailure(`no operation for ${Math.round((now - since) / 1000)} s`, details));
        }
      }, POLL_MS);
    });
    return { stuck, end: () => clearInterval(timer) };
  };

  /** Asks the first `nrActive` threads at once. The first real failure counts, not those that gave up because of it. */
  const askAll = async (request: Request, nrActive: number): Promise<Reply[]> => {
    if (control.stop() === GIVE_UP) control.setStop(RUN);
    const dog = watch();
    try {
      const asked = Promise.allSettled(threads.slice(0, nrActive).map((thread) => thread.ask(request)));
      const results = await Promise.race([asked, dog.stuck]);
      const failures = results.flatMap((result) => (result.status === "rejected" ? [result.reason as Error] : []));
      const failure = failures.find((error) => error.message !== "") ?? failures[0];
      if (failure !== undefined) throw failure;
      return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    } finally {
      dog.end();
    }
  };

  const askFirst = async (request: Request): Promise<Reply> => (threads[0] as Thread).ask(request);

  return {
    async boot() {
      const sums: number[] = [];
      for (const thread of threads) {
        const reply = await thread.ask({ do: "boot" });
        if (reply.kind === "booted") sums.push(reply.checksum);
      }
      if (sums.some((sum) => sum !== sums[0])) {
        const list = sums.map((sum) => sum.toString(16)).join(" ");
        throw new ParallelFailure("the threads did not boot to the same bytes", `checksums: ${list}`);
      }
      const settled = await askFirst({ do: "settle" });
      if (settled.kind === "settled") lockNames = new Map(settled.names);
    },
    async run(spec, nrActive) {
      const replies = await askAll({ do: "run", nrActive, ...spec }, nrActive);
      return replies.flatMap((reply) => (reply.kind === "ran" ? [reply] : []));
    },
    async stress(spec) {
      const replies = await askAll({ do: "stress", spec: { ...spec, nrActive: nrThreads } }, nrThreads);
      return replies.flatMap((reply) => (reply.kind === "stressed" ? [reply.counts] : []));
    },
    async finish() {
      const reply = await askFirst({ do: "finish" });
      return reply.kind === "finished" ? reply.fault : null;
    },
    operations,
    endSoon: () => control.setStop(END_SOON),
    nameOfLock,
    async end() {
      await Promise.all(threads.map((thread) => thread.end()));
    },
  };
}
