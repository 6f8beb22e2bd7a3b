/**
 * Heap replay: a program that performs a recorded stream of malloc, free and their family over umalloc.
 *
 * Every operation is performed by its recorded thread, and all of them in recorded order, so that a chunk freed by
 * another thread than the one that allocated it stays what it was. There is one token, the cursor into the
 * recording:
 *
 *     thread 0   ops 0 … 41 ─┐ wakes 1, sleeps             ┌─ ops 58 …
 *     thread 1               └─ ops 42 … 57 ─ wakes 0 ──────┘ last op done: ends
 *
 * Its holder runs on while the operations are its own, then hands over and sleeps in a read from a pipe of its own,
 * until somebody writes a byte there. A thread starts when its first operation is due and ends after its last. (Where
 * there are no pipes a thread waits by yielding; where there are no threads the starter performs their operations.)
 *
 * The table from recorded id to pointer and size stands for the recorded program's own variables, and so does the
 * cursor: they lie on the host and cost nothing. The blocks themselves are touched as a program would:
 *
 *   touch   none    not at all: only the allocator's own accesses
 *           first   first and last byte of each allocation
 *           all     all of it
 *   verify  each block carries a stamp made from its id (first 16 and last 8 bytes), checked before it is freed,
 *           after it was reallocated, and, as zeros, after calloc: two blocks that overlap show
 *
 * Exit status: 0; 1 if the heap's invariants do not hold at the end; 3 if a stamp was damaged.
 */

import { PREEMPTED, type Sleeping } from "../kernel/types.ts";
import type { Program, ProgramEnv } from "../kernel/uapi/program.ts";
import {
  HEAP_CALLOC,
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_MEMALIGN,
  HEAP_NULL_ID,
  HEAP_REALLOC,
  type HeapRecording,
} from "../kernel/uapi/recording.ts";
import { SYS_clone, SYS_close, SYS_pipe2, SYS_read, SYS_thread_join, SYS_write } from "../kernel/uapi/syscall.ts";
import { createStamper, type Stamper } from "./heap_stamp.ts";
import { createUmalloc, type Umalloc, type UmallocOptions } from "./umalloc.ts";
import type { UmallocStats } from "./umalloc_check.ts";

export const REPLAY_OK = 0;
export const REPLAY_BROKEN_HEAP = 1;
export const REPLAY_CORRUPTION = 3;

/** Operations between two looks at the time slice. */
const BATCH_OPS = 64;
const NOT_LIVE = -1;
const NO_FD = -1;
const NOBODY = -1;

export type TouchModel = "none" | "first" | "all";

export interface HeapReplayOptions {
  /** "first" by default. */
  readonly touch?: TouchModel;
  readonly verify?: boolean;
  /** Leaves the blocks that the recording never frees. */
  readonly keepLive?: boolean;
  readonly onMisuse?: UmallocOptions["onMisuse"];
  /** Told at the end what happened, on the host. */
  readonly onEnd?: (summary: HeapReplaySummary) => void;
}

export interface HeapReplaySummary {
  /** Operations performed. */
  readonly nrOps: number;
  /** Allocations that the heap refused. */
  readonly nrFailed: number;
  /** Operations on blocks whose allocation had failed. */
  readonly nrSkipped: number;
  /** Frees and reallocs by another thread than the one that allocated the block. */
  readonly nrCrossThread: number;
  readonly nrCorrupt: number;
  readonly nrThreads: number;
  /** Highest sum of the bytes requested by live blocks. */
  readonly peakLiveBytes: number;
  /** Of the heap, before what was left was freed. */
  readonly stats: UmallocStats;
  /** The broken invariant, or null. */
  readonly broken: string | null;
}

/** What all threads of a replay share. */
interface Replay {
  readonly recording: HeapRecording;
  readonly options: HeapReplayOptions;
  /** Next operation: the token's place. */
  cursor: number;
  /** By id: pointer, bytes requested or NOT_LIVE, and the thread that allocated it. */
  readonly pointer: Float64Array;
  readonly bytes: Float64Array;
  readonly owner: Uint8Array;
  /** By recorded thread: who performs its operations, its last operation, the fd that wakes it, its id. */
  readonly performer: Int16Array;
  readonly lastOp: Float64Array;
  readonly wakeFd: Int32Array;
  readonly tids: number[];
  base: number;
  liveBytes: number;
  peakLiveBytes: number;
  nrFailed: number;
  nrSkipped: number;
  nrCrossThread: number;
  nrCorrupt: number;
}

