/**
 * Goal: masks, moments, nesting, NMI, storms and unclaimed interrupts (IRQ-3 … IRQ-8, CHIP-1 … CHIP-4, NMI-1, NMI-2).
 * Method: a machine with nothing but its interrupts; after every step the invariants are walked. Random wires, masks and
 * clocks against an oracle that keeps lists.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IRQ_CALL_FUNCTION, IRQ_SPURIOUS, NR_IRQ_LINES } from "../../kernel/arch/irqchip.ts";
import { HARDIRQ_OFFSET, NMI_OFFSET } from "../../kernel/context.ts";
import { IRQ_HANDLED, IRQ_NONE, MAX_HARDIRQ_DEPTH, MAX_PER_CHECKPOINT } from "../../kernel/irq.ts";
import type { IrqContext } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import { createIrqWorld, type IrqWorld, recorder } from "../support/irq_world.ts";

const advance = ({ machine }: IrqWorld, cpu: number, cycles: number): void => {
  machine.harts.clock[cpu] = (machine.harts.clock[cpu] as number) + cycles;
};

/** A device on `line` whose handler drops its wire and counts. */
function device(world: IrqWorld, line: number, onIrq: (ctx: IrqContext) => void = () => {}): { count: number } {
  const seen = { count: 0 };
  const handler = (ctx: IrqContext): number => {
    seen.count++;
    world.machine.irqChip.setLevel(line, false);
    onIrq(ctx);
    return IRQ_HANDLED;
  };
  expect(world.irqs.requestIrq(line, recorder(`dev${line}`, handler))).toBe(0);
  return seen;
}

describe("masks", () => {
  it("IRQ-4 disable and enable nest; what came meanwhile is taken at the last enable", () => {
    const world = createIrqWorld();
    const { irqs, machine } = world;
    const seen = device(world, 9);
    irqs.disableIrq(9);
    irqs.disableIrq(9);
    machine.irqChip.setLevel(9, true);
    irqs.checkpoint(0);
    irqs.enableIrq(9);
    irqs.checkpoint(0);
    expect(seen.count).toBe(0);
    expect(world.check()).toBeNull();
    irqs.enableIrq(9);
    expect(seen.count).toBe(1);
    irqs.enableIrq(9);
    expect(world.log()).toContain("Unbalanced enable for IRQ 9");
    expect(world.check()).toBeNull();
  });

  it("IRQ-6 a freed action is not called, also when its handler frees it; a free line is masked", () => {
    const world = createIrqWorld();
    let count = 0;
    const action = recorder("once", () => {
      count++;
      world.irqs.freeIrq(9, action);
      return IRQ_HANDLED;
    });
    world.irqs.requestIrq(9, action);
    world.machine.irqChip.setLevel(9, true);
    for (let i = 0; i < 3; i++) world.irqs.checkpoint(0);
    expect(count).toBe(1);
    expect(world.machine.irqChip.isMasked(9)).toBe(true);
    world.irqs.freeIrq(9, action);
    expect(world.log()).toContain("Trying to free already-free IRQ 9");
    expect(world.check()).toBeNull();
  });

  it("affinity sends the wire to another CPU; offline CPUs and per-CPU lines are refused", () => {
    const world = createIrqWorld({ nrCpus: 3 });
    const cpus: number[] = [];
    device(world, 9, (ctx) => cpus.push(ctx.cpu));
    world.machine.harts.online[2] = 0;
    expect(world.irqs.setAffinity(9, 1)).toBe(0);
    for (const [line, cpu] of [
      [9, 2],
      [9, 3],
      [9, -1],
      [2, 1],
      [31, 1],
      [40, 1],
    ] as const) {
      expect(world.irqs.setAffinity(line, cpu)).toBe(-EINVAL);
    }
    world.machine.irqChip.setLevel(9, true);
    world.irqs.checkpoint(0);
    world.irqs.checkpoint(1);
    expect(cpus).toEqual([1]);
    expect(world.irqs.countsOf(9)).toEqual([0, 1, 0]);
  });
});

