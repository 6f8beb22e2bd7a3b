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
 * The wall clock only guards against a child that no longer answers. Then there is no verdict: `InfrastructureError`.
 * A child that ends by itself is started anew, and the program that ended it is found and marked `died`.
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Json, Observation, Program, Stop } from "../../labs/kit/program.ts";
import { UsageError } from "../usage_error.ts";
import type { Module } from "./compile.ts";

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
  /** Wall-clock limit of one request; default 30 s. */
  readonly timeoutMs?: number;
}

const DATA_BYTES = 1_500_000_000;
const HEAP_MIB = 400;
const CPU_SECONDS = 120;
const NR_PROCESSES = 64;
const MAX_REPLY_BYTES = 64 * 1024 * 1024;
/** After so many deaths the rest of a request is not tried any more. */
const MAX_DEATHS = 3;

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

interface Child {
  /** The reply to one request as parsed JSON; `died` if the child ended, `silent` if it did not answer in time. */
  ask(request: object, timeoutMs: number): Promise<{ readonly reply: unknown } | "died" | "silent" | "forged">;
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

  return {
    async ask(request, timeoutMs) {
      const id = nextId++;
      if (hasEnded) return "died";
      const answered = new Promise<string | null | undefined>((resolve) => {
        const timer = setTimeout(() => resolve(undefined), timeoutMs);
        waiting = (line) => {
          clearTimeout(timer);
          resolve(line);
        };
      });
      child.stdin?.write(`${JSON.stringify({ id, ...request })}\n`);
      const line = await answered;
      if (line === undefined) return "silent";
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
const FORGED = (): RawObservation => stopped("forged", "something wrote into the grader's channel");

export function createSandbox(options: SandboxOptions = {}): Sandbox {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const sets = new Map<string, readonly Module[]>();
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
    }
    const answer = await child.ask(request, timeoutMs);
    // A child that we ended ourselves says nothing about the student's code.
    refuseIfClosed();
    if (answer === "died" || answer === "forged") restart();
    if (answer === "silent") {
      restart();
      throw new InfrastructureError(`the student's program gave no answer for ${timeoutMs / 1000} s and was stopped`);
    }
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

  const runOnce = async (
    request: RunRequest,
    programs: readonly Program[],
  ): Promise<RawObservation[] | "died" | "forged"> => {
    await ensure(request.set);
    const { set, ...rest } = request;
    const answer = await ask({ run: set, ...rest, programs });
    if (typeof answer === "string") return answer === "forged" ? "forged" : "died";
    const { observations } = answer.reply as { observations?: unknown };
    if (!Array.isArray(observations) || observations.length !== programs.length) return "forged";
    return observations.map((raw, i) => (isObservation(raw, programs[i] as Program) ? raw : FORGED()));
  };

  return {
    load(set, modules) {
      sets.set(set, modules);
      hasSets.delete(set);
      return ensure(set);
    },
    async run(request, programs) {
      if (programs.length === 0) return [];
      const together = await runOnce(request, programs);
      if (typeof together !== "string") return together;
      if (programs.length === 1) return [together === "died" ? DIED() : FORGED()];
      // Somebody ended the child: one at a time, to find out who.
      const observations: RawObservation[] = [];
      let nrDeaths = 0;
      for (const program of programs) {
        const alone = nrDeaths < MAX_DEATHS ? await runOnce(request, [program]) : "died";
        if (alone === "died") nrDeaths++;
        observations.push(alone === "died" ? DIED() : alone === "forged" ? FORGED() : (alone[0] as RawObservation));
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
