/**
 * lockdep: proves that locks are used in a way that cannot deadlock, on the runs that do not.
 *
 * Theory.
 *
 * 1. A deadlock needs an unlucky moment; the mistake behind it is there every time. So lockdep does not look at waits
 *    but at acquisitions, and not at locks but at *classes* of locks (all zone locks are one): it remembers every way
 *    in which a class was ever used, and complains on first evidence that two of them do not go together.
 *
 * 2. Usage. For each class: was it ever taken in a hard interrupt (softirq)? Was it ever taken, or held, with those
 *    switched on? Both together is a deadlock in waiting: the interrupt comes while its own CPU holds the lock.
 *
 *      {+...}  taken with hardirqs on      {-...}  taken in hardirq      {?...}  both      {....}  neither
 *       four places: hardirq, hardirq read, softirq, softirq read
 *
 * 3. Order (lockdep_graph.ts). Taking B while holding A adds the edge A → B. An edge that would close a cycle is
 *    reported before it is added: AA, ABBA, and any longer ring, whoever took which part of it and when.
 *
 * 4. Both. If A is taken in interrupts and B with interrupts on, a way A → … → B is a deadlock too: the holder of B is
 *    interrupted by somebody who waits for A, whose holder waits for B. Checked when an edge is added, and again when a
 *    class changes its usage.
 *
 * 5. Wait context. A lock that is waited for by sleeping may not be taken by who holds one that is waited for by
 *    spinning, nor in an interrupt.
 *
 * 6. What is held now is a stack per task (per CPU while it is idle); an interrupt pushes onto the stack of whom it
 *    interrupts, and its locks form no edges with those below.
 *
 * All tables are in RAM, of fixed size, and exist only with prove_locking=on; the lock functions are then those of
 * prove_locking.ts, and the plain ones know nothing of this file. As in Linux the first report is the last: what comes
 * after it may be its consequence. Names of classes and where a usage was first seen are host memory: read-only data.
 *
 *   LDP-1  a class has a usage bit if and only if it was used so; contradicting bits are reported with the second one
 *   LDP-2  the graph has no cycle: an edge that would close one is reported instead
 *   LDP-3  no way leads from a class taken in interrupts to one taken with them on
 *   LDP-4  a sleeping lock is not taken under a spinning one, nor in an interrupt
 *   LDP-5  a release matches an acquisition of the same task or CPU
 *   LDP-6  memory that holds a held lock is not freed, nor made a new lock
 *   LDP-7  nothing is held at the return to user space
 *   LDP-8  code that is right is never reported
 *
 * Not tracked: semaphores and completions (no owner), the trylock of the per-CPU page lists (it never waits).
 * Source: Linux kernel/locking/lockdep.c, Documentation/locking/lockdep-design.rst.
 */

import type { Machine } from "./arch/machine.ts";
import { stackNames } from "./bug.ts";
import { type ContextTracking, HARDIRQ_MASK, SOFTIRQ_MASK, SOFTIRQ_OFFSET } from "./context.ts";
import { createLockGraph, depKind, LOCK_GRAPH_BYTES, MAX_CLASSES } from "./lockdep_graph.ts";
import * as text from "./lockdep_report.ts";
import { ENABLED, exclusiveOf, irqNameOf, USED_IN, usageChars, usageName, WRITE_BITS } from "./lockdep_usage.ts";
import { KERN_WARNING, type Printk } from "./printk.ts";
import { TASK_PID, taskComm } from "./task_struct.ts";
import { asPhys, type Context, type PhysAddr } from "./types.ts";

const MAX_LOCKS = 1024;
const MAX_STACKS = 64;
const MAX_DEPTH = 24;

const STACK_OWNER = 0;
const STACK_DEPTH = 4;
const STACK_ENTRIES = 8;
const STACK_BYTES = STACK_ENTRIES + 8 * MAX_DEPTH;

