/**
 * Goal: the UTF-8 codec agrees with the platform's. Method: round trips of random text, and random bytes decoded by
 * both; every byte pair and the edges of each length in full.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeUtf8, encodeUtf8 } from "../../kernel/uapi/utf8.ts";

const platformDecode = (bytes: Uint8Array): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

describe("utf8", () => {
  it("encodes as the platform does, lone surrogates too", () => {
    const units = fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 30 });
    fc.assert(
      fc.property(units, (codes) => {
        const text = String.fromCharCode(...codes);
        expect(encodeUtf8(text)).toEqual(new TextEncoder().encode(text));
      }),
    );
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(decodeUtf8(encodeUtf8(text))).toBe(platformDecode(new TextEncoder().encode(text)));
      }),
    );
  });

  it("decodes any bytes as the platform does", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        expect(decodeUtf8(bytes)).toBe(platformDecode(bytes));
      }),
      { numRuns: 2000 },
    );
    for (let first = 0x80; first < 256; first++) {
      for (let second = 0; second < 256; second++) {
        const bytes = Uint8Array.of(first, second, 0x80, 0x80, 0x41);
        if (decodeUtf8(bytes) !== platformDecode(bytes)) expect.fail(`${first} ${second}`);
      }
    }
  });

  it("keeps the edges of each length", () => {
    for (const code of [0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x1_0000, 0x10_ffff]) {
      const text = `a${String.fromCodePoint(code)}b`;
      expect(decodeUtf8(encodeUtf8(text))).toBe(text);
    }
  });
});
