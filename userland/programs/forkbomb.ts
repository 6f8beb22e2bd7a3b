/**
 * forkbomb: processes that make processes until there are no more to be had.
 *
 * Each forks until it is refused once, holds its place for a while, waits for its children, and ends. While all places
 * are held everybody is refused, so the bomb ends by itself; what it shows is what refused it: a limit (`ulimit -u`) or
 * want of memory.
 */

import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { createLibc, type Libc } from "../libc.ts";
import { directoryNames } from "./directory.ts";
import { EXIT_OK, type ToolDefinition } from "./tool.ts";

const HOLD_CYCLES = CYCLES_PER_SECOND / 100;

/** Forks until refused: the errno. */
function* forkAll(libc: Libc): Sleeping<number> {
  for (;;) {
    const pid = yield* libc.fork(bomb);
    if (pid < 0) return pid;
    yield PREEMPTED;
  }
}

function* buryAll(libc: Libc): Sleeping<void> {
  yield* libc.sleep(HOLD_CYCLES);
  while ((yield* libc.wait(-1)).pid > 0);
}

const bomb: Program = function* (env) {
  const libc = createLibc(env);
  yield* forkAll(libc);
  yield* buryAll(libc);
  return EXIT_OK;
};

/** Processes of this name at the moment. */
function* countSelf(libc: Libc, name: string): Sleeping<number> {
  const names = yield* directoryNames(libc, "/proc");
  if (typeof names === "number") return 0;
  let nr = 0;
  for (const entry of names) {
    if (/^\d+\/?$/.test(entry) && (yield* libc.readFile(`/proc/${entry.replace("/", "")}/comm`)) === `${name}\n`) nr++;
  }
  return nr;
}

export const FORKBOMB: ToolDefinition = {
  name: "forkbomb",
  synopsis: "",
  summary: "processes that fork until they are refused (try ulimit -u 30 before)",
  *main(tool) {
    if (tool.args.length > 0) return yield* tool.usage();
    const { libc } = tool;
    const refusal = yield* forkAll(libc);
    yield* tool.out(`forkbomb: ${yield* countSelf(libc, "forkbomb")} processes, then: ${strerror(refusal)}\n`);
    yield* buryAll(libc);
    return EXIT_OK;
  },
};
