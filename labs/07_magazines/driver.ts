/**
 * Lab 7, the student's side: a memory with locks and interrupts, and programs of CPUs over it.
 *
 * The exploring engine (explore/engine.ts) runs the programs in one order after the other, with its detectors on. Of
 * each order that differs in what was returned, or in which operations came before which, the history is handed out;
 * it is judged elsewhere. The student's object is made anew for each call.
 */

import {
  createDeepening,
  createDice,
  createEngine,
  type Engine,
  formatSchedule,
  type Strategy,
} from "../../explore/grading.ts";
import { ExplorePort } from "../../kernel/arch/explore_port.ts";
import { createHarts } from "../../kernel/arch/harts.ts";
import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";
import type { HistoryOp } from "../kit/history.ts";
import { type History, IRQ_THREAD, LOAD, LOCK, type MagazinesConfig, STORE, UNLOCK, WAIT } from "./checks/history.ts";

/** Accesses of one run, of one search (replayed ones too), of one operation that nobody disturbs. */
const MAX_STEPS = 3_000;
const MAX_ACCESSES = 3_000_000;
const MAX_ALONE = 5_000;
const MAX_HISTORIES = 1_000;
const MAX_LOGGED = 64;
const MAX_CPUS = 3;
const PER_ACCESS = 5;

type Functions = Readonly<Record<"init" | "alloc" | "free" | "drain", (...args: unknown[]) => unknown>>;
type Refusal = readonly [kind: string, message: string];

const isIn = (value: unknown, end: number): value is number =>
  typeof value === "number" && value >= 0 && value < end && value % 1 === 0;
const show = (value: unknown): string => (typeof value === "number" ? String(value) : typeof value);
/** JSON has no NaN. */
const claimObject = (value: unknown): number | string =>
  typeof value === "number" ? (Number.isFinite(value) ? value : String(value)) : typeof value;

