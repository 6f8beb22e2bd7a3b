/**
 * The trusted end of the channel to the child (runner_child.ts): starts it with few rights, asks, and checks replies.
 *
 * Layers around student code, outermost first; which of them this computer has is found out once and can be printed:
 *
 *   death         the child is killed when the grader ends, however that ends (`setpriv`)
 *   namespaces    own users, processes and network (`unshare`), where Linux allows it without privilege
 *   limits        data segment, CPU time, file size 0, processes (`prlimit`)
 *   permissions   Node's own: no file but the runner, no child process, no worker
 *   realm         frozen built-ins, no clock, no code from strings (realm.ts)
 *   steps         virtual limits (instrument.ts)
 *
 * That is a seat belt, not a wall: for official grades run it in a container (docs/labs.md).
 *
 * Beside virtual steps, a program has a limit of CPU time, for built-ins that do not end; it is the child's own, so a
 * busy computer takes nothing away. The wall clock only guards against a child that rests: no answer, and no CPU time
 * used either. Then there is no verdict: `InfrastructureError`.
 * A child that ends, or has used up its time, is started anew; the program that did it is found and marked `died`.
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Json, Observation, Program, Stop } from "../../labs/kit/program.ts";
import { UsageError } from "../usage_error.ts";
import type { Module } from "./compile.ts";
import { cpuSeconds, loadFactor } from "./cpu_time.ts";

/** No verdict could be made, and it is not the student's fault as far as we know. */
export class InfrastructureError extends Error {
  override readonly name = "InfrastructureError";
}

/** An environment that gives no verdict is no grade: exit code 2, as for everything that is not the student's doing. */
export function asUsageError(error: unknown): unknown {
  if (!(error instanceof InfrastructureError)) return error;
  return new UsageError(`no verdict: ${error.message}`, "this is no grade; run it again, or on a quieter computer");
}

/** A module that V8 does not accept. */
export interface LoadProblem {
  readonly module: string;
  readonly message: string;
  readonly stack: string;
}

/** What the child reports; places are still those of compiled code. */
export interface RawStop extends Omit<Stop, "where"> {
  readonly stack: string;
  readonly site: number;
}
export interface RawObservation extends Omit<Observation, "stop"> {
  readonly stop: RawStop | null;
}

/** How the programs of one request are run. */
export interface RunRequest {
  readonly set: string;
  readonly entry: string;
  readonly driver: string;
  readonly tests: { readonly module: string; readonly harness: string } | null;
  readonly stepLimit: number;
}

export interface Sandbox {
  /** Gives the child a set of modules; what is wrong with one, or null. */
  load(set: string, modules: readonly Module[]): Promise<LoadProblem | null>;
  run(request: RunRequest, programs: readonly Program[]): Promise<readonly RawObservation[]>;
  /** Ends the child at once; what is being asked, and whatever is asked later, throws `InfrastructureError`. */
  close(): void;
}

export interface SandboxOptions {
  /** So long may a child rest before it counts as hung; default 30 s. */
  readonly restMs?: number;
  /** CPU time of one program, in seconds; default 60. */
  readonly cpuSeconds?: number;
}

const DATA_BYTES = 1_500_000_000;
const HEAP_MIB = 400;
/** CPU time of a child before it is replaced, and what the system lets it have at most. */
const CPU_OF_CHILD = 60;
const CPU_SECONDS = 180;
const NR_PROCESSES = 64;
const MAX_REPLY_BYTES = 64 * 1024 * 1024;
/** After so many deaths the rest of a request is not tried any more; so many for want of CPU time, of a whole set. */
const MAX_DEATHS = 3;
const MAX_SPENT = 2;
/** Programs of one request: a few first, then as many as take about so much CPU time. */
const FIRST_PROGRAMS = 4;
const SECONDS_A_REQUEST = 2;

// ── Layers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Layers {
  readonly command: readonly string[];
  readonly names: readonly string[];
}

let layersFound: Layers | undefined;

function works(command: string, args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore", timeout: 5000 }).status === 0;
}

