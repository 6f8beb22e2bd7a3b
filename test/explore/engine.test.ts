/**
 * Goal: the port replays what it has seen and puts everything back (XPT-1 … XPT-3); the engine runs what was chosen,
 * the same way each time, and says what goes wrong (EXP-1 … EXP-3); the strategies try what they promise (DFS-1, DFS-2,
 * DPR-1, STR-1, XSC-1, SHR-1, SHR-2).
 * Method: toys of a few words, against interleavings that are counted or enumerated without the engine.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createDeepening, createDfs } from "../../explore/dfs.ts";
import { createDpor } from "../../explore/dpor.ts";
import { createPct } from "../../explore/pct.ts";
import { createReplay, formatSchedule, parseSchedule } from "../../explore/schedule.ts";
import { ddmin } from "../../explore/shrink.ts";
import { IRQ, type Strategy } from "../../explore/strategy.ts";
import { ExplorePort } from "../../kernel/arch/explore_port.ts";
import { createRandomStreams } from "../../kernel/lib/prng.ts";
import { createToy, type Toy, word } from "../support/explore_toy.ts";

/** What each run of a search leaves behind, in order. */
function allRuns({ engine }: Toy, strategy: Strategy, outcome: () => string): string[] {
  const outcomes: string[] = [];
  do {
    const { failure, isStopped } = engine.run(strategy);
    expect(failure).toBeNull();
    if (!isStopped) outcomes.push(outcome());
  } while (strategy.next());
  return outcomes;
}

/** Sequences of CPUs, each as often as it has accesses, with at most `bound` changes away from one that could go on. */
function interleavings(lengths: readonly number[], bound: number): string[] {
  const found: string[] = [];
  const extend = (text: string, left: readonly number[], last: number, nrChanges: number): void => {
    if (left.every((n) => n === 0)) found.push(text);
    left.forEach((n, cpu) => {
      if (n === 0) return;
      const cost = last >= 0 && cpu !== last && (left[last] as number) > 0 ? 1 : 0;
      if (nrChanges + cost > bound) return;
      extend(
        text + cpu,
        left.map((m, c) => (c === cpu ? m - 1 : m)),
        cpu,
        nrChanges + cost,
      );
    });
  };
  extend("", lengths, -1, 0);
  return found;
}

/** A toy of atomic accesses, and their order in the last run. */
function orderToy(lengths: readonly number[]): { readonly toy: Toy; readonly order: () => string } {
  const toy = createToy({
    bodies: lengths.map((length) => (port, cpu) => {
      for (let i = 0; i < length; i++) port.fetchAdd(word(8), 1 + cpu);
      return undefined;
    }),
  });
  return {
    toy,
    order: () => {
      const { accesses } = toy.engine.trace(createReplay(toy.engine.events()));
      return accesses.map((access) => access.cpu).join("");
    },
  };
}

