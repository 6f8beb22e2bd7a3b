/**
 * The programs, by the path under which the kernel finds them: front door of userland/.
 */

import type { Program } from "../kernel/uapi/program.ts";
import { initProgram } from "./init.ts";
import { BLOCK_TOOLS } from "./programs/block_tools.ts";
import { FBTEST } from "./programs/fbtest.ts";
import { FILE_TOOLS } from "./programs/files.ts";
import { FORKBOMB } from "./programs/forkbomb.ts";
import { FRAGMENT } from "./programs/fragment.ts";
import { INVERSION } from "./programs/inversion.ts";
import { MODULE_TOOLS } from "./programs/modules.ts";
import { NETWORK_TOOLS } from "./programs/network.ts";
import { PMAP } from "./programs/pmap.ts";
import { PROCESS_TOOLS } from "./programs/processes.ts";
import { REPORT_TOOLS } from "./programs/reports.ts";
import { SENSORD } from "./programs/sensord.ts";
import { SWAP_TOOLS } from "./programs/swap_tools.ts";
import { SYSFUZZ } from "./programs/sysfuzz.ts";
import { TEXT_TOOLS } from "./programs/text_tools.ts";
import { programOf, type ToolDefinition } from "./programs/tool.ts";
import { USERPAGER } from "./programs/userpager.ts";
import { WEBSERVER } from "./programs/webserver.ts";
import { WORKLOAD_TOOLS } from "./programs/workloads.ts";
import { createShell } from "./sh.ts";
import { helpText, type ProgramHelp } from "./sh_builtins.ts";
import { USERTESTS } from "./usertests/usertests.ts";

export { type HeapReplayOptions, type HeapReplaySummary, heapReplayProgram } from "./heap_replay.ts";
export {
  SYSCALL_KINDS,
  type SyscallReplay,
  type SyscallReplayOptions,
  type SyscallReplayReport,
  syscallReplay,
} from "./strace_replay.ts";
export { createUmalloc } from "./umalloc.ts";

const TOOLS: readonly ToolDefinition[] = [
  ...FILE_TOOLS,
  ...TEXT_TOOLS,
  ...REPORT_TOOLS,
  ...PROCESS_TOOLS,
  ...MODULE_TOOLS,
  ...NETWORK_TOOLS,
  ...WORKLOAD_TOOLS,
  ...BLOCK_TOOLS,
  ...SWAP_TOOLS,
  FBTEST,
  FORKBOMB,
  PMAP,
  USERTESTS,
  FRAGMENT,
  INVERSION,
  SENSORD,
  SYSFUZZ,
  USERPAGER,
  WEBSERVER,
];

const SHELL_HELP: ProgramHelp = { name: "sh", synopsis: "[-c COMMANDS | FILE]", summary: "the shell" };

const help: ToolDefinition = {
  name: "help",
  synopsis: "",
  summary: "list the commands",
  *main(tool) {
    yield* tool.out(helpText([...TOOLS, SHELL_HELP]));
    return 0;
  },
};

/** Path → code, for BootOptions.programs. */
export function builtinPrograms(): ReadonlyMap<string, Program> {
  const programs = new Map<string, Program>();
  for (const tool of [...TOOLS, help]) programs.set(`/bin/${tool.name}`, programOf(tool));
  programs.set("/bin/sh", createShell([...TOOLS, SHELL_HELP]));
  programs.set("/sbin/init", initProgram);
  return programs;
}
