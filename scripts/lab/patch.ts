/**
 * Unified diffs: applying one to the files of a reference, and making one from two texts.
 *
 * Wrong solutions are kept as patches, so that what is wrong with them is all that one reads, and so that they follow
 * a reference that is edited. A hunk whose lines are not found exactly once near its place is an error, never a guess.
 */

interface Hunk {
  readonly start: number;
  readonly before: readonly string[];
  readonly after: readonly string[];
}

/** The files with `patch` applied; only files that are named in it change. Throws an Error that names the hunk. */
export function applyPatch(files: ReadonlyMap<string, string>, patch: string): Map<string, string> {
  const result = new Map(files);
  for (const section of patch.split(/^(?=--- )/m).filter((part) => part.startsWith("--- "))) {
    const name = /^\+\+\+ (?:b\/)?([^\t\n]+)/m.exec(section)?.[1]?.trim() ?? "";
    const text = result.get(name);
    if (text === undefined) throw new Error(`the patch names ${name}, which is no file of the reference`);
    result.set(name, applyHunks(name, text, section));
  }
  return result;
}

function applyHunks(name: string, text: string, section: string): string {
  const lines = text.split("\n");
  let shift = 0;
  for (const hunk of hunksOf(section)) {
    const at = findLines(lines, hunk.before, hunk.start - 1 + shift);
    if (at < 0) throw new Error(`${name}: the hunk at line ${hunk.start} does not fit any more`);
    lines.splice(at, hunk.before.length, ...hunk.after);
    shift += hunk.after.length - hunk.before.length;
  }
  return lines.join("\n");
}

function hunksOf(section: string): Hunk[] {
  const hunks: Hunk[] = [];
  for (const part of section.split(/^(?=@@ )/m).filter((text) => text.startsWith("@@ "))) {
    const [head = "", ...lines] = part.replace(/\n$/, "").split("\n");
    const body = lines.filter((line) => !line.startsWith("\\"));
    hunks.push({
      start: Number(/^@@ -(\d+)/.exec(head)?.[1] ?? 1),
      before: body.filter((line) => !line.startsWith("+")).map((line) => line.slice(1)),
      after: body.filter((line) => !line.startsWith("-")).map((line) => line.slice(1)),
    });
  }
  return hunks;
}

/** Where `wanted` stands in `lines`: at `near`, or at the only other place; −1 if at none or at several. */
function findLines(lines: readonly string[], wanted: readonly string[], near: number): number {
  const fits = (at: number): boolean => wanted.every((line, i) => lines[at + i] === line);
  if (fits(near)) return near;
  const places = lines.flatMap((_, at) => (fits(at) ? [at] : []));
  return places.length === 1 ? (places[0] as number) : -1;
}

const CONTEXT = 3;

/** A unified diff of one file; "" if the texts are equal. The texts are short: O(lines²). */
export function makePatch(name: string, before: string, after: string): string {
  const [a, b] = [before.split("\n"), after.split("\n")];
  const edits = diffLines(a, b);
  const changed = edits.flatMap((edit, i) => (edit.sign === " " ? [] : [i]));
  if (changed.length === 0) return "";
  let patch = `--- a/${name}\n+++ b/${name}\n`;
  for (let from = 0; from < changed.length; ) {
    let to = from;
    while (to + 1 < changed.length && (changed[to + 1] as number) - (changed[to] as number) <= 2 * CONTEXT) to++;
    const first = Math.max(0, (changed[from] as number) - CONTEXT);
    const hunk = edits.slice(first, (changed[to] as number) + CONTEXT + 1);
    const count = (sign: string): number => hunk.filter((edit) => edit.sign === " " || edit.sign === sign).length;
    const at = (sign: string): number =>
      edits.slice(0, first).filter((edit) => edit.sign === " " || edit.sign === sign).length + 1;
    patch += `@@ -${at("-")},${count("-")} +${at("+")},${count("+")} @@\n`;
    patch += hunk.map((edit) => `${edit.sign}${edit.line}\n`).join("");
    from = to + 1;
  }
  return patch;
}

interface Edit {
  readonly sign: " " | "-" | "+";
  readonly line: string;
}

/** Longest common subsequence of lines, as edits. */
function diffLines(a: readonly string[], b: readonly string[]): Edit[] {
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const isSame = a[i] === b[j];
      const [down, right] = [longest[(i + 1) * width + j] as number, longest[i * width + j + 1] as number];
      longest[i * width + j] = isSame ? (longest[(i + 1) * width + j + 1] as number) + 1 : Math.max(down, right);
    }
  }
  const edits: Edit[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      edits.push({ sign: " ", line: a[i++] as string });
      j++;
    } else if (
      i < a.length &&
      (j === b.length || (longest[(i + 1) * width + j] as number) >= (longest[i * width + j + 1] as number))
    ) {
      edits.push({ sign: "-", line: a[i++] as string });
    } else edits.push({ sign: "+", line: b[j++] as string });
  }
  return edits;
}
