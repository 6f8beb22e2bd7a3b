/**
 * memhog, filehog, stress and leak: programs that use memory so that one can watch.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import {
  MADV_FREE,
  MADV_HUGEPAGE,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  O_CREAT,
  O_WRONLY,
  PROT_READ,
  PROT_WRITE,
} from "../../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../../kernel/uapi/program.ts";
import {
  SYS_clone,
  SYS_getpid,
  SYS_madvise,
  SYS_mmap,
  SYS_nanosleep,
  SYS_thread_join,
  SYS_write,
} from "../../kernel/uapi/syscall.ts";
import { createUmalloc, type Umalloc } from "../umalloc.ts";
import { parseCount, parseOptions, parseSize } from "./arguments.ts";
import { createRandom } from "./random.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const MIB = 1024 * 1024;

// ── memhog ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** How long touching a page took, over many. */
interface Latency {
  nr: number;
  total: number;
  longest: number;
}

interface Hog {
  /** Where each piece of at most one MiB lies. */
  readonly pieces: number[];
  gotBytes: number;
  error: number;
}

/** What is written in page `page`, at its start and at its end: no two pages have the same. */
const stampOf = (page: number): number => (Math.imul(page + 1, 0x9e37_79b1) ^ 0x5a5a_5a5a) >>> 0;

function timed(env: ProgramEnv, latency: Latency, touch: () => void): void {
  const before = env.now();
  touch();
  const took = env.now() - before;
  latency.nr++;
  latency.total += took;
  latency.longest = Math.max(latency.longest, took);
}

