/**
 * A grade for people: failures first as they are, then the table of points.
 *
 *   == Test merge-order == BUD-4
 *   …
 *   Score: 81/90
 */

import type { Paint } from "../paint.ts";
import type { Grade, Row } from "./grade.ts";

const MARKS = { passed: "✓", failed: "✗", blocked: "·", crashed: "✗", tampered: "!", skipped: "-" } as const;

/** One line per row: `✓ merge-order  5/5`. */
export function rowLine(row: Row, paint: Paint): string {
  const mark = MARKS[row.status];
  const line = `${mark} ${row.check.id.padEnd(18)} ${String(row.score).padStart(3)}/${row.check.points}`;
  const parts =
    row.status === "passed" ? "" : `  ${row.status}${row.total > 1 ? `, ${row.done} of ${row.total} right` : ""}`;
  const hidden = row.check.visibility === "visible" ? "" : "  (hidden)";
  return row.status === "passed"
    ? `${paint.good(line)}${hidden}`
    : `${paint.bad(line)}${paint.dim(`${parts}${hidden}`)}`;
}

/** How many failures are shown in full unless all are asked for. */
const NR_SHOWN = 3;

/** The whole grade. */
export function humanGrade(grade: Grade, paint: Paint, showsAll = false): string {
  const out: string[] = [];
  if (grade.problem !== null) out.push(paint.bad(`✗ ${grade.problem}`), "");
  const failing = grade.rows.filter((row) => row.lines.length > 0);
  // What is about one rule comes before what other rules stopped, and before crashes that all look alike.
  const rank = (row: Row): number => ["tampered", "failed", "crashed", "blocked"].indexOf(row.status);
  const ordered = [...failing].sort((a, b) => rank(a) - rank(b));
  const shown = showsAll ? ordered : ordered.filter((row) => row.status !== "blocked").slice(0, NR_SHOWN);
  for (const row of shown) {
    const [headline = "", ...rest] = row.lines;
    out.push(`== Test ${row.check.id} ==`, paint.bad(headline), ...rest, "");
  }
  const nrMore = failing.length - shown.length;
  if (nrMore > 0) out.push(paint.dim(`${nrMore} more not shown (--all shows them; --case NAME shows one)`), "");
  let group = "";
  for (const row of grade.rows) {
    if (row.check.group !== group) out.push(paint.heading(row.check.group));
    group = row.check.group;
    out.push(`  ${rowLine(row, paint)}`);
  }
  if (grade.typeErrors.length > 0) {
    const isCosting = grade.problem !== null;
    out.push(paint.heading(`Type errors${isCosting ? "" : " (shown; they cost no points)"}`));
    out.push(...grade.typeErrors.map((line) => `  ${line}`));
  }
  out.push(`Score: ${grade.score}/${grade.max}`);
  if (grade.hidden > 0) out.push(paint.dim(`hidden checks have ${grade.hidden} points more: slabtown lab grade`));
  return `${out.join("\n")}\n`;
}
