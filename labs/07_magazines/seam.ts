/**
 * Lab 7 in the kernel: the objects at hand of every cache are in the student's magazines.
 *
 * Each cache has a memory of the student's of its own, beside the machine's RAM, with OBJECTS numbers in it; what a
 * number stands for is the kernel's affair (mm/simple_object_cache.ts). Interrupts and cpu() are those of the kernel.
 * The CPUs of one host thread never wait for each other's locks: one that is found taken was never given back.
 */

import type { Context } from "../../kernel/types.ts";
import { createSimpleObjectCache } from "../../mm/index.ts";
import { exportedFunction, method } from "../kit/driver.ts";
import type { Seam, StudentInKernel } from "../kit/seam.ts";

const OBJECTS = 32;
const SIZE = 4;

/** What localIrqSave and its like are for a memory. */
interface Interrupts {
  localIrqSave(ctx: Context): number;
  localIrqRestore(ctx: Context, flags: number): void;
}

/** The student's magazines of one cache. */
function createStock(student: StudentInKernel, interrupts: Interrupts, nrCpus: number, first: Context) {
  const createMagazines = exportedFunction(student.exports, "createMagazines", "magazines.ts");
  const nrMagazines = OBJECTS + 2 * nrCpus;
  const words = new Uint32Array(nrMagazines * (SIZE + 2) + OBJECTS + 4 * nrCpus + 16);
  const isTaken = new Uint8Array(nrCpus + 1);
  // Who is in the student's code: an interrupt of the kernel's may call it once more.
  let now = first;
  let cpuNow: number = first.cpu;
  const refuse = (message: string): never => {
    throw new Error(message);
  };
  const checkWord = (word: number): void => {
    if (!(word >= 0 && word < words.length && word % 1 === 0)) refuse(`there is no word ${word}`);
  };
  const memory = Object.freeze({
    nrWords: words.length,
    load(word: number) {
      checkWord(word);
      return words[word];
    },
    store(word: number, value: number) {
      checkWord(word);
      words[word] = value;
      if (words[word] !== value) refuse(`store of ${value}: a word is a whole number from 0 to 2^32 - 1`);
    },
    lock(lock: number) {
      if (isTaken[lock] !== 0) refuse(`lock(${lock}) waits for ever: it is taken, and was not given back`);
      isTaken[lock] = 1;
    },
    unlock(lock: number) {
      if (isTaken[lock] !== 1) refuse(`unlock(${lock}): nobody has it`);
      isTaken[lock] = 0;
    },
    irqSave: () => interrupts.localIrqSave(now) !== 0,
    irqRestore: (wereOn: boolean) => interrupts.localIrqRestore(now, wereOn ? 1 : 0),
    cpu: () => cpuNow,
  });
  const layout = Object.freeze({ nrCpus, nrObjects: OBJECTS, magazineSize: SIZE, nrMagazines });
  const run = (ctx: Context, cpu: number, name: string, ...args: number[]): unknown => {
    const outer = [now, cpuNow] as const;
    now = ctx;
    cpuNow = cpu;
    const result = student.call(() => method(createMagazines(memory, layout), name, "createMagazines")(...args));
    [now, cpuNow] = outer;
    const kept = isTaken.indexOf(1);
    if (kept >= 0) student.wrong(name, `returns and keeps lock ${kept}`);
    return result;
  };
  run(first, first.cpu, "init");
  return {
    alloc: (ctx: Context) => run(ctx, ctx.cpu, "alloc"),
    free: (ctx: Context, number: number) => {
      run(ctx, ctx.cpu, "free", number);
    },
    drain: (ctx: Context, cpu: number) => {
      run(ctx, cpu, "drain");
    },
  };
}

export const seam: Seam = (student) => ({
  objectCache: (deps) =>
    createSimpleObjectCache(deps, {
      nrNumbers: OBJECTS,
      magazineSize: SIZE,
      create: (ctx) => createStock(student, deps.contexts, deps.machine.config.nrCpus, ctx),
      onWrong: (what, message) => student.wrong(what, message),
    }),
});
