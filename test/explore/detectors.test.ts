/**
 * Goal: each detector reports what it is for (red) and says nothing about the same code without the bug (green):
 * HPB-1, HPB-2, LKU-1, deadlock, lost wake-up, livelock, oops.
 * Method: pairs of toys, searched with bound 2.
 */

import { describe, expect, it } from "vitest";
import { createDeepening } from "../../explore/dfs.ts";
import type { Failure } from "../../explore/subject.ts";
import { bugOn } from "../../kernel/bug.ts";
import { createToy, lock, type ToySpec, unlock, word } from "../support/explore_toy.ts";

function search(spec: ToySpec, bound = 2): Failure | null {
  const { engine } = createToy(spec);
  const strategy = createDeepening(bound);
  do {
    const { failure } = engine.run(strategy);
    if (failure !== null) return failure;
  } while (strategy.next());
  return null;
}

type Body = ToySpec["bodies"][number];
const [A, B, FLAG, DATA] = [word(1), word(2), word(3), word(4)];

/** `work` under the lock A, which is released by `release`. */
const locked =
  (work: (...args: Parameters<Body>) => void, release = unlock): Body =>
  (port, cpu) => {
    lock(port, cpu, A);
    work(port, cpu);
    release(port, A);
    return undefined;
  };
const add: Body = (port) => {
  port.st32(DATA, port.ld32(DATA) + 1);
  return undefined;
};

describe("HPB-1 races", () => {
  it.each<[string, ToySpec["bodies"]]>([
    ["two plain additions", [add, add]],
    ["one side without the lock", [locked(add), add]],
    ["a lock that is released by a plain store", Array(2).fill(locked(add, (port, at) => port.st32(at, 0))) as Body[]],
    [
      "a message behind a plain flag",
      [
        (port) => {
          port.st32(DATA, 7);
          port.st32(FLAG, 1);
          return undefined;
        },
        (port) => (port.ldAtomic(FLAG) === 1 && port.ld32(DATA) !== 7 ? "stale" : undefined),
      ],
    ],
    [
      "a fill over a word of another CPU",
      [
        (port) => {
          port.fill(DATA - 8, 0, 16);
          return undefined;
        },
        add,
      ],
    ],
    [
      "an atomic addition and a plain store",
      [
        (port) => {
          port.fetchAdd(DATA, 1);
          return undefined;
        },
        add,
      ],
    ],
  ])("red: %s", (_, bodies) => {
    expect(search({ bodies })).toMatchObject({ kind: "race" });
  });

  it.each<[string, ToySpec["bodies"]]>([
    ["additions under a lock", [locked(add), locked(add), locked(add)]],
    [
      "a message behind an atomic flag",
      [
        (port) => {
          port.st32(DATA, 7);
          port.stAtomic(FLAG, 1);
          return undefined;
        },
        (port) => (port.ldAtomic(FLAG) === 1 && port.ld32(DATA) !== 7 ? "stale" : undefined),
      ],
    ],
    [
      "neighbouring bytes of one word",
      [0, 1, 2].map(
        (i): Body =>
          (port) => {
            port.st8(DATA + i, port.ld8(DATA + i) + 1);
            return undefined;
          },
      ),
    ],
    [
      "a look at a lock word before it is taken",
      [
        (port, cpu) => {
          if (port.ld32(A) === 0) lock(port, cpu, A);
          else lock(port, cpu, A);
          add(port, cpu);
          unlock(port, A);
          return undefined;
        },
        locked(add),
      ],
    ],
    [
      "atomic additions",
      Array.from(
        { length: 3 },
        (): Body => (port) => {
          port.fetchAdd(DATA, 1);
          return undefined;
        },
      ),
    ],
  ])("green: %s", (_, bodies) => {
    expect(search({ bodies })).toBeNull();
  });

  it("green: a chain of two hand-overs orders what lies before it (HPB-2)", () => {
    const hand =
      (from: number, to: number): Body =>
      (port) => {
        port.waitUntil(from, 1, true);
        port.st32(DATA, port.ld32(DATA) + 1);
        port.stAtomic(to, 1);
        return undefined;
      };
    const first: Body = (port) => {
      port.st32(DATA, 1);
      port.stAtomic(A, 1);
      return undefined;
    };
    expect(
      search({ bodies: [first, hand(A, B), hand(B, FLAG)], check: (p) => (p.peek(DATA) === 3 ? null : "?") }),
    ).toBe(null);
  });
});

