/**
 * Goal: a machine is put back only where nothing is lost, and then it goes on with the same bytes (IMG-4).
 * Method: events planned and fired around save and restore; tasks that begin, end and go on between them; buffers that
 * are used again.
 */

import { describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { ramSum, sumHex } from "../../kernel/arch/machine_sums.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { createLibc } from "../../userland/libc.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const machine = () => createMachine({ nrCpus: 2, ramBytes: 8 * 1024 * 1024, seed: "1", port: "bounds" });

const sleeper: Program = function* (env) {
  const libc = createLibc(env);
  for (let i = 0; i < 3; i++) yield* libc.call(SYS_nanosleep, 1_000_000);
  return 0;
};

describe("IMG-4 restore refuses what it could not put back", () => {
  it("an image saved while a device has an act planned", () => {
    const m = machine();
    m.events.at(1000, () => {});
    const image = m.save();
    m.events.runDue(2000);
    expect(() => m.restore(image)).toThrow(
      /a device had an act planned when the image was saved; restore between acts/,
    );
  });

  it("while a device has acts planned now", () => {
    const m = machine();
    const image = m.save();
    m.events.at(1000, () => {});
    m.events.at(1000, () => {});
    m.port.st32(64, 5);
    expect(() => m.restore(image)).toThrow(/devices had 2 acts planned at restore/);
    expect(m.port.ld32(64)).toBe(5);
  });

  it("an image of another machine", () => {
    const image = machine().save();
    const other = createMachine({ nrCpus: 3, ramBytes: 8 * 1024 * 1024, seed: "1", port: "bounds" });
    expect(() => other.restore(image)).toThrow("other CPUs");
    const larger = createMachine({ nrCpus: 2, ramBytes: 16 * 1024 * 1024, seed: "1", port: "bounds" });
    expect(() => larger.restore(image)).toThrow("another RAM size");
    expect(() => larger.save(image)).toThrow("another RAM size");
  });

  it("a task that has begun, one that has ended, one that went on", () => {
    const t = bootKernel({ "/bin/sleeper": sleeper });
    const before = t.kernel.save();
    t.kernel.spawn("/bin/sleeper", ["sleeper"]);
    expect(() => t.kernel.restore(before)).toThrow(/task \d+ \(sleeper\) has begun since the image was saved/);
    t.kernel.run({ untilCycles: t.kernel.now() + 500_000 });
    const during = t.kernel.save();
    t.kernel.restore(during);
    t.kernel.run({ untilCycles: t.kernel.now() + 1_000_000 });
    expect(() => t.kernel.restore(during)).toThrow(/task \d+ \(sleeper\) has run since the image was saved/);
    t.kernel.run();
    expect(() => t.kernel.restore(during)).toThrow(
      /task \d+ has ended since the image was saved: .* run again instead/,
    );
    t.kernel.restore(before);
    t.expectNoLeak();
  });
});

describe("restore", () => {
  it("puts device time back: an act planned afterwards is not late (it was, as if time had gone on)", () => {
    const m = machine();
    const image = m.save();
    m.events.at(5000, () => {});
    m.events.runDue(5000);
    m.restore(image);
    const fired: number[] = [];
    m.events.at(100, () => fired.push(m.events.now()));
    m.events.runDue(200);
    expect(fired).toEqual([100]);
  });

  it("save() into an image of before uses its buffers, and is the same image", () => {
    const m = machine();
    const first = m.save();
    const sums = m.sums();
    m.port.st32(4096, 77);
    m.harts.clock[1] = 123;
    m.random.stream("x").next();
    expect(m.sums().random).not.toEqual(sums.random);
    const fresh = m.save();
    const again = m.save(first);
    expect(again.ram).toBe(first.ram);
    expect(Buffer.compare(again.ram, fresh.ram)).toBe(0);
    expect(again.registers[0]).toEqual(fresh.registers[0]);
    const saved = m.sums();
    m.port.st32(4096, 78);
    m.harts.clock[1] = 124;
    m.random.stream("x").next();
    m.restore(again);
    const restored = m.sums();
    expect(sumHex(ramSum(restored))).toBe(sumHex(ramSum(saved)));
    expect([restored.registers, restored.random]).toEqual([saved.registers, saved.random]);
  });
});

describe("checksums of a machine", () => {
  it("SUM-1 SUM-2 every single bit of a page shows, in that page only; zero pages have the sum 0", () => {
    const m = machine();
    const before = m.sums().pages;
    expect(before.every((word) => word === 0)).toBe(true);
    const seen = new Set<string>();
    for (let bit = 0; bit < 32; bit++) {
      for (const word of [0, 1, 511, 1023]) {
        const at = 3 * 4096 + 4 * word;
        m.port.st32(at, 2 ** bit);
        const { pages } = m.sums();
        expect(pages.findIndex((sum) => sum !== 0)).toBeGreaterThanOrEqual(6);
        expect(pages.findLastIndex((sum) => sum !== 0)).toBeLessThanOrEqual(7);
        seen.add(`${pages[6]} ${pages[7]}`);
        m.port.st32(at, 0);
      }
    }
    expect(seen.size).toBe(128);
    expect(m.sums().pages.every((word) => word === 0)).toBe(true);
  });

  it("a register and a draw show under their names", () => {
    const m = machine();
    const before = m.sums();
    m.harts.irqOn[1] = 1;
    const { registers } = m.sums();
    const changed = registers.filter(({ sum }, i) => sum.join() !== before.registers[i]?.sum.join());
    expect(changed.map(({ name }) => name)).toEqual(["interrupt flag"]);
    m.random.stream("a").next();
    expect(m.sums().random).not.toEqual(before.random);
  });
});