function layers(): Layers {
  if (layersFound !== undefined) return layersFound;
  const command: string[] = [];
  const names: string[] = [];
  const isLinux = process.platform === "linux";
  const setpriv = ["--pdeathsig", "KILL", "--"];
  if (isLinux && works("setpriv", [...setpriv, "true"])) {
    command.push("setpriv", ...setpriv);
    names.push("ends with the grader");
  }
  const unshare = ["--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--"];
  const hasSpaces = isLinux && works("unshare", [...unshare, "true"]);
  if (hasSpaces) {
    command.push("unshare", ...unshare);
    names.push("namespaces (user, network, process)");
  }
  const limits = [`--data=${DATA_BYTES}`, `--cpu=${CPU_SECONDS}`, "--fsize=0", "--core=0"];
  // Of processes, a limit counts those of the whole user unless the user is of an own namespace.
  if (hasSpaces) limits.push(`--nproc=${NR_PROCESSES}`);
  if (isLinux && works("prlimit", [...limits, "--", "true"])) {
    command.push("prlimit", ...limits, "--");
    names.push(`limits (data, CPU time, file size${hasSpaces ? ", processes" : ""})`);
  }
  const permission = process.allowedNodeEnvironmentFlags.has("--permission")
    ? "--permission"
    : "--experimental-permission";
  command.push(process.execPath, "--no-warnings", permission);
  for (const file of [childFile(), join(dirname(childFile()), "realm.js")]) command.push(`--allow-fs-read=${file}`);
  command.push("--disallow-code-generation-from-strings", `--max-old-space-size=${HEAP_MIB}`, "--stack-size=900");
  names.push("Node's permissions", "frozen realm", "virtual steps");
  layersFound = { command: [...command, childFile()], names };
  return layersFound;
}

/** The layers that are active on this computer, for people. */
export function activeLayers(): readonly string[] {
  return layers().names;
}

function childFile(): string {
  for (const path of ["./runner_child.js", "../../dist/scripts/lab/runner_child.js"]) {
    const file = fileURLToPath(new URL(path, import.meta.url));
    if (existsSync(file)) return file;
  }
  throw new Error("the package is incomplete: dist/scripts/lab/runner_child.js is missing (npm run build)");
}

// ── One child ──────────────────────────────────────────────────────────────────────────────────────────────────────

type Answer = { readonly reply: unknown } | "died" | "spent" | "silent" | "forged";

/** How often the child's CPU time is looked at. */
const LOOK_MS = 500;

interface Child {
  /**
   * The reply to one request as parsed JSON. `died`: the child ended · `spent`: it has used up `cpuLimit` seconds of
   * CPU time · `silent`: neither an answer nor CPU time used within `restMs`
   */
  ask(request: object, restMs: number, cpuLimit: number): Promise<Answer>;
  kill(): void;
}