/** The program that replays `recording`. Each run of it is a replay of its own. */
export function heapReplayProgram(recording: HeapRecording, options: HeapReplayOptions = {}): Program {
  return function* (env) {
    const replay = createReplay(recording, options);
    const heap = createUmalloc(env, options.onMisuse === undefined ? {} : { onMisuse: options.onMisuse });
    replay.base = heap.base;
    // The first allocation lays the heap out; only then can threads attach.
    heap.free(heap.malloc(1));
    const first = recording.nrOps > 0 ? (recording.thread[0] as number) : 0;
    replay.performer[first] = first;
    yield* runThread(env, heap, replay, first);
    for (const tid of replay.tids) yield* call(env, SYS_thread_join, tid);
    const stats = heap.stats();
    if (options.keepLive !== true) yield* freeRest(env, heap, replay);
    const broken = heap.check();
    options.onEnd?.({ ...summaryOf(replay), stats, broken });
    if (broken !== null) return REPLAY_BROKEN_HEAP;
    return replay.nrCorrupt > 0 ? REPLAY_CORRUPTION : REPLAY_OK;
  };
}

function createReplay(recording: HeapRecording, options: HeapReplayOptions): Replay {
  const { nrIds, nrThreads } = recording;
  const lastOp = new Float64Array(nrThreads).fill(-1);
  for (let i = 0; i < recording.nrOps; i++) lastOp[recording.thread[i] as number] = i;
  return {
    recording,
    options,
    cursor: 0,
    pointer: new Float64Array(nrIds),
    bytes: new Float64Array(nrIds).fill(NOT_LIVE),
    owner: new Uint8Array(nrIds),
    performer: new Int16Array(nrThreads).fill(NOBODY),
    lastOp,
    wakeFd: new Int32Array(nrThreads).fill(NO_FD),
    tids: [],
    base: 0,
    liveBytes: 0,
    peakLiveBytes: 0,
    nrFailed: 0,
    nrSkipped: 0,
    nrCrossThread: 0,
    nrCorrupt: 0,
  };
}

function summaryOf(replay: Replay): Omit<HeapReplaySummary, "stats" | "broken"> {
  const { cursor, nrFailed, nrSkipped, nrCrossThread, nrCorrupt, peakLiveBytes, tids } = replay;
  return { nrOps: cursor, nrFailed, nrSkipped, nrCrossThread, nrCorrupt, peakLiveBytes, nrThreads: tids.length + 1 };
}

function* call(env: ProgramEnv, nr: number, a0 = 0, a1 = 0, a2 = 0, a3 = 0): Sleeping<number> {
  const result = env.syscall(nr, a0, a1, a2, a3);
  return typeof result === "object" ? yield* result : result;
}

// ── Threads: passing the token ─────────────────────────────────────────────────────────────────────────────────────

/** Performs the operations of recorded thread `me`, and returns after its last. */
function* runThread(env: ProgramEnv, heap: Umalloc, replay: Replay, me: number): Sleeping<void> {
  const { recording, performer } = replay;
  const perform = createPerformer(env, heap, replay, me);
  const mailbox = { readFd: NO_FD, buffer: 0 };
  while (replay.cursor < recording.nrOps) {
    if (env.timeIsUp()) yield PREEMPTED;
    replay.cursor = perform(replay.cursor, Math.min(replay.cursor + BATCH_OPS, recording.nrOps));
    if (replay.cursor === recording.nrOps) break;
    const next = recording.thread[replay.cursor] as number;
    if (performer[next] === me) continue;
    const isDone = lastOpOf(replay, me) < replay.cursor;
    if (!isDone) yield* openMailbox(env, heap, replay, me, mailbox);
    if (!(yield* handOver(env, heap, replay, me, next, mailbox.buffer))) continue;
    if (isDone) break;
    yield* awaitToken(env, replay, me, mailbox);
  }
  if (mailbox.readFd !== NO_FD) {
    yield* call(env, SYS_close, mailbox.readFd);
    yield* call(env, SYS_close, replay.wakeFd[me]);
  }
  if (mailbox.buffer !== 0) heap.free(mailbox.buffer);
}

