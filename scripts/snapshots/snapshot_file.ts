/**
 * Snapshot files: what a run was, its marks, and the RAM of the last one.
 *
 *   0    8    12     16       20        20+n
 *   ┌────┬────┬──────┬────────┬─────────┬──────────────┬───┬────────────────┬───┐
 *   │magic│ 1 │ crc32│ n      │ header  │ block of a   │ … │ piece of the   │ … │
 *   │     │   │      │        │ (JSON)  │ mark, deflate│   │ image, deflate │   │
 *   └────┴────┴──────┴────────┴─────────┴──────────────┴───┴────────────────┴───┘
 *                 └── of everything from byte 16 on; numbers are little-endian u32
 *
 *   block of a mark     page sums (8 bytes a frame), then owners (2 bytes a frame), XOR the mark before (mark_chain.ts)
 *   piece of the image  up to 4,096 pages that are not zero, by ascending frame; the header has the frames, as deltas
 *
 * The file is the same bytes for the same run: no date, no path of this computer but those that the user typed.
 *
 *   SNP-1  a file that is not exactly what encode() makes is refused with one line, whatever is in it
 *   SNP-2  reading never holds more than the file, a header of at most 64 MiB, and 1/200 of the RAM that it describes
 */

import { crc32, deflateRawSync, inflateRawSync } from "node:zlib";
import * as v from "valibot";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { MAX_CPUS, MAX_RAM_BYTES, MIN_RAM_BYTES, PAGE_SIZE } from "../../kernel/params.ts";
import { InputError } from "../readers/input_error.ts";
import { readMarks, type StoredMark } from "./mark_chain.ts";
import { RUN_SCHEMA, type RunDefinition } from "./run_definition.ts";

/** A file in memory. */
export interface Recording {
  readonly slabtown: string;
  readonly run: RunDefinition;
  /** At least one, by steps. */
  readonly marks: readonly StoredMark[];
  /** RAM of the last mark, without pages that are zero. */
  readonly image: RamImage;
}

/** Pages of RAM that are not zero. */
export interface RamImage {
  /** Ascending. */
  readonly frames: readonly number[];
  /** By pieces of PIECE_PAGES pages, deflated. */
  readonly pieces: readonly Uint8Array[];
}

const MAGIC = Uint8Array.of(0x89, 0x53, 0x4c, 0x41, 0x42, 0x53, 0x4e, 0x0a);
const FORMAT = 1;
const [AT_FORMAT, AT_CRC, AT_HEADER_BYTES, AT_HEADER] = [8, 12, 16, 20];
const MAX_HEADER_BYTES = 64 * 1024 * 1024;
const PIECE_PAGES = 4096;
const DEFLATE = { level: 4 } as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const lane = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
const sum = v.tuple([lane, lane]);
const shortText = v.pipe(v.string(), v.maxLength(64));
const HEADER = v.strictObject({
  slabtown: shortText,
  run: RUN_SCHEMA,
  marks: v.pipe(
    v.array(
      v.strictObject({
        number: count,
        name: shortText,
        cycle: count,
        steps: count,
        freePages: count,
        registers: v.pipe(v.array(v.strictObject({ name: shortText, sum })), v.maxLength(64)),
        random: sum,
        ownerNames: v.pipe(v.array(shortText), v.maxLength(0x1_0000)),
        bytes: count,
      }),
    ),
    v.minLength(1),
  ),
  frames: v.array(count),
  pieces: v.array(count),
});
type Header = v.InferOutput<typeof HEADER>;

/** The image of the machine as it stands. */
export function imageOf(kernel: Kernel): RamImage {
  const { pages } = kernel.machine.sums();
  const frames: number[] = [];
  for (let pfn = 0; pfn < pages.length / 2; pfn++) {
    if (pages[2 * pfn] !== 0 || pages[2 * pfn + 1] !== 0) frames.push(pfn);
  }
  const pieces: Uint8Array[] = [];
  for (let i = 0; i < frames.length; i += PIECE_PAGES) {
    const part = frames.slice(i, i + PIECE_PAGES);
    const bytes = new Uint8Array(part.length * PAGE_SIZE);
    part.forEach((pfn, n) => {
      bytes.set(kernel.machine.port.readBytes(pfn * PAGE_SIZE, PAGE_SIZE), n * PAGE_SIZE);
    });
    pieces.push(deflateRawSync(bytes, DEFLATE));
  }
  return { frames, pieces };
}

