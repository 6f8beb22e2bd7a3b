/**
 * The judge of lab 7: over histories, and says which rule the first wrong one breaks.
 *
 * | kind                     | what was seen                                                                   |
 * |--------------------------|---------------------------------------------------------------------------------|
 * | bad-claim                | alloc returns what is no object and not 0                               (PCM-1)  |
 * | foreign                  | an object that does not exist                                           (PCM-1)  |
 * | twice                    | one object in two hands, or in a hand and free                          (PCM-1)  |
 * | lost                     | an object that nobody holds and that nobody can get                     (PCM-1)  |
 * | early                    | an object got before it was given                                       (PCM-1)  |
 * | empty                    | 0 although at each moment there was something                           (PCM-2)  |
 * | no-steal                 | 0 although another CPU has something at hand                            (PCM-2)  |
 * | cold                     | not the object that was freed last                                      (PCM-3)  |
 * | visits, global           | locks that CPUs share are taken too often, or by each operation (PCM-4, PCM-5)   |
 * | steals-early             | another CPU's lock, though the depot has objects                        (PCM-6)  |
 * | not-drained              | the same, after that CPU's drain()                                      (PCM-7)  |
 * | slow                     | more accesses than an exchange takes                                    (PCM-8)  |
 * | race                     | a word of which two CPUs make use with no lock between them             (PCM-9)  |
 * | deadlock, endless        | CPUs wait in a circle; an operation does not end                        (PCM-10) |
 * | interrupt, self-deadlock | an interrupt comes where it must not                                    (PCM-11) |
 * | preemptible              | cpu() with interrupts on                                                (PCM-11) |
 * | flag, lock-kept, bad-unlock | an operation leaves the CPU otherwise than it found it               (PCM-12) |
 * | bad-word, outside, unsteady | what the memory refuses; variables that last                         (PCM-13) |
 *
 * In a history without overlaps the first six are called `one-…`: the mistake needs no second CPU.
 */

import { type BrokenRun, type HistoryOp, isLinearizable, isSequential, parseRun } from "../../kit/history.ts";
import type { Violation } from "../../kit/lab_code.ts";
import type { Json, Observation, Op, Program } from "../../kit/program.ts";
import { type History, IRQ_THREAD, type MagazinesConfig } from "./history.ts";

export interface Verdict {
  readonly kind: string;
  readonly message: string;
}

/** Accesses that an operation of a CPU that is alone may take. */
export const accessesAllowed = (size: number): number => 60 + 10 * size;

/** An operation as people read it: `alloc → 3`. */
export function opText({ name, arg, result }: HistoryOp): string {
  if (name === "alloc") return `alloc → ${[result].flat().join(" ")}`;
  return name === "free" ? `free(${arg})` : `${name}()`;
}

const cpuText = (thread: number): string =>
  thread < IRQ_THREAD ? `CPU ${thread}` : `an interrupt on CPU ${thread - IRQ_THREAD}`;
const whose = (op: HistoryOp): string => `${cpuText(op.cpu)} (${opText(op)})`;
const isObject = (value: unknown, { objects }: MagazinesConfig): value is number =>
  Number.isInteger(value) && Number(value) >= 1 && Number(value) <= objects;

/** The operations of the set-up, if that is what the text is. */
function setUpOf(text: Json | undefined): readonly HistoryOp[] {
  try {
    const ops: unknown = JSON.parse(String(text));
    return Array.isArray(ops) ? (ops as HistoryOp[]) : [];
  } catch {
    return [];
  }
}

/** The first run of an observation that breaks a rule, and which. */
export function firstWrong(
  program: Program,
  claim: Json | undefined,
): { readonly run: History | BrokenRun; readonly verdict: Verdict } | null {
  const config = program.config as unknown as MagazinesConfig;
  if (!Array.isArray(claim)) return null;
  const [first, ...texts] = claim as readonly Json[];
  const setUp = setUpOf(first);
  for (const text of texts.slice(2)) {
    const run = parseRun<History>(text);
    if (run === null) continue;
    const verdict = "failure" in run ? brokenVerdict(run) : historyVerdict(run, setUp, config);
    if (verdict !== null) return { run, verdict };
  }
  return null;
}