interface Mailbox {
  readFd: number;
  /** 8 bytes for pipe2, read and write. */
  buffer: number;
}

/** Last operation of all threads that `me` performs for. */
function lastOpOf(replay: Replay, me: number): number {
  let last = -1;
  for (let t = 0; t < replay.performer.length; t++) {
    if (replay.performer[t] === me) last = Math.max(last, replay.lastOp[t] as number);
  }
  return last;
}

/** A pipe on which `me` can be woken; without one it waits by yielding. */
function* openMailbox(env: ProgramEnv, heap: Umalloc, replay: Replay, me: number, mailbox: Mailbox): Sleeping<void> {
  if (mailbox.buffer === 0) mailbox.buffer = heap.malloc(8);
  if (mailbox.readFd !== NO_FD || mailbox.buffer === 0) return;
  if ((yield* call(env, SYS_pipe2, mailbox.buffer, 0)) < 0) return;
  mailbox.readFd = env.mem.ld32(mailbox.buffer);
  replay.wakeFd[me] = env.mem.ld32(mailbox.buffer + 4);
}

/** Starts the thread of `next`, or wakes it. False if `me` has to perform its operations instead. */
function* handOver(
  env: ProgramEnv,
  heap: Umalloc,
  replay: Replay,
  me: number,
  next: number,
  buffer: number,
): Sleeping<boolean> {
  const receiver = replay.performer[next] as number;
  if (receiver === NOBODY) {
    replay.performer[next] = next;
    const tid = yield* call(env, SYS_clone, 0, 0, env.entryOf(threadProgram(replay, next)), next);
    if (tid > 0) replay.tids.push(tid);
    else replay.performer[next] = me;
    return tid > 0;
  }
  const fd = replay.wakeFd[receiver] as number;
  if (fd === NO_FD) return true;
  // What the byte is does not matter, so any address will do: that of the heap is mapped.
  yield* call(env, SYS_write, fd, buffer === 0 ? heap.base : buffer, 1);
  return true;
}

function* awaitToken(env: ProgramEnv, replay: Replay, me: number, mailbox: Mailbox): Sleeping<void> {
  if (mailbox.readFd !== NO_FD) {
    yield* call(env, SYS_read, mailbox.readFd, mailbox.buffer, 1);
    return;
  }
  const { recording, performer } = replay;
  while (replay.cursor < recording.nrOps && performer[recording.thread[replay.cursor] as number] !== me)
    yield PREEMPTED;
}

function threadProgram(replay: Replay, me: number): Program {
  return function* (env) {
    const { onMisuse } = replay.options;
    const heap = createUmalloc(env, { attach: replay.base, ...(onMisuse === undefined ? {} : { onMisuse }) });
    yield* runThread(env, heap, replay, me);
    heap.detach();
    return 0;
  };
}

// ── Operations ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Performs operations from `from` up to `limit`, as far as they are `me`'s; the index of the next. */
type Performer = (from: number, limit: number) => number;