function startChild(): Child {
  const [command = "", ...args] = layers().command;
  const child: ChildProcess = spawn(command, args, {
    stdio: ["pipe", "ignore", "ignore", "pipe"],
    env: { TZ: "UTC", LANG: "C" },
    cwd: "/",
  });
  const replies = child.stdio[3] as Readable;
  let nextId = 1;
  let waiting: ((line: string | null) => void) | null = null;
  const chunks: Buffer[] = [];
  let nrBytes = 0;
  let hasEnded = false;
  const ended = (): void => {
    hasEnded = true;
    waiting?.(null);
    waiting = null;
  };
  child.on("error", ended);
  child.on("exit", ended);
  (child.stdin as Duplex | null)?.on("error", () => {});
  replies.on("error", () => {});
  replies.on("data", (chunk: Buffer) => {
    nrBytes += chunk.length;
    chunks.push(chunk);
    if (nrBytes > MAX_REPLY_BYTES) child.kill("SIGKILL");
    if (!chunk.includes(10)) return;
    const line = Buffer.concat(chunks).toString("utf8");
    chunks.length = 0;
    nrBytes = 0;
    const answer = waiting;
    waiting = null;
    answer?.(line);
  });

  /** Why the child is given up, seen again and again from now on; null as long as it may go on. */
  const watch = (restMs: number, cpuLimit: number): (() => "spent" | "silent" | null) => {
    // Most answers are there before anybody looks: the first look is the start.
    let start: number | null | undefined;
    let [last, nrRests] = [Number.NaN as number | null, 0];
    return () => {
      const now = cpuSeconds(child.pid ?? 0);
      start ??= now;
      nrRests = now !== null && now !== last ? 0 : nrRests + 1;
      last = now;
      if (now !== null && start !== null && now - start > cpuLimit) return "spent";
      // Where nobody says what was used, a busy computer has to be waited for longer.
      const patience = now === null ? restMs * loadFactor() : restMs;
      return nrRests * LOOK_MS > patience ? "silent" : null;
    };
  };

  return {
    async ask(request, restMs, cpuLimit) {
      const id = nextId++;
      if (hasEnded) return "died";
      const answered = new Promise<string | null | "spent" | "silent">((resolve) => {
        const look = watch(restMs, cpuLimit);
        const timer = setInterval(() => {
          const why = look();
          if (why === null) return;
          clearInterval(timer);
          resolve(why);
        }, LOOK_MS);
        waiting = (line) => {
          clearInterval(timer);
          resolve(line);
        };
      });
      child.stdin?.write(`${JSON.stringify({ id, ...request })}\n`);
      const line = await answered;
      if (line === "spent" || line === "silent") return line;
      if (line === null) return "died";
      // Exactly one line, with this number: whoever writes more into the channel forges.
      if (line.indexOf("\n") !== line.length - 1) return "forged";
      try {
        const reply: unknown = JSON.parse(line);
        return typeof reply === "object" && reply !== null && "id" in reply && reply.id === id ? { reply } : "forged";
      } catch {
        return "forged";
      }
    },
    kill() {
      child.kill("SIGKILL");
      child.stdin?.destroy();
      replies.destroy();
    },
  };
}

// ── The sandbox ────────────────────────────────────────────────────────────────────────────────────────────────────

function stopped(kind: Stop["kind"], message: string): RawObservation {
  return { claims: [], steps: [], log: [], stop: { kind, op: -1, message, stack: "", site: -1 } };
}

const DIED = (): RawObservation => stopped("died", "the process ended in the middle of an operation (out of memory?)");
const SPENT = (): RawObservation =>
  stopped(
    "died",
    "an operation has used up its CPU time without a step of the student's own (a built-in without end?)",
  );
const FORGED = (): RawObservation => stopped("forged", "something wrote into the grader's channel");

type Ran = RawObservation[] | "died" | "spent" | "forged";

