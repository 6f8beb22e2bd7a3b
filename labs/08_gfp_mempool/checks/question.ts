/**
 * Questions of lab 8: which pages a mask must leave, where a page comes from, who may sleep, where the reserve stands.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";
import { GFP_ATOMIC, GFP_NOWAIT } from "../given/api.ts";
import { allocateFromPool, type Call, keepsOf, maskName, mayBlock } from "./model.ts";
import { anyMask, atomic, blocking } from "./programs.ts";

function keepsQuestion(random: Prng): Question {
  const min = 3 + random.below(14);
  const mask = [GFP_ATOMIC, blocking(2), atomic(random.below(6)), blocking(random.below(6))][random.below(4)] as number;
  return {
    text: [`min is ${min}. How many pages must allocPage(${maskName(mask)}) leave?`],
    answer: String(keepsOf(mask, min)),
    explanation: [
      `HIGH: ${min} − ⌊${min} / 2⌋ = ${min - Math.floor(min / 2)}; a quarter of that less if it must not sleep.`,
      "MEMALLOC without NOMEMALLOC: 0. Everybody else: min.",
    ],
  };
}

function sourceQuestion(random: Prng): Question {
  const [min, low] = [2, 4];
  const free = random.below(6);
  const nrReserve = random.below(3);
  const reclaim = [random.below(3)];
  const mask = anyMask(random);
  const calls: Call[] = [];
  const config = { pages: free, min, low, reclaim };
  const source = allocateFromPool({ config, free, nrReclaims: 0 }, mask, nrReserve, calls);
  return {
    text: [
      `${free} pages free, min ${min}, low ${low}; reclaim would free ${reclaim[0]}.`,
      `The pool has ${nrReserve} pages in reserve.`,
      `poolAlloc(${maskName(mask)}): "machine", "reserve", "none" or "sleep"?`,
    ],
    answer: source,
    explanation: [
      `Asked of the machine: ${calls.map(([what]) => what).join(", ") || "nothing"}.`,
      `MEMALLOC does not count: the attempts add NOMEMALLOC. It ${mayBlock(mask) ? "may" : "must not"} sleep.`,
    ],
  };
}

function contextQuestion(random: Prng): Question {
  const mask = anyMask(random);
  return {
    text: [`allocPage(${maskName(mask)}) in a timer interrupt, with plenty of memory: "fine" or "bug"?`],
    answer: mayBlock(mask) ? "bug" : "fine",
    explanation: ["May sleep if and only if it has DIRECT_RECLAIM; a bug even if it does not sleep this time."],
  };
}

function refillQuestion(random: Prng): Question {
  const minNr = 2 + random.below(3);
  const [nrOut, nrBack] = [minNr + 1 + random.below(3), 1 + random.below(3)];
  const spare = nrOut - minNr;
  const left = Math.min(minNr, nrBack);
  return {
    text: [
      `createPool(${minNr}); then the machine has ${spare} pages above every mark.`,
      `${nrOut} times poolAlloc(${maskName(GFP_NOWAIT)}),`,
      `then ${nrBack} of these pages are freed. How many pages are in reserve?`,
    ],
    answer: String(left),
    explanation: [
      `The first ${spare} came from the machine, ${minNr} from the reserve; a free fills the reserve first.`,
    ],
  };
}

/** Four sorts of question. */
export function question(random: Prng, nr: number): Question {
  const sorts = [keepsQuestion, sourceQuestion, contextQuestion, refillQuestion];
  return (sorts[nr % sorts.length] as (random: Prng) => Question)(random);
}
