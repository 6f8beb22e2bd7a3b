/**
 * NAPI: who is polled, on which CPU, how often.
 *
 * Goal: NAPI-1 … NAPI-4. Method: a machine with softirqs and no devices; polls that pretend to have packets.
 */

import { describe, expect, it } from "vitest";
import { createNapi, NAPI_BYTES, NAPI_WEIGHT, type Napi, napiStaticBytes } from "../../drivers/napi.ts";
import type { PhysAddr } from "../../kernel/types.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

interface NapiWorld {
  readonly w: TaskWorld;
  readonly napi: Napi;
  /** A device with so many packets; each poll is noted in `polls` as name and CPU. */
  device(name: string, packets: number): PhysAddr;
  readonly polls: string[];
}

function bootNapi(): NapiWorld {
  const w = bootTaskWorld();
  const { machine, contexts, softirqs } = w;
  const napi = createNapi({ machine, contexts, softirqs, statics: w.memory(napiStaticBytes(machine.harts.nrCpus)) });
  const polls: string[] = [];
  return {
    w,
    napi,
    polls,
    device(name, packets) {
      let left = packets;
      const node = w.memory(NAPI_BYTES);
      const fn = napi.registerPoll((ctx, self, budget) => {
        polls.push(`${name}${ctx.cpu}`);
        const taken = Math.min(left, budget);
        left -= taken;
        if (taken < budget) napi.complete(ctx, self);
        return taken;
      });
      napi.init(node, fn);
      return node;
    },
  };
}

describe("napi", () => {
  it("NAPI-1 scheduled twice, it is polled once; completed, it can be scheduled again", () => {
    const { w, napi, device, polls } = bootNapi();
    const a = device("a", 3);
    const answers: boolean[] = [];
    w.interrupt(0, (ctx) => answers.push(napi.schedule(ctx, a), napi.schedule(ctx, a)));
    expect([answers, polls]).toEqual([[true, false], ["a0"]]);
    expect(napi.isScheduled(a)).toBe(false);
    w.interrupt(1, (ctx) => answers.push(napi.schedule(ctx, a)));
    expect([answers.at(-1), polls]).toEqual([true, ["a0", "a1"]]);
  });

  it("NAPI-3 a device that uses its budget goes to the back of the list: devices take turns", () => {
    const { w, napi, device, polls } = bootNapi();
    const [a, b] = [device("a", 2 * NAPI_WEIGHT + 1), device("b", NAPI_WEIGHT + 1)];
    w.interrupt(0, (ctx) => {
      napi.schedule(ctx, a);
      napi.schedule(ctx, b);
    });
    w.runAll();
    expect(polls).toEqual(["a0", "b0", "a0", "b0", "a0"]);
    expect([napi.isScheduled(a), napi.isScheduled(b), napi.nrExhausted()]).toEqual([false, false, 3]);
  });

  it("one run takes about 300 packets and leaves the rest to the next", () => {
    const { w, napi, device, polls } = bootNapi();
    const a = device("a", 20 * NAPI_WEIGHT);
    w.interrupt(0, (ctx) => {
      napi.schedule(ctx, a);
    });
    w.runAll();
    expect(polls.length).toBe(21);
    expect(napi.nrSqueezed()).toBe(4);
  });

  it("NAPI-2 disabled, it is not polled and not scheduled; enabled, it is again", () => {
    const { w, napi, device, polls } = bootNapi();
    const a = device("a", 1);
    w.interrupt(0, (ctx) => {
      napi.schedule(ctx, a);
      napi.disable(ctx, a);
    });
    w.interrupt(0, (ctx) => {
      expect(napi.schedule(ctx, a)).toBe(false);
    });
    expect(polls).toEqual([]);
    napi.enable(a);
    w.interrupt(0, (ctx) => {
      napi.schedule(ctx, a);
    });
    expect(polls).toEqual(["a0"]);
  });

  it("NAPI-4 what an offline CPU had to poll, the adopting CPU polls", () => {
    const { w, napi, device, polls } = bootNapi();
    const [a, b] = [device("a", 1), device("b", 1)];
    // With softirqs off the list of CPU 1 stays as it is.
    w.softirqs.localBhDisable(w.idle(1));
    w.interrupt(1, (ctx) => {
      napi.schedule(ctx, a);
      napi.schedule(ctx, b);
    });
    expect(polls).toEqual([]);
    w.interrupt(0, (ctx) => napi.adopt(ctx, 1));
    expect(polls).toEqual(["a0", "b0"]);
    w.softirqs.localBhEnable(w.idle(1));
    expect([napi.isScheduled(a), napi.isScheduled(b)]).toEqual([false, false]);
  });
});