const NR_REPORTS = 0;
const NR_CLASSES = 4;
const STATE_BYTES = 8;
/** Static memory: counters, usage of classes, address → class, stacks, graph. */
export const LOCKDEP_BYTES =
  STATE_BYTES + 4 * MAX_CLASSES + 8 * MAX_LOCKS + STACK_BYTES * MAX_STACKS + LOCK_GRAPH_BYTES;

/** How a lock is taken: bits of `how`. */
export const LD_SHARED = 1;
/** Without waiting. */
export const LD_TRY = 2;
/** Whoever waits for it sleeps. */
export const LD_SLEEPS = 4;

const WAIT_SPIN = 2;
const WAIT_SLEEP = 3;
const WAIT_TASK = 4;

/** Entry of a stack: address, and this word. */
const HELD_CLASS = 0xff;
const HELD_SHARED = 0x100;
const HELD_TRY = 0x200;
const HELD_LEVEL_SHIFT = 10;
const HELD_SLEEPS = 0x1000;

export interface Lockdep {
  /** The word at `lock` is a new lock of class `name`. Reports if it is held. */
  initLock(ctx: Context, lock: PhysAddr, name: string): void;
  /** `lock` is about to be taken (`how`: LD_…). `owner` of a mutex is its task; of a spinlock, what runs here. */
  acquire(ctx: Context, lock: PhysAddr, how: number, owner?: number): void;
  release(ctx: Context, lock: PhysAddr, owner?: number): void;
  /** Interrupts are about to be switched on: marks what is held. */
  hardirqsOn(ctx: Context): void;
  softirqsOn(ctx: Context): void;
  /** Memory is being freed: reports a lock in it that somebody holds, and forgets the others. */
  memoryFreed(ctx: Context, start: PhysAddr, bytes: number): void;
  returnToUser(ctx: Context): void;
  /** A task is gone: forgets what it held. */
  taskEnds(owner: number): void;
  nrHeld(ctx: Context): number;
  nrReports(): number;
  /** `{-.+.}` and the number of edges: for tests and /proc/lockdep_stats. */
  usageOf(lock: PhysAddr): string;
  stats(): { readonly classes: number; readonly edges: number };
}

