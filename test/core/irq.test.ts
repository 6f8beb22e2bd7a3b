/**
 * Goal: lines are taken by priority, level and mask; handlers share, nest and end as IRQ-1 … IRQ-7 say.
 * Method: a machine with nothing but its interrupts; wires are lifted by hand, handlers record what they see.
 */
import { describe, expect, it } from "vitest";
import { IRQ_UART } from "../../kernel/arch/irqchip.ts";
import { HARDIRQ_OFFSET } from "../../kernel/context.ts";
import { IRQ_HANDLED, IRQ_NONE } from "../../kernel/irq.ts";
import { EBUSY, EINVAL } from "../../kernel/uapi/errno.ts";
import { createIrqWorld, type IrqWorld, recorder } from "../support/irq_world.ts";

/** Requests `line` with a handler that records the line and drops the wire. */
function listen(world: IrqWorld, line: number, seen: number[]): void {
  const handler = (): number => {
    seen.push(line);
    world.machine.irqChip.setLevel(line, false);
    return IRQ_HANDLED;
  };
  expect(world.irqs.requestIrq(line, recorder(`dev${line}`, handler))).toBe(0);
}

describe("taking interrupts", () => {
  it("IRQ-1 a handler runs in hardirq with interrupts off, and everything is as before afterwards", () => {
    const world = createIrqWorld();
    const { machine, contexts, irqs, ctx } = world;
    const seen: unknown[] = [];
    const handler = (irq: Parameters<Parameters<typeof recorder>[1]>[0]): number => {
      seen.push([contexts.preemptCount(irq), contexts.irqsDisabled(irq), contexts.level(irq)]);
      machine.irqChip.setLevel(9, false);
      return IRQ_HANDLED;
    };
    irqs.requestIrq(9, recorder("nic0", handler));
    const flags = contexts.localIrqSave(ctx);
    machine.irqChip.setLevel(9, true);
    irqs.checkpoint(0);
    expect(seen).toEqual([]);
    contexts.localIrqRestore(ctx, flags);
    expect(seen).toEqual([[HARDIRQ_OFFSET, true, 2]]);
    expect(world.check()).toBeNull();
  });

  it("lines of one CPU are taken by priority, equal ones lowest first", () => {
    const world = createIrqWorld();
    const seen: number[] = [];
    for (const line of [9, 10, 11, 12]) listen(world, line, seen);
    world.machine.irqChip.setPriority(11, 1);
    world.machine.irqChip.setPriority(12, 9);
    const flags = world.contexts.localIrqSave(world.ctx);
    for (const line of [12, 10, 9, 11]) world.machine.irqChip.setLevel(line, true);
    world.contexts.localIrqRestore(world.ctx, flags);
    expect(seen).toEqual([11, 9, 12, 10]);
  });

  it("a level line is taken again as long as its wire is up", () => {
    const world = createIrqWorld();
    let left = 3;
    const handler = (): number => {
      if (--left === 0) world.machine.irqChip.setLevel(9, false);
      return IRQ_HANDLED;
    };
    world.irqs.requestIrq(9, recorder("nic0", handler));
    world.machine.irqChip.setLevel(9, true);
    world.irqs.checkpoint(0);
    expect(left).toBe(0);
    expect(world.irqs.lines()[0]?.counts).toEqual([3, 0]);
  });

  it("IRQ-2 a line without a handler counts as an error; a level line is masked", () => {
    const world = createIrqWorld();
    world.machine.irqChip.raise(0, IRQ_UART);
    world.machine.irqChip.setLevel(20, true);
    world.irqs.checkpoint(0);
    world.irqs.checkpoint(0);
    expect(world.irqs.nrSpurious()).toBe(2);
    expect(world.machine.irqChip.isMasked(20)).toBe(true);
  });
});

describe("sharing and asking", () => {
  it("all handlers of a shared line are called; unshared and double requests are refused", () => {
    const world = createIrqWorld();
    const seen: string[] = [];
    const device = (name: string, isShared: boolean) =>
      recorder(
        name,
        () => {
          seen.push(name);
          if (name === "b") world.machine.irqChip.setLevel(9, false);
          return name === "b" ? IRQ_HANDLED : IRQ_NONE;
        },
        isShared,
      );
    const a = device("a", true);
    expect(world.irqs.requestIrq(9, a)).toBe(0);
    expect(world.irqs.requestIrq(9, device("b", true))).toBe(0);
    expect(world.irqs.requestIrq(9, a)).toBe(-EINVAL);
    expect(world.irqs.requestIrq(9, device("c", false))).toBe(-EBUSY);
    expect(world.log()).toContain("genirq: Flags mismatch irq 9. 00000000 (c) vs. 00000080 (a)");
    for (const line of [-1, 31, 32, 1.5, Number.NaN])
      expect(world.irqs.requestIrq(line, device("d", true))).toBe(-EINVAL);
    world.machine.irqChip.setLevel(9, true);
    world.irqs.checkpoint(0);
    expect(seen).toEqual(["a", "b"]);
    expect(world.check()).toBeNull();
  });
});