describe("interrupts", () => {
  const interrupt = (port: Parameters<Body>[0]): undefined => {
    port.st32(DATA, port.ld32(DATA) + 1);
  };

  it("red: an addition with interrupts on", () => {
    expect(search({ bodies: [add], interrupt })).toMatchObject({ kind: "interrupt race" });
  });

  it("green: the same with interrupts off, twice", () => {
    const { engine, machine } = createToy({
      irqs: 2,
      bodies: [
        (port, cpu) => {
          for (let i = 0; i < 2; i++) {
            port.ldAtomic(FLAG);
            machine.harts.irqOn[cpu] = 0;
            add(port, cpu);
            machine.harts.irqOn[cpu] = 1;
          }
          return undefined;
        },
      ],
      interrupt,
    });
    const strategy = createDeepening(2);
    let nrRuns = 0;
    do {
      expect(engine.run(strategy).failure).toBeNull();
      nrRuns++;
    } while (strategy.next());
    expect(nrRuns).toBeGreaterThan(3);
  });

  it("red: LKU-1 a lock that a handler takes is taken with interrupts on, without any interrupt at that moment", () => {
    const { engine } = createToy({ bodies: [() => undefined] });
    const used = createToy({
      irqs: 1,
      bodies: [
        (port, cpu) => {
          // First the interrupt, then the lock, when no other one can come.
          port.ldAtomic(FLAG);
          used.engine.lockUsed(cpu, A, true, false);
          port.ldAtomic(FLAG);
          return undefined;
        },
      ],
      interrupt: (port, cpu) => {
        port.ldAtomic(FLAG);
        used.engine.lockUsed(cpu, A, false, false);
        return undefined;
      },
    });
    const strategy = createDeepening(1);
    const kinds = new Set<string | undefined>();
    do kinds.add(used.engine.run(strategy).failure?.kind);
    while (strategy.next());
    expect(kinds).toContain("lock usage");
    expect(engine.run(createDeepening(0)).failure).toBeNull();
  });
});

describe("waiting", () => {
  const both =
    (first: number, second: number): Body =>
    (port, cpu) => {
      lock(port, cpu, first);
      lock(port, cpu, second);
      unlock(port, second);
      unlock(port, first);
      return undefined;
    };

  it("red: two locks in opposite order; the cycle is told", () => {
    const failure = search({ bodies: [both(A, B), both(B, A)] });
    expect(failure).toMatchObject({ kind: "deadlock" });
    expect(failure?.message).toContain("CPU 0 waits for word 2, which CPU 1 holds");
    expect(failure?.message).toContain("CPU 1 waits for word 1, which CPU 0 holds");
  });
  it("green: two locks in the same order", () => {
    expect(search({ bodies: [both(A, B), both(A, B), both(A, B)] })).toBeNull();
  });
  it("red: a lock that its own CPU holds, while others could still run", () => {
    expect(search({ bodies: [both(A, A), both(B, FLAG)] })?.message).toContain("which it holds itself");
  });

  it("red and green: a flag that nobody sets, and one that somebody does", () => {
    const waiter: Body = (port) => {
      port.waitUntil(FLAG, 1, true);
      return undefined;
    };
    const setter: Body = (port) => {
      port.stAtomic(FLAG, 1);
      return undefined;
    };
    expect(search({ bodies: [waiter, () => undefined] })).toMatchObject({ kind: "deadlock" });
    expect(search({ bodies: [waiter, setter, waiter] })).toBeNull();
  });

  it("red: livelock, with the place; green: a spin loop that another CPU ends", () => {
    const spinning: Body = (port) => {
      while (port.ldAtomic(FLAG) === 0);
      return undefined;
    };
    const setter: Body = (port) => {
      port.stAtomic(FLAG, 1);
      return undefined;
    };
    expect(search({ bodies: [spinning, add] }, 0)).toMatchObject({ kind: "livelock" });
    expect(search({ bodies: [spinning, setter] }, 1)).toBeNull();
  });
});

it("oops: bugOn, a wild address, an exception of the program, a check that throws", () => {
  const wild: Body = (port) => {
    port.st32(-4, 1);
    return undefined;
  };
  const broken: Body = (port) => {
    bugOn(port.ld32(DATA) === 0, "TOY-1: nothing there");
    return undefined;
  };
  const thrower: Body = () => {
    throw new TypeError("not a function");
  };
  expect(search({ bodies: [wild] })).toMatchObject({ kind: "oops", message: expect.stringContaining("outside RAM") });
  expect(search({ bodies: [broken] })).toMatchObject({ kind: "oops", message: "TOY-1: nothing there" });
  expect(search({ bodies: [thrower] })).toMatchObject({ kind: "oops", message: "the program threw: not a function" });
  const check = (port: Parameters<Body>[0]): null => {
    for (;;) port.ld32(DATA);
  };
  expect(search({ bodies: [add], check })).toMatchObject({ kind: "oops", message: expect.stringContaining("no end") });
});
