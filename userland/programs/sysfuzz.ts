/**
 * sysfuzz: random system calls with random arguments (crashme, trinity).
 *
 *   supervisor ──fork──▶ worker: call 0, 1, 2 … ──fork, vfork, clone──▶ children and threads: a few calls each
 *        │                 │ position
 *        │                 ▼
 *        └──reads── shared page      the worker has died, or does not get on: a new one goes on behind the call
 *
 * What is call K depends on the seed and on K, and on what the worker has mapped and opened before, not on the other
 * processes' random numbers. So calls can be left out (`sysfuzz 7 0-99 150-160`), and what is left is still made.
 *
 * Each result must be ≥ 0 or the negative of an errno that has a name. Another one is printed as wrong.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { errnoName } from "../../kernel/uapi/errno.ts";
import * as mman from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import * as sys from "../../kernel/uapi/syscall.ts";
import { encodeUtf8 } from "../../kernel/uapi/utf8.ts";
import type { Libc } from "../libc.ts";
import { parseCount } from "./arguments.ts";
import { createRandom } from "./random.ts";
import { type CallWorld, drawCall, SCRATCH_BYTES } from "./sysfuzz_calls.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

/** Words of the shared page: position of the worker; seal, call and result of a wrong one. */
const POSITION = 0;
const WRONG_SEAL = 8;
const WRONG_CALL = 12;
/** Word of the scratch pages, behind the strings: position of this process, for the children it forks. */
const MY_POSITION = SCRATCH_BYTES;
const PRIVATE_BYTES = SCRATCH_BYTES + PAGE_SIZE;
const TRACE = SCRATCH_BYTES + 64;

/** A worker that stays at one call for so many looks is ended. */
const LOOK_CYCLES = 400_000;
const MAX_LOOKS = 12;
/** Forks that may fail one after another. */
const MAX_REFUSALS = 20;
const MAX_DEPTH = 2;
const MAX_CHILD_CALLS = 12;
const MAX_KNOWN = 16;
const MAX_ERRNO = 4095;
/** What each worker finds open, besides what it opens. */
const OPEN_FILES = ["/tmp/a", "/tmp/b", "/dev/zero"];

interface Plan {
  readonly seed: number;
  /** Numbers of the calls, in order. */
  readonly calls: readonly number[];
  readonly drivers: readonly string[];
  readonly isTraced: boolean;
  readonly supervisor: number;
  readonly stackTop: number;
  readonly heapStart: number;
  readonly shared: number;
  readonly scratch: number;
}

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(sys).flatMap(([name, nr]) => (name.startsWith("SYS_") ? [[nr, name.slice(4)] as const] : [])),
);

const isGood = (result: number): boolean =>
  Number.isSafeInteger(result) && (result >= 0 || (result >= -MAX_ERRNO && errnoName(result) !== String(result)));

const MAPPING_CALLS: readonly number[] = [sys.SYS_mmap, sys.SYS_mremap, sys.SYS_brk];
const STARTING_CALLS: readonly number[] = [sys.SYS_clone, sys.SYS_fork, sys.SYS_vfork, sys.SYS_spawn];

/** Never 0: that is a page that nobody has sealed. */
const sealOf = ({ seed }: Plan, position: number): number => (Math.imul(position ^ seed, 0x9e37_79b1) | 1) >>> 0;

function* sysCall(env: ProgramEnv, nr: number, args: readonly number[]): Sleeping<number> {
  const result = env.syscall(nr, ...(args as [number]));
  return typeof result === "number" ? result : yield* result;
}

function* trace(env: ProgramEnv, { scratch }: Plan, text: string): Sleeping<void> {
  const bytes = encodeUtf8(text);
  env.mem.write(scratch + TRACE, bytes);
  yield* sysCall(env, sys.SYS_write, [1, scratch + TRACE, bytes.length]);
}

