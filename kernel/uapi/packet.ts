/**
 * Packets of /dev/nic0: a header of 16 bytes and text, as the device's wire and programs write and check them.
 *
 *   | length u16 | flow u16 | sequence u32 | sent at, microseconds u32 | checksum u16 | 0 u16 | payload … |
 *
 * Little-endian. The checksum is the Internet's (RFC 1071): the complement of the ones' complement sum of all 16-bit
 * words, its own field taken as 0. A whole packet therefore sums up to 0xffff.
 */

export const PACKET_HEADER_BYTES = 16;
/** Shortest and longest packet, as on an Ethernet. */
export const PACKET_MIN_BYTES = 64;
export const PACKET_MAX_BYTES = 1518;

/** A mix that stands for traffic of the Internet: sizes, and how many of twelve packets have each. */
export const IMIX: readonly (readonly [bytes: number, share: number])[] = [
  [64, 7],
  [594, 4],
  [1518, 1],
];
export const IMIX_TOTAL = 12;

export interface PacketHeader {
  readonly length: number;
  readonly flow: number;
  readonly sequence: number;
  readonly sentMicros: number;
}

const ld16 = (bytes: Uint8Array, at: number): number => (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
const ld32 = (bytes: Uint8Array, at: number): number => ld16(bytes, at) + ld16(bytes, at + 2) * 0x1_0000;
const st16 = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = value & 0xff;
  bytes[at + 1] = (value >>> 8) & 0xff;
};
const st32 = (bytes: Uint8Array, at: number, value: number): void => {
  st16(bytes, at, value);
  st16(bytes, at + 2, value >>> 16);
};

/** Ones' complement sum of the 16-bit words of `bytes`; an odd last byte is padded with 0. O(bytes). */
export function onesSum(bytes: Uint8Array): number {
  let sum = 0;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) sum += (bytes[i] as number) | ((bytes[i + 1] as number) << 8);
  if (even < bytes.length) sum += bytes[even] as number;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** A packet of `length` bytes, `text` repeated behind its header. */
export function buildPacket(header: PacketHeader, text: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(header.length);
  st16(bytes, 0, header.length);
  st16(bytes, 2, header.flow);
  st32(bytes, 4, header.sequence);
  st32(bytes, 8, header.sentMicros);
  for (let at = PACKET_HEADER_BYTES; at < header.length && text.length > 0; at += text.length) {
    bytes.set(text.subarray(0, header.length - at), at);
  }
  st16(bytes, 12, 0xffff - onesSum(bytes));
  return bytes;
}

/** The header of a whole packet; null when its length is wrong or its checksum does not hold. */
export function readPacket(bytes: Uint8Array): PacketHeader | null {
  if (bytes.length < PACKET_HEADER_BYTES || ld16(bytes, 0) !== bytes.length || onesSum(bytes) !== 0xffff) return null;
  return { length: bytes.length, flow: ld16(bytes, 2), sequence: ld32(bytes, 4), sentMicros: ld32(bytes, 8) };
}
