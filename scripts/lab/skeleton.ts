/**
 * Skeletons: what a student starts from, made from a reference by its marks, so that it cannot drift away.
 *
 *      // BLANK BEGIN take the smallest sufficient block, split it
 *      …the solution…
 *      // BLANK END
 *
 * becomes
 *
 *      // Write here: take the smallest sufficient block, split it
 *      throw new Error("not written yet: take the smallest sufficient block, split it");
 *
 * with the indentation of the mark. `// BLANK CUT` … `// BLANK END` leaves nothing: helpers of the reference's own.
 * What skeleton/ holds is copied beside it: own tests, predictions.
 */

import { type Lab, labTexts } from "./lab_folder.ts";

const MARK = /^(\s*)\/\/ BLANK (BEGIN|CUT|END)\b ?(.*)$/;

/** The text of a reference with its blanks. Throws if the marks do not pair. */
export function blankOut(file: string, text: string): string {
  const lines: string[] = [];
  let open: string | null = null;
  text.split("\n").forEach((line, i) => {
    const [, indent = "", kind, words = ""] = MARK.exec(line) ?? [];
    if (kind === undefined) {
      if (open === null) lines.push(line);
      return;
    }
    const isEnd = kind === "END";
    if (isEnd === (open === null)) throw new Error(`${file}:${i + 1}: BLANK ${kind} without its other half`);
    open = isEnd ? null : kind;
    if (kind !== "BEGIN") return;
    lines.push(
      `${indent}// Write here: ${words}`,
      `${indent}throw new Error(${JSON.stringify(`not written yet: ${words}`)});`,
    );
  });
  if (open !== null) throw new Error(`${file}: BLANK ${open} is not closed`);
  // The reference says so of itself; the student's file is theirs.
  return lines.join("\n").replace(/\n{3,}/g, "\n\n");
}

/** A reference as a student's folder would hold it: imports of `../given/` become `./given/`. */
export function asStudentFile(text: string): string {
  return text.replaceAll(/(["'])\.\.\/given\//g, "$1./given/");
}

/** Files of the student's folder of a reference: its files, and what is given. */
export function referenceFiles(lab: Lab, reference: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const [name, text] of labTexts(lab, reference)) files.set(name, asStudentFile(text));
  return files;
}

/** Files that never change: `given/…`. */
export function givenFiles(lab: Lab): Map<string, string> {
  return new Map([...labTexts(lab, "given")].map(([name, text]) => [`given/${name}`, text]));
}

/** What `lab init` writes. */
export function skeletonFiles(lab: Lab): Map<string, string> {
  const files = new Map(givenFiles(lab));
  const [first = ""] = lab.manifest.references;
  const own = new Set<string>(lab.manifest.files);
  for (const [name, text] of labTexts(lab, first)) {
    if (own.has(name)) files.set(name, asStudentFile(blankOut(`${first}/${name}`, text)));
  }
  for (const [name, text] of labTexts(lab, "skeleton")) files.set(name, asStudentFile(text));
  return files;
}
