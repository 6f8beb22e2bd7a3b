/**
 * Goal: a bitmap in RAM behaves like an array of booleans, at any length and next to other data.
 * Method: random operations on a bitmap and on a plain array of booleans; after each, every query is compared and the
 * words around the map are looked at. The bits behind the end of the map are filled with noise first (BM-1).
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import {
  bitmapBytes,
  bitmapWeight,
  clearBit,
  findNextBit,
  findNextZeroBit,
  setBit,
  testAndSetBit,
  testBit,
} from "../../kernel/lib/bitmap.ts";
import { MIN_RAM_BYTES } from "../../kernel/params.ts";

const { port } = createMachine({ nrCpus: 1, ramBytes: MIN_RAM_BYTES, seed: "1", port: "bounds" });
const BASE = 0x1004;

/** A cleared map whose last word has `noise` behind bit nbits, with guard words on both sides. */
function prepare(nbits: number, noise: number): void {
  const end = BASE + bitmapBytes(nbits);
  port.fill(BASE - 4, 0, bitmapBytes(nbits) + 8);
  if (nbits % 32 !== 0) port.st32(end - 4, (noise & (-1 << (nbits % 32))) >>> 0);
  port.st32(BASE - 4, 0xdead_beef);
  port.st32(end, 0xdead_beef);
}

function expectSame(model: readonly boolean[], from: number): void {
  const nbits = model.length;
  const find = (wanted: boolean): number => {
    const found = model.findIndex((bit, i) => i >= from && bit === wanted);
    return found < 0 ? nbits : found;
  };
  expect(findNextBit(port, BASE, nbits, from)).toBe(find(true));
  expect(findNextZeroBit(port, BASE, nbits, from)).toBe(find(false));
  expect(bitmapWeight(port, BASE, nbits)).toBe(model.filter(Boolean).length);
  expect(model.map((_, i) => testBit(port, BASE, i))).toEqual(model);
  expect(port.ld32(BASE - 4)).toBe(0xdead_beef);
  expect(port.ld32(BASE + bitmapBytes(nbits))).toBe(0xdead_beef);
}

describe("bitmap", () => {
  it("occupies whole words", () => {
    expect([0, 1, 32, 33, 64, 65].map(bitmapBytes)).toEqual([0, 4, 4, 8, 8, 12]);
  });

  it("BM-1 behaves like an array of booleans under random operations", () => {
    const operation = fc.record({
      name: fc.constantFrom("set", "clear", "testAndSet"),
      bit: fc.nat({ max: 199 }),
      from: fc.nat({ max: 210 }),
    });
    const noise = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), noise, fc.array(operation), (nbits, bits, operations) => {
        prepare(nbits, bits);
        const model = new Array<boolean>(nbits).fill(false);
        for (const { name, bit: anyBit, from } of operations) {
          const bit = anyBit % nbits;
          if (name === "set") setBit(port, BASE, bit);
          else if (name === "clear") clearBit(port, BASE, bit);
          else expect(testAndSetBit(port, BASE, bit)).toBe(model[bit]);
          model[bit] = name !== "clear";
          expectSame(model, from);
        }
      }),
    );
  });

  it("finds each single bit, and each single hole, from each place", () => {
    const nbits = 70;
    for (let bit = 0; bit < nbits; bit++) {
      prepare(nbits, -1);
      setBit(port, BASE, bit);
      for (let from = 0; from <= nbits; from++) {
        expect(findNextBit(port, BASE, nbits, from)).toBe(from <= bit ? bit : nbits);
      }
      for (let i = 0; i < nbits; i++) setBit(port, BASE, i);
      clearBit(port, BASE, bit);
      for (let from = 0; from <= nbits; from++) {
        expect(findNextZeroBit(port, BASE, nbits, from)).toBe(from <= bit ? bit : nbits);
      }
    }
  });

  it("BM-2 testAndSetBit() tries again when another CPU changed the word meanwhile", () => {
    prepare(32, 0);
    let meddled = false;
    const meddling = Object.create(port, {
      cas: {
        value: (addr: number, expected: number, desired: number): number => {
          if (!meddled) setBit(port, BASE, 7);
          meddled = true;
          return port.cas(addr, expected, desired);
        },
      },
    });
    expect(testAndSetBit(meddling, BASE, 3)).toBe(false);
    expect(port.ld32(BASE)).toBe((1 << 3) | (1 << 7));
  });

  it("BM-2 testAndSetBit() loses to another CPU that sets the same bit first", () => {
    prepare(32, 0);
    const losing = Object.create(port, {
      cas: {
        value: (addr: number, expected: number, desired: number): number => {
          setBit(port, BASE, 31);
          return port.cas(addr, expected, desired);
        },
      },
    });
    expect(testAndSetBit(losing, BASE, 31)).toBe(true);
  });
});
