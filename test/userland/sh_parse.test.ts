/**
 * Goal: the shell's parser takes every line without throwing, and reads back what quoteWord() wrote.
 * Method: properties over random text and random words; tables for the grammar and its errors.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expandWord, nearestName, parseLine, quoteWord, type Step } from "../../userland/sh_parse.ts";

const lookup = (variable: string): string => `<${variable}>`;

function stepsOf(source: string): readonly Step[] {
  const { steps, error } = parseLine(source);
  expect(error).toBeUndefined();
  return steps as readonly Step[];
}

const wordsOf = (source: string): string[][] =>
  stepsOf(source).flatMap(({ commands }) => commands.map(({ words }) => words.map((word) => expandWord(word, lookup))));

describe("parseLine()", () => {
  it("never throws, and an error lies in the line", () => {
    const bits = fc.constantFrom(
      "a",
      "2",
      " ",
      "'",
      '"',
      "\\",
      ";",
      "&",
      "|",
      "<",
      ">",
      "$",
      "?",
      "#",
      "\n",
      "\t",
      "é",
    );
    const line = fc.oneof(fc.string({ unit: bits, maxLength: 30 }), fc.string({ unit: "binary" }));
    fc.assert(
      fc.property(line, (source) => {
        const parsed = parseLine(source);
        if (parsed.steps !== undefined) return;
        expect(parsed.error).not.toBe("");
        expect(parsed.column).toBeGreaterThanOrEqual(1);
        expect(parsed.column).toBeLessThanOrEqual(source.length + 1);
      }),
      { numRuns: 1000 },
    );
  });

  it("reads quoted words back", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: "binary" }), { minLength: 1 }), (words) => {
        expect(wordsOf(words.map(quoteWord).join(" "))).toEqual([words]);
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ["", []],
    ["  # only this", []],
    ["a 'b c' \"d $? e\" f\\ g", [["a", "b c", "d <?> e", "f g"]]],
    ["a'b'\"c\"d", [["abcd"]]],
    ["'' \"\"", [["", ""]]],
    ["'$?' $? $! $$ $x", [["$?", "<?>", "<!>", "<$>", "$x"]]],
    ["a#b #c", [["a#b"]]],
    ["a|b;c&d\ne", [["a"], ["b"], ["c"], ["d"], ["e"]]],
    ["a \\\n b", [["a", "b"]]],
  ])("words of %j", (source, words) => {
    expect(wordsOf(source)).toEqual(words);
  });

  it("knows connectors, background and the text of a step", () => {
    expect(stepsOf("a | b && c || d & e;").map(({ when, background, text }) => [when, background, text])).toEqual([
      ["always", false, "a | b"],
      ["and", false, "c"],
      ["or", true, "d"],
      ["always", false, "e"],
    ]);
  });

  it("takes a digit before > for a descriptor only without a blank", () => {
    const redirects = (source: string) =>
      stepsOf(source)[0]?.commands[0]?.redirects.map(({ fd, kind, target }) => [fd, kind, expandWord(target, lookup)]);
    expect(redirects("a 2>e >o >>p <i 2>&1")).toEqual([
      [2, ">", "e"],
      [1, ">", "o"],
      [1, ">>", "p"],
      [0, "<", "i"],
      [2, ">&", "1"],
    ]);
    expect(redirects("a 2 >e")).toEqual([[1, ">", "e"]]);
  });

  it.each([
    ["| a", "syntax error near '|'", 1],
    ["a |", "syntax error near 'end of line'", 4],
    ["a &&", "syntax error near 'end of line'", 5],
    ["a ; ; b", "syntax error near ';'", 5],
    ["a >", "syntax error near 'end of line'", 4],
    ["a > | b", "syntax error near '|'", 5],
    ["a >& f", "syntax error near 'f'", 6],
    ["a 'b", "unterminated quote '", 3],
    ['a "b', 'unterminated quote "', 3],
    ["a \\", "nothing after \\", 3],
  ])("error of %j", (source, error, column) => {
    expect(parseLine(source)).toEqual({ steps: undefined, error, column });
  });
});

describe("nearestName()", () => {
  const names = ["cat", "free", "slabtop", "vmstat"];
  it.each([
    ["fre", "free"],
    ["fere", "free"],
    ["slabtpo", "slabtop"],
    ["vmsatt", "vmstat"],
    ["zzz", undefined],
  ])("%s", (name, nearest) => {
    expect(nearestName(name, names)).toBe(nearest);
  });
});
