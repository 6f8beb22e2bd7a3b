/**
 * A small plot for a terminal: how curves grow over columns of equal width, one letter per curve.
 */

export interface PlotCurve {
  readonly mark: string;
  /** One value per column. */
  readonly values: readonly number[];
}

const HEIGHT = 8;
const COLUMN = 9;
const AXIS = 7;

/** `columns` are the labels below; values start at 1 (the first column). ASCII unless `isUnicode`. */
export function plot(columns: readonly string[], curves: readonly PlotCurve[], isUnicode: boolean): string {
  const top = Math.max(2, ...curves.flatMap(({ values }) => values));
  const rowOf = (value: number): number => Math.round(((value - 1) / (top - 1)) * (HEIGHT - 1));
  const [bar, corner, line] = isUnicode ? ["│", "└", "─"] : ["|", "+", "-"];
  const times = isUnicode ? "×" : "x";
  const rows: string[] = [];
  for (let row = HEIGHT - 1; row >= 0; row--) {
    const cells = columns.map((_, column) => {
      const marks = curves.filter(({ values }) => Math.max(0, rowOf(values[column] ?? Number.NaN)) === row);
      return marks.map(({ mark }) => mark).join("");
    });
    const value = 1 + (row / (HEIGHT - 1)) * (top - 1);
    const label = `${value.toFixed(1)} ${times}`.padStart(AXIS);
    rows.push(`${label} ${bar}${cells.map((cell) => center(cell)).join("")}`.trimEnd());
  }
  rows.push(`${" ".repeat(AXIS)} ${corner}${line.repeat(COLUMN * columns.length)}`);
  rows.push(`${" ".repeat(AXIS + 2)}${columns.map(center).join("")}`.trimEnd());
  return rows.join("\n");
}

const center = (text: string): string => {
  const left = Math.floor((COLUMN - text.length) / 2);
  return `${" ".repeat(Math.max(0, left))}${text}`.padEnd(COLUMN);
};
