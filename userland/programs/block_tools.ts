/**
 * dd, iotest and sync: programs that move blocks, on a disk or any other file.
 *
 * dd copies and counts, in the words of the Unix program. iotest writes blocks with a content of their own at their
 * places, in an order of its own, reads all back in another order and compares: what a disk, a driver and a bounce
 * buffer have done to the bytes on their way shows as a block that is not what was written.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { EIO, strerror } from "../../kernel/uapi/errno.ts";
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  MS_SYNC,
  O_CREAT,
  O_DIRECT,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  PROT_READ,
  PROT_WRITE,
  SEEK_END,
  SEEK_SET,
} from "../../kernel/uapi/mman.ts";
import {
  SYS_fsync,
  SYS_ftruncate,
  SYS_lseek,
  SYS_mmap,
  SYS_msync,
  SYS_munmap,
  SYS_nanosleep,
  SYS_read,
  SYS_sync,
  SYS_write,
} from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions, parseSize } from "./arguments.ts";
import { createRandom, type Random } from "./random.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const MAX_BLOCK_BYTES = 1024 * 1024;

/** A buffer of `bytes` of the program's own memory: its address, or −errno. */
const mapBuffer = (tool: Tool, bytes: number): Sleeping<number> =>
  tool.sys(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

/** Reads or writes `bytes` at `buffer`, going on after short transfers: bytes moved, or −errno. */
function* transfer(tool: Tool, nr: number, fd: number, buffer: number, bytes: number): Sleeping<number> {
  let done = 0;
  while (done < bytes) {
    const n = yield* tool.sys(nr, fd, buffer + done, bytes - done);
    if (n < 0) return n;
    if (n === 0) break;
    done += n;
  }
  return done;
}

// ── dd ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface DdPlan {
  readonly isDirectIn: boolean;
  readonly isDirectOut: boolean;
  /** conv=fsync: the disk has it before the program ends. */
  readonly isSynced: boolean;
  readonly input: string | undefined;
  readonly output: string | undefined;
  readonly blockBytes: number;
  readonly count: number;
  readonly skip: number;
  readonly seek: number;
}

/** `if=… of=… bs=… count=… skip=… seek=… iflag=direct oflag=direct conv=fsync`; null for anything else. */
function parseDd(args: readonly string[]): DdPlan | null {
  const given = new Map<string, string>();
  for (const arg of args) {
    const [, key, value] = /^(if|of|bs|count|skip|seek|iflag|oflag|conv)=(.+)$/.exec(arg) ?? [];
    if (key === undefined || value === undefined || given.has(key)) return null;
    given.set(key, value);
  }
  const number = (key: string, fallback: number): number | null => {
    const text = given.get(key);
    return text === undefined ? fallback : parseCount(text);
  };
  const blockBytes = parseSize(given.get("bs") ?? "512");
  const [count, skip, seek] = [number("count", Number.MAX_SAFE_INTEGER), number("skip", 0), number("seek", 0)];
  if (blockBytes === null || count === null || skip === null || seek === null) return null;
  if (blockBytes === 0 || blockBytes > MAX_BLOCK_BYTES) return null;
  const isDirect = (key: string): boolean => given.get(key) === "direct";
  for (const key of ["iflag", "oflag"]) if (given.has(key) && !isDirect(key)) return null;
  if (given.has("conv") && given.get("conv") !== "fsync") return null;
  return {
    isDirectIn: isDirect("iflag"),
    isDirectOut: isDirect("oflag"),
    isSynced: given.has("conv"),
    input: given.get("if"),
    output: given.get("of"),
    blockBytes,
    count,
    skip,
    seek,
  };
}

interface DdResult {
  whole: number;
  partial: number;
  bytes: number;
  error: number;
}

