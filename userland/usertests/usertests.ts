/**
 * usertests: the memory cases of xv6's usertests and the virtual-memory cases of Pintos, as a program of the shell.
 *
 *   usertests              all of them            usertests copyin mmap-read    only these
 *   usertests -q           without the slow ones  usertests -l                  their names
 *
 * Each case runs in a process of its own; afterwards as many pages are free as before (harness.ts).
 */

import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { parseOptions } from "../programs/arguments.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "../programs/tool.ts";
import { CASE_FILES, countFreePages, runCase, TestProcess, type UserTest } from "./harness.ts";
import { PINTOS_CASES } from "./pintos_cases.ts";
import { XV6_MEMORY_CASES } from "./xv6_cases.ts";
import { XV6_PROCESS_CASES } from "./xv6_process_cases.ts";

export const USER_TESTS: readonly UserTest[] = [...XV6_MEMORY_CASES, ...XV6_PROCESS_CASES, ...PINTOS_CASES];

/** What is put off (stacks of the dead, frees behind a grace period) is done after so long. */
const SETTLE_CYCLES = 10_000_000;

interface Result {
  readonly problem: string | null;
  /** Pages that are not free any more. */
  readonly lost: number;
}

/** Runs one case in a child. */
function* runOnce(tool: Tool, test: UserTest): Sleeping<Result> {
  const { libc } = tool;
  yield* libc.sleep(SETTLE_CYCLES);
  const before = yield* countFreePages(libc);
  const pid = yield* libc.fork(function* (env) {
    const t = new TestProcess(env);
    // What is needed to say something is there when memory is not. Not in its children: it would fill a hole.
    yield* t.libc.reserve();
    return yield* runCase(t, test.run);
  });
  if (pid < 0) return { problem: `fork: ${strerror(pid)}`, lost: 0 };
  const { status } = yield* libc.wait(pid);
  for (const path of CASE_FILES) yield* libc.unlink(path);
  // Orphans of the case may live on for a moment.
  yield* libc.sleep(SETTLE_CYCLES);
  const lost = before - (yield* countFreePages(libc));
  return { problem: status === 0 ? null : `status ${status}`, lost };
}

/**
 * Runs one case: null, or what is wrong. What the kernel makes when it first needs it and then keeps (tables of the
 * window of vmalloc) is missing after one run; what is missing after a second one is lost.
 */
function* judge(tool: Tool, test: UserTest): Sleeping<string | null> {
  const first = yield* runOnce(tool, test);
  if (first.problem !== null || first.lost === 0) return first.problem;
  const { problem, lost } = yield* runOnce(tool, test);
  return problem ?? (lost === 0 ? null : `${lost} pages are not free any more`);
}

function* runAll(tool: Tool, tests: readonly UserTest[]): Sleeping<number> {
  let nrFailed = 0;
  // The first fork and the first files make what the kernel then keeps.
  yield* judge(tool, { name: "", origin: "xv6", *run() {} });
  for (const test of tests) {
    const problem = yield* judge(tool, test);
    if (problem !== null) nrFailed++;
    yield* tool.out(`test ${test.name}: ${problem === null ? "OK" : `FAILED (${problem})`}\n`);
  }
  yield* tool.out(nrFailed === 0 ? "ALL TESTS PASSED\n" : `${nrFailed} of ${tests.length} TESTS FAILED\n`);
  return nrFailed === 0 ? EXIT_OK : EXIT_FAILED;
}

export const USERTESTS: ToolDefinition = {
  name: "usertests",
  synopsis: "[-q] [-l] [NAME...]",
  summary: "the memory cases of xv6's usertests and of Pintos (-q without the slow ones)",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-q", "-l"], maxOperands: USER_TESTS.length });
    if (options === null) return yield* tool.usage();
    const unknown = options.operands.find((name) => !USER_TESTS.some((test) => test.name === name));
    if (unknown !== undefined) {
      yield* tool.complain(`${unknown}: no such test (usertests -l lists them)`);
      return EXIT_FAILED;
    }
    const chosen = USER_TESTS.filter(
      ({ name, isSlow }) =>
        (options.operands.length === 0 || options.operands.includes(name)) &&
        !(options.flags.has("-q") && isSlow === true),
    );
    if (!options.flags.has("-l")) return yield* runAll(tool, chosen);
    yield* tool.out(chosen.map(({ name, origin }) => `${name.padEnd(16)} ${origin}\n`).join(""));
    return EXIT_OK;
  },
};