export const create: CreateInstance = (student, config: MagazinesConfig) => {
  const { objects, size, before = "", interrupt } = config;
  const nrCpus = Math.min(MAX_CPUS, config.nrCpus ?? 2);
  const createMagazines = exportedFunction(student, "createMagazines", "magazines.ts");
  const nrMagazines = objects + 2 * nrCpus;
  const nrWords = nrMagazines * (size + 2) + objects + 4 * nrCpus + 16;
  const nrLocks = nrCpus + 1;
  const port = new ExplorePort(new ArrayBuffer(Math.ceil((nrWords + nrLocks + 1) / 2) * 8));
  const harts = createHarts(nrCpus);
  const { irqOn } = harts;
  irqOn.fill(1);

  // Whose access it is; an engine while programs are explored.
  let engine: Engine | null = null;
  let cpu = 0;
  let isInIrq = false;
  let nrAlone = 0;
  let nrAccesses = 0;
  let refused: Refusal | null = null;
  let thrown: Error | null = null;
  let now = 0;
  let log: number[] = [];
  /** Shapes of the accesses of each CPU's program, to notice that it is another one when it is run again. */
  const seen: number[][] = [[], [], []];
  let ops: HistoryOp[][] = [];
  let opNow: HistoryOp | null = null;
  /** Locks that each CPU has, in interrupts too; those that the operation at hand has taken. */
  let held: number[][] = [[], [], []];
  let taken = new Set<number>();

  const refuse = (kind: string, message: string): never => {
    refused ??= [kind, message];
    throw new Error(message);
  };
  const idleAddr = (nrWords + nrLocks) * 4;
  const lockAddr = (lock: number): number => (nrWords + lock) * 4;

  // ── The memory ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** Before an access. */
  const arrive = (): void => {
    nrAccesses++;
    if (engine === null && ++nrAlone > MAX_ALONE)
      refuse("endless", `no end after ${MAX_ALONE} accesses, though no other CPU runs`);
  };
  /**
   * After it, when interrupts that came first have had theirs: is it the one that it was when the program was run
   * before? True if it is made for the first time.
   */
  const isNew = (kind: number, place: number, asked: number): boolean => {
    if (engine === null) return true;
    const shapes = seen[cpu] as number[];
    const shape = (kind * 65_536 + place) * 2 ** 32 + asked;
    const at = port.pos - 1;
    if (at >= shapes.length) {
      shapes[at] = shape;
      return true;
    }
    if (shapes[at] !== shape)
      refuse("unsteady", "the same loads gave another access: something is kept outside of memory");
    return false;
  };
  /** An access that is made for the first time: when it was, and what, for the picture. */
  const note = (kind: number, place: number, value: number): void => {
    now++;
    if (opNow !== null) {
      if (opNow.nrAccesses === 0) opNow.first = now;
      opNow.last = now;
      opNow.nrAccesses++;
    }
    if (engine !== null && log.length < MAX_LOGGED * PER_ACCESS) log.push(cpu, kind, place, value, isInIrq ? 1 : 0);
  };
  const checkWord = (verb: string, word: number): void => {
    if (!isIn(word, nrWords)) refuse("outside", `${verb} of word ${show(word)}: there are words 0 to ${nrWords - 1}`);
  };
  const checkLock = (verb: string, lock: number): void => {
    if (!isIn(lock, nrLocks)) refuse("outside", `${verb}(${show(lock)}): there are locks 0 to ${nrLocks - 1}`);
  };

  const memory = Object.freeze({
    nrWords,
    load(word: number) {
      checkWord("load", word);
      arrive();
      const value = port.ld32(word * 4);
      if (isNew(LOAD, word, 0)) note(LOAD, word, value);
      return value;
    },
    store(word: number, value: number) {
      checkWord("store", word);
      if (!isIn(value, 2 ** 32))
        refuse("bad-word", `store of ${show(value)}: a word is a whole number from 0 to 2^32 − 1`);
      arrive();
      port.st32(word * 4, value);
      if (isNew(STORE, word, value)) note(STORE, word, value);
    },
    lock(lock: number) {
      checkLock("lock", lock);
      const addr = lockAddr(lock);
      if (engine === null && port.peek(addr) !== 0) refuse("self-deadlock", `lock(${lock}): it is taken already`);
      engine?.lockUsed(cpu, addr, irqOn[cpu] === 1, false);
      for (;;) {
        arrive();
        const found = port.cas(addr, 0, cpu + 1);
        if (isNew(LOCK, lock, 0)) note(found === 0 ? LOCK : WAIT, lock, found - 1);
        if (found === 0) break;
        port.waitUntil(addr, 0, true, true);
        isNew(WAIT, lock, 0);
      }
      (held[cpu] as number[]).push(lock);
      taken.add(lock);
    },
    unlock(lock: number) {
      checkLock("unlock", lock);
      const mine = held[cpu] as number[];
      const at = mine.indexOf(lock);
      if (at < 0) refuse("bad-unlock", `unlock(${lock}): CPU ${cpu} does not have it`);
      mine.splice(at, 1);
      arrive();
      port.stAtomic(lockAddr(lock), 0);
      if (isNew(UNLOCK, lock, 0)) note(UNLOCK, lock, 0);
    },
    irqSave() {
      const wereOn = irqOn[cpu] === 1;
      irqOn[cpu] = 0;
      return wereOn;
    },
    irqRestore(wereOn: boolean) {
      if (typeof wereOn !== "boolean") refuse("flag", `irqRestore(${show(wereOn)}): what irqSave() returned is wanted`);
      if (isInIrq && wereOn) refuse("flag", "irqRestore(true) in an interrupt, where they were off");
      irqOn[cpu] = wereOn ? 1 : 0;
    },
    cpu() {
      if (irqOn[cpu] === 1) refuse("preemptible", "cpu() with interrupts on: when it is used it may be another one");
      return cpu;
    },
  });
  const layout = Object.freeze({ nrCpus, nrObjects: objects, magazineSize: size, nrMagazines });

  /** Between operations, where interrupts are on: they come at accesses, so there has to be one. */
  const idle = (): void => {
    if (engine === null || interrupt === undefined || isInIrq) return;
    port.ldAtomic(idleAddr);
    isNew(LOAD, nrWords, 0);
  };

  // ── Programs ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const make = (): Functions => {
    const made = createMagazines(memory, layout);
    const of = (name: string) => method(made, name, "createMagazines");
    return { init: of("init"), alloc: of("alloc"), free: of("free"), drain: of("drain") };
  };

  /** One operation; what it leaves behind beside its result is looked at here. */
  const perform = (op: HistoryOp, call: () => unknown): void => {
    const [outer, flag, nrHeld] = [opNow, irqOn[cpu], (held[cpu] as number[]).length];
    opNow = op;
    const value = call();
    if (op.name === "alloc") op.result = claimObject(value);
    else op.result = 0;
    opNow = outer;
    if ((held[cpu] as number[]).length > nrHeld)
      refuse("lock-kept", `${op.name}() returns and keeps lock ${(held[cpu] as number[]).at(-1)}`);
    if (irqOn[cpu] !== flag)
      refuse("flag", `${op.name}() was called with interrupts ${flag === 1 ? "on" : "off"}, and leaves them otherwise`);
  };

  /** Runs the letters of `program` on CPU `cpu`; `hands`: what it holds, in the order in which it got it. */
  const runLetters = (program: string, thread: number, hands: number[]): void => {
    const mine = (ops[thread] ??= []);
    for (let i = 0; i < program.length; i++) {
      const letter = program[i] as string;
      const isFree = letter === "u" || letter === "U";
      idle();
      if (isFree && hands.length === 0) continue;
      const object = isFree ? ((letter === "u" ? hands.shift() : hands.pop()) as number) : 0;
      const name = isFree ? "free" : letter === "d" ? "drain" : "alloc";
      mine[i] ??= { cpu: thread, name, arg: object, result: "nothing", first: 0, last: 0, nrAccesses: 0 };
      const op = mine[i] as HistoryOp;
      op.arg = object;
      op.result = "nothing";
      const functions = make();
      perform(op, () => (isFree ? functions.free(object) : letter === "d" ? functions.drain() : functions.alloc()));
      if (name === "alloc" && isIn(op.result, objects + 1) && op.result !== 0) hands.push(op.result);
    }
  };

  /** On CPU `who`, with nobody else. */
  const alone = <T>(who: number, work: () => T): T => {
    engine = null;
    cpu = who;
    nrAlone = 0;
    irqOn[who] = 1;
    return work();
  };
  const hands: number[][] = [[], [], []];
  const setUp = (): void => {
    ops = [];
    const op: HistoryOp = { cpu: 0, name: "init", arg: 0, result: 0, first: 0, last: 0, nrAccesses: 0 };
    // All words of a large machine are written once.
    nrAlone = -20 * nrWords;
    perform(op, () => make().init());
    before.split("|").forEach((program, who) => {
      if (who < nrCpus) alone(who, () => runLetters(program, who, hands[who] as number[]));
    });
  };
  /** What the set-up did that it may not: each program then ends with that. */
  const refusalOfSetUp = (): Refusal | null => {
    try {
      setUp();
      return null;
    } catch (error) {
      const refusal = refused;
      if (refusal === null) throw error;
      refused = null;
      return refusal;
    }
  };
  const unusable = refusalOfSetUp();
  const setUpOps = ops.flat().filter((op) => op !== undefined);
  port.mark();

  /** What each CPU gets, one after the other, until its alloc says 0. */
  const drainAll = (): (number | string)[][] => {
    const left: (number | string)[][] = [];
    for (let who = 0; who < nrCpus; who++) {
      const mine: (number | string)[] = [];
      for (let i = 0; i <= objects; i++) {
        const object = alone(who, () => claimObject(make().alloc()));
        if (object === 0) break;
        mine.push(object);
      }
      left.push(mine);
    }
    return left;
  };

  // ── Exploration ──────────────────────────────────────────────────────────────────────────────────────────────────

  const beginRun = (): void => {
    for (const list of seen) list.length = 0;
    ops = [];
    log = [];
    now = 0;
  };
  const guarded = (work: () => void): undefined => {
    try {
      work();
    } catch (error) {
      if (error instanceof Error && refused === null) thrown ??= error;
      throw error;
    }
    return undefined;
  };
  const body = (who: number, program: string): undefined => {
    cpu = who;
    isInIrq = false;
    held[who] = [];
    opNow = null;
    return guarded(() => runLetters(program, who, [...(hands[who] as number[])]));
  };
  const onInterrupt = (who: number): undefined => {
    isInIrq = true;
    guarded(() => runLetters(interrupt ?? "", IRQ_THREAD + who, []));
    isInIrq = false;
    return undefined;
  };

  function search(text: string, plan: Strategy, irqs: number, maxRuns: number) {
    const programs = text.split("|").slice(0, nrCpus);
    const histories = new Map<string, History>();
    const strategy: Strategy = {
      ...plan,
      begin(nr) {
        beginRun();
        plan.begin(nr);
      },
    };
    let endFailure: Refusal | null = null;
    const check = (): null => {
      const done = ops.flat().filter((op) => op !== undefined);
      const [accesses, schedule] = [log, formatSchedule(exploring.events())];
      let left: (number | string)[][] = [];
      try {
        left = drainAll();
      } catch (error) {
        if (refused === null) throw error;
        endFailure = [refused[0], `when all had ended: ${refused[1]}`];
        refused = null;
      }
      engine = exploring;
      const order = done.map((op) => done.map((other) => (other.last < op.first ? 1 : 0)).join("")).join("");
      const key = JSON.stringify([done.map(({ cpu: who, name, arg, result }) => [who, name, arg, result]), left]);
      if (!histories.has(key + order) && histories.size < MAX_HISTORIES)
        histories.set(key + order, { ops: done, left, schedule, log: accesses });
      return null;
    };
    const exploring = createEngine(
      {
        port,
        harts,
        nrCpus: programs.length,
        body: (who) => body(who, programs[who] ?? ""),
        ...(interrupt === undefined ? {} : { interrupt: onInterrupt }),
        check,
        nameOf: (addr) => (addr / 4 < nrWords ? `word ${addr / 4}` : `lock ${addr / 4 - nrWords}`),
      },
      { irqs, maxSteps: MAX_STEPS },
    );
    engine = exploring;
    let nrRuns = 0;
    nrAccesses = 0;
    let failure: Refusal | null = null;
    while (nrRuns < maxRuns && nrAccesses < MAX_ACCESSES && failure === null) {
      nrRuns++;
      taken = new Set();
      const found = exploring.run(strategy).failure;
      failure = refused ?? endFailure;
      if (failure === null && thrown !== null) throw thrown;
      failure ??= found === null ? null : [kindOf(found.kind, found.message), found.message];
      if (failure === null && !strategy.next()) break;
    }
    const schedule = failure === null ? "" : formatSchedule(exploring.events());
    const where = failure === null ? [] : ops.flat().flatMap((op) => (op?.result === "nothing" ? [op] : []));
    refused = null;
    engine = null;
    held = [[], [], []];
    irqOn.fill(1);
    isInIrq = false;
    port.rollback();
    return { failure, nrRuns, isComplete: strategy.isComplete(), schedule, where, log, histories };
  }

  /** What the set-up did, how many runs, whether those were all, then one text for each history. */
  const claimOf = (found: ReturnType<typeof search>): (string | number | boolean)[] => {
    const { failure, nrRuns, isComplete, schedule, where, histories } = found;
    const last = failure === null ? [] : [JSON.stringify({ failure, schedule, where, log: found.log })];
    const runs = [...histories.values()].map((history) => JSON.stringify(history));
    return [JSON.stringify(setUpOps), nrRuns, isComplete, ...runs, ...last];
  };
  const brokenBefore = (failure: Refusal): string => JSON.stringify({ failure, schedule: "", where: [], log: [] });

  return {
    /** Every order with at most `bound` preemptions and interrupts; the first element: what CPUs hold at the start. */
    explore(programs: string, bound: number, irqs = 1, maxRuns = 4_000) {
      if (unusable !== null) return ["[]", 0, false, brokenBefore(unusable)];
      return claimOf(search(programs, createDeepening(bound), irqs, maxRuns));
    },
    /** One order, drawn from `seed`. */
    stress(programs: string, seed: number, irqs: number) {
      if (unusable !== null) return ["[]", 0, false, brokenBefore(unusable)];
      return claimOf(search(programs, createDice(seed), irqs, 1));
    },
    /**
     * CPU 1 runs `other`, then CPU 0 `program` (the other way round if `me` is 1), nobody disturbs them. Of each
     * operation of CPU 0: what it got or gave, how many locks it took that CPU 1 has taken too (with a `*` in `other`:
     * in the operation behind it), and how many accesses it made.
     */
    visits(other: string, program: string, _about = "", me = 0) {
      if (unusable !== null) return [-1, ...unusable];
      port.rollback();
      ops = [];
      const theirs = new Set<number>();
      const rows: (number | string)[] = [0, "", ""];
      const watch = (who: number, letters: string, each: (op: HistoryOp | undefined, at: number) => void): void => {
        const mine = [...(hands[who] as number[])];
        for (let at = 0; at < letters.length; at++) {
          taken = new Set();
          ops = [];
          alone(who, () => runLetters(letters[at] === "*" ? "" : (letters[at] as string), who, mine));
          each(ops[who]?.[0], at);
        }
      };
      const isMarked = other.includes("*");
      try {
        watch(1 - me, other, (_op, at) => {
          if (!isMarked || other[at - 1] === "*") for (const lock of taken) theirs.add(lock);
        });
        watch(me, program, (op) => {
          const meets = [...taken].filter((lock) => theirs.has(lock)).length;
          const object = op === undefined ? "nothing" : op.name === "free" ? op.arg : claimObject(op.result);
          rows.push(object, meets, op?.nrAccesses ?? 0);
        });
      } catch (error) {
        if (refused === null) throw error;
        const [kind, message] = refused;
        refused = null;
        return [-1, kind, message];
      }
      return rows;
    },
    /** For own tests: the different ends. */
    outcomes(programs: string) {
      if (unusable !== null) throw new Error(unusable[1]);
      const irqs = interrupt === undefined ? 0 : 1;
      const { failure, histories } = search(programs, createDeepening(2), irqs, 4_000);
      if (failure !== null) throw new Error(failure[1]);
      const ends = new Map<string, object>();
      for (const { ops: done, left } of histories.values()) {
        const got: unknown[][] = programs.split("|").map(() => []);
        for (const op of done) if (op.name === "alloc") got[op.cpu]?.push(op.result);
        const end = { taken: got, left };
        ends.set(JSON.stringify(end), end);
      }
      return [...ends.values()];
    },
  };
};

/** Kinds of the engine's failures as the judge has them. */
function kindOf(kind: string, message: string): string {
  if (kind === "deadlock") return message.includes("holds itself") ? "self-deadlock" : "deadlock";
  if (kind === "livelock") return "endless";
  return kind === "interrupt race" || kind === "lock usage" ? "interrupt" : kind;
}