function* copyBlocks(tool: Tool, plan: DdPlan, from: number, to: number): Sleeping<DdResult> {
  const result: DdResult = { whole: 0, partial: 0, bytes: 0, error: 0 };
  const { blockBytes } = plan;
  const buffer = yield* mapBuffer(tool, Math.ceil(blockBytes / PAGE_SIZE) * PAGE_SIZE);
  if (buffer < 0) return { ...result, error: buffer };
  const position = function* (fd: number, blocks: number): Sleeping<number> {
    return blocks === 0 ? 0 : yield* tool.sys(SYS_lseek, fd, blocks * blockBytes, SEEK_SET);
  };
  const [atInput, atOutput] = [yield* position(from, plan.skip), yield* position(to, plan.seek)];
  if (atInput < 0 || atOutput < 0) return { ...result, error: Math.min(atInput, atOutput) };
  while (result.whole + result.partial < plan.count) {
    const got = yield* transfer(tool, SYS_read, from, buffer, blockBytes);
    const put = got > 0 ? yield* transfer(tool, SYS_write, to, buffer, got) : got;
    if (put < 0) return { ...result, error: put };
    if (put === 0) break;
    result.bytes += put;
    if (put === blockBytes) result.whole++;
    else result.partial++;
    if (put < got) return { ...result, error: -EIO };
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
  return plan.isSynced ? { ...result, error: yield* tool.sys(SYS_fsync, to) } : result;
}

const direct = (isDirect: boolean): number => (isDirect ? O_DIRECT : 0);

const dd: ToolDefinition = {
  name: "dd",
  synopsis: "[if=FILE] [of=FILE] [bs=SIZE] [count=N] [skip=N] [seek=N] [iflag=direct] [oflag=direct] [conv=fsync]",
  summary: "copy blocks (dd if=/dev/sda of=/dev/null bs=64K count=16)",
  *main(tool) {
    const plan = parseDd(tool.args);
    if (plan === null) return yield* tool.usage();
    const from = plan.input === undefined ? 0 : yield* tool.libc.open(plan.input, O_RDONLY | direct(plan.isDirectIn));
    const flags = O_WRONLY | O_CREAT | direct(plan.isDirectOut) | (plan.seek === 0 ? O_TRUNC : 0);
    const to = plan.output === undefined ? 1 : yield* tool.libc.open(plan.output, flags);
    if (from < 0 || to < 0) {
      const [path, error] = from < 0 ? [plan.input, from] : [plan.output, to];
      yield* tool.complain(`${path}: ${strerror(error)}`);
      return EXIT_FAILED;
    }
    const start = tool.env.now();
    const { whole, partial, bytes, error } = yield* copyBlocks(tool, plan, from, to);
    if (plan.input !== undefined) yield* tool.libc.close(from);
    if (plan.output !== undefined) yield* tool.libc.close(to);
    const seconds = Math.max(1, tool.env.now() - start) / 1e9;
    for (const line of [`${whole}+${partial} records in`, `${whole}+${partial} records out`]) {
      yield* tool.libc.eprint(`${line}\n`);
    }
    const rate = bytes / seconds / 1e6;
    yield* tool.libc.eprint(`${bytes} bytes copied, ${seconds.toPrecision(4)} s, ${rate.toPrecision(3)} MB/s\n`);
    if (error < 0) yield* tool.complain(strerror(error));
    return error < 0 ? EXIT_FAILED : EXIT_OK;
  },
};

// ── iotest ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface IoPlan {
  readonly path: string;
  /** Address of the whole file, with --mmap; 0 without. */
  readonly mapped: number;
  /** fsync, or msync, between writing and reading. */
  readonly isSynced: boolean;
  readonly totalBytes: number;
  readonly blockBytes: number;
  readonly seed: number;
}

interface IoResult {
  nrWritten: number;
  nrRead: number;
  nrWrong: number;
  error: number;
}

/** The whole file in memory, as large as it is to be: its address, or −errno. */
function* mapFile(tool: Tool, fd: number, bytes: number): Sleeping<number> {
  const at = yield* tool.sys(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at < 0) return at;
  // A file in RAM ends where it was last written; a disk ends where it ends (−EINVAL).
  const end = yield* tool.sys(SYS_lseek, fd, 0, SEEK_END);
  const error = end >= bytes ? 0 : yield* tool.sys(SYS_ftruncate, fd, bytes);
  return error < 0 ? error : at;
}

/** 0 … n − 1 in a random order. */
function shuffled(n: number, random: Random): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}

/** The content of block `nr`: a random sequence of its own, so that no two blocks, and no two halves, are alike. */
function blockContent(nr: number, seed: number, bytes: number): Uint8Array {
  const random = createRandom(Math.imul(nr + 1, 0x9e37_79b1) ^ seed);
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = random.below(2 ** 32);
  return new Uint8Array(words.buffer).subarray(0, bytes);
}

/** All bytes alike? A loop: half of a long run's time went into closures here (2026, Node 20). */
function isSame(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return a.length === b.length;
}

/** Moves block `nr` between the buffer and its place: 0, or −errno; −EIO for a short transfer. */
function* moveBlock(tool: Tool, call: number, fd: number, buffer: number, plan: IoPlan, nr: number): Sleeping<number> {
  if (plan.mapped !== 0) {
    const place = plan.mapped + nr * plan.blockBytes;
    const [to, from] = call === SYS_write ? [place, buffer] : [buffer, place];
    tool.env.mem.copy(to, from, plan.blockBytes);
    return 0;
  }
  const at = yield* tool.sys(SYS_lseek, fd, nr * plan.blockBytes, SEEK_SET);
  const moved = at < 0 ? at : yield* transfer(tool, call, fd, buffer, plan.blockBytes);
  return moved < 0 ? moved : moved === plan.blockBytes ? 0 : -EIO;
}

