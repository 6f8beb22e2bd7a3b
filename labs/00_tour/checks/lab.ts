/**
 * Lab 0: nothing to write, so no checks: six questions about what the commands of the handout print.
 *
 * Each question names its command; a test runs it and looks for the answer.
 */

import type { LabCode, Question } from "../../kit/lab_code.ts";

const lastByte: Question = {
  text: [
    "slabtown boot --mem 96M --exec true",
    "Which is the last byte of RAM? Write it in hex, as in 0x1fff, without zeros in front.",
  ],
  answer: "0x5ffffff",
  explanation: ["The last line of the firmware's map that says usable; its end is included there."],
};

const hole: Question = {
  text: [
    "slabtown boot --exec true",
    "Between the first reserved range of the map and the next range there is nothing. How many bytes? In hex.",
  ],
  answer: "0x50000",
  explanation: ["From 0xa0000, one behind the end that is printed, to 0xf0000: a PC has its video card there."],
};

const guarded: Question = {
  text: [
    'slabtown boot --quiet --cmdline "dma_guard=on" --exec "insmod buggy bug=touches"',
    "What did the CPU do to memory that the device owned: a load or a store?",
  ],
  answer: "load",
  explanation: ["The device was still to write there (DMA_FROM_DEVICE): what the CPU reads before is old."],
};

const forgotten: Question = {
  text: [
    'slabtown boot --quiet --exec "insmod buggy bug=forgets_memory; rmmod buggy"',
    "How many bytes has the driver forgotten?",
  ],
  answer: "128",
  explanation: ["It asked for fewer; the size class is what is lost."],
};

const status: Question = {
  text: ['slabtown boot --quiet --exec "memhog 100M; echo status \\$?"', "With which status does memhog end?"],
  answer: "137",
  explanation: [
    "128 + 9: the OOM killer has sent SIGKILL. mmap had promised more than there is, and the pages were touched.",
    "With 2 in /proc/sys/vm/overcommit_memory mmap refuses, and memhog ends by itself with 1.",
  ],
};

const owners: Question = {
  text: [
    "slabtown explore depot-lockfree --mutant untagged --quiet",
    "Which rule is broken? Write its id, as in ABC-1.",
  ],
  answer: "DEP-5",
  explanation: ["One magazine in two places: the same mistake as a page with two owners."],
};

const QUESTIONS = [lastByte, hole, guarded, forgotten, status, owners];

export const lab: LabCode = {
  checks: [],
  judge: () => null,
  describe: ([name]) => `${name}()`,
  describeConfig: () => "",
  picture: () => [],
  question: (_random, nr) => QUESTIONS[(nr + QUESTIONS.length - 1) % QUESTIONS.length] as Question,
};
