/**
 * Goal: device events fire in order and not early (EVT-1, EVT-2), whatever is added and cancelled meanwhile.
 * Method: random commands against a sorted list.
 */
import fc from "fast-check";
import { expect, it } from "vitest";
import { createDeviceEvents } from "../../kernel/arch/events.ts";

type Command = { readonly kind: "at" | "cancel" | "run"; readonly n: number };

const command = fc.record({
  kind: fc.constantFrom("at", "at", "cancel", "run"),
  n: fc.nat(200),
}) as fc.Arbitrary<Command>;

it("EVT-1 events fire in order of time and making, each once, cancelled ones never", () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 200 }), (commands) => {
      const events = createDeviceEvents();
      const fired: number[] = [];
      let oracle: { time: number; id: number }[] = [];
      const expected: number[] = [];
      let reached = 0;
      for (const { kind, n } of commands) {
        if (kind === "at") {
          const time = reached + n;
          const id = events.at(time, () => {
            expect(events.now()).toBe(time);
            fired.push(id);
          });
          oracle.push({ time, id });
        } else if (kind === "cancel") {
          const victim = oracle[n % Math.max(1, oracle.length)];
          if (victim !== undefined) events.cancel(victim.id);
          oracle = oracle.filter((event) => event !== victim);
        } else {
          reached += n;
          events.runDue(reached);
          oracle.sort((a, b) => a.time - b.time || a.id - b.id);
          while (oracle[0] !== undefined && oracle[0].time <= reached)
            expected.push((oracle.shift() as { id: number }).id);
        }
        expect(events.nrPending()).toBe(oracle.length);
      }
      expect(fired).toEqual(expected);
    }),
  );
});

it("EVT-2 an event made while another fires is fired in the same round when it is due", () => {
  const events = createDeviceEvents();
  const times: number[] = [];
  events.at(10, () => {
    times.push(events.now());
    events.at(5, () => times.push(events.now()));
    events.at(30, () => times.push(events.now()));
  });
  events.runDue(20);
  expect(times).toEqual([10, 10]);
  expect(events.nextTime()).toBe(30);
});