/** Calls `look` with each page of an image. Pages are valid until the next call. */
export function forEachPage({ frames, pieces }: RamImage, look: (pfn: number, bytes: Uint8Array) => void): void {
  pieces.forEach((piece, nr) => {
    const part = frames.slice(nr * PIECE_PAGES, (nr + 1) * PIECE_PAGES);
    const bytes = inflateRawSync(piece, { maxOutputLength: part.length * PAGE_SIZE });
    part.forEach((pfn, i) => {
      look(pfn, bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
    });
  });
}

/** The bytes of a file. */
export function encode({ slabtown, run, marks, image }: Recording): Uint8Array {
  const header: Header = {
    slabtown,
    run,
    marks: marks.map(({ number, name, cycle, steps, freePages, registers, random, ownerNames, block }) => ({
      ...{ number, name, cycle, steps, freePages },
      registers: registers.map((file) => ({ name: file.name, sum: [...file.sum] })),
      random: [...random],
      ownerNames: [...ownerNames],
      bytes: block.length,
    })),
    frames: image.frames.map((pfn, i) => pfn - (image.frames[i - 1] ?? 0)),
    pieces: image.pieces.map((piece) => piece.length),
  };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(AT_HEADER);
  head.set(MAGIC);
  const view = new DataView(head.buffer);
  view.setUint32(AT_FORMAT, FORMAT, true);
  view.setUint32(AT_HEADER_BYTES, json.length, true);
  const file = concatenated([head, json, ...marks.map(({ block }) => block), ...image.pieces]);
  new DataView(file.buffer, file.byteOffset).setUint32(AT_CRC, crc32(file.subarray(AT_HEADER_BYTES)), true);
  return file;
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Reads a file. Throws `InputError` for everything that encode() would not write, or another version did. */
export function decode(path: string, file: Uint8Array, slabtown: string): Recording {
  const bad = (
    what: string,
    hint = "copy it again, or make it anew with `slabtown run … --snapshot FILE`",
  ): InputError => new InputError(path, what, { hint });
  if (file.length < MAGIC.length || MAGIC.some((byte, i) => file[i] !== byte)) {
    throw bad("this is no snapshot", "a snapshot is made by `slabtown run FILE --snapshot-every 50M`");
  }
  if (file.length < AT_HEADER) throw bad("the snapshot is cut off");
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const format = view.getUint32(AT_FORMAT, true);
  if (format !== FORMAT)
    throw bad(`snapshot format ${format}, this slabtown reads ${FORMAT}`, "use the slabtown that made it");
  const headerBytes = view.getUint32(AT_HEADER_BYTES, true);
  if (headerBytes > file.length - AT_HEADER || headerBytes > MAX_HEADER_BYTES) throw bad("the snapshot is cut off");
  if (crc32(file.subarray(AT_HEADER_BYTES)) !== view.getUint32(AT_CRC, true)) {
    throw bad("the snapshot is damaged or cut off (its checksum does not fit)");
  }
  const header = parseHeader(file.subarray(AT_HEADER, AT_HEADER + headerBytes));
  if (header === null) throw bad("the snapshot's header makes no sense");
  if (header.slabtown !== slabtown) {
    throw bad(
      `made by slabtown ${header.slabtown}, this is ${slabtown}`,
      "a run is repeated by the version that made it only",
    );
  }
  const body = file.subarray(AT_HEADER + headerBytes);
  const recording = parseBody(header, body);
  if (typeof recording === "string") throw bad(`the snapshot is damaged: ${recording}`);
  return recording;
}

function parseHeader(bytes: Uint8Array): Header | null {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
  const parsed = v.safeParse(HEADER, json);
  if (!parsed.success) return null;
  const { nrCpus, ramBytes } = parsed.output.run.machine;
  const isMachine = nrCpus >= 1 && nrCpus <= MAX_CPUS && ramBytes >= MIN_RAM_BYTES && ramBytes <= MAX_RAM_BYTES;
  return isMachine && ramBytes % PAGE_SIZE === 0 ? parsed.output : null;
}

/** Marks and image; a string says what is wrong. */
function parseBody(header: Header, body: Uint8Array): Recording | string {
  const nrFrames = header.run.machine.ramBytes / PAGE_SIZE;
  const sizes = [...header.marks.map(({ bytes }) => bytes), ...header.pieces];
  if (sizes.reduce((all, size) => all + size, 0) !== body.length) return "its parts do not add up";
  let at = 0;
  const next = (size: number): Uint8Array => body.subarray(at, (at += size));
  const marks = header.marks.map(({ bytes, ...rest }): StoredMark => ({ ...rest, block: next(bytes) }));
  const isInOrder = marks.every(({ number, steps }, i) => {
    const last = marks[i - 1];
    return last === undefined || (last.number < number && last.steps <= steps);
  });
  if (!isInOrder) return "its marks are not in order";
  try {
    for (const { owners } of readMarks(marks, nrFrames)) {
      if (owners.owner.some((index) => index >= owners.names.length)) return "a page has no owner";
    }
  } catch {
    return "a mark";
  }
  let pfn = 0;
  const frames = header.frames.map((delta, i) => (pfn = i === 0 ? delta : pfn + delta));
  const isAscending = header.frames.every((delta, i) => i === 0 || delta > 0) && (frames.at(-1) ?? 0) < nrFrames;
  if (!isAscending || header.pieces.length !== Math.ceil(frames.length / PIECE_PAGES)) return "the frames of its image";
  const pieces = header.pieces.map(next);
  const isWhole = pieces.every((piece, i) => {
    const nrPages = Math.min(PIECE_PAGES, frames.length - i * PIECE_PAGES);
    return inflateExactly(piece, nrPages * PAGE_SIZE) !== null;
  });
  return isWhole ? { slabtown: header.slabtown, run: header.run, marks, image: { frames, pieces } } : "its image";
}

function inflateExactly(deflated: Uint8Array, size: number): Uint8Array | null {
  try {
    const bytes = inflateRawSync(deflated, { maxOutputLength: Math.max(size, 1) });
    return bytes.length === size ? bytes : null;
  } catch {
    return null;
  }
}