function brokenVerdict({ failure: [kind, message], where }: BrokenRun): Verdict {
  const places = where.map((op) => `${cpuText(op.cpu)} in ${op.name}`);
  return { kind, message: `${message}${places.length === 0 ? "" : ` (${places.join(", ")})`}` };
}

function historyVerdict(history: History, setUp: readonly HistoryOp[], config: MagazinesConfig): Verdict | null {
  const verdict =
    placesVerdict(history.ops, setUp, history.left.flat(), config) ?? orderVerdict(history, setUp, config);
  if (verdict === null || verdict.kind === "bad-claim") return verdict;
  return isSequential(history) ? { ...verdict, kind: `one-${verdict.kind}` } : verdict;
}

/** Each object in one place. `left`: what was free in the end, or null where that is not known. */
function placesVerdict(
  ops: readonly HistoryOp[],
  setUp: readonly HistoryOp[],
  left: readonly (number | string)[] | null,
  config: MagazinesConfig,
): Verdict | null {
  const room: number[] = Array.from({ length: config.objects + 1 }, (_, object) => (object === 0 ? 0 : 1));
  const owner = new Map<number, HistoryOp>();
  for (const { name, arg } of [...setUp, ...ops]) if (name === "free") room[arg] = (room[arg] ?? 0) + 1;
  const inOrder = [...setUp, ...[...ops].sort((a, b) => a.last - b.last)];
  for (const op of inOrder) {
    if (op.name !== "alloc" || op.result === 0) continue;
    const object = op.result;
    if (typeof object !== "number" || !Number.isInteger(object) || object < 0)
      return { kind: "bad-claim", message: `${whose(op)}: that is no object, and "none" is 0` };
    if (!isObject(object, config))
      return { kind: "foreign", message: `${whose(op)}: there are objects 1 to ${config.objects}` };
    room[object] = (room[object] as number) - 1;
    const other = owner.get(object);
    if ((room[object] as number) < 0)
      return {
        kind: "twice",
        message: `object ${object} is in two hands: ${other ? whose(other) : "its owner"} and ${whose(op)}`,
      };
    owner.set(object, op);
  }
  if (left === null) return null;
  for (const object of left) {
    if (typeof object !== "number" || !Number.isInteger(object) || object < 0)
      return { kind: "bad-claim", message: `in the end alloc → ${object}: that is no object, and "none" is 0` };
    if (!isObject(object, config))
      return { kind: "foreign", message: `in the end alloc → ${object}: there are objects 1 to ${config.objects}` };
    room[object] = (room[object] as number) - 1;
    const other = owner.get(object);
    const who = other === undefined || left.indexOf(object) !== left.lastIndexOf(object) ? "once more" : whose(other);
    if ((room[object] as number) < 0)
      return { kind: "twice", message: `object ${object} is in two hands: in the end it is free, and ${who}` };
  }
  const lost = room.findIndex((nr) => nr > 0);
  if (lost < 0) return null;
  return { kind: "lost", message: `object ${lost} is lost: nobody holds it, and in the end no CPU's alloc gives it` };
}

