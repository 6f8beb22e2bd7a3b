/**
 * The scheduler's runqueues, step by step.
 *
 * Goal: SCH-1, SCH-2, SCH-5. Method: tasks on a real scheduler, the auditor after every step.
 */

import { expect, it } from "vitest";
import { PREEMPTED } from "../../kernel/types.ts";
import { bootTaskLevel } from "../support/task_level.ts";

it("SCH-1 the time of a slice is booked before the task is queued again", () => {
  // Once it was booked afterwards: the node's key changed inside the tree, and fair tasks ran out of turn.
  const t = bootTaskLevel();
  const order: string[] = [];
  for (const [comm, cycles] of [
    ["long", 3_000_000],
    ["short", 1_000_000],
    ["tiny", 500_000],
  ] as const) {
    t.start(comm, function* (task) {
      for (let slice = 0; slice < 3; slice++) {
        yield* t.work(task, cycles);
        order.push(comm);
        yield PREEMPTED;
      }
    });
  }
  while (t.scheduler.step() !== "nothing") expect(t.scheduler.check()).toBeNull();
  // Who has run least goes next: 3 × tiny and 3 × short are done before long has its second turn.
  expect(order.slice(0, 7).filter((comm) => comm === "long")).toHaveLength(1);
  t.expectClean();
});

it("SCH-5 a task of a higher priority that wakes ends the slice that runs", () => {
  const t = bootTaskLevel();
  const order: string[] = [];
  t.start(
    "low",
    function* (task) {
      t.start(
        "high",
        function* (self) {
          yield* t.work(self, 1000);
          order.push("high");
        },
        20,
      );
      yield* t.work(task, 10_000);
      order.push("low");
    },
    10,
  );
  t.run();
  expect(order).toEqual(["high", "low"]);
  t.expectClean();
});
