/**
 * Scoring: from the states of checks to points. Pure; the rubric decides, nothing else does.
 *
 *   entire   all points if every program passed, else none
 *   partial  points in proportion to the programs that passed, rounded down
 *   leak     as entire; set apart so that reports can say "correct, but does not give everything back"
 */

export const SCORE_MODES = ["entire", "partial", "leak"] as const;
export type ScoreMode = (typeof SCORE_MODES)[number];

export const VISIBILITIES = ["visible", "hidden", "after_due_date", "after_published"] as const;
export type Visibility = (typeof VISIBILITIES)[number];

/**
 * `passed` · `failed`: broke a rule that the check is about · `blocked`: another rule stopped it · `crashed`:
 * the student's code threw, ended, or did not end · `tampered`: the reply was no reply · `skipped`: not in this run
 */
export type CheckStatus = "passed" | "failed" | "blocked" | "crashed" | "tampered" | "skipped";

/** Points of a check with `done` of `total` parts right. */
export function pointsFor(mode: ScoreMode, points: number, done: number, total: number): number {
  if (total <= 0 || done < 0) return 0;
  if (done >= total) return points;
  return mode === "partial" ? Math.floor((points * done) / total) : 0;
}
