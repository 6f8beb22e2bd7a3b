/**
 * A ZIP archive of files that are in memory: deflated, with Unix modes, and the same bytes whenever it is made.
 *
 *   local header + name + data, for each file · central directory: a header + name each · end record
 *
 * No 64-bit forms: fewer than 65,536 files, less than 4 GiB. Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7,
 * 4.3.12 and 4.3.16; deflate and CRC-32 are Node's own.
 */

import { crc32, deflateRawSync } from "node:zlib";

export interface ZipEntry {
  /** With forward slashes. */
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly isExecutable?: boolean;
}

const LOCAL = 0x0403_4b50;
const CENTRAL = 0x0201_4b50;
const END = 0x0605_4b50;
/** Version 2.0, made on Unix. */
const VERSION = 20;
const MADE_BY = (3 << 8) | VERSION;
const UTF8 = 1 << 11;
const DEFLATE = 8;
/** 1 January 1980, 0:00: the earliest there is. */
const DATE = (1 << 5) | 1;
const REGULAR = 0o100_000;

/** The archive's bytes; entries in the order given. */
export function zip(entries: readonly ZipEntry[]): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, bytes, isExecutable } of entries) {
    const label = Buffer.from(name, "utf8");
    const data = deflateRawSync(bytes, { level: 9 });
    const common = [
      [2, VERSION],
      [2, UTF8],
      [2, DEFLATE],
      [2, 0],
      [2, DATE],
      [4, crc32(bytes)],
      [4, data.length],
      [4, bytes.length],
      [2, label.length],
      [2, 0],
    ] as const;
    const mode = REGULAR | (isExecutable === true ? 0o755 : 0o644);
    const local = record([[4, LOCAL], ...common]);
    // Comment, disk, internal attributes; then the mode, and where the file begins.
    const rest = [
      [2, 0],
      [2, 0],
      [2, 0],
      [4, mode * 0x1_0000],
      [4, offset],
    ] as const;
    directory.push(record([[4, CENTRAL], [2, MADE_BY], ...common, ...rest]), label);
    parts.push(local, label, data);
    offset += local.length + label.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const nr = entries.length;
  const end = record([
    [4, END],
    [2, 0],
    [2, 0],
    [2, nr],
    [2, nr],
    [4, size],
    [4, offset],
    [2, 0],
  ]);
  return Buffer.concat([...parts, ...directory, end]);
}

/** Numbers of so many bytes, little end first. */
function record(fields: readonly (readonly [bytes: number, value: number])[]): Buffer {
  const buffer = Buffer.alloc(fields.reduce((sum, [bytes]) => sum + bytes, 0));
  let at = 0;
  for (const [bytes, value] of fields) at = buffer.writeUIntLE(value, at, bytes);
  return buffer;
}