/** Makes random calls, as many as `numbers` has; the worker tells the supervisor how far it is. */
function* makeCalls(
  env: ProgramEnv,
  plan: Plan,
  numbers: Iterable<readonly [position: number, number: number]>,
  entries: readonly number[],
  isWorker: boolean,
): Sleeping<number> {
  const { shared, scratch, seed } = plan;
  const own = yield* sysCall(env, sys.SYS_getpid, []);
  const known: number[] = [];
  const pids: number[] = [own];
  const spared = [plan.supervisor];
  let slot = 0;
  for (const [position, number] of numbers) {
    env.mem.st32(scratch + MY_POSITION, position);
    if (isWorker) env.mem.st32(shared + POSITION, position);
    const random = createRandom(Math.imul(number, 0x27d4_eb2f) ^ seed);
    const { mem } = env;
    const world: CallWorld = {
      mem,
      random,
      known,
      pids,
      entries,
      stackTop: plan.stackTop,
      heapStart: plan.heapStart,
      scratch,
      slot,
      position,
      drivers: plan.drivers,
      spared,
    };
    const [nr = 0, ...args] = drawCall(world);
    slot = world.slot;
    if (plan.isTraced) yield* trace(env, plan, `${own}: ${number} ${NAMES.get(nr) ?? nr}(${args.join(", ")})\n`);
    const result = yield* sysCall(env, nr, args);
    if (plan.isTraced) yield* trace(env, plan, `${own}: ${number} = ${result}\n`);
    if (!isGood(result)) {
      env.mem.st32(shared + WRONG_CALL, nr);
      env.mem.st32(shared + WRONG_CALL + 4, position);
      env.mem.st32(shared + WRONG_SEAL, sealOf(plan, position));
    }
    if (result > 0 && MAPPING_CALLS.includes(nr)) known[position % MAX_KNOWN] = result - (result % PAGE_SIZE);
    if (result > 0 && STARTING_CALLS.includes(nr)) pids[position % MAX_KNOWN] = result;
    if (env.timeIsUp()) yield PREEMPTED;
  }
  return EXIT_OK;
}

/** The code of children and threads at each depth: text addresses in `env`'s process. */
function childEntries(env: ProgramEnv, plan: Plan): (readonly number[])[] {
  const entries: (readonly number[])[] = [[]];
  for (let depth = 1; depth <= MAX_DEPTH; depth++) {
    const further = entries[depth - 1] as readonly number[];
    const child: Program = function* (childEnv) {
      const position = childEnv.mem.ld32(plan.scratch + MY_POSITION);
      const random = createRandom(position ^ Math.imul(plan.seed, depth + 1));
      const first = random.below(2 ** 31);
      const numbers = Array.from(
        { length: 1 + random.below(MAX_CHILD_CALLS) },
        (_, i) => [position, first + i] as const,
      );
      return yield* makeCalls(childEnv, plan, numbers, further, false);
    };
    entries.push([env.entryOf(child)]);
  }
  return entries;
}

/** Waits until the worker has ended; where it was. */
function* watch(tool: Tool, plan: Plan, pid: number, start: number): Sleeping<number> {
  const { libc, env } = tool;
  const position = (): number => env.mem.ld32(plan.shared + POSITION);
  let last = start;
  for (let looks = 0; ; looks++) {
    const { pid: ended } = yield* libc.wait(pid, mman.WNOHANG);
    if (ended !== 0) return Math.max(start, position());
    if (position() !== last) looks = 0;
    last = position();
    if (looks >= MAX_LOOKS) yield* libc.kill(pid, mman.SIGKILL);
    yield* libc.sleep(LOOK_CYCLES);
  }
}

/** Ends what workers have left behind; those without a parent end by themselves, or by who runs the machine. */
function* bury(libc: Libc): Sleeping<void> {
  while ((yield* libc.wait(-1, mman.WNOHANG)).pid > 0);
}

function* complainOfWrong({ env, out }: Tool, plan: Plan, position: number): Sleeping<boolean> {
  const at = env.mem.ld32(plan.shared + WRONG_CALL + 4);
  const isSealed = at <= position && env.mem.ld32(plan.shared + WRONG_SEAL) === sealOf(plan, at);
  if (!isSealed || plan.calls.length === 0) return false;
  const nr = env.mem.ld32(plan.shared + WRONG_CALL);
  yield* out(`sysfuzz: 1 wrong result: call ${plan.calls[at] ?? at}, ${NAMES.get(nr) ?? nr}\n`);
  return true;
}

