/**
 * Lab 8, the student's side: the machine (checks/machine.ts) with the student's code on it.
 *
 * Operations return `[value, events]`; a call that sleeps has the value null, and an event `["done", op, value]` of a
 * later operation says what it got. An operation on what is no page does nothing.
 */

import { type CreateInstance, exportedFunction, type Instance, method } from "../kit/driver.ts";
import { type GfpConfig, GfpMachine } from "./checks/machine.ts";
import { NO_PAGE } from "./given/api.ts";

/** The page that a claim names, or null. */
function pageOf(given: unknown): number | null {
  const value = Array.isArray(given) ? given[0] : given;
  return typeof value === "number" && value !== NO_PAGE ? value : null;
}

export const create: CreateInstance = (student, config: GfpConfig) => {
  const machine = new GfpMachine(config);
  const gfp = exportedFunction(student, "createGfp", "mempool.ts")(machine.port());
  const of = (name: string) => method(gfp, name, "createGfp");
  const own = {
    mayBlock: of("mayBlock"),
    keeps: of("keeps"),
    allocPage: of("allocPage"),
    createPool: of("createPool"),
    poolAlloc: of("poolAlloc"),
    poolFree: of("poolFree"),
    destroyPool: of("destroyPool"),
    deferFree: of("deferFree"),
    runDeferred: of("runDeferred"),
  };
  const slept: unknown[] = [];
  let op = -1;
  const seen = (isIrq: boolean, work: () => unknown): readonly [unknown, readonly unknown[]] => {
    machine.events = [];
    const value = machine.call(op, isIrq, work);
    for (let i = 0; i < machine.events.length; i++) {
      const event = machine.events[i] as unknown[];
      if (event[0] === "done") slept[slept.length] = event[2];
    }
    return [value ?? null, machine.events];
  };
  const nothing = [null, []] as const;
  /** What an interrupt does. */
  const handler = (what: string, value: number): (() => void) => {
    const call = { free: own.poolFree, defer: own.deferFree, alloc: own.poolAlloc, page: own.allocPage }[what];
    return () => machine.note("handler", what, value, machine.runInIrq(call?.(value)) ?? null);
  };
  const arm = (at: number, what: string, value: number): void => {
    machine.armed = { at, run: handler(what, value) };
  };
  const work = (): readonly [unknown, readonly unknown[]] => {
    if (!machine.isWorkScheduled) return nothing;
    machine.isWorkScheduled = false;
    return seen(false, () => own.runDeferred());
  };

  const operations: Instance = {
    may: (mask: number) => seen(false, () => own.mayBlock(mask)),
    leaves: (mask: number) => seen(false, () => own.keeps(mask)),
    page: (mask: number, isIrq: boolean) => seen(isIrq, () => own.allocPage(mask)),
    /** Somebody gives a page of allocPage back. */
    back(given: unknown) {
      const page = pageOf(given);
      if (page !== null) machine.give(page);
      return nothing;
    },
    pool: (minNr: number) => seen(false, () => own.createPool(minNr)),
    take: (mask: number, isIrq: boolean) => seen(isIrq, () => own.poolAlloc(mask)),
    put(given: unknown, isIrq: boolean, delta = 0) {
      const page = pageOf(given);
      return page === null ? nothing : seen(isIrq, () => own.poolFree(page + delta));
    },
    end: () => seen(false, () => own.destroyPool()),
    defer: (object: number, isIrq: boolean) => seen(isIrq, () => own.deferFree(object)),
    runWork: work,
    /** Arms an interrupt for the operations that follow. */
    interrupt(at: number, what: string, given: unknown) {
      const value = what === "free" ? pageOf(given) : Number(given);
      if (value !== null) arm(at, what, value);
      return nothing;
    },
  };
  // Tasks are known by the number of their operation.
  const counted: Record<string, (...args: never[]) => unknown> = {};
  for (const name in operations) {
    counted[name] = (...args) => {
      op++;
      return operations[name]?.(...args);
    };
  }

  return {
    ...counted,
    // For own tests.
    mayBlock: own.mayBlock,
    keeps: own.keeps,
    allocPage: (mask: number, isIrq = false) => seen(isIrq, () => own.allocPage(mask))[0],
    createPool: (minNr: number) => seen(false, () => own.createPool(minNr))[0],
    poolAlloc: (mask: number, isIrq = false) => seen(isIrq, () => own.poolAlloc(mask))[0],
    poolFree: (page: number, isIrq = false) => seen(isIrq, () => own.poolFree(page))[0],
    destroyPool: () => seen(false, () => own.destroyPool())[0],
    deferFree: (object: number, isIrq = false) => seen(isIrq, () => own.deferFree(object))[0],
    work: () => work()[0],
    arm,
    freePages: () => machine.nrFree,
    slept: () => slept,
    released: () => machine.released,
    bugs: () => machine.bugs,
    kswapdWakes: () => machine.nrKswapd,
  };
};
