/**
 * Packets: what is built is read back, and no single wrong bit goes unnoticed.
 */

import fc from "fast-check";
import { expect, it } from "vitest";
import { buildPacket, onesSum, PACKET_HEADER_BYTES, PACKET_MAX_BYTES, readPacket } from "../../kernel/uapi/packet.ts";

const packets = fc.record({
  length: fc.integer({ min: PACKET_HEADER_BYTES, max: PACKET_MAX_BYTES }),
  flow: fc.integer({ min: 0, max: 0xffff }),
  sequence: fc.integer({ min: 0, max: 0xffff_ffff }),
  sentMicros: fc.integer({ min: 0, max: 0xffff_ffff }),
});

it("a packet reads back as it was built, and sums up to 0xffff", () => {
  fc.assert(
    fc.property(packets, fc.uint8Array({ maxLength: 100 }), (header, text) => {
      const bytes = buildPacket(header, text);
      expect(bytes.length).toBe(header.length);
      expect(onesSum(bytes)).toBe(0xffff);
      expect(readPacket(bytes)).toEqual(header);
    }),
  );
});

it("a flipped bit anywhere is noticed", () => {
  fc.assert(
    fc.property(packets, fc.nat(), fc.integer({ min: 0, max: 7 }), (header, at, bit) => {
      const bytes = buildPacket(header, Uint8Array.of(1, 2, 3));
      const index = at % bytes.length;
      bytes[index] = (bytes[index] as number) ^ (1 << bit);
      expect(readPacket(bytes)).toBeNull();
    }),
  );
});

it("a packet that was cut short is none", () => {
  const bytes = buildPacket({ length: 64, flow: 1, sequence: 2, sentMicros: 3 }, new Uint8Array(0));
  for (let length = 0; length < 64; length++) expect(readPacket(bytes.subarray(0, length))).toBeNull();
});