describe("moments", () => {
  it("CHIP-2 a CPU that is behind holds an interrupt back until its clock is there", () => {
    const world = createIrqWorld();
    const seen = device(world, 9);
    world.irqs.setAffinity(9, 1);
    advance(world, 0, 10_000);
    world.machine.harts.current[0] = 0;
    world.machine.irqChip.setLevel(9, true);
    world.irqs.checkpoint(1);
    expect(seen.count).toBe(0);
    expect(world.machine.irqChip.heldUntil(1)).toBe(10_000);
    advance(world, 1, 9_999);
    world.irqs.checkpoint(1);
    expect(seen.count).toBe(0);
    advance(world, 1, 1);
    world.irqs.checkpoint(1);
    expect(seen.count).toBe(1);
    expect(world.machine.irqChip.heldUntil(1)).toBe(Number.POSITIVE_INFINITY);
  });

  it("an event raises at its own time, however late it is fired", () => {
    const world = createIrqWorld();
    const seen = device(world, 9);
    world.irqs.setAffinity(9, 1);
    world.machine.events.at(500, () => world.machine.irqChip.setLevel(9, true));
    advance(world, 0, 90_000);
    world.irqs.checkpoint(0);
    advance(world, 1, 500);
    world.irqs.checkpoint(1);
    expect(seen.count).toBe(1);
  });

  it("a wire that falls before it is acknowledged is a spurious interrupt (SPU)", () => {
    const world = createIrqWorld();
    const seen = device(world, 9);
    const flags = world.contexts.localIrqSave(world.ctx);
    world.machine.irqChip.setLevel(9, true);
    world.machine.irqChip.setLevel(9, false);
    world.contexts.localIrqRestore(world.ctx, flags);
    expect(seen.count).toBe(0);
    expect(world.irqs.countsOf(IRQ_SPURIOUS)).toEqual([1, 0]);
    expect(world.check()).toBeNull();
  });

  it("two devices hold one wire: it falls when the last lets go", () => {
    const { machine } = createIrqWorld();
    const { irqChip } = machine;
    irqChip.setLevel(9, true, 0);
    irqChip.setLevel(9, true, 1);
    irqChip.setLevel(9, false, 0);
    expect(irqChip.isAsserted(9)).toBe(true);
    irqChip.setLevel(9, false, 1);
    expect(irqChip.isAsserted(9)).toBe(false);
  });

  it("CHIP-1 CHIP-2 CHIP-3 random wires, edges, masks, priorities and clocks", () => {
    const step = fc.record({
      kind: fc.constantFrom("level", "raise", "mask", "unmask", "route", "priority", "clock", "ack", "complete"),
      line: fc.nat(7),
      cpu: fc.nat(1),
      n: fc.nat(300),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const world = createIrqWorld();
        const { irqChip, harts } = world.machine;
        const service: number[][] = [[], []];
        const priority = Array.from({ length: NR_IRQ_LINES }, (_, line) => line);
        for (const { kind, line, cpu, n } of steps) {
          harts.current[0] = cpu;
          const now = harts.clock[cpu] as number;
          if (kind === "level") irqChip.setLevel(line, n % 2 === 0);
          else if (kind === "raise") irqChip.raise(cpu, line);
          else if (kind === "mask") irqChip.mask(line);
          else if (kind === "unmask") irqChip.unmask(line);
          else if (kind === "route") irqChip.route(line, n % 2);
          else if (kind === "priority" && !service.flat().includes(line)) {
            priority[line] = n % 16;
            irqChip.setPriority(line, n % 16);
          } else if (kind === "clock") harts.clock[cpu] = now + n;
          else if (kind === "complete") {
            const last = service[cpu]?.pop();
            if (last !== undefined) irqChip.complete(cpu, last);
          } else if (kind === "ack") {
            const held = irqChip.heldUntil(cpu);
            const got = irqChip.acknowledge(cpu);
            if (held > now) expect(got).toBe(-1);
            if (got >= 0 && got !== IRQ_SPURIOUS) {
              expect(irqChip.isMasked(got)).toBe(false);
              for (const other of service[cpu] as number[]) {
                expect(priority[got] as number).toBeLessThan(priority[other] as number);
              }
              service[cpu]?.push(got);
            }
          }
          expect(irqChip.checkPending()).toBe(-1);
        }
      }),
    );
  });
});

