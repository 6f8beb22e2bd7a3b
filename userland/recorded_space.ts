/**
 * Recorded address spaces: where the addresses of a recorded process lie in the process that replays it.
 *
 *   recorded   │ 0x7f95a58bb000 … 0x7f95a5a9d000 │        │ 0x5572aedac000 … brk │
 *                    ↓ + const                                  ↓ + const
 *   replayed   │ 0x7efe1e000 … 0x7f0000000       │        │ 0x10000000 … brk     │
 *
 * A segment is a recorded range that was mapped by one call and lies at one distance; calls that name a part of it are
 * carried over at the same offset. Sizes are never changed. Segments do not overlap; a call that covers several is
 * carried out piece by piece.
 *
 * And stamps: what was written into which page. A page that is touched gets a number of its own in its first and last
 * word, and is to read as that for as long as it is mapped, through copy on write, moves and reclaim.
 *
 *   SPC-1  segments are disjoint, in order of recorded address, of whole pages, and disjoint in replayed addresses
 *   SPC-2  stamped pages lie in segments
 *
 * This stands for the program's own variables: host state, which costs no virtual time.
 */

import { PAGE_SIZE } from "../kernel/params.ts";

/** `[start, end)` of recorded addresses, whole pages; `at` is where the first byte lies. */
export interface Segment {
  readonly start: number;
  readonly end: number;
  readonly at: number;
  readonly prot: number;
  /** Shared mappings are not stamped: who writes last is not ours to say. */
  readonly isPrivate: boolean;
}

export const pageUp = (addr: number): number => Math.ceil(addr / PAGE_SIZE) * PAGE_SIZE;

export interface RecordedSpace {
  segments: Segment[];
  /** Page number → stamp. */
  stamps: Map<number, number>;
  /** The first break that was heard of, recorded and replayed; 0: none yet. */
  brkRecorded: number;
  brkReplayed: number;
  /** The break now, as recorded. */
  brkEnd: number;
  /** Writable memory of the process for strings and results of calls: below its arguments. */
  scratch: number;
}

export const newSpace = (scratch: number): RecordedSpace => ({
  segments: [],
  stamps: new Map(),
  brkRecorded: 0,
  brkReplayed: 0,
  brkEnd: 0,
  scratch,
});

/** What fork makes of it. */
export const copySpace = (space: RecordedSpace): RecordedSpace => ({
  ...space,
  segments: [...space.segments],
  stamps: new Map(space.stamps),
});

/** Index of the first segment that ends above `addr`. */
function firstAbove(segments: readonly Segment[], addr: number): number {
  let [low, high] = [0, segments.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((segments[middle] as Segment).end > addr) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Without spread: this is most of what a call costs here. */
const part = (segment: Segment, start: number, end: number): Segment =>
  segment.start === start && segment.end === end
    ? segment
    : { start, end, at: segment.at + (start - segment.start), prot: segment.prot, isPrivate: segment.isPrivate };

/** The parts of segments that lie in `[start, end)`, in order. */
export function partsOf({ segments }: RecordedSpace, start: number, end: number): Segment[] {
  const parts: Segment[] = [];
  for (let i = firstAbove(segments, start); i < segments.length; i++) {
    const segment = segments[i] as Segment;
    if (segment.start >= end) break;
    parts.push(part(segment, Math.max(start, segment.start), Math.min(end, segment.end)));
  }
  return parts;
}

/** The gaps between `parts` of `[start, end)`: addresses that no call has mapped. */
export function gapsOf(parts: readonly Segment[], start: number, end: number): [number, number][] {
  const gaps: [number, number][] = [];
  let at = start;
  for (const { start: from, end: to } of parts) {
    if (from > at) gaps.push([at, from]);
    at = to;
  }
  if (at < end) gaps.push([at, end]);
  return gaps;
}

/** Takes `[start, end)` out of the segments. */
export function forget({ segments }: RecordedSpace, start: number, end: number): void {
  const first = firstAbove(segments, start);
  let last = first;
  const rest: Segment[] = [];
  for (; last < segments.length; last++) {
    const segment = segments[last] as Segment;
    if (segment.start >= end) break;
    if (segment.start < start) rest.push(part(segment, segment.start, start));
    if (segment.end > end) rest.push(part(segment, end, segment.end));
  }
  segments.splice(first, last - first, ...rest);
}

/** Puts a segment in, in the place of whatever was there. */
export function remember(space: RecordedSpace, segment: Segment): void {
  if (segment.end <= segment.start) return;
  forget(space, segment.start, segment.end);
  space.segments.splice(firstAbove(space.segments, segment.start), 0, segment);
}
