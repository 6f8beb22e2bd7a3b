/**
 * What readers of results ask for, as schemas written from their documentation (gradescope-autograders.readthedocs.io).
 */
import * as v from "valibot";

const points = v.pipe(v.number(), v.integer(), v.minValue(0));
export const GRADESCOPE = v.strictObject({
  score: points,
  visibility: v.picklist(["hidden", "after_due_date", "after_published", "visible"]),
  stdout_visibility: v.picklist(["hidden", "after_due_date", "after_published", "visible"]),
  output: v.string(),
  tests: v.array(
    v.strictObject({
      name: v.string(),
      number: v.string(),
      score: points,
      max_score: points,
      status: v.picklist(["passed", "failed"]),
      output: v.string(),
      visibility: v.picklist(["hidden", "after_due_date", "after_published", "visible"]),
      tags: v.array(v.string()),
    }),
  ),
  leaderboard: v.array(v.strictObject({ name: v.string(), value: points })),
});