/** Can the results be explained by some order? */
function orderVerdict({ ops }: History, setUp: readonly HistoryOp[], config: MagazinesConfig): Verdict | null {
  const free = new Set<number>(Array.from({ length: config.objects }, (_, i) => i + 1));
  for (const { name, arg, result } of setUp) {
    if (name === "free") free.add(arg);
    else if (name === "alloc") free.delete(Number(result));
  }
  const threads = new Map<number, HistoryOp[]>();
  for (const op of ops) {
    const thread = threads.get(op.cpu);
    if (thread === undefined) threads.set(op.cpu, [op]);
    else thread.push(op);
  }
  if (isLinearizable([...threads.values()], free, apply)) return null;
  const nothing = ops.find((op) => op.name === "alloc" && op.result === 0);
  const why = "no order of the operations explains it: at each moment something was free";
  if (nothing !== undefined) return { kind: "empty", message: `${whose(nothing)}: ${why}` };
  return { kind: "early", message: `no order explains ${ops.map(whose).join(", ").slice(0, 70)}` };
}

/** What is free after `op`, or null if it cannot return this. */
function apply(op: HistoryOp, free: ReadonlySet<number>): ReadonlySet<number> | null {
  if (op.name === "free") return new Set([...free, op.arg]);
  if (op.name !== "alloc") return free;
  if (op.result === 0) return free.size === 0 ? free : null;
  if (!free.has(op.result as number)) return null;
  const after = new Set(free);
  after.delete(op.result as number);
  return after;
}

// ── One CPU after the other ────────────────────────────────────────────────────────────────────────────────────────

export interface Row {
  readonly letter: string;
  readonly object: number | string;
  /** Locks that the other CPU has taken too. */
  readonly meets: number;
  readonly nrAccesses: number;
}

/** What `visits` returned, one row per operation of CPU 0. */
export function rowsOf(op: Op, claim: Json | undefined): readonly Row[] {
  const values = Array.isArray(claim) ? (claim as readonly Json[]) : [];
  return [...String(op[2])].flatMap((letter, i) => {
    const [object, meets, nrAccesses] = values.slice(3 * i + 3, 3 * i + 6);
    if ((typeof object !== "number" && typeof object !== "string") || typeof meets !== "number") return [];
    return [{ letter, object, meets, nrAccesses: Number(nrAccesses) }];
  });
}

/** `["visits", CPU 1's program, CPU 0's, what it is about, 1 if it is the other way round]`. */
function visitsVerdict(op: Op, claim: Json | undefined, config: MagazinesConfig): Verdict | null {
  const [start, kind, message] = Array.isArray(claim) ? (claim as readonly Json[]) : [];
  if (start === -1) return { kind: String(kind), message: String(message) };
  const rows = rowsOf(op, claim);
  // What cannot be read is no right answer.
  if (rows.length !== String(op[2]).length)
    return { kind: "bad-claim", message: `of ${String(op[2]).length} operations only ${rows.length} can be judged` };
  const about = String(op[3]);
  const verdict = oneByOne(rows, config, about) ?? VERDICTS[about]?.(rows, config) ?? null;
  return verdict === null ? null : { ...verdict, message: otherWay(op, verdict.message) };
}

/** `text` about `visits`, with CPU 0 and CPU 1 exchanged if they are in `op`. */
export function otherWay(op: Op, text: string): string {
  return op[4] === 1 ? text.replaceAll(/CPU ([01])/g, (_, cpu) => `CPU ${1 - Number(cpu)}`) : text;
}

/** Places and zeroes of CPU 0, of which the other CPU holds nothing. */
function oneByOne(rows: readonly Row[], config: MagazinesConfig, about: string): Verdict | null {
  const out = new Set<number | string>();
  for (const { letter, object } of rows) {
    if (letter === "u" || letter === "U") out.delete(object);
    if (letter !== "p") continue;
    if (object === 0 && out.size < config.objects) {
      const said = `alloc → 0, though only ${out.size} of ${config.objects} objects are out`;
      if (about === "steal") return { kind: "no-steal", message: `${said}: the others are at hand on CPU 1` };
      return { kind: "one-empty", message: said };
    }
    if (object === 0) continue;
    if (typeof object !== "number" || !Number.isInteger(object) || object < 0)
      return { kind: "bad-claim", message: `alloc → ${object}: that is no object, and "none" is 0` };
    if (!isObject(object, config))
      return { kind: "one-foreign", message: `alloc → ${object}: there are objects 1 to ${config.objects}` };
    if (out.has(object)) return { kind: "one-twice", message: `alloc → ${object}, which CPU 0 already has` };
    out.add(object);
  }
  return null;
}

