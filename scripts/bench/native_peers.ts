/**
 * Allocators of this computer's C programs: the C library's, and those whose libraries are installed.
 *
 * native_replay.c is compiled once a run into a temporary folder; an allocator library is loaded in front of the C
 * library (LD_PRELOAD), and the program says which library its malloc came from, so that none is credited with
 * another's time.
 */

import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { packageFile } from "../package_files.ts";
import type { BenchRun } from "./bench_run.ts";
import { runCommand } from "./child.ts";
import type { Sample } from "./child_tasks.ts";
import type { SkippedPeer } from "./figures.ts";

export interface NativePeer {
  readonly name: string;
  /** Path of the library to load in front; null: the C library's own. */
  readonly library: string | null;
}

export interface NativePeers {
  /** The compiled program, or null: then there are no peers. */
  readonly program: string | null;
  readonly peers: readonly NativePeer[];
  readonly skipped: readonly SkippedPeer[];
}

interface KnownLibrary {
  readonly name: string;
  readonly file: RegExp;
  readonly install: string;
}

const LIBRARIES: readonly KnownLibrary[] = [
  { name: "jemalloc", file: /^libjemalloc\.so\.\d+$/, install: "apt-get install libjemalloc2" },
  { name: "mimalloc", file: /^libmimalloc\.so\.\d+(\.\d+)?$/, install: "apt-get install libmimalloc2.0" },
  {
    name: "tcmalloc",
    file: /^libtcmalloc(_minimal)?\.so\.\d+$/,
    install: "apt-get install libtcmalloc-minimal4",
  },
];
const FOLDERS = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

function findLibrary({ file }: KnownLibrary): string | null {
  for (const folder of FOLDERS) {
    const name = existsSync(folder) ? readdirSync(folder).find((entry) => file.test(entry)) : undefined;
    if (name !== undefined) return join(folder, name);
  }
  return null;
}

const systemName = (): string => (process.platform === "linux" ? "system malloc (libc)" : "system malloc");

/** Compiles the replayer into `folder`; what can be measured with it. */
export async function findNativePeers(folder: string, run: BenchRun): Promise<NativePeers> {
  const program = join(folder, "native_replay");
  const compiler = process.env.CC ?? "cc";
  const args = ["-O2", "-std=gnu11", "-o", program, packageFile("bench/native_replay.c"), "-pthread"];
  try {
    await runCommand({ file: compiler, args: process.platform === "linux" ? [...args, "-ldl"] : args }, run);
  } catch {
    const needs = "a C compiler (cc, or what CC names)";
    const install = "apt-get install gcc libc6-dev";
    return { program: null, peers: [], skipped: [systemName(), ...LIBRARIES.map(({ name }) => name)].map(missing) };
    function missing(name: string): SkippedPeer {
      return { name, needs, install };
    }
  }
  const peers: NativePeer[] = [{ name: systemName(), library: null }];
  const skipped: SkippedPeer[] = [];
  for (const known of LIBRARIES) {
    const library = process.platform === "linux" ? findLibrary(known) : null;
    if (library !== null) peers.push({ name: known.name, library });
    else skipped.push({ name: known.name, needs: `its library, on Linux`, install: known.install });
  }
  return { program, peers, skipped };
}

interface StreamReply {
  readonly nrOps: number;
  readonly nsPerOp: number;
  readonly cpuNsPerOp: number;
  readonly worstNsPerOp: number;
  readonly nrFailed: number;
  readonly damaged: number;
  readonly library: string;
}

async function runNative<Reply extends { readonly library: string }>(
  program: string,
  { name, library }: NativePeer,
  args: readonly string[],
  run: BenchRun,
): Promise<Reply | null> {
  const env: Record<string, string> = library === null ? {} : { LD_PRELOAD: library };
  const output = await runCommand({ file: program, args, env }, run);
  if (output === null) return null;
  const reply = JSON.parse(output) as Reply;
  if (library !== null && basename(reply.library) !== basename(library)) {
    throw new Error(`bench: ${name}: malloc came from ${reply.library} instead of ${library}`);
  }
  return reply;
}

/** A replay of one thread: `args` as at the head of native_replay.c. */
export async function sampleNative(
  program: string,
  peer: NativePeer,
  args: readonly string[],
  run: BenchRun,
): Promise<Sample | null> {
  const reply = await runNative<StreamReply>(program, peer, args, run);
  if (reply === null) return null;
  return {
    value: reply.nsPerOp,
    cpu: reply.cpuNsPerOp,
    worst: reply.worstNsPerOp,
    nrOps: reply.nrOps,
    failures: reply.nrFailed,
    fault: reply.damaged > 0 ? `${reply.damaged} blocks were damaged` : null,
  };
}

/** A workload of `nrThreads` threads: million pairs per second. */
export async function sampleNativeThreads(
  program: string,
  peer: NativePeer,
  workload: "churn" | "pipe",
  { nrThreads, nrPairs }: { readonly nrThreads: number; readonly nrPairs: number },
  run: BenchRun,
): Promise<Sample | null> {
  const args = [workload, String(nrThreads), String(nrPairs)];
  const reply = await runNative<{ library: string; millionPairsPerSecond: number }>(program, peer, args, run);
  if (reply === null) return null;
  return { value: reply.millionPairsPerSecond, cpu: null, worst: null, nrOps: nrPairs, failures: 0, fault: null };
}
