/**
 * Lab 11, the student's side: a memory whose accesses are places where CPUs change, and programs of CPUs over it.
 *
 * The exploring engine (explore/engine.ts) runs the programs in one order after the other. Of each order that differs
 * in what was returned, or in which operations came before which, the history is handed out; it is judged elsewhere.
 * Each CPU has a freelist object of its own, made anew whenever its program is run again, as the engine asks.
 */

import {
  createDeepening,
  createDice,
  createDpor,
  createEngine,
  formatSchedule,
  type Strategy,
} from "../../explore/grading.ts";
import { ExplorePort } from "../../kernel/arch/explore_port.ts";
import { createHarts } from "../../kernel/arch/harts.ts";
import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";
import type { HistoryOp } from "../kit/history.ts";
import type { History, LockfreeConfig } from "./checks/history.ts";

/** Accesses of one run, with a bound on preemptions and without: the latter compares each pair of them. */
const MAX_STEPS = 3_000;
const MAX_STEPS_UNBOUNDED = 300;
/** Accesses of one search, replayed ones too: code that spins would take for ever. */
const MAX_ACCESSES = 1_000_000;
const MAX_HISTORIES = 2_000;
const MAX_LOGGED = 48;
/** Accesses of one operation that nobody disturbs. */
const MAX_ALONE = 4_000;
const MAX_CPUS = 3;
const CAS = 2;
const VERBS = ["load", "store", "cas"];

type Functions = Readonly<Record<"init" | "push" | "pop" | "refill", (...args: unknown[]) => unknown>>;

type Refusal = readonly [kind: string, message: string];

/** Thrown through the student's code to leave a CPU where it is. */
const REST = { name: "rest" };