export interface LockdepDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  /** LOCKDEP_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
}

export function createLockdep({ machine, contexts, printk, statics }: LockdepDeps): Lockdep {
  const { port, harts } = machine;
  const USAGE = statics + STATE_BYTES;
  const LOCKS = USAGE + 4 * MAX_CLASSES;
  const STACKS = LOCKS + 8 * MAX_LOCKS;
  const graph = createLockGraph(port, STACKS + STACK_BYTES * MAX_STACKS);
  const names: string[] = [];
  const seen = new Map<number, string>();
  let isOff = false;

  // ── Classes ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const tooLow = (limit: string): void => {
    isOff = true;
    printk(KERN_WARNING, `BUG: ${limit} too low!\nturning off the locking correctness validator.`);
  };

  /** Slot of an address in the table: its own, or where it would go; −1 when the table is full. */
  const slotOf = (lock: number): number => {
    for (let i = 0, at = (lock >>> 2) % MAX_LOCKS; i < MAX_LOCKS; i++, at = at + 1 === MAX_LOCKS ? 0 : at + 1) {
      const slot = LOCKS + 8 * at;
      if (port.ld32(slot) === lock || port.ld32(slot) === 0) return slot;
    }
    return -1;
  };
  const setClass = (lock: number, name: string): number => {
    let cls = names.indexOf(name);
    const slot = slotOf(lock);
    if (cls < 0) cls = names.push(name) - 1;
    if (slot < 0 || cls >= MAX_CLASSES) {
      tooLow(slot < 0 ? "MAX_LOCKDEP_ENTRIES" : "MAX_LOCKDEP_KEYS");
      return 0;
    }
    port.st32(statics + NR_CLASSES, names.length);
    port.st32(slot, lock);
    port.st32(slot + 4, cls + 1);
    return cls;
  };
  /** A lock that nobody named is a class of its own. */
  const classOf = (lock: number): number => {
    const slot = slotOf(lock);
    const known = slot < 0 || port.ld32(slot) !== lock ? 0 : port.ld32(slot + 4);
    return known !== 0 ? known - 1 : setClass(lock, `lock@0x${lock.toString(16)}`);
  };

  // ── Stacks ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A task, or the idle loop of a CPU. */
  const ownerOf = (ctx: Context): number => contexts.currentTask(ctx) || ctx.cpu + 1;
  const stackOf = (owner: number): number => {
    for (let i = 0; i < MAX_STACKS; i++) {
      const stack = STACKS + i * STACK_BYTES;
      if (port.ld32(stack + STACK_OWNER) === owner) return stack;
    }
    return 0;
  };
  const makeStack = (owner: number): number => {
    const stack = stackOf(owner) || stackOf(0);
    if (stack === 0) tooLow("MAX_LOCKDEP_STACKS");
    else port.st32(stack + STACK_OWNER, owner);
    return stack;
  };
  const depthOf = (stack: number): number => (stack === 0 ? 0 : port.ld32(stack + STACK_DEPTH));
  const entryAt = (stack: number, i: number): number => stack + STACK_ENTRIES + 8 * i;
  const levelOf = (word: number): number => (word >>> HELD_LEVEL_SHIFT) & 3;
  const setDepth = (stack: number, depth: number): void => {
    port.st32(stack + STACK_DEPTH, depth);
    if (depth === 0) port.st32(stack + STACK_OWNER, 0);
  };

  // ── Reports ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const lockText = (cls: number, lock?: number, sleeps = false): text.LockText => {
    const wait = sleeps ? WAIT_SLEEP : WAIT_SPIN;
    const usage = usageChars(port.ld32(USAGE + 4 * cls));
    const name = names[cls] as string;
    const addr = lock === undefined ? "" : `0x${lock.toString(16).padStart(8, "0")} `;
    return { name, full: `${addr}(${name}){${usage}}-{${wait}:${wait}}` };
  };
  const heldText = (stack: number, i: number): text.LockText => {
    const entry = entryAt(stack, i);
    const word = port.ld32(entry + 4);
    return lockText(word & HELD_CLASS, port.ld32(entry), (word & HELD_SLEEPS) !== 0);
  };
  const reporterOf = (ctx: Context, stack: number): text.Reporter => {
    const task = contexts.currentTask(ctx);
    const who = `${taskComm(port, task)}/${task === 0 ? 0 : port.ld32(task + TASK_PID)}`;
    const nr = depthOf(stack);
    const count = contexts.preemptCount(ctx);
    const hard = (count & HARDIRQ_MASK) !== 0 ? 1 : 0;
    const soft = (count & SOFTIRQ_OFFSET) !== 0 ? 1 : 0;
    const softOn = (count & SOFTIRQ_MASK) === 0 ? 1 : 0;
    return {
      who,
      state: `[HC${hard}[${hard}]:SC${soft}[${soft}]:HE${harts.irqOn[ctx.cpu]}:SE${softOn}]`,
      release: `6.12.0-slabtown #1 ${contexts.taintText()}`,
      held: nr === 0 ? [] : [`${nr} lock${nr === 1 ? "" : "s"} held by ${who}:`, ...heldLines(stack, nr)],
      stack: contexts.stackDump(ctx),
    };
  };
  const heldLines = (stack: number, nr: number): readonly string[] =>
    Array.from({ length: nr }, (_, i) => ` #${i}: ${heldText(stack, i).full}`);
  const report = (message: string): void => {
    isOff = true;
    port.st32(statics + NR_REPORTS, port.ld32(statics + NR_REPORTS) + 1);
    printk(KERN_WARNING, message);
    contexts.taint("W");
  };
  const where = (): string =>
    stackNames()
      .filter((name) => !OWN_FRAMES.has(name))
      .slice(0, 6)
      .join(" < ");

  // ── Usage ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** LDP-1, LDP-3: the class is used in one more way. */
  const mark = (ctx: Context, cls: number, bit: number, lock: number, sleeps: boolean): void => {
    const before = port.ld32(USAGE + 4 * cls);
    if (isOff || (before & bit) !== 0) return;
    port.st32(USAGE + 4 * cls, before | bit);
    seen.set(cls * 256 + bit, where());
    const excluded = exclusiveOf(bit);
    const stack = stackOf(ownerOf(ctx));
    if ((before & excluded) !== 0) {
      const old = lowest(before & excluded);
      const place = seen.get(cls * 256 + old) as string;
      const reporter = reporterOf(ctx, stack);
      report(text.inconsistentText(reporter, lockText(cls, lock, sleeps), usageName(old), usageName(bit), place));
      return;
    }
    const isSafe = (bit & USED_IN) !== 0;
    const isShared = (bit & WRITE_BITS) === 0;
    const meets = (other: number, isWeak: boolean): boolean => {
      const usage = port.ld32(USAGE + 4 * other);
      return other !== cls && ((isWeak ? usage & WRITE_BITS : usage) & excluded) !== 0;
    };
    const path = isSafe ? graph.forwards(cls, isShared, meets) : graph.backwards(cls, isShared, meets);
    if (path === undefined) return;
    const [changed, found] = [lockText(cls, lock, sleeps), lockText(path.at(-1) as number)];
    const pair = { safe: isSafe ? changed : found, unsafe: isSafe ? found : changed, irq: irqNameOf(bit) };
    report(text.inversionText(reporterOf(ctx, stack), pair, isSafe));
  };
  const lowest = (bits: number): number => bits & -bits;

  const markAcquire = (ctx: Context, cls: number, how: number, lock: number): void => {
    const shared = (how & LD_SHARED) !== 0 ? 1 : 0;
    const sleeps = (how & LD_SLEEPS) !== 0;
    const level = contexts.level(ctx);
    if ((how & LD_TRY) === 0 && level === 2) mark(ctx, cls, 1 << shared, lock, sleeps);
    if ((how & LD_TRY) === 0 && level === 1) mark(ctx, cls, 0x10 << shared, lock, sleeps);
    if (harts.irqOn[ctx.cpu] === 0) return;
    mark(ctx, cls, 4 << shared, lock, sleeps);
    if ((contexts.preemptCount(ctx) & SOFTIRQ_MASK) === 0) mark(ctx, cls, 0x40 << shared, lock, sleeps);
  };

  /** What is held when interrupts come on is held with them on. */
  const markHeld = (ctx: Context, bit: number): void => {
    const stack = stackOf(ownerOf(ctx));
    for (let i = 0; i < depthOf(stack); i++) {
      const word = port.ld32(entryAt(stack, i) + 4);
      const shared = (word & HELD_SHARED) !== 0 ? 1 : 0;
      if (levelOf(word) !== contexts.level(ctx)) continue;
      mark(ctx, word & HELD_CLASS, bit << shared, port.ld32(entryAt(stack, i)), (word & HELD_SLEEPS) !== 0);
    }
  };

  // ── Order ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** LDP-4: how the strictest of context and held locks may wait. */
  const checkWait = (ctx: Context, stack: number, cls: number, lock: number, how: number): void => {
    if ((how & LD_TRY) !== 0 || (how & LD_SLEEPS) === 0) return;
    const level = contexts.level(ctx);
    let allowed = level === 0 ? WAIT_TASK : WAIT_SPIN;
    for (let i = 0; i < depthOf(stack); i++) {
      const word = port.ld32(entryAt(stack, i) + 4);
      if (levelOf(word) === level && (word & HELD_SLEEPS) === 0) allowed = WAIT_SPIN;
    }
    if (allowed >= WAIT_SLEEP) return;
    report(
      text.waitContextText(reporterOf(ctx, stack), lockText(cls, lock, true), level === 0 ? WAIT_TASK : WAIT_SPIN),
    );
  };

  /** AA: a lock of this class is held; recursive readers may. True if reported or nothing is left to check. */
  const isRecursion = (ctx: Context, stack: number, cls: number, lock: number, how: number): boolean => {
    for (let i = 0; i < depthOf(stack); i++) {
      const word = port.ld32(entryAt(stack, i) + 4);
      if ((word & HELD_CLASS) !== cls) continue;
      if ((how & LD_SHARED) !== 0 && (word & HELD_SHARED) !== 0) return true;
      const next = lockText(cls, lock, (how & LD_SLEEPS) !== 0);
      report(text.recursionText(reporterOf(ctx, stack), next, heldText(stack, i)));
      return true;
    }
    return false;
  };

  /** LDP-2, LDP-3: the edge from a held lock to the next one. False after a report. */
  const addEdge = (ctx: Context, stack: number, i: number, cls: number, lock: number, how: number): boolean => {
    const word = port.ld32(entryAt(stack, i) + 4);
    const [held, heldShared] = [word & HELD_CLASS, (word & HELD_SHARED) !== 0];
    const shared = (how & LD_SHARED) !== 0;
    if (graph.has(held, cls, depKind(heldShared, shared))) return true;
    const next = lockText(cls, lock, (how & LD_SLEEPS) !== 0);
    const path = graph.forwards(cls, shared, (at, isWeak) => at === held && (!heldShared || !isWeak));
    if (path !== undefined) {
      const classes = path.map((at) => lockText(at));
      report(text.circularText(reporterOf(ctx, stack), next, heldText(stack, i), classes));
      return false;
    }
    const pair = badIrqPair(held, heldShared, cls, shared);
    if (pair !== undefined) {
      report(text.badIrqOrderText(reporterOf(ctx, stack), pair, heldText(stack, i), next));
      return false;
    }
    graph.add(held, cls, depKind(heldShared, shared));
    return true;
  };

  /** LDP-3: a class before `held` that is taken in interrupts, and one after `next` that is taken with them on. */
  const badIrqPair = (held: number, heldShared: boolean, next: number, shared: boolean): text.IrqPair | undefined => {
    let excluded = 0;
    const usage = (cls: number, isWeak: boolean): number => {
      const bits = port.ld32(USAGE + 4 * cls);
      return isWeak ? bits & WRITE_BITS : bits;
    };
    graph.backwards(held, heldShared, (cls, isWeak) => {
      const inside = usage(cls, isWeak) & USED_IN;
      for (let bits = inside; bits !== 0; bits &= bits - 1) excluded |= exclusiveOf(lowest(bits));
      return false;
    });
    if (excluded === 0) return undefined;
    const after = graph.forwards(next, shared, (cls, isWeak) => (usage(cls, isWeak) & excluded) !== 0);
    if (after === undefined) return undefined;
    const unsafe = after.at(-1) as number;
    const bit = lowest(port.ld32(USAGE + 4 * unsafe) & excluded);
    const before = graph.backwards(held, heldShared, (cls, isWeak) => (usage(cls, isWeak) & exclusiveOf(bit)) !== 0);
    return { safe: lockText(before?.at(-1) ?? held), unsafe: lockText(unsafe), irq: irqNameOf(bit) };
  };

  /** Edges from what is held at this level, down to the last lock that was waited for. */
  const addEdges = (ctx: Context, stack: number, cls: number, lock: number, how: number): void => {
    const level = contexts.level(ctx);
    for (let i = depthOf(stack) - 1; i >= 0; i--) {
      const word = port.ld32(entryAt(stack, i) + 4);
      if (levelOf(word) !== level || !addEdge(ctx, stack, i, cls, lock, how)) return;
      if ((word & HELD_TRY) === 0) return;
    }
  };

  const push = (stack: number, cls: number, lock: number, how: number, level: number): void => {
    const depth = depthOf(stack);
    if (depth === MAX_DEPTH) {
      tooLow("MAX_LOCK_DEPTH");
      return;
    }
    const shared = (how & LD_SHARED) !== 0 ? HELD_SHARED : 0;
    const tried = (how & LD_TRY) !== 0 ? HELD_TRY : 0;
    const sleeps = (how & LD_SLEEPS) !== 0 ? HELD_SLEEPS : 0;
    port.st32(entryAt(stack, depth), lock);
    port.st32(entryAt(stack, depth) + 4, cls | shared | tried | sleeps | (level << HELD_LEVEL_SHIFT));
    port.st32(stack + STACK_DEPTH, depth + 1);
  };

  /** The first held lock in [start, end), on any stack, is reported. */
  const reportHeldIn = (ctx: Context, start: number, end: number): void => {
    for (let s = 0; s < MAX_STACKS && !isOff; s++) {
      const stack = STACKS + s * STACK_BYTES;
      for (let i = 0; i < depthOf(stack) && !isOff; i++) {
        const lock = port.ld32(entryAt(stack, i));
        if (lock >= start && lock < end) {
          report(text.heldLockFreedText(reporterOf(ctx, stack), heldText(stack, i), start, end));
        }
      }
    }
  };

  return {
    initLock(ctx, lock, name) {
      if (isOff) return;
      reportHeldIn(ctx, lock, lock + 4);
      setClass(lock, name);
    },
    acquire(ctx, lock, how, owner = ownerOf(ctx)) {
      if (isOff) return;
      const cls = classOf(lock);
      const stack = makeStack(owner);
      if (isOff) return;
      checkWait(ctx, stack, cls, lock, how);
      markAcquire(ctx, cls, how, lock);
      if (!isOff && (how & LD_TRY) === 0 && !isRecursion(ctx, stack, cls, lock, how)) {
        addEdges(ctx, stack, cls, lock, how);
      }
      if (!isOff) push(stack, cls, lock, how, contexts.level(ctx));
    },
    release(ctx, lock, owner = ownerOf(ctx)) {
      if (isOff) return;
      const stack = stackOf(owner);
      const depth = depthOf(stack);
      for (let i = depth - 1; i >= 0; i--) {
        if (port.ld32(entryAt(stack, i)) !== lock) continue;
        port.copy(entryAt(stack, i), entryAt(stack, i + 1), 8 * (depth - 1 - i));
        setDepth(stack, depth - 1);
        return;
      }
      report(text.unlockBalanceText(reporterOf(ctx, stack), lockText(classOf(lock), lock)));
    },
    hardirqsOn(ctx) {
      if (isOff) return;
      markHeld(ctx, 4);
      if ((contexts.preemptCount(ctx) & SOFTIRQ_MASK) === 0) markHeld(ctx, 0x40);
    },
    softirqsOn(ctx) {
      if (!isOff && harts.irqOn[ctx.cpu] === 1) markHeld(ctx, 0x40);
    },
    memoryFreed(ctx, start, bytes) {
      if (isOff) return;
      reportHeldIn(ctx, start, start + bytes);
      for (let slot = LOCKS; slot < STACKS; slot += 8) {
        const lock = port.ld32(slot);
        if (lock >= start && lock < start + bytes) port.st32(slot + 4, 0);
      }
    },
    returnToUser(ctx) {
      const stack = isOff ? 0 : stackOf(ownerOf(ctx));
      if (depthOf(stack) > 0) report(text.returnToUserText(reporterOf(ctx, stack)));
    },
    taskEnds(owner) {
      const stack = stackOf(owner);
      if (stack !== 0) setDepth(stack, 0);
    },
    nrHeld: (ctx) => depthOf(stackOf(ownerOf(ctx))),
    nrReports: () => port.ld32(statics + NR_REPORTS),
    usageOf: (lock) => usageChars(port.ld32(USAGE + 4 * classOf(asPhys(lock)))),
    stats: () => ({ classes: names.length, edges: graph.nrEdges() }),
  };
}

/** Functions of lockdep itself, left out of "state was registered at". */
const OWN_FRAMES: ReadonlySet<string> = new Set(["where", "mark", "markAcquire", "markHeld", "acquire", "hardirqsOn"]);

if (ENABLED !== 0xcc) throw new Error("lockdep: the usage bits are not where acquire marks them");