/** What thread `me` does with blocks. Plain functions: between two batches the thread can be preempted, not within. */
function createPerformer(env: ProgramEnv, heap: Umalloc, replay: Replay, me: number): Performer {
  const { recording, options, pointer, bytes, owner, performer } = replay;
  const { op, thread, id, size, alignShift } = recording;
  const { mem, observer } = env;
  const touch = options.touch ?? "first";
  const stamper: Stamper | undefined = options.verify === true ? createStamper(mem) : undefined;

  /** Writes to block `j` what the touch model and verify ask for. */
  const mark = (p: number, n: number, j: number): void => {
    if (n === 0) return;
    if (touch === "all") mem.fill(p, j & 0xff, n);
    else if (touch === "first") {
      mem.st8(p, j & 0xff);
      if (n > 1) mem.st8(p + n - 1, j & 0xff);
    }
    stamper?.stamp(p, n, j);
  };

  const verify = (j: number): void => {
    if (stamper?.isIntact(pointer[j] as number, bytes[j] as number, j) === false) replay.nrCorrupt++;
  };

  const setLive = (j: number, p: number, n: number): void => {
    const old = bytes[j] as number;
    pointer[j] = p;
    bytes[j] = n;
    replay.liveBytes += n - (old === NOT_LIVE ? 0 : old);
    if (replay.liveBytes > replay.peakLiveBytes) replay.peakLiveBytes = replay.liveBytes;
  };

  const observe = (kind: number, start: number, failed: boolean): void => {
    if (failed) replay.nrFailed++;
    observer?.operation(kind, env.now() - start, failed);
  };

  const allocate = (kind: number, j: number, n: number, shift: number): void => {
    const start = observer === undefined ? 0 : env.now();
    const p =
      kind === HEAP_MALLOC ? heap.malloc(n) : kind === HEAP_CALLOC ? heap.calloc(1, n) : heap.memalign(2 ** shift, n);
    observe(kind, start, p === 0);
    if (p === 0) return;
    owner[j] = me;
    setLive(j, p, n);
    if (stamper !== undefined && kind === HEAP_CALLOC && !stamper.isZero(p, n)) replay.nrCorrupt++;
    mark(p, n, j);
  };

  const reallocate = (j: number, n: number): void => {
    const old = bytes[j] as number;
    if (old !== NOT_LIVE) {
      verify(j);
      if (owner[j] !== me) replay.nrCrossThread++;
    }
    const start = observer === undefined ? 0 : env.now();
    const p = heap.realloc(old === NOT_LIVE ? 0 : (pointer[j] as number), n);
    observe(HEAP_REALLOC, start, p === 0);
    if (p === 0) return;
    owner[j] = me;
    setLive(j, p, n);
    if (stamper?.isHeadIntact(p, Math.min(old, n), j) === false) replay.nrCorrupt++;
    mark(p, n, j);
  };

  const release = (j: number): void => {
    verify(j);
    if (owner[j] !== me) replay.nrCrossThread++;
    const start = observer === undefined ? 0 : env.now();
    heap.free(pointer[j] as number);
    observe(HEAP_FREE, start, false);
    replay.liveBytes -= bytes[j] as number;
    bytes[j] = NOT_LIVE;
  };

  const write = (kind: number, j: number, n: number): void => {
    const start = observer === undefined ? 0 : env.now();
    const p = pointer[j] as number;
    const live = bytes[j] as number;
    mem.fill(p, j & 0xff, Math.min(n, live));
    stamper?.stamp(p, live, j);
    observe(kind, start, false);
  };

  const step = (i: number): void => {
    const kind = op[i] as number;
    const j = id[i] as number;
    if (j === HEAP_NULL_ID) {
      heap.free(0);
      observer?.operation(kind, 0, false);
    } else if (kind === HEAP_MALLOC || kind === HEAP_CALLOC || kind === HEAP_MEMALIGN) {
      allocate(kind, j, size[i] as number, alignShift[i] as number);
    } else if (kind === HEAP_REALLOC) reallocate(j, size[i] as number);
    else if (bytes[j] === NOT_LIVE) replay.nrSkipped++;
    else if (kind === HEAP_FREE) release(j);
    else write(kind, j, size[i] as number);
  };

  return (from, limit) => {
    let i = from;
    while (i < limit && performer[thread[i] as number] === me) step(i++);
    return i;
  };
}

/** Frees the blocks that the recording left. */
function* freeRest(env: ProgramEnv, heap: Umalloc, replay: Replay): Sleeping<void> {
  const { pointer, bytes } = replay;
  const stamper = replay.options.verify === true ? createStamper(env.mem) : undefined;
  for (let j = 0; j < bytes.length; j++) {
    if (j % BATCH_OPS === 0 && env.timeIsUp()) yield PREEMPTED;
    if (bytes[j] === NOT_LIVE) continue;
    const p = pointer[j] as number;
    if (stamper?.isIntact(p, bytes[j] as number, j) === false) replay.nrCorrupt++;
    heap.free(p);
    bytes[j] = NOT_LIVE;
  }
}