const rowText = ({ letter, object }: Row): string =>
  letter === "p" ? `alloc → ${object}` : letter === "d" ? "drain()" : `free(${object})`;

const VERDICTS: Readonly<Record<string, (rows: readonly Row[], config: MagazinesConfig) => Verdict | null>> = {
  gap(rows, { size }) {
    if (isGlobal(rows)) return global(rows);
    let last = -1;
    for (let at = 0; at < rows.length; at++) {
      if ((rows[at] as Row).meets === 0) continue;
      const between = rows.slice(last + 1, at + 1);
      const nrAllocs = between.filter(({ letter }) => letter === "p").length;
      const nrFrees = between.length - nrAllocs;
      if (last >= 0 && nrAllocs < size && nrFrees < size) {
        const which = `operations ${last + 1} and ${at + 1} of CPU 0 (${rowText(rows[at] as Row)}) visit the depot`;
        return { kind: "visits", message: `${which}: between them lie ${nrAllocs} allocs, ${nrFrees} frees` };
      }
      last = at;
    }
    return null;
  },
  fast: (rows) => (isGlobal(rows) ? global(rows) : null),
  "depot-first"(rows) {
    if (isGlobal(rows)) return global(rows);
    const at = rows.findIndex(({ meets }) => meets > 0);
    if (at < 0) return null;
    const which = `operation ${at + 1} of CPU 0 (${rowText(rows[at] as Row)}) takes CPU 1's own lock`;
    return { kind: "steals-early", message: `${which}, though the depot has objects` };
  },
  drained(rows) {
    if (isGlobal(rows)) return global(rows);
    const at = rows.findIndex(({ meets }) => meets > 0);
    if (at < 0) return null;
    const which = `operation ${at + 1} of CPU 0 (${rowText(rows[at] as Row)}) takes CPU 1's own lock`;
    return { kind: "not-drained", message: `${which}: something was still at hand there after drain()` };
  },
  cost(rows, { size }) {
    const row = rows.find(({ nrAccesses }) => nrAccesses > accessesAllowed(size));
    if (row === undefined) return null;
    const message = `${rowText(row)} takes ${row.nrAccesses} accesses; ${accessesAllowed(size)} are allowed`;
    return { kind: "slow", message };
  },
  warm(rows) {
    for (let at = 0; at < rows.length; at++) {
      const { letter, object } = rows[at] as Row;
      const before = rows[at - 1];
      const isFreed = (before?.letter === "u" || before?.letter === "U") && before.object !== "nothing";
      if (letter === "p" && isFreed && object !== before.object)
        return { kind: "cold", message: `alloc → ${object} right after free(${before.object})` };
    }
    return null;
  },
};

/** One operation may have to visit the depot; the next one has no reason to. */
const isGlobal = (rows: readonly Row[]): boolean => rows.length > 1 && rows.every(({ meets }) => meets > 0);

function global(rows: readonly Row[]): Verdict {
  const message = `each of ${rows.length} operations of CPU 0 takes a lock that CPU 1 takes as well`;
  return { kind: "global", message };
}

/** The first violation of a program, or null. */
export function judge(program: Program, observation: Observation): Violation | null {
  const config = program.config as unknown as MagazinesConfig;
  for (let at = 0; at < observation.claims.length; at++) {
    const op = program.ops[at] as Op;
    const claim = observation.claims[at];
    const verdict =
      op[0] !== "visits" ? (firstWrong(program, claim)?.verdict ?? null) : visitsVerdict(op, claim, config);
    if (verdict !== null) return { ...verdict, op: at };
  }
  return null;
}
