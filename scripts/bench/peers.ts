/**
 * The peers of a run: which are here, and for the others what they need and the command that brings it.
 */

import { join } from "node:path";
import type { BenchRun } from "./bench_run.ts";
import { runTask } from "./child.ts";
import type { SkippedPeer } from "./figures.ts";
import { JS_PEERS, type JsPeer, packageFolder } from "./js_peers.ts";
import { findNativePeers, type NativePeers } from "./native_peers.ts";

export interface Peers {
  readonly js: readonly JsPeer[];
  /** AssemblyScript's allocator, compiled; null without it. */
  readonly compiled: string | null;
  readonly native: NativePeers;
  readonly skipped: readonly SkippedPeer[];
}

/** Looks for peers; compiles those that are source. `folder` is temporary. */
export async function findPeers(folder: string, run: BenchRun): Promise<Peers> {
  run.detail("looking for peers");
  const skipped: SkippedPeer[] = [];
  let compiled: string | null = null;
  const js: JsPeer[] = [];
  for (const peer of JS_PEERS) {
    if (peer.needs !== null && packageFolder(peer.needs) === undefined) {
      skipped.push({ name: peer.name, needs: peer.needs, install: `npm install --no-save ${peer.needs}` });
      continue;
    }
    if (peer.needs === "assemblyscript") {
      compiled = join(folder, "assemblyscript.wasm");
      await runTask({ do: "compile", file: compiled }, run);
    }
    js.push(peer);
  }
  const native = await findNativePeers(folder, run);
  return { js, compiled, native, skipped: [...skipped, ...native.skipped] };
}
