/**
 * The line editor: keys in, lines and screen updates out. Pure: it neither reads nor writes.
 *
 * The usual Emacs keys: arrows, Home/End, ^A ^E ^B ^F ^K ^U ^W ^L, ^P ^N for history, Tab to complete; ^C interrupts,
 * ^D on an empty line ends the input, ^\ pulls the plug of the whole machine.
 *
 * The terminal is left with the cursor where the user sees it; a line longer than the terminal is wide wraps and can be
 * edited only as far as the terminal's own wrapping allows.
 */

/** What the user did. */
export type EditorEvent =
  | { readonly type: "line"; readonly text: string }
  | { readonly type: "interrupt" }
  | { readonly type: "eof" }
  | { readonly type: "quit" };

/** Candidates for the word that ends at the cursor; `before` is the line up to it. */
export type Completer = (before: string) => readonly string[];

export interface LineEditor {
  /** Takes what the terminal sent; the events it made, in order. */
  feed(input: string): EditorEvent[];
  /** Output of the program went to the screen: what is on the last line is the prompt now. */
  sawOutput(text: string): void;
}

const HISTORY_LENGTH = 500;
// biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal's keys are control characters.
const KEY_PATTERN = /\x1b\[[\d;]*[A-Za-z~]|\x1bO[A-Z]|\x1b.|[\s\S]/gu;
const LEFT = ["\x02", "\x1b[D", "\x1bOD"];
const RIGHT = ["\x06", "\x1b[C", "\x1bOC"];
const UP = ["\x10", "\x1b[A", "\x1bOA"];
const DOWN = ["\x0e", "\x1b[B", "\x1bOB"];
const HOME = ["\x01", "\x1b[H", "\x1bOH", "\x1b[1~"];
const END = ["\x05", "\x1b[F", "\x1bOF", "\x1b[4~"];

/** An editor that echoes through `write`. */
export function createLineEditor(write: (text: string) => void, complete: Completer): LineEditor {
  const editor = new Editor(write, complete);
  return { feed: (input) => editor.feed(input), sawOutput: (text) => editor.sawOutput(text) };
}

class Editor {
  readonly #write: (text: string) => void;
  readonly #complete: Completer;
  readonly #history: string[] = [];
  /** Position in the history; its length means the line being typed. */
  #recalled = 0;
  #draft = "";
  #prompt = "";
  #chars: string[] = [];
  #cursor = 0;

  constructor(write: (text: string) => void, complete: Completer) {
    this.#write = write;
    this.#complete = complete;
  }

  feed(input: string): EditorEvent[] {
    const events: EditorEvent[] = [];
    for (const key of input.match(KEY_PATTERN) ?? []) {
      const event = this.#key(key);
      if (event !== undefined) events.push(event);
    }
    return events;
  }

  sawOutput(text: string): void {
    const lineEnd = text.lastIndexOf("\n");
    this.#prompt = lineEnd < 0 ? this.#prompt + text : text.slice(lineEnd + 1);
    if (this.#chars.length > 0) this.#redraw();
  }

  #key(key: string): EditorEvent | undefined {
    switch (key) {
      case "\r":
      case "\n":
        return this.#enter();
      case "\x03":
        this.#write(`^C\r\n${this.#prompt}`);
        this.#set("");
        return { type: "interrupt" };
      case "\x04":
        if (this.#chars.length === 0) return { type: "eof" };
        this.#erase(this.#cursor, this.#cursor + 1);
        return undefined;
      case "\x1c":
        return { type: "quit" };
      case "\t":
        this.#tab();
        return undefined;
      default:
        this.#edit(key);
        return undefined;
    }
  }

  #edit(key: string): void {
    if (key === "\x7f" || key === "\b") this.#erase(this.#cursor - 1, this.#cursor);
    else if (key === "\x1b[3~") this.#erase(this.#cursor, this.#cursor + 1);
    else if (key === "\x0b") this.#erase(this.#cursor, this.#chars.length);
    else if (key === "\x15") this.#erase(0, this.#cursor);
    else if (key === "\x17") this.#erase(this.#wordStart(), this.#cursor);
    else if (key === "\x0c") this.#clearScreen();
    else if (LEFT.includes(key)) this.#moveTo(this.#cursor - 1);
    else if (RIGHT.includes(key)) this.#moveTo(this.#cursor + 1);
    else if (HOME.includes(key)) this.#moveTo(0);
    else if (END.includes(key)) this.#moveTo(this.#chars.length);
    else if (UP.includes(key)) this.#recall(this.#recalled - 1);
    else if (DOWN.includes(key)) this.#recall(this.#recalled + 1);
    else if (key >= " " && !key.startsWith("\x1b")) this.#insert(key);
  }

  #enter(): EditorEvent {
    const text = this.#chars.join("");
    this.#write("\r\n");
    if (text.trim() !== "" && this.#history.at(-1) !== text) this.#history.push(text);
    if (this.#history.length > HISTORY_LENGTH) this.#history.shift();
    this.#prompt = "";
    this.#set("");
    return { type: "line", text };
  }

  #set(text: string): void {
    this.#chars = [...text];
    this.#cursor = this.#chars.length;
    if (text === "") this.#recalled = this.#history.length;
  }

  #insert(text: string): void {
    const added = [...text];
    this.#chars.splice(this.#cursor, 0, ...added);
    this.#cursor += added.length;
    if (this.#cursor === this.#chars.length) this.#write(text);
    else this.#redraw();
  }

  #erase(from: number, to: number): void {
    const start = Math.max(from, 0);
    if (start >= Math.min(to, this.#chars.length)) return;
    this.#chars.splice(start, to - start);
    this.#cursor = start;
    this.#redraw();
  }

  #moveTo(position: number): void {
    this.#cursor = Math.min(Math.max(position, 0), this.#chars.length);
    this.#redraw();
  }

  #recall(index: number): void {
    if (index < 0 || index > this.#history.length) return;
    if (this.#recalled === this.#history.length) this.#draft = this.#chars.join("");
    this.#recalled = index;
    this.#chars = [...(this.#history[index] ?? this.#draft)];
    this.#cursor = this.#chars.length;
    this.#redraw();
  }

  #wordStart(): number {
    const before = this.#chars.slice(0, this.#cursor).join("");
    return [...before.replace(/\S+\s*$/, "")].length;
  }

  #clearScreen(): void {
    this.#write("\x1b[H\x1b[2J");
    this.#redraw();
  }

  #tab(): void {
    const before = this.#chars.slice(0, this.#cursor).join("");
    const word = /\S*$/.exec(before)?.[0] ?? "";
    const found = this.#complete(before).filter((candidate) => candidate.startsWith(word));
    const only = found.length === 1 ? found[0] : undefined;
    const common = only === undefined ? commonPrefix(found) : only.endsWith("/") ? only : `${only} `;
    if (common.length > word.length) {
      this.#insert(common.slice(word.length));
    } else if (found.length > 1) {
      this.#write(`\r\n${found.join("  ")}\r\n`);
      this.#redraw();
    }
  }

  #redraw(): void {
    const back = this.#chars.length - this.#cursor;
    this.#write(`\r${this.#prompt}${this.#chars.join("")}\x1b[K${back > 0 ? `\x1b[${back}D` : ""}`);
  }
}

function commonPrefix(words: readonly string[]): string {
  let prefix = words[0] ?? "";
  for (const word of words) {
    while (!word.startsWith(prefix)) prefix = prefix.slice(0, -1);
  }
  return prefix;
}
