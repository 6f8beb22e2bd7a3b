/**
 * The shell's grammar: a line of text becomes a list of steps, or one syntax error.
 *
 *   list     = [ pipeline { separator pipeline } [ ";" | "&" ] ]       separator = ";" "&" "&&" "||" newline
 *   pipeline = command { "|" command }
 *   command  = { word | redirect }                                     at least one of them
 *   redirect = [ "0" | "1" | "2" ] ( "<" | ">" | ">>" | ">&" ) word    ">&" names a descriptor: 2>&1
 *
 * Words are kept as parts because `$?` is known only when the step runs. Quoting is that of the Bourne shell:
 * '…' takes everything, "…" everything but `$?` and `\`, a backslash takes one character. There are no patterns,
 * no variables but `$?`, `$!` and `$$`, and no substitution of commands.
 *
 * Pure text work; nothing here sleeps or throws. Where a real shell differs: POSIX, "Shell Command Language", XCU 2.
 */

/** Part of a word: text as it stands, or the name of something the shell knows (`?`, `!`, `$`). */
export type WordPart = string | { readonly variable: "?" | "!" | "$" };
export type Word = readonly WordPart[];

export interface Redirect {
  readonly fd: 0 | 1 | 2;
  readonly kind: "<" | ">" | ">>" | ">&";
  readonly target: Word;
}

export interface Command {
  readonly words: readonly Word[];
  readonly redirects: readonly Redirect[];
}

export interface Step {
  /** Run it always, only after status 0, or only after another status. */
  readonly when: "always" | "and" | "or";
  readonly background: boolean;
  readonly commands: readonly Command[];
  /** The step as it was typed, for `jobs`. */
  readonly text: string;
  /** Where in the source the next step begins. */
  readonly end: number;
}

export type Parsed =
  | { readonly steps: readonly Step[]; readonly error: undefined }
  | { readonly steps: undefined; readonly error: string; readonly column: number };

// ── Tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Token {
  /** An operator; "word"; "end"; or "bad", with what is wrong as its text. */
  readonly kind: string;
  readonly text: string;
  readonly word: Word;
  /** Half-open range of the source. */
  readonly start: number;
  readonly end: number;
}

const OPERATORS = ["&&", "||", ">>", ">&", ";", "&", "|", ">", "<", "\n"];
const BREAKS_WORD = " \t\r\n;&|<>";

const operatorAt = (source: string, at: number): string => OPERATORS.find((op) => source.startsWith(op, at)) ?? "";

/** Collects a word's parts, joining neighbouring text. */
class WordBuilder {
  readonly parts: WordPart[] = [];
  text(text: string): void {
    const last = this.parts.length - 1;
    const before = this.parts[last];
    if (typeof before === "string") this.parts[last] = before + text;
    else this.parts.push(text);
  }
  /** The `$` at `at`: a variable of the shell, or just a dollar sign. Returns the index behind it. */
  dollar(source: string, at: number): number {
    const name = source[at + 1];
    if (name === "?" || name === "!" || name === "$") {
      this.parts.push({ variable: name });
      return at + 2;
    }
    this.text("$");
    return at + 1;
  }
}

/** The inside of "…" from `at`: index behind the closing quote, or −1 when there is none. */
function readDoubleQuoted(source: string, from: number, word: WordBuilder): number {
  let at = from;
  while (at < source.length) {
    const c = source[at] as string;
    if (c === '"') return at + 1;
    if (c === "$") {
      at = word.dollar(source, at);
      continue;
    }
    const next = source[at + 1];
    if (c === "\\" && (next === '"' || next === "\\" || next === "$")) {
      word.text(next);
      at += 2;
      continue;
    }
    word.text(c);
    at++;
  }
  return -1;
}

function readWord(source: string, start: number): Token {
  const word = new WordBuilder();
  const bad = (text: string, at: number): Token => ({ kind: "bad", text, word: [], start: at, end: source.length });
  let at = start;
  while (at < source.length && !BREAKS_WORD.includes(source[at] as string)) {
    const c = source[at] as string;
    if (c === "'") {
      const close = source.indexOf("'", at + 1);
      if (close < 0) return bad("unterminated quote '", at);
      word.text(source.slice(at + 1, close));
      at = close + 1;
    } else if (c === '"') {
      word.text("");
      const behind = readDoubleQuoted(source, at + 1, word);
      if (behind < 0) return bad('unterminated quote "', at);
      at = behind;
    } else if (c === "\\") {
      if (at + 1 >= source.length) return bad("nothing after \\", at);
      // A backslash before the end of a line joins the lines.
      if (source[at + 1] !== "\n") word.text(source[at + 1] as string);
      at += 2;
    } else if (c === "$") {
      at = word.dollar(source, at);
    } else {
      word.text(c);
      at++;
    }
  }
  return { kind: "word", text: source.slice(start, at), word: word.parts, start, end: at };
}

