/**
 * init: process 1. Starts the shell, collects orphans, and switches the machine off when the shell has ended.
 *
 *   init               an interactive shell
 *   init -c COMMANDS   a shell that runs COMMANDS (`slabtown boot --exec`)
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { ECHILD, strerror } from "../kernel/uapi/errno.ts";
import type { Program } from "../kernel/uapi/program.ts";
import { SYS_reboot } from "../kernel/uapi/syscall.ts";
import { createLibc } from "./libc.ts";

const SHELL = "/bin/sh";

export const initProgram: Program = function* (env) {
  const libc = createLibc(env);
  const args = libc.args().slice(1);
  const isInteractive = args[0] !== "-c";
  if (isInteractive) yield* libc.print("Welcome to Slabtown. `help` lists the commands, `exit` ends the run.\n");
  const shell = yield* libc.spawn(SHELL, [SHELL, ...(isInteractive ? ["-i"] : args)]);
  if (shell < 0) {
    yield* libc.eprint(`init: ${SHELL}: ${strerror(shell)}\n`);
    return 1;
  }
  for (;;) {
    const { pid } = yield* libc.wait(-1);
    if (pid === shell || pid === -ECHILD) break;
  }
  yield* libc.call(SYS_reboot, 0);
  // The power goes off at the next chance; init must never end, or the kernel panics.
  for (;;) yield* libc.sleep(CYCLES_PER_SECOND);
};