export const create: CreateInstance = (student, config: LockfreeConfig) => {
  const { free, hold = [], firstTag = 1, nrNodes = Math.max(8, free + 8) } = config;
  const createFreelist = exportedFunction(student, "createFreelist", "freelist.ts");
  const nrWords = 2 * nrNodes + 8;
  const port = new ExplorePort(new ArrayBuffer(nrWords * 4));

  // Whose access it is, how far that CPU's program is, and what it did when it was run before.
  let isExploring = false;
  let cpu = 0;
  let pos = 0;
  let restAt = -1;
  /** What the accesses of a program gave that nobody disturbs; those that are not made again, but give the same. */
  let results: number[] = [];
  let replayed: readonly number[] = [];
  let nrAlone = 0;
  let nrAccesses = 0;
  let refused: Refusal | null = null;
  let thrown: Error | null = null;
  let now = 0;
  let log: number[] = [];
  const seen: number[][] = [[], [], []];
  let ops: HistoryOp[][] = [[], [], []];
  const opNow = [-1, -1, -1];
  const swapped = new Set<string>();
  let onSwap: ((key: string) => void) | null = null;

  const refuse = (kind: string, message: string): never => {
    refused ??= [kind, message];
    throw new Error(message);
  };
  const show = (value: unknown): string => (typeof value === "number" ? String(value) : typeof value);
  const isIn = (value: unknown, end: number): boolean =>
    typeof value === "number" && value >= 0 && value < end && value % 1 === 0;

  const access = (kind: number, word: number, a: number, b: number): number => {
    if (!isIn(word, nrWords))
      refuse("outside", `${VERBS[kind]} of word ${show(word)}: there are words 0 to ${nrWords - 1}`);
    for (const value of kind === 0 ? [] : kind === CAS ? [a, b] : [a]) {
      if (!isIn(value, 2 ** 32))
        refuse(
          "bad-word",
          `${VERBS[kind]} of word ${word} with ${show(value)}: a word is a whole number from 0 to 2^32 − 1`,
        );
    }
    if (!isExploring) {
      const at = pos++;
      if (at === restAt) throw REST;
      if (at < replayed.length) return replayed[at] as number;
      if (++nrAlone > MAX_ALONE) refuse("endless", `no end after ${MAX_ALONE} accesses, though no other CPU runs`);
    }
    nrAccesses++;
    const index = isExploring ? pos++ : 0;
    const before = seen[cpu] as number[];
    const shape = ((kind * 1024 + word) % 65_536) * 2 ** 33 + (kind === CAS ? b : a);
    const isLive = isExploring && index >= before.length;
    if (isExploring && !isLive && before[index] !== shape)
      refuse("unsteady", "the same loads gave another access: something is kept outside of memory");
    let result = 0;
    if (kind === 0) result = port.ldAtomic(word * 4);
    else if (kind === 1) port.stAtomic(word * 4, a);
    else result = port.cas(word * 4, a, b);
    if (kind === CAS && result === a && a !== 0) onSwap?.(`${word}:${a}`);
    if (isLive) {
      before[index] = shape;
      note(kind, word, a, b, result);
    }
    if (!isExploring) results.push(result);
    return result;
  };

  /** A live access: when it was, and for the picture. */
  const note = (kind: number, word: number, a: number, b: number, result: number): void => {
    const op = ops[cpu]?.[opNow[cpu] as number];
    now++;
    if (op !== undefined) {
      if (op.nrAccesses === 0) op.first = now;
      op.last = now;
      op.nrAccesses++;
    }
    if (log.length < MAX_LOGGED * 6) log.push(cpu, kind, word, a, b, result);
  };

  const memory = Object.freeze({
    nrWords,
    load: (word: number) => access(0, word, 0, 0),
    store: (word: number, value: number) => {
      access(1, word, value, 0);
    },
    cas: (word: number, expected: number, desired: number) => access(CAS, word, expected, desired),
  });
  const layout = Object.freeze({ nrNodes, firstTag });

  const makeList = (): Functions => {
    const list = createFreelist(memory, layout);
    const of = (name: string) => method(list, name, "createFreelist");
    return { init: of("init"), push: of("push"), pop: of("pop"), refill: of("refill") };
  };
  const alone = <T>(run: () => T): T => {
    isExploring = false;
    nrAlone = 0;
    pos = 0;
    results = [];
    return run();
  };

  /** JSON has no NaN. */
  const claimNode = (value: unknown): number | string =>
    typeof value === "number" ? (Number.isFinite(value) ? value : String(value)) : typeof value;
  const claimNodes = (value: unknown): (number | string)[] | string => {
    if (!Array.isArray(value)) return typeof value;
    const nodes: (number | string)[] = [];
    for (let i = 0; i < value.length && i < 300; i++) nodes[i] = claimNode(value[i]);
    return nodes;
  };
  const holdOf = (who: number): number[] => {
    let from = free + 1;
    for (let c = 0; c < who; c++) from += hold[c] ?? 0;
    return Array.from({ length: hold[who] ?? 0 }, (_, i) => from + i);
  };

  /** Runs one program on `who`, from its start, with `hands`; what it then holds. */
  const perform = (who: number, program: string, hands = holdOf(who)): number[] => {
    const list = makeList();
    const mine = ops[who] as HistoryOp[];
    for (let i = 0; i < program.length; i++) {
      const letter = program[i] as string;
      const isPush = letter === "u" || letter === "U";
      if (isPush && hands.length === 0) continue;
      const node = isPush ? ((letter === "u" ? hands.shift() : hands.pop()) as number) : 0;
      const nr = letter === "r" ? 2 : letter === "R" ? 3 : letter === "z" ? 0 : 1;
      const op = (mine[i] ??= { cpu: who, name: "", arg: 0, result: 0, first: 0, last: 0, nrAccesses: 0 });
      opNow[who] = i;
      nrAlone = 0;
      op.name = isPush ? "push" : letter === "p" ? "pop" : "refill";
      op.arg = isPush ? node : nr;
      op.result = "nothing";
      if (isPush) {
        list.push(node);
        op.result = 0;
      } else if (letter === "p") op.result = claimNode(list.pop());
      else op.result = claimNodes(list.refill(nr));
      const taken = isPush ? [] : Array.isArray(op.result) ? op.result : [op.result];
      for (const got of taken) if (isIn(got, nrNodes + 1) && got !== 0) hands.push(got as number);
    }
    opNow[who] = -1;
    return hands;
  };
  const guarded = (who: number, program: string): undefined => {
    cpu = who;
    pos = 0;
    try {
      perform(who, program);
    } catch (error) {
      if (error instanceof Error && refused === null) thrown = error;
      throw error;
    }
    return undefined;
  };
  const beginRun = (): void => {
    for (const list of seen) list.length = 0;
    ops = [[], [], []];
    opNow.fill(-1);
    log = [];
    now = 0;
    isExploring = true;
  };
  /** All that pop gives when nobody else runs. */
  const drain = (): (number | string)[] =>
    alone(() => {
      const list = makeList();
      const nodes: (number | string)[] = [];
      for (let i = 0; i <= nrNodes; i++) {
        nrAlone = 0;
        const node = claimNode(list.pop());
        if (node === 0) break;
        nodes.push(node);
      }
      return nodes;
    });

  const setUp = (): void => {
    const list = makeList();
    list.init();
    for (let node = free; node >= 1; node--) {
      nrAlone = 0;
      list.push(node);
    }
  };
  /** What the list did that it may not, before any program has run: each program then ends with that. */
  const refusalOfSetUp = (): Refusal | null => {
    try {
      alone(setUp);
      return null;
    } catch (error) {
      const refusal = refused;
      if (refusal === null) throw error;
      refused = null;
      return refusal;
    }
  };
  const unusable = refusalOfSetUp();
  port.mark();

  /** Histories of all orders that `strategy` tries, in the order in which they were found. */
  function search(text: string, plan: Strategy, maxRuns: number) {
    const programs = text.split("|").slice(0, MAX_CPUS);
    const histories = new Map<string, History>();
    const strategy: Strategy = {
      ...plan,
      begin(nr) {
        beginRun();
        plan.begin(nr);
      },
    };
    const check = (): null => {
      const done = ops.flat().filter((op) => op !== undefined);
      const accesses = log;
      const left = drain();
      const order = done.map((op) => done.map((other) => (other.last < op.first ? 1 : 0)).join("")).join("");
      const key =
        JSON.stringify([done.map(({ cpu: who, name, arg, result }) => [who, name, arg, result]), left]) + order;
      if (!histories.has(key) && histories.size < MAX_HISTORIES)
        histories.set(key, { ops: done, left, schedule: formatSchedule(engine.events()), log: accesses });
      return null;
    };
    const engine = createEngine(
      {
        port,
        harts: createHarts(programs.length),
        nrCpus: programs.length,
        body: (who) => guarded(who, programs[who] ?? ""),
        check,
        nameOf: (addr) => `word ${addr / 4}`,
      },
      { irqs: 0, maxSteps: plan.pending === undefined ? MAX_STEPS : MAX_STEPS_UNBOUNDED, isDetecting: false },
    );
    let nrRuns = 0;
    nrAccesses = 0;
    let failure: readonly [string, string] | null = null;
    while (nrRuns < maxRuns && nrAccesses < MAX_ACCESSES && failure === null) {
      nrRuns++;
      const found = engine.run(strategy).failure;
      if (refused !== null) failure = refused;
      else if (thrown !== null) throw thrown;
      else if (found !== null) failure = [found.kind === "livelock" ? "endless" : found.kind, found.message];
      else if (!strategy.next()) break;
    }
    const schedule = failure === null ? "" : formatSchedule(engine.events());
    const where = failure === null ? [] : ops.flat().flatMap((op) => (op?.result === "nothing" ? [op] : []));
    refused = null;
    isExploring = false;
    port.rollback();
    return { failure, nrRuns, isComplete: strategy.isComplete(), schedule, where, log, histories };
  }

  /** How many runs, whether those were all, then one text for each history. */
  const claimOf = (found: ReturnType<typeof search>): (string | number | boolean)[] => {
    const { failure, nrRuns, isComplete, schedule, where, histories } = found;
    const last = failure === null ? [] : [JSON.stringify({ failure, schedule, where, log: found.log })];
    return [nrRuns, isComplete, ...[...histories.values()].map((history) => JSON.stringify(history)), ...last];
  };
  const brokenBefore = (failure: Refusal): (string | number | boolean)[] => [
    0,
    false,
    JSON.stringify({ failure, schedule: "", where: [], log: [] }),
  ];

  /** CPU 1 once, CPU 0 up to its access number k, CPU 1 often, the rest of CPU 0: what they hold, and what is free. */
  const overtakenAt = (k: number, first: string, other: string, rounds: number) => {
    port.rollback();
    ops = [[], [], []];
    const run = (who: number, program: string, hands = holdOf(who)): number[] =>
      alone(() => {
        cpu = who;
        return perform(who, program, hands);
      });
    const start = run(1, other);
    restAt = k;
    try {
      run(0, first);
      return null;
    } catch (error) {
      if (error !== REST) throw error;
    } finally {
      restAt = -1;
    }
    const before = results;
    const theirs = run(1, other.repeat(rounds), start);
    replayed = before;
    const mine = run(0, first);
    replayed = [];
    return { at: k, hands: [mine, theirs], left: drain() };
  };

  return {
    /** Every order of the programs with at most `bound` preemptions; −1: every order that makes a difference. */
    explore(programs: string, bound: number, maxRuns = 20_000) {
      if (unusable !== null) return brokenBefore(unusable);
      return claimOf(search(programs, bound < 0 ? createDpor() : createDeepening(bound), maxRuns));
    },
    /** One order, drawn from `seed`. */
    stress(programs: string, seed: number) {
      if (unusable !== null) return brokenBefore(unusable);
      return claimOf(search(programs, createDice(seed), 1));
    },
    /** CPU 0 stops for ever before its access number k, for each k: how far the other program gets, alone. */
    rest(first: string, second: string) {
      if (unusable !== null) return [0, ...unusable];
      for (let k = 0; k < 60; k++) {
        port.rollback();
        ops = [[], [], []];
        let isResting = false;
        try {
          alone(() => {
            restAt = k;
            cpu = 0;
            perform(0, first);
          });
        } catch (error) {
          if (refused !== null) return [k, refused[0], refused[1]];
          if (error !== REST) throw error;
          isResting = true;
        }
        restAt = -1;
        if (!isResting) return [k, "", ""];
        try {
          alone(() => {
            cpu = 1;
            perform(1, second);
          });
        } catch (error) {
          if (refused === null) throw error;
          return [k, refused[0] === "endless" ? "stuck" : refused[0], refused[1]];
        }
      }
      return [60, "", ""];
    },
    /** CPU 0 rests before its access number k, for each k, while CPU 1 does `other` many times; then it goes on. */
    overtake(first: string, other: string, rounds: number) {
      if (unusable !== null) return [JSON.stringify({ at: 0, failure: unusable })];
      const rows: string[] = [];
      for (let k = 0; k < 60; k++) {
        try {
          const row = overtakenAt(k, first, other, rounds);
          if (row === null) return rows;
          rows.push(JSON.stringify(row));
        } catch (error) {
          if (refused === null) throw error;
          return [...rows, JSON.stringify({ at: k, failure: refused })];
        }
      }
      return rows;
    },
    /** Pops and pushes `rounds` times; when a pop's compare-and-swap expects what an earlier one has expected. */
    churn(rounds: number) {
      if (unusable !== null) return [0, ""];
      port.rollback();
      swapped.clear();
      const list = makeList();
      let again = "";
      for (let round = 1; round <= rounds && again === ""; round++) {
        onSwap = (key) => {
          if (swapped.has(key)) again = key;
          swapped.add(key);
        };
        const node = alone(() => list.pop());
        onSwap = null;
        alone(() => list.push(node));
        if (again !== "") return [round, again];
      }
      return [rounds, ""];
    },
    /** For own tests: the different ends. */
    outcomes(programs: string) {
      if (unusable !== null) throw new Error(unusable[1]);
      const { failure, histories } = search(programs, createDeepening(2), 20_000);
      if (failure !== null) throw new Error(failure[1]);
      const ends = new Map<string, object>();
      for (const { ops: done, left } of histories.values()) {
        const taken: unknown[][] = programs.split("|").map(() => []);
        for (const op of done) if (op.name !== "push") taken[op.cpu]?.push(...[op.result].flat());
        const end = { taken, left };
        ends.set(JSON.stringify(end), end);
      }
      return [...ends.values()];
    },
  };
};