function* writeAndVerify(tool: Tool, fd: number, buffer: number, plan: IoPlan): Sleeping<IoResult> {
  const random = createRandom(plan.seed);
  const result: IoResult = { nrWritten: 0, nrRead: 0, nrWrong: 0, error: 0 };
  const nrBlocks = Math.floor(plan.totalBytes / plan.blockBytes);
  for (const nr of shuffled(nrBlocks, random)) {
    tool.env.mem.write(buffer, blockContent(nr, plan.seed, plan.blockBytes));
    const error = yield* moveBlock(tool, SYS_write, fd, buffer, plan, nr);
    if (error < 0) return { ...result, error };
    result.nrWritten++;
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
  if (plan.isSynced) {
    const bytes = nrBlocks * plan.blockBytes;
    const error = yield* plan.mapped === 0 ? tool.sys(SYS_fsync, fd) : tool.sys(SYS_msync, plan.mapped, bytes, MS_SYNC);
    if (error < 0) return { ...result, error };
  }
  for (const nr of shuffled(nrBlocks, random)) {
    tool.env.mem.fill(buffer, 0, plan.blockBytes);
    const error = yield* moveBlock(tool, SYS_read, fd, buffer, plan, nr);
    if (error < 0) return { ...result, error };
    result.nrRead++;
    const read = tool.env.mem.read(buffer, plan.blockBytes);
    if (!isSame(read, blockContent(nr, plan.seed, plan.blockBytes))) result.nrWrong++;
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
  return result;
}

const iotest: ToolDefinition = {
  name: "iotest",
  synopsis: "FILE [--size SIZE] [--block SIZE] [--seed S] [--direct | --mmap] [--sync] [--hold CYCLES]",
  summary: "write blocks of a file in random order, read them back, compare (iotest /dev/sda --size 1M)",
  *main(tool) {
    const options = parseOptions(tool.args, {
      flags: ["--direct", "--mmap", "--sync"],
      values: { "--size": parseSize, "--block": parseSize, "--seed": parseCount, "--hold": parseCount },
      minOperands: 1,
      maxOperands: 1,
    });
    const blockBytes = options?.values.get("--block") ?? 16 * 1024;
    const totalBytes = options?.values.get("--size") ?? 1024 * 1024;
    if (options === null || blockBytes === 0 || blockBytes > MAX_BLOCK_BYTES || totalBytes < blockBytes) {
      return yield* tool.usage();
    }
    const { flags, values } = options;
    if (flags.has("--direct") && flags.has("--mmap")) return yield* tool.usage();
    const path = options.operands[0] as string;
    const fd = yield* tool.libc.open(path, O_RDWR | O_CREAT | direct(flags.has("--direct")));
    const buffer = fd < 0 ? fd : yield* mapBuffer(tool, Math.ceil(blockBytes / PAGE_SIZE) * PAGE_SIZE);
    const mapped = buffer < 0 || !flags.has("--mmap") ? Math.min(buffer, 0) : yield* mapFile(tool, fd, totalBytes);
    if (mapped < 0) {
      yield* tool.complain(`${path}: ${strerror(mapped)}`);
      return EXIT_FAILED;
    }
    const isSynced = flags.has("--sync");
    const plan: IoPlan = { path, mapped, isSynced, totalBytes, blockBytes, seed: values.get("--seed") ?? 1 };
    const start = tool.env.now();
    const { nrWritten, nrRead, nrWrong, error } = yield* writeAndVerify(tool, fd, buffer, plan);
    const holdCycles = values.get("--hold") ?? 0;
    if (holdCycles > 0) yield* tool.sys(SYS_nanosleep, holdCycles);
    if (mapped > 0) yield* tool.sys(SYS_munmap, mapped, totalBytes);
    yield* tool.libc.close(fd);
    const seconds = Math.max(1, tool.env.now() - start) / 1e9;
    const rate = ((nrWritten + nrRead) * blockBytes) / seconds / 1e6;
    yield* tool.out(
      `iotest: ${path}: ${nrWritten} blocks of ${blockBytes} bytes written, ${nrRead} read, ${nrWrong} wrong, ` +
        `${rate.toPrecision(3)} MB/s\n`,
    );
    if (error < 0) yield* tool.complain(`${path}: ${strerror(error)}`);
    return error < 0 || nrWrong > 0 ? EXIT_FAILED : EXIT_OK;
  },
};

// ── sync ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const sync: ToolDefinition = {
  name: "sync",
  synopsis: "[FILE…]",
  summary: "write what is dirty to the disks; with files: only theirs, and say what could not be written",
  *main(tool) {
    if (tool.args.some((arg) => arg.startsWith("-"))) return yield* tool.usage();
    if (tool.args.length === 0) return (yield* tool.sys(SYS_sync)) < 0 ? EXIT_FAILED : EXIT_OK;
    let status = EXIT_OK;
    for (const path of tool.args) {
      const fd = yield* tool.libc.open(path, O_RDONLY);
      const error = fd < 0 ? fd : yield* tool.sys(SYS_fsync, fd);
      if (fd >= 0) yield* tool.libc.close(fd);
      if (error >= 0) continue;
      yield* tool.complain(`error syncing '${path}': ${strerror(error)}`);
      status = EXIT_FAILED;
    }
    return status;
  },
};

export const BLOCK_TOOLS: readonly ToolDefinition[] = [dd, iotest, sync];