export function createSandbox(options: SandboxOptions = {}): Sandbox {
  const { restMs = 30_000, cpuSeconds: cpuLimit = 60 } = options;
  const sets = new Map<string, readonly Module[]>();
  /** Programs of the set that was loaded last which had no CPU time left. */
  let nrSpent = 0;
  /** Seconds of CPU time that the last request took, and the child so far. */
  let [cpuOfRequest, cpuOfChild] = [0, 0];
  let child: Child | null = null;
  let hasSets = new Set<string>();
  let isClosed = false;

  const refuseIfClosed = (): void => {
    if (isClosed) throw new InfrastructureError("the grade was stopped");
  };
  const restart = (): void => {
    child?.kill();
    child = null;
  };

  const ask = async (request: object): ReturnType<Child["ask"]> => {
    refuseIfClosed();
    if (child === null) {
      child = startChild();
      hasSets = new Set();
      cpuOfChild = 0;
    }
    const answer = await child.ask(request, restMs, cpuLimit);
    // A child that we ended ourselves says nothing about the student's code.
    refuseIfClosed();
    if (typeof answer === "string") restart();
    if (answer === "silent")
      throw new InfrastructureError(`the student's program rested for ${restMs / 1000} s and was stopped`);
    return answer;
  };

  const ensure = async (set: string): Promise<LoadProblem | null> => {
    if (child !== null && hasSets.has(set)) return null;
    const answer = await ask({ load: set, modules: sets.get(set) ?? [] });
    if (typeof answer === "string") throw new InfrastructureError("the lab's process does not start");
    // The child keeps the last set only.
    hasSets.clear();
    hasSets.add(set);
    return ((answer.reply as { problem?: LoadProblem | null }).problem ?? null) as LoadProblem | null;
  };

  const runOnce = async (request: RunRequest, programs: readonly Program[]): Promise<Ran> => {
    await ensure(request.set);
    const { set, ...rest } = request;
    const answer = await ask({ run: set, ...rest, programs });
    if (typeof answer === "string") return answer as Exclude<typeof answer, "silent">;
    const { observations, cpu } = answer.reply as { observations?: unknown; cpu?: unknown };
    if (!Array.isArray(observations) || observations.length !== programs.length) return "forged";
    const used = typeof cpu === "number" && cpu >= 0 ? cpu : 0;
    [cpuOfRequest, cpuOfChild] = [used - cpuOfChild, used];
    if (cpuOfChild > CPU_OF_CHILD) restart();
    return observations.map((raw, i) => (isObservation(raw, programs[i] as Program) ? raw : FORGED()));
  };

  /** Somebody ended the child: one program at a time, to find out who. */
  const runEach = async (request: RunRequest, programs: readonly Program[]): Promise<RawObservation[]> => {
    const observations: RawObservation[] = [];
    let nrDeaths = 0;
    for (const program of programs) {
      const alone = nrDeaths < MAX_DEATHS && nrSpent < MAX_SPENT ? await runOnce(request, [program]) : null;
      if (alone === "died") nrDeaths++;
      if (alone === "spent") nrSpent++;
      if (Array.isArray(alone)) observations.push(alone[0] as RawObservation);
      else if (alone === "forged") observations.push(FORGED());
      else observations.push(nrSpent > 0 ? SPENT() : DIED());
    }
    return observations;
  };

  return {
    load(set, modules) {
      sets.set(set, modules);
      hasSets.delete(set);
      nrSpent = 0;
      return ensure(set);
    },
    async run(request, programs) {
      const observations: RawObservation[] = [];
      let size = FIRST_PROGRAMS;
      while (observations.length < programs.length) {
        const some = programs.slice(observations.length, observations.length + size);
        const ran = nrSpent < MAX_SPENT ? await runOnce(request, some) : "spent";
        observations.push(...(typeof ran === "string" ? await runEach(request, some) : ran));
        if (cpuOfRequest > 0) size = Math.floor((size * SECONDS_A_REQUEST) / cpuOfRequest);
        size = Math.max(1, Math.min(size, 8 * some.length, programs.length));
      }
      return observations;
    },
    close() {
      isClosed = true;
      restart();
    },
  };
}

// ── Replies ────────────────────────────────────────────────────────────────────────────────────────────────────────

const STOP_KINDS: readonly unknown[] = ["load", "throw", "steps"];

function isJson(value: unknown, depth = 0): value is Json {
  if (value === null || typeof value === "boolean" || typeof value === "number" || typeof value === "string")
    return true;
  if (typeof value !== "object" || depth > 6) return false;
  return Object.values(value).every((part) => isJson(part, depth + 1));
}

function isObservation(raw: unknown, program: Program): raw is RawObservation {
  if (typeof raw !== "object" || raw === null) return false;
  const { claims, steps, stop, log } = raw as Record<string, unknown>;
  if (!Array.isArray(claims) || !Array.isArray(steps) || !Array.isArray(log)) return false;
  if (claims.length !== steps.length || !steps.every((n) => Number.isSafeInteger(n) && n >= 0)) return false;
  if (!claims.every((claim) => isJson(claim)) || !log.every((line) => typeof line === "string")) return false;
  if (stop === null) return claims.length === program.ops.length;
  if (typeof stop !== "object") return false;
  const { kind, op, message, stack, site } = stop as Record<string, unknown>;
  const isText = typeof message === "string" && typeof stack === "string";
  const isPlace = op === claims.length || (op === -1 && claims.length === 0);
  return isText && isPlace && STOP_KINDS.includes(kind) && Number.isInteger(site);
}
