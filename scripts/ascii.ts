/**
 * Text for terminals that show nothing but ASCII.
 */

/** What stands for a character; everything else beyond ASCII becomes `?`. Boxes keep their columns: one for one. */
const STANDS_FOR: ReadonlyMap<string, string> = new Map([
  ..."✓+ ✗x ·- −- –- —- ×x ▶> ◀< │| ┃| ‖| ─- ┌+ ┐+ └+ ┘+ ├+ ┤+ ┬+ ┴+ ┼+ █# ▓& ▒% ░. ⋮: ⌊[ ⌋] ²2 µu"
    .split(" ")
    .map(([from = "", to = ""]) => [from, to] as const),
  ["…", "..."],
  ["→", "->"],
  ["←", "<-"],
  ["≤", "<="],
  ["≥", ">="],
]);

/** `text` in ASCII; control characters stay. */
export function toAscii(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII
  return text.replaceAll(/[^\u0000-\u007f]/gu, (character) => STANDS_FOR.get(character) ?? "?");
}

/** Does the terminal show more than ASCII? By the locale, as other programs judge it. */
export function isUtf8Locale(env: Readonly<Record<string, string | undefined>>): boolean {
  const locale = [env.LC_ALL, env.LC_CTYPE, env.LANG].find((value) => value !== undefined && value !== "") ?? "";
  return /utf-?8/i.test(locale);
}
