/**
 * Goal: RTL-1. Method: one limit on a bare machine, times given by hand.
 */
import { expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { createKernelImage } from "../../kernel/image.ts";
import { createPrintk } from "../../kernel/printk.ts";
import { createRatelimit, DEFAULT_RATELIMIT, RATELIMIT_BYTES } from "../../kernel/ratelimit.ts";

it("RTL-1 ten in five seconds, and then how many were held back", () => {
  const machine = createMachine({ nrCpus: 1, ramBytes: 8 * 1024 * 1024, seed: "rate", port: "bounds" });
  const image = createKernelImage();
  const printk = createPrintk(machine, image);
  const state = image.bss("rate", RATELIMIT_BYTES, 8);
  const may = createRatelimit(machine.port, printk, state, { name: "warn_me", ...DEFAULT_RATELIMIT });
  const asked = (nr: number, from: number): number =>
    Array.from({ length: nr }, (_, i) => may(from + i)).filter((is) => is).length;
  expect(asked(25, 0)).toBe(10);
  expect(asked(1, 5e9)).toBe(0);
  expect(printk.records()).toEqual([]);
  // Behind the interval, which began with the first message.
  expect(asked(12, 5e9 + 2)).toBe(10);
  expect(printk.records().map(({ text }) => text)).toEqual(["warn_me: 16 callbacks suppressed"]);
  expect(asked(3, 20e9)).toBe(3);
  expect(printk.records()[1]?.text).toBe("warn_me: 2 callbacks suppressed");
  // A limit that starts at time 0 has begun all the same.
  expect(asked(1, 20e9 + 3)).toBe(1);
});