function readToken(source: string, from: number): Token {
  let at = from;
  for (;;) {
    if (" \t\r".includes(source[at] ?? "\n")) at++;
    else if (source.startsWith("\\\n", at)) at += 2;
    else break;
  }
  if (source[at] === "#") while (at < source.length && source[at] !== "\n") at++;
  if (at >= source.length) return { kind: "end", text: "end of line", word: [], start: at, end: at };
  const op = operatorAt(source, at);
  if (op === "") return readWord(source, at);
  return { kind: op, text: op === "\n" ? "end of line" : op, word: [], start: at, end: at + op.length };
}

function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; ; ) {
    const token = readToken(source, at);
    tokens.push(token);
    if (token.kind === "end" || token.kind === "bad") return tokens;
    at = token.end;
  }
}

// ── Grammar ────────────────────────────────────────────────────────────────────────────────────────────────────────

class Parser {
  private next = 0;
  private readonly source: string;
  private readonly tokens: readonly Token[];
  failure: Token | undefined;

  constructor(source: string) {
    this.source = source;
    this.tokens = tokenize(source);
  }

  list(): Step[] {
    const steps: Step[] = [];
    let when: Step["when"] = "always";
    for (;;) {
      while (this.peek().kind === "\n") this.next++;
      if (this.peek().kind === "end" && when === "always") return steps;
      const start = this.peek().start;
      const commands = this.pipeline();
      if (this.failure !== undefined) return steps;
      const text = this.source.slice(start, this.tokens[this.next - 1]?.end ?? start);
      const separator = this.peek();
      steps.push({ when, background: separator.kind === "&", commands, text, end: separator.end });
      if (separator.kind === "end") return steps;
      if (![";", "&", "&&", "||", "\n"].includes(separator.kind)) {
        this.failure = separator;
        return steps;
      }
      this.next++;
      when = separator.kind === "&&" ? "and" : separator.kind === "||" ? "or" : "always";
    }
  }

  private peek(): Token {
    return this.tokens[Math.min(this.next, this.tokens.length - 1)] as Token;
  }

  private pipeline(): Command[] {
    const commands = [this.command()];
    while (this.failure === undefined && this.peek().kind === "|") {
      this.next++;
      commands.push(this.command());
    }
    return commands;
  }

  private command(): Command {
    const words: Word[] = [];
    const redirects: Redirect[] = [];
    for (;;) {
      const token = this.peek();
      if (token.kind === "word") {
        this.next++;
        if (this.isDescriptorOf(token)) this.redirect(Number(token.text) as 0 | 1 | 2, redirects);
        else words.push(token.word);
      } else if (isRedirect(token.kind)) {
        this.redirect(token.kind === "<" ? 0 : 1, redirects);
      } else {
        if ((words.length === 0 && redirects.length === 0) || token.kind === "bad") this.failure ??= token;
        return { words, redirects };
      }
      if (this.failure !== undefined) return { words, redirects };
    }
  }

  /** `2` directly before `>` is a descriptor; `2 >` is a word. */
  private isDescriptorOf(token: Token): boolean {
    const behind = this.peek();
    return /^[012]$/.test(token.text) && isRedirect(behind.kind) && behind.start === token.end;
  }

  private redirect(fd: 0 | 1 | 2, redirects: Redirect[]): void {
    const kind = this.peek().kind as Redirect["kind"];
    this.next++;
    const target = this.peek();
    if (target.kind !== "word" || (kind === ">&" && !/^[012]$/.test(target.text))) {
      this.failure = target;
      return;
    }
    this.next++;
    redirects.push({ fd, kind, target: target.word });
  }
}

const isRedirect = (kind: string): boolean => kind === "<" || kind === ">" || kind === ">>" || kind === ">&";

// ── The interface ──────────────────────────────────────────────────────────────────────────────────────────────────

/** Parses a line, or several. The column of an error counts from 1. */
export function parseLine(source: string): Parsed {
  const parser = new Parser(source);
  const steps = parser.list();
  const failure = parser.failure;
  if (failure === undefined) return { steps, error: undefined };
  const error = failure.kind === "bad" ? failure.text : `syntax error near '${failure.text}'`;
  return { steps: undefined, error, column: failure.start + 1 };
}

/** The text of a word, `lookup` giving the value of a variable. */
export function expandWord(word: Word, lookup: (variable: string) => string): string {
  return word.map((part) => (typeof part === "string" ? part : lookup(part.variable))).join("");
}

/** `text` so quoted that the shell reads it back as one word. */
export function quoteWord(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text) && !/^[012]$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// ── Nearest name ───────────────────────────────────────────────────────────────────────────────────────────────────

/** Levenshtein's distance, with a swap of neighbours counting once. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(
        (above[j] as number) + 1,
        (row[j - 1] as number) + 1,
        (above[j - 1] as number) + (same ? 0 : 1),
      );
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) cost = Math.min(cost, (before[j - 2] as number) + 1);
      row.push(cost);
    }
    before = above;
    above = row;
  }
  return above[b.length] as number;
}

/** The name most like `name`, if one is near enough to be a typing error; ties go to the first. */
export function nearestName(name: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
  for (const candidate of names) {
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}