/** Maps and stamps `bytes`, in pieces of a MiB, or in one for which huge pages are asked. */
function* hog(tool: Tool, bytes: number, isHuge: boolean, latency: Latency): Sleeping<Hog> {
  const { mem, timeIsUp } = tool.env;
  const got: Hog = { pieces: [], gotBytes: 0, error: 0 };
  while (got.gotBytes < bytes) {
    const piece = Math.min(isHuge ? bytes : MIB, bytes - got.gotBytes);
    const va = yield* tool.sys(SYS_mmap, 0, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (va < 0) return { ...got, error: va };
    if (isHuge) yield* tool.sys(SYS_madvise, va, piece, MADV_HUGEPAGE);
    for (let at = 0; at < piece; at += PAGE_SIZE) {
      const stamp = stampOf((got.gotBytes + at) / PAGE_SIZE);
      timed(tool.env, latency, () => mem.st32(va + at, stamp));
      mem.st32(va + at + PAGE_SIZE - 4, stamp);
      if (timeIsUp()) yield PREEMPTED;
    }
    for (let at = 0; at < piece; at += MIB) got.pieces.push(va + at);
    got.gotBytes += piece;
  }
  return got;
}

/** Says of all pages that they may be lost. */
function* giveUp(tool: Tool, { pieces, gotBytes }: Hog): Sleeping<void> {
  for (const [i, va] of pieces.entries()) {
    yield* tool.sys(SYS_madvise, va, Math.min(MIB, gotBytes - i * MIB), MADV_FREE);
  }
}

/** Looks at every page again: the numbers of pages that do not hold what was written, and of those that are zeros. */
function* verify(
  tool: Tool,
  { pieces, gotBytes }: Hog,
  latency: Latency,
): Sleeping<{ nrWrong: number; nrZero: number }> {
  const { mem, timeIsUp } = tool.env;
  let nrWrong = 0;
  let nrZero = 0;
  for (let done = 0; done < gotBytes; done += PAGE_SIZE) {
    const va = (pieces[Math.floor(done / MIB)] as number) + (done % MIB);
    const stamp = stampOf(done / PAGE_SIZE);
    timed(tool.env, latency, () => {
      const [start, end] = [mem.ld32(va), mem.ld32(va + PAGE_SIZE - 4)];
      if (start === 0 && end === 0) nrZero++;
      else if (start !== stamp || end !== stamp) nrWrong++;
    });
    if (timeIsUp()) yield PREEMPTED;
  }
  return { nrWrong, nrZero };
}

const latencyText = ({ nr, total, longest }: Latency): string =>
  `${Math.round(total / Math.max(1, nr))} cycles a page, longest ${longest}`;

const newLatency = (): Latency => ({ nr: 0, total: 0, longest: 0 });

const memhog: ToolDefinition = {
  name: "memhog",
  synopsis: "SIZE [--huge] [--free] [--hold CYCLES]",
  summary: "map and write SIZE bytes (64M), hold them, verify them; --free: they may be lost meanwhile",
  *main(tool) {
    const options = parseOptions(tool.args, {
      flags: ["--huge", "--free"],
      values: { "--hold": parseCount },
      minOperands: 1,
      maxOperands: 1,
    });
    const bytes = parseSize(options?.operands[0] ?? "");
    if (options === null || bytes === null || bytes === 0) return yield* tool.usage();
    const [first, second]: [Latency, Latency] = [newLatency(), newLatency()];
    const got = yield* hog(tool, bytes, options.flags.has("--huge"), first);
    const { gotBytes, error } = got;
    const kib = (n: number): string => `${Math.ceil(n / 1024)} KiB`;
    if (error < 0) yield* tool.complain(`stopped at ${kib(gotBytes)} of ${kib(bytes)}: ${strerror(error)}`);
    else yield* tool.out(`memhog: ${kib(gotBytes)} touched\n`);
    const mayLose = options.flags.has("--free");
    if (mayLose) yield* giveUp(tool, got);
    const holdCycles = options.values.get("--hold") ?? 0;
    if (holdCycles > 0) yield* tool.sys(SYS_nanosleep, holdCycles);
    const { nrWrong: nrOther, nrZero } = yield* verify(tool, got, second);
    const nrWrong = mayLose ? nrOther : nrOther + nrZero;
    const lost = mayLose ? `${nrZero} lost, ` : "";
    yield* tool.out(
      `memhog: ${Math.ceil(gotBytes / PAGE_SIZE)} pages verified, ${lost}${nrWrong} wrong; ` +
        `first touch ${latencyText(first)}; again ${latencyText(second)}\n`,
    );
    return error < 0 || nrWrong > 0 ? EXIT_FAILED : EXIT_OK;
  },
};

// ── filehog ────────────────────────────────────────────────────────────────────────────────────────────────────────

const FILE_PIECE = 64 * 1024;

const filehog: ToolDefinition = {
  name: "filehog",
  synopsis: "SIZE [--hold CYCLES]",
  summary: "fill a file of the ramfs with SIZE bytes (64M), hold it, remove it",
  *main(tool) {
    const options = parseOptions(tool.args, { values: { "--hold": parseCount }, minOperands: 1, maxOperands: 1 });
    const bytes = parseSize(options?.operands[0] ?? "");
    if (options === null || bytes === null || bytes === 0) return yield* tool.usage();
    const path = `/tmp/filehog.${yield* tool.sys(SYS_getpid)}`;
    const fd = yield* tool.libc.open(path, O_WRONLY | O_CREAT);
    const piece = yield* tool.sys(SYS_mmap, 0, FILE_PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    let [gotBytes, error] = [0, Math.min(fd, piece, 0)];
    if (error === 0) tool.env.mem.fill(piece, 0x5a, FILE_PIECE);
    while (error === 0 && gotBytes < bytes) {
      const written = yield* tool.sys(SYS_write, fd, piece, Math.min(FILE_PIECE, bytes - gotBytes));
      if (written > 0) gotBytes += written;
      else error = written;
      if (tool.env.timeIsUp()) yield PREEMPTED;
    }
    if (error < 0) yield* tool.complain(`stopped at ${Math.ceil(gotBytes / 1024)} KiB: ${strerror(error)}`);
    const holdCycles = options.values.get("--hold") ?? 0;
    if (holdCycles > 0) yield* tool.sys(SYS_nanosleep, holdCycles);
    if (fd >= 0) yield* tool.libc.close(fd);
    yield* tool.libc.unlink(path);
    return error < 0 ? EXIT_FAILED : EXIT_OK;
  },
};

// ── stress ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const NR_SLOTS = 256;
const NOBODY = 0;

interface StressPlan {
  readonly nrOps: number;
  readonly seed: number;
  readonly maxBytes: number;
}

interface StressResult {
  /** Blocks whose content was not what had been written. */
  nrWrong: number;
  nrRefused: number;
}

function isFilledWith(env: ProgramEnv, p: number, bytes: number, byte: number): boolean {
  const content = env.mem.read(p, bytes);
  for (let i = 0; i < bytes; i++) if (content[i] !== byte) return false;
  return true;
}

/** One thread's share: blocks come, grow and go at random, each filled with a byte of its own and checked. */
function* stressHeap(env: ProgramEnv, heap: Umalloc, plan: StressPlan): Sleeping<StressResult> {
  const random = createRandom(plan.seed);
  const blocks = new Float64Array(NR_SLOTS);
  const sizes = new Float64Array(NR_SLOTS);
  const fills = new Uint8Array(NR_SLOTS);
  const result: StressResult = { nrWrong: 0, nrRefused: 0 };
  const verify = (slot: number, bytes: number): void => {
    if (!isFilledWith(env, blocks[slot] as number, bytes, fills[slot] as number)) result.nrWrong++;
  };
  const release = (slot: number): void => {
    verify(slot, sizes[slot] as number);
    heap.free(blocks[slot] as number);
    blocks[slot] = NOBODY;
  };
  const obtain = (slot: number, resize: boolean): void => {
    const bytes = random.size(plan.maxBytes);
    const p = resize ? heap.realloc(blocks[slot] as number, bytes) : heap.malloc(bytes);
    if (p === NOBODY) {
      result.nrRefused++;
      return;
    }
    blocks[slot] = p;
    if (resize) verify(slot, Math.min(bytes, sizes[slot] as number));
    sizes[slot] = bytes;
    fills[slot] = random.below(256);
    env.mem.fill(p, fills[slot] as number, bytes);
  };
  for (let op = 0; op < plan.nrOps; op++) {
    const slot = random.below(NR_SLOTS);
    const isLive = blocks[slot] !== NOBODY;
    if (isLive && random.below(4) > 0) release(slot);
    else obtain(slot, isLive);
    if (env.timeIsUp()) yield PREEMPTED;
  }
  for (let slot = 0; slot < NR_SLOTS; slot++) if (blocks[slot] !== NOBODY) release(slot);
  return result;
}

/** Starts threads 1…n−1, which attach to the heap and report trouble by their exit status; their ids. */
function* startThreads(tool: Tool, base: number, nrThreads: number, plan: StressPlan): Sleeping<number[]> {
  const tids: number[] = [];
  for (let nr = 1; nr < nrThreads; nr++) {
    const entry = tool.env.entryOf(function* (env) {
      const heap = createUmalloc(env, { attach: base });
      const result = yield* stressHeap(env, heap, { ...plan, seed: plan.seed + nr });
      heap.detach();
      return result.nrWrong > 0 ? EXIT_FAILED : EXIT_OK;
    });
    const tid = yield* tool.sys(SYS_clone, 0, 0, entry, nr);
    if (tid < 0) {
      yield* tool.complain(`thread ${nr}: ${strerror(tid)}`);
      break;
    }
    tids.push(tid);
  }
  return tids;
}

const stress: ToolDefinition = {
  name: "stress",
  synopsis: "--ops N [--seed S] [--max BYTES] [--threads T]",
  summary: "random malloc, realloc and free with checked contents",
  *main(tool) {
    const values = { "--ops": parseCount, "--seed": parseCount, "--max": parseSize, "--threads": parseCount };
    const options = parseOptions(tool.args, { values });
    const nrOps = options?.values.get("--ops");
    const maxBytes = options?.values.get("--max") ?? 4096;
    const nrThreads = options?.values.get("--threads") ?? 1;
    if (options === null || nrOps === undefined || maxBytes < 1 || nrThreads < 1 || nrThreads > 64) {
      return yield* tool.usage();
    }
    const plan = { nrOps, seed: options.values.get("--seed") ?? 1, maxBytes };
    const heap = createUmalloc(tool.env);
    // The first allocation lays the heap out; only then others may attach.
    heap.free(heap.malloc(1));
    const tids = yield* startThreads(tool, heap.base, nrThreads, plan);
    const result = yield* stressHeap(tool.env, heap, plan);
    let nrFailed = nrThreads - 1 - tids.length;
    for (const tid of tids) if ((yield* tool.sys(SYS_thread_join, tid)) !== EXIT_OK) nrFailed++;
    const broken = heap.check();
    if (broken !== null) yield* tool.complain(`heap: ${broken}`);
    const stats = heap.stats();
    const isGood = result.nrWrong === 0 && nrFailed === 0 && broken === null && stats.nrMisuses === 0;
    const verdict = isGood ? "contents good" : `${result.nrWrong} WRONG, ${nrFailed} threads FAILED`;
    const threads = `${nrThreads} thread${nrThreads === 1 ? "" : "s"}`;
    yield* tool.out(
      `stress: ${threads} of ${nrOps} operations, seed ${plan.seed}: peak ${Math.ceil(stats.peakBytes / 1024)} KiB, ` +
        `${result.nrRefused} refused, ${verdict}\n`,
    );
    return isGood ? EXIT_OK : EXIT_FAILED;
  },
};

// ── leak ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const leak: ToolDefinition = {
  name: "leak",
  synopsis: "N [--size BYTES] [--hold CYCLES]",
  summary: "allocate N blocks and forget them",
  *main(tool) {
    const values = { "--size": parseSize, "--hold": parseCount };
    const options = parseOptions(tool.args, { values, minOperands: 1, maxOperands: 1 });
    const nr = parseCount(options?.operands[0] ?? "");
    if (options === null || nr === null) return yield* tool.usage();
    const bytes = options.values.get("--size") ?? 64;
    const heap = createUmalloc(tool.env);
    let nrLeaked = 0;
    while (nrLeaked < nr && heap.malloc(bytes) !== 0) {
      nrLeaked++;
      if (tool.env.timeIsUp()) yield PREEMPTED;
    }
    const { heapBytes, mappedBytes } = heap.stats();
    yield* tool.out(
      `leak: ${nrLeaked} blocks of ${bytes} bytes have no owner any more; the heap holds ` +
        `${Math.ceil((heapBytes + mappedBytes) / 1024)} KiB until this process ends\n`,
    );
    const holdCycles = options.values.get("--hold") ?? 0;
    if (holdCycles > 0) yield* tool.sys(SYS_nanosleep, holdCycles);
    return nrLeaked === nr ? EXIT_OK : EXIT_FAILED;
  },
};

export const WORKLOAD_TOOLS: readonly ToolDefinition[] = [memhog, filehog, stress, leak];
