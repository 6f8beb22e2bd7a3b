/**
 * Words: a program and its arguments written as one piece of text, split as a shell would split it.
 *
 * Blanks separate, 'single' and "double" quotes join, a backslash outside single quotes takes the next character as it
 * is. No expansion of any kind.
 */

import { UsageError } from "./usage_error.ts";

/** The words of `text`, at least one. Throws `UsageError` for an open quote or no word at all. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const ch = text[i] as string;
    if (ch === "\\" && quote !== "'" && i + 1 < text.length) {
      word = (word ?? "") + text[++i];
    } else if (quote !== "") {
      if (ch === quote) quote = "";
      else word = (word ?? "") + ch;
    } else if (ch === "'" || ch === '"') {
      quote = ch;
      word ??= "";
    } else if (/\s/.test(ch)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + ch;
    }
  }
  if (quote !== "") throw new UsageError(`a quote ${quote} is not closed`, `close it, or write \\${quote}`);
  if (word !== undefined) words.push(word);
  if (words.length === 0) throw new UsageError("no program is named", "for example `stress --ops 1000`");
  return words;
}