describe("nesting", () => {
  it("IRQ-3 a handler that switches interrupts on is interrupted by more urgent lines only", () => {
    const world = createIrqWorld();
    const { contexts, machine } = world;
    const order: string[] = [];
    device(world, 5, (ctx) => order.push(`5 at ${contexts.preemptCount(ctx)}`));
    device(world, 20, () => order.push("20"));
    device(world, 10, (ctx) => {
      order.push("10 begins");
      machine.irqChip.setLevel(20, true);
      machine.irqChip.setLevel(5, true);
      contexts.localIrqEnable(ctx);
      order.push("10 ends");
    });
    machine.irqChip.setLevel(10, true);
    world.irqs.checkpoint(0);
    expect(order).toEqual(["10 begins", `5 at ${2 * HARDIRQ_OFFSET}`, "10 ends", "20"]);
    expect(world.check()).toBeNull();
  });

  it("handlers on top of each other stop at the depth that preempt_count can hold", () => {
    const world = createIrqWorld();
    const { contexts, machine } = world;
    let deepest = 0;
    for (let line = 8; line < 28; line++) {
      device(world, line, (ctx) => {
        deepest = Math.max(deepest, contexts.preemptCount(ctx) / HARDIRQ_OFFSET);
        if (line > 8) machine.irqChip.setLevel(line - 1, true);
        contexts.localIrqEnable(ctx);
      });
    }
    machine.irqChip.setLevel(27, true);
    for (let i = 0; i < 4; i++) world.irqs.checkpoint(0);
    expect(deepest).toBe(MAX_HARDIRQ_DEPTH);
    expect(world.irqs.lines().every(({ counts }) => counts[0] === 1)).toBe(true);
    expect(world.check()).toBeNull();
  });

  it("IRQ-5 exit hooks run once per outermost interrupt, with interrupts off and hardirq left", () => {
    const world = createIrqWorld();
    const { contexts, machine, irqs } = world;
    const levels: unknown[] = [];
    irqs.onIrqExit((ctx) => levels.push([contexts.level(ctx), contexts.irqsDisabled(ctx)]));
    device(world, 5);
    device(world, 10, (ctx) => {
      machine.irqChip.setLevel(5, true);
      contexts.localIrqEnable(ctx);
      expect(levels).toEqual([]);
    });
    machine.irqChip.setLevel(10, true);
    irqs.checkpoint(0);
    expect(levels).toEqual([[0, true]]);
  });

  it("a handler that leaves preempt_count changed is reported, and it is put right", () => {
    const world = createIrqWorld();
    device(world, 9, (ctx) => world.contexts.preemptDisable(ctx));
    world.machine.irqChip.setLevel(9, true);
    world.irqs.checkpoint(0);
    expect(world.log()).toContain("irq 9: dev9 preempt leak: 00010000 -> 00010001?");
    expect(world.check()).toBeNull();
  });
});

describe("NMI", () => {
  it("NMI-1 NMI-2 comes with interrupts off, inside a handler, not inside itself, and leaves all as it was", () => {
    const world = createIrqWorld();
    const { contexts, machine, ctx } = world;
    const seen: number[] = [];
    let again = true;
    world.nmis.registerNmi("watchdog", (nmi) => {
      seen.push(contexts.preemptCount(nmi));
      expect(contexts.level(nmi)).toBe(3);
      machine.irqChip.setLevel(9, true);
      contexts.localIrqEnable(nmi);
      if (again) machine.irqChip.raiseNmi(0);
      again = false;
      expect(line.count).toBe(0);
      return true;
    });
    const line = device(world, 9);
    const flags = contexts.localIrqSave(ctx);
    contexts.preemptDisable(ctx);
    machine.irqChip.raiseNmi(0);
    expect(seen).toEqual([NMI_OFFSET + HARDIRQ_OFFSET + 1]);
    expect(contexts.irqsDisabled(ctx)).toBe(true);
    world.irqs.checkpoint(0);
    expect(seen.length).toBe(2);
    contexts.preemptEnable(ctx);
    contexts.localIrqRestore(ctx, flags);
    expect(line.count).toBe(1);
    expect(world.nmis.counts()).toEqual([2, 0]);
    expect(world.check()).toBeNull();
  });

  it("one that nobody knows is dazed and confused", () => {
    const world = createIrqWorld();
    world.machine.irqChip.raiseNmi(1);
    world.irqs.checkpoint(1);
    expect(world.log()).toContain("Uhhuh. NMI received for unknown reason 00 on CPU 1.");
    expect(world.log()).toContain("Dazed and confused, but trying to continue");
  });
});

