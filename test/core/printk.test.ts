/**
 * The log ring: what is written stays inside, whatever the lengths of the lines.
 *
 * Goal: LOG-1, LOG-2, LOG-3. Method: lines of all lengths, many times around a ring between two guards of static memory.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { createKernelImage } from "../../kernel/image.ts";
import { createPrintk, KERN_INFO } from "../../kernel/printk.ts";

const GUARD_BYTES = 64;

function guardedLog() {
  const machine = createMachine({ nrCpus: 1, ramBytes: 8 * 1024 * 1024, seed: "log", port: "bounds" });
  const image = createKernelImage();
  const before = image.bss("before", GUARD_BYTES, 8);
  const printk = createPrintk(machine, image);
  const after = image.bss("after", GUARD_BYTES, 8);
  const isWhole = (): boolean =>
    [before, after].every((guard) => machine.port.readBytes(guard, GUARD_BYTES).every((byte) => byte === 0));
  return { printk, isWhole, machine };
}

describe("the log ring", () => {
  it("LOG-3 a header never reaches over its end (bug: with 8 bytes left the time went into the next variable)", () => {
    for (const length of [0, 1, 8, 9, 16, 24, 40]) {
      const { printk, isWhole, machine } = guardedLog();
      machine.harts.clock[0] = 1e9;
      for (let i = 0; i < 12_000; i++) printk(KERN_INFO, "x".repeat(i % 7 === 0 ? length : (i * 3) % 50));
      expect(isWhole()).toBe(true);
      expect(printk.check()).toBeNull();
    }
  });

  it("LOG-1 LOG-2 the newest records are there, whole and in order, after any lines", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(999), { minLength: 300, maxLength: 500 }), (lengths) => {
        const { printk, isWhole } = guardedLog();
        lengths.forEach((length, i) => {
          printk(KERN_INFO, String(i).padEnd(length, "."));
        });
        expect(printk.check()).toBeNull();
        expect(isWhole()).toBe(true);
        const records = printk.records();
        const first = lengths.length - records.length;
        expect(records.length).toBeGreaterThan(50);
        records.forEach(({ seq, text }, i) => {
          expect(seq).toBe(first + i);
          expect(text).toBe(String(first + i).padEnd(lengths[first + i] as number, "."));
        });
      }),
      { numRuns: 10 },
    );
  });
});
