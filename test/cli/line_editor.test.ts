/**
 * Goal: the keys of the shell's line editor do what the same keys do elsewhere.
 * Method: keys in, lines out; the screen is looked at only where it is all there is.
 */
import { describe, expect, it } from "vitest";
import { createLineEditor, type EditorEvent } from "../../scripts/line_editor.ts";
import { shellCompleter } from "../../scripts/terminal.ts";

const LEFT = "\x1b[D";
const UP = "\x1b[A";
const DOWN = "\x1b[B";

function typed(...keys: readonly string[]): { events: EditorEvent[]; screen: string } {
  let screen = "";
  const complete = shellCompleter(["/bin/free", "/bin/ps", "/bin/pktgen"], ["/proc/meminfo", "/proc/sys/vm/x"]);
  const editor = createLineEditor((text) => {
    screen += text;
  }, complete);
  const events = keys.flatMap((key) => editor.feed(key));
  return { events, screen };
}

function lines(...keys: readonly string[]): string[] {
  return typed(...keys).events.flatMap((event) => (event.type === "line" ? [event.text] : []));
}

describe("line editor", () => {
  it.each([
    ["plain", "free\r", "free"],
    ["backspace", "fx\x7free\r", "free"],
    ["insert in the middle", `fee${LEFT}${LEFT}r\r`, "free"],
    ["home and kill", "free\x01\x0bps\r", "ps"],
    ["kill a word", "cat meminfo\x17x\r", "cat x"],
    ["kill to the start", "junk\x15ps\r", "ps"],
    ["delete under the cursor", "xps\x01\x04\r", "ps"],
    ["unknown keys do nothing", "p\x1b[15~s\x1bz\r", "ps"],
    ["beyond the BMP", `a😀b${LEFT}\x7f\r`, "ab"],
  ])("%s", (_what, keys, line) => {
    expect(lines(keys)).toEqual([line]);
  });

  it("history goes up and down and keeps the draft", () => {
    expect(lines("one\r", "two\r", `dr${UP}${UP}\r`)).toEqual(["one", "two", "one"]);
    expect(lines("one\r", `dr${UP}${DOWN}aft\r`)).toEqual(["one", "draft"]);
  });

  it("Ctrl-C, Ctrl-D on an empty line, and the plug", () => {
    expect(typed("junk\x03", "\x04", "\x1c").events.map(({ type }) => type)).toEqual(["interrupt", "eof", "quit"]);
  });

  it("Tab completes commands and paths, and lists what is ambiguous", () => {
    expect(lines("fr\t\r")).toEqual(["free "]);
    expect(lines("cat /proc/m\t\r")).toEqual(["cat /proc/meminfo "]);
    expect(lines("cat /proc/s\t\r")).toEqual(["cat /proc/sys/"]);
    expect(lines("ps | fr\t\r")).toEqual(["ps | free "]);
    expect(typed("p\t").screen).toContain("pktgen  ps");
  });
});