describe("ExplorePort", () => {
  it("XPT-2 rollback puts every byte back, whatever wrote it", () => {
    const operation = fc.tuple(fc.nat(9), fc.nat(31), fc.nat(0xffff_ffff), fc.nat(40));
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 50 }), (operations) => {
        const port = new ExplorePort(new ArrayBuffer(512));
        port.fill(0, 0x5a, 512);
        port.mark();
        for (const [kind, at, value, bytes] of operations) {
          const addr = at * 8;
          if (kind === 0) port.st8(addr + (bytes % 8), value & 0xff);
          else if (kind === 1) port.st16(addr + (bytes & 6), value & 0xffff);
          else if (kind === 2) port.st32(addr, value);
          else if (kind === 3) port.stF64(addr, value / 3);
          else if (kind === 4) port.stAtomic(addr, value);
          else if (kind === 5) port.cas(addr, port.ld32(addr), value);
          else if (kind === 6) port.fetchAdd(addr, value | 0);
          else if (kind === 7) port.copy(addr, 256 - bytes, bytes);
          else if (kind === 8) port.fill(addr + 1, value & 0xff, bytes);
          else port.writeBytes(addr + 3, new Uint8Array(bytes).fill(value));
        }
        port.rollback();
        expect(port.readBytes(0, 512).every((byte) => byte === 0x5a)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it("XPT-3 without a gate it refuses what is outside of RAM, and a walk without end", () => {
    const port = new ExplorePort(new ArrayBuffer(64));
    for (const addr of [-1, 64, 1.5, Number.NaN]) expect(() => port.ld8(addr)).toThrow("outside RAM");
    expect(() => port.ld32(62)).toThrow("outside RAM");
    expect(() => port.ld32(2)).toThrow("misaligned");
    port.limit(10);
    expect(() => {
      for (;;) port.ld8(0);
    }).toThrow("no end");
  });

  it("XPT-1 a suspended CPU goes on with what it saw, whatever others have written since", () => {
    const seen: number[][] = [];
    const { engine } = createToy({
      bodies: [
        (port) => {
          const first = [port.ld8(word(1) + 3), port.ld16(word(1)), port.ldF64(word(2)), port.readBytes(word(1), 2)[0]];
          port.ldAtomic(word(3));
          seen.push(first as number[]);
          return undefined;
        },
        (port) => {
          port.ldAtomic(word(3));
          return undefined;
        },
      ],
    });
    const dfs = createDfs(2);
    do {
      expect(engine.run(dfs).failure).toBeNull();
    } while (dfs.next());
    expect(seen.length).toBeGreaterThan(2);
    expect(new Set(seen.map((values) => values.join())).size).toBe(1);
  });
});

describe("search", () => {
  it.each([
    [[3, 3], 6],
    [[3, 3], 0],
    [[3, 3], 1],
    [[4, 2], 2],
    [[2, 2, 2], 1],
    [[2, 2, 2], 6],
  ])("DFS-1 DFS-2 accesses %j with bound %i: each interleaving once", (lengths, bound) => {
    const { toy, order } = orderToy(lengths);
    const found = allRuns(toy, createDfs(bound), order);
    expect(found.toSorted()).toEqual(interleavings(lengths, bound).toSorted());
  });

  it("deepening ends with the bound that was asked for", () => {
    const { toy } = orderToy([2, 2]);
    const strategy = createDeepening(2);
    allRuns(toy, strategy, () => "");
    expect([strategy.bound(), strategy.isComplete()]).toEqual([2, true]);
  });

  it("DPR-1 reaches every final state that a search without bound reaches, in no more runs", () => {
    const access = fc.record({ kind: fc.nat(3), at: fc.nat(1), value: fc.integer({ min: 1, max: 3 }) });
    const program = fc.array(access, { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(fc.tuple(program, program), (programs) => {
        const bodies = programs.map((accesses) => (port: ExplorePort, cpu: number) => {
          let sum = 0;
          for (const { kind, at, value } of accesses) {
            if (kind === 0) sum = sum * 8 + port.ldAtomic(word(at));
            else if (kind === 1) port.stAtomic(word(at), value);
            else if (kind === 2) sum = sum * 8 + port.cas(word(at), value - 1, value);
            else sum = sum * 8 + port.fetchAdd(word(at), value);
          }
          port.st32(word(10 + cpu), sum);
          return undefined;
        });
        const toy = createToy({ bodies });
        const state = (): string => [0, 1, 10, 11].map((i) => toy.port.peek(word(i))).join();
        const full = allRuns(toy, createDfs(20), state);
        const reduced = allRuns(toy, createDpor(), state);
        expect([...new Set(reduced)].toSorted()).toEqual([...new Set(full)].toSorted());
        expect(reduced.length).toBeLessThanOrEqual(full.length);
      }),
      { numRuns: 150 },
    );
  });

  it("STR-1 pct draws the same schedules from the same seed, and others from another one", () => {
    const texts = (seed: string): string[] => {
      const { toy } = orderToy([6, 6]);
      const pct = createPct(createRandomStreams(seed).stream("pct"), 3);
      return Array.from({ length: 50 }, () => {
        toy.engine.run(pct);
        pct.next();
        return formatSchedule(toy.engine.events());
      });
    };
    expect(texts("a")).toEqual(texts("a"));
    expect(texts("a")).not.toEqual(texts("b"));
    expect(new Set(texts("a")).size).toBeGreaterThan(5);
  });
});

describe("a run", () => {
  it("EXP-1 a body that keeps state outside of RAM is told to be nondeterministic", () => {
    let nrCalls = 0;
    const { engine } = createToy({
      bodies: [
        (port) => {
          nrCalls++;
          port.ldAtomic(word(nrCalls % 2));
          port.ldAtomic(word(2));
          return undefined;
        },
        (port) => {
          port.ldAtomic(word(2));
          return undefined;
        },
      ],
    });
    const { result } = engine.trace(createReplay([{ cpu: 0, pos: 1, to: 1 }]));
    expect(result.failure).toMatchObject({ kind: "nondeterminism" });
  });

  it("EXP-3 interrupts come before any access with interrupts on, not on a handler, not more than allowed", () => {
    const { engine, machine, port } = createToy({
      irqs: 2,
      bodies: [
        (p) => {
          for (let i = 0; i < 4; i++) {
            machine.harts.irqOn[0] = i === 1 || i === 2 ? 0 : 1;
            p.st32(word(1), i);
          }
          machine.harts.irqOn[0] = 1;
          return undefined;
        },
      ],
      interrupt: (p) => {
        p.fetchAdd(word(2), 1);
        p.fetchAdd(word(3), 1);
        return undefined;
      },
    });
    const seen: string[] = [];
    const dfs = createDfs(5);
    do {
      expect(engine.run(dfs).failure).toBeNull();
      seen.push(`${formatSchedule(engine.events())} = ${port.peek(word(2))}`);
    } while (dfs.next());
    // Before accesses 0 and 3, at most two, also both at one place; a handler makes two accesses.
    expect(seen.toSorted()).toEqual(
      ["- = 0", "0:0! = 1", "0:0! 0:2! = 2", "0:0! 0:5! = 2", "0:3! = 1", "0:3! 0:5! = 2"].toSorted(),
    );
  });

  it("XSC-1 the text of a schedule is its events, and replays to the same run", () => {
    const event = fc.record({ cpu: fc.nat(7), pos: fc.nat(9999), to: fc.nat(7), isIrq: fc.boolean() });
    fc.assert(
      fc.property(fc.array(event), (list) => {
        const events = list.map(({ cpu, pos, to, isIrq }) => ({ cpu, pos, to: isIrq ? IRQ + cpu : to }));
        expect(parseSchedule(formatSchedule(events))).toEqual(events);
      }),
    );
    const { toy, order } = orderToy([5, 5, 5]);
    const pct = createPct(createRandomStreams("1").stream("pct"), 4);
    for (let i = 0; i < 100; i++) {
      toy.engine.run(pct);
      pct.next();
      const events = toy.engine.events();
      const first = order();
      const parsed = parseSchedule(formatSchedule(events));
      if (typeof parsed === "string") throw new Error(parsed);
      toy.engine.run(createReplay(parsed));
      expect([toy.engine.events(), order()]).toEqual([events, first]);
    }
  });

  it.each(["x", "0:1", "9:1>0", "0:1>9", "!", "0:-1>1", "0:1!!"])(
    "XSC-1 %s is no schedule, and it is said why",
    (text) => {
      expect(parseSchedule(text)).toEqual(expect.stringContaining(text));
    },
  );
});

it("SHR-1 SHR-2 ddmin finds a 1-minimal part that fails", () => {
  const subset = fc.uniqueArray(fc.nat(29), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(subset, (needed) => {
      const all = Array.from({ length: 30 }, (_, i) => i);
      const fails = (list: readonly number[]): boolean => needed.every((n) => list.includes(n));
      expect(ddmin(all, fails, 10_000)).toEqual(needed.toSorted((a, b) => a - b));
    }),
  );
});