function* supervise(tool: Tool, plan: Plan): Sleeping<number> {
  const { libc, env } = tool;
  const { calls, shared } = plan;
  const entries = childEntries(env, plan);
  let [next, refusals, restarts] = [0, 0, -1];
  let isWrong = false;
  while (next < calls.length && refusals < MAX_REFUSALS) {
    const start = next;
    const worker: Program = (workerEnv) => {
      const numbers = calls.slice(start).map((number, i) => [start + i, number] as const);
      return makeAll(workerEnv, plan, numbers, entries.at(-1) as readonly number[]);
    };
    env.mem.st32(shared + POSITION, start);
    env.mem.st32(shared + WRONG_SEAL, 0);
    const pid = yield* libc.fork(worker);
    if (pid < 0) {
      refusals++;
      yield* libc.sleep(LOOK_CYCLES);
      continue;
    }
    [refusals, restarts] = [0, restarts + 1];
    const reached = yield* watch(tool, plan, pid, start);
    isWrong ||= yield* complainOfWrong(tool, plan, reached);
    yield* bury(libc);
    next = Math.max(start, Math.min(reached, calls.length)) + 1;
  }
  yield* tool.out(`sysfuzz: ${Math.min(next, calls.length)} calls, ${Math.max(restarts, 0)} workers died\n`);
  return isWrong ? EXIT_FAILED : EXIT_OK;
}

function* makeAll(
  env: ProgramEnv,
  plan: Plan,
  numbers: readonly (readonly [number, number])[],
  entries: readonly number[],
): Sleeping<number> {
  const status = yield* makeCalls(env, plan, numbers, entries, true);
  env.mem.st32(plan.shared + POSITION, plan.calls.length);
  return status;
}

/** `A-B` or `N`: the numbers; null for anything else. */
function rangeOf(text: string): number[] | null {
  const [from, to, more] = text.split("-").map(parseCount);
  if (from === undefined || from === null || to === null || more !== undefined) return null;
  const last = to ?? from;
  return last - from < MAX_CALLS ? Array.from({ length: Math.max(0, last - from + 1) }, (_, i) => from + i) : null;
}
const MAX_CALLS = 1_000_000;

export const SYSFUZZ: ToolDefinition = {
  name: "sysfuzz",
  synopsis: "SEED FIRST-LAST… [--trace] [DRIVER…]",
  summary: "random system calls with random arguments (sysfuzz 7 0-999)",
  *main(tool) {
    const words = tool.args.filter((word) => word !== "--trace");
    const drivers = words.filter((word) => /^[a-z]+$/.test(word));
    const [first, ...ranges] = words.filter((word) => !drivers.includes(word));
    const seed = parseCount(first ?? "");
    const parsed = ranges.map(rangeOf);
    if (seed === null || ranges.length === 0 || parsed.includes(null)) return yield* tool.usage();
    const { libc } = tool;
    const rw = mman.PROT_READ | mman.PROT_WRITE;
    const map = (bytes: number, kind: number): Sleeping<number> =>
      libc.call(sys.SYS_mmap, 0, bytes, rw, kind | mman.MAP_ANONYMOUS, -1, 0);
    const shared = yield* map(PAGE_SIZE, mman.MAP_SHARED);
    const scratch = yield* map(PRIVATE_BYTES, mman.MAP_PRIVATE);
    if (shared < 0 || scratch < 0) return EXIT_FAILED;
    const supervisor = yield* libc.getpid();
    const stackTop = Math.ceil(tool.env.argv / PAGE_SIZE) * PAGE_SIZE;
    const heapStart = yield* libc.call(sys.SYS_brk, 0);
    const isTraced = tool.args.includes("--trace");
    const calls = parsed.flatMap((range) => range ?? []);
    // The calls shall not wait for the keyboard, nor write to the terminal.
    yield* libc.close(0);
    yield* libc.close(2);
    for (const path of OPEN_FILES) yield* libc.open(path, mman.O_RDWR | mman.O_CREAT);
    const places = { stackTop, heapStart, shared, scratch };
    return yield* supervise(tool, { seed, calls, drivers, isTraced, supervisor, ...places });
  },
};