describe("storms", () => {
  const NOBODY = 'irq 9: nobody cared (try booting with the "irqpoll" option)';

  it("999 of 1000 unclaimed disable the line, with Linux's words; a new handler opens it again", () => {
    const world = createIrqWorld({ unhandledLimit: 1000 });
    let count = 0;
    const deaf = recorder("deaf", () => (++count % 1000 === 0 ? IRQ_HANDLED : IRQ_NONE), true);
    world.irqs.requestIrq(9, deaf);
    // An edge each time: a wire that stays up is another rule's business.
    for (let i = 0; i < 3000; i++) {
      world.machine.irqChip.raise(0, 9);
      world.irqs.checkpoint(0);
    }
    expect(count).toBe(3000);
    expect(world.log()).not.toContain("nobody cared");
    const never = recorder("never", () => IRQ_NONE, true);
    world.irqs.freeIrq(9, deaf);
    world.irqs.requestIrq(9, never);
    for (let i = 0; i < 1000; i++) {
      world.machine.irqChip.raise(0, 9);
      world.irqs.checkpoint(0);
    }
    expect(world.log()).toContain(`${NOBODY}\nCPU: 0`);
    expect(world.log()).toContain("handlers:\n[<never>]\nDisabling IRQ #9");
    expect(world.machine.irqChip.isMasked(9)).toBe(true);
    world.irqs.requestIrq(9, deaf);
    expect(world.machine.irqChip.isMasked(9)).toBe(false);
    expect(world.check()).toBeNull();
  });

  it("rare ones are forgotten: a tenth of a second apart they are never judged", () => {
    const world = createIrqWorld({ unhandledLimit: 50 });
    world.irqs.requestIrq(
      9,
      recorder("rare", () => IRQ_NONE),
    );
    for (let i = 0; i < 200; i++) {
      world.machine.irqChip.raise(0, 9);
      world.irqs.checkpoint(0);
      advance(world, 0, 100_000_001);
    }
    expect(world.log()).not.toContain("nobody cared");
  });

  it("IRQ-7 IRQ-8 a wire that never falls costs time, and its line is disabled in the end", () => {
    for (const answer of [IRQ_HANDLED, IRQ_NONE]) {
      const world = createIrqWorld({ unhandledLimit: 500 });
      let count = 0;
      world.irqs.requestIrq(
        9,
        recorder("stuck", () => {
          count++;
          return answer;
        }),
      );
      world.machine.irqChip.setLevel(9, true);
      const start = world.machine.harts.clock[0] as number;
      world.irqs.checkpoint(0);
      expect(count).toBe(MAX_PER_CHECKPOINT);
      for (let i = 0; i < 100; i++) world.irqs.checkpoint(0);
      expect(count).toBe(500);
      expect((world.machine.harts.clock[0] as number) - start).toBeGreaterThanOrEqual(500 * 400);
      expect(world.log()).toContain("Disabling IRQ #9");
      expect(world.check()).toBeNull();
    }
  });

  it("bogus answers are reported", () => {
    const world = createIrqWorld();
    world.irqs.requestIrq(
      IRQ_CALL_FUNCTION,
      recorder("odd", () => 255),
    );
    world.machine.irqChip.raise(0, IRQ_CALL_FUNCTION);
    world.irqs.checkpoint(0);
    expect(world.log()).toContain("irq event 2: bogus return value ff");
  });
});
