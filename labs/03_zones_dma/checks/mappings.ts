/**
 * The judge of lab 3 about mappings: where they are, who owns them, and what CPU and device see.
 *
 * | kind          | the claim                                                                       |
 * |---------------|---------------------------------------------------------------------------------|
 * | above-mask    | the device does not reach the last byte                                 (MAP-1) |
 * | not-direct    | a bounce, or a copy, where the device reaches the memory                (MAP-2) |
 * | slots         | a bounce outside of the area, or in slots of another mapping            (MAP-3) |
 * | map-bad, direct-refused   | a range mapped that must be refused; refused without reason       (MAP-8) |
 * | map-refused   | a bounce refused although there are slots                               (MAP-4) |
 * | device-sees   | the device reads something else than the CPU wrote                      (MAP-5) |
 * | cpu-sees, unwritten   | the CPU reads something else than the device wrote; than was there (MAP-5, MAP-7) |
 * | sync-cpu, sync-device   | the same after a sync                                         (MAP-6) |
 * | copy-range    | a copy of more, or of other bytes than those that are mapped            (MAP-5) |
 * | unmap, unmap-refused   | of unmap                                                       (MAP-8) |
 * | sync          | a sync of nothing accepted, or of something refused                     (MAP-6) |
 * | owner         | isDevices() is wrong                                                   (MAP-10) |
 *
 * Programs that are shrunk may break the rules for callers: what is then in the bytes concerned is not judged.
 */

import type { Json } from "../../kit/program.ts";
import {
  BIDIRECTIONAL,
  EINVAL,
  FRAME_BYTES,
  FROM_DEVICE,
  MAX_SLOTS,
  NO_ADDRESS,
  SLOT_BYTES,
  TO_DEVICE,
} from "../given/api.ts";
import { BOUNCE_START, nrSlotsOf } from "./model.ts";
import { count, fail, type Seen, show, type Verdict } from "./verdict.ts";

export const DIRECTION_NAMES: Readonly<Record<number, string>> = {
  [TO_DEVICE]: "TO_DEVICE",
  [FROM_DEVICE]: "FROM_DEVICE",
  [BIDIRECTIONAL]: "BIDIRECTIONAL",
};

export interface MapRequest {
  readonly address: number;
  readonly size: number;
  readonly direction: number;
  readonly mask: number;
  readonly op: number;
}

export interface Mapping extends MapRequest {
  readonly bus: number;
  isDevices: boolean;
  hasSynced: boolean;
  /** What the device wrote since its memory was last seen by the CPU, by offset. */
  readonly written: Map<number, number>;
  /** The CPU wrote since syncForCpu. */
  hasCpuWritten: boolean;
}

/** Where a byte's value comes from. */
type Source = "cpu" | "unmap" | "sync" | "left";

export class Mappings {
  readonly byBus = new Map<number, Mapping>();
  readonly nrSlots: number;
  readonly #nrFrames: number;
  readonly #name: (op: number) => string;
  /** What the CPU has to see; zero where nothing is noted. */
  readonly #bytes = new Map<number, { readonly value: number; readonly from: Source }>();
  /** Half-open ranges that came back from a device. */
  readonly #returned: [start: number, end: number][] = [];
  /** Half-open ranges in which somebody broke the rules for callers. */
  readonly #muddled: [start: number, end: number][] = [];

  constructor(nrFrames: number, nrSlots: number, name: (op: number) => string) {
    this.#nrFrames = nrFrames;
    this.nrSlots = nrSlots;
    this.#name = name;
  }

  overlapping(start: number, end: number): Mapping | undefined {
    return [...this.byBus.values()].find(({ address, size }) => address < end && start < address + size);
  }

  /** The mapping that has `slot`. */
  atSlot(slot: number): Mapping | undefined {
    const at = BOUNCE_START + slot * SLOT_BYTES;
    return [...this.byBus.values()].find(
      ({ bus, address, size }) => bus !== address && bus < at + SLOT_BYTES && at < bus + size,
    );
  }

  // ── map ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  map(request: MapRequest, seen: Seen): Verdict {
    const { value } = seen;
    const { address, size, direction, mask } = request;
    const call = `map(${address},${size},${DIRECTION_NAMES[direction] ?? direction})`;
    const bad = this.#whyBad(request);
    const isDirect = address + size - 1 <= mask;
    if (value === NO_ADDRESS) {
      if (seen.events.length > 0)
        return fail("copy-range", `${call} is refused and calls ${show(seen.events[0]?.[0])}`);
      if (bad !== null) return null;
      if (isDirect) return fail("direct-refused", `${call} is refused, but the device reaches its last byte`);
      const slot = this.#freeRun(request);
      const nr = nrSlotsOf(size);
      return slot < 0 ? null : fail("map-refused", `${call} is refused, but slots ${slot} … ${slot + nr - 1} are free`);
    }
    if (bad !== null) return fail("map-bad", `${call} returns ${show(value)}, but ${bad}`);
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
      return fail("bad-claim", `${call} returns ${show(value)}, which is no address`);
    if (value + size - 1 > mask)
      return fail(
        "above-mask",
        `${call} returns ${value}; its last byte ${value + size - 1} is above the mask ${mask}`,
      );
    if (isDirect && value !== address)
      return fail("not-direct", `${call} bounces to ${value} although the device reaches all of it`);
    const verdict = isDirect ? null : this.#judgeSlots(request, value);
    if (verdict !== null) return verdict;
    const mapping: Mapping = {
      ...request,
      bus: value,
      isDevices: true,
      hasSynced: false,
      written: new Map(),
      hasCpuWritten: false,
    };
    const copies = this.#judgeCopies(mapping, seen, "map");
    if (copies === null) this.byBus.set(value, mapping);
    return copies;
  }

  #whyBad({ address, size, direction }: MapRequest): string | null {
    if (!Number.isInteger(size) || size < 1) return `${size} is no size`;
    if (address < 0) return "it begins in front of memory";
    if (address + size > this.#nrFrames * FRAME_BYTES) return "it ends behind memory";
    if (DIRECTION_NAMES[direction] === undefined) return `${direction} is no direction`;
    const other = this.overlapping(address, address + size);
    return other === undefined ? null : `it overlaps ${this.#name(other.op)}, which is mapped`;
  }

  /** First of enough free slots side by side that the device reaches, or −1. */
  #freeRun({ size, mask }: MapRequest): number {
    const nr = nrSlotsOf(size);
    if (nr > MAX_SLOTS) return -1;
    for (let first = 0; first + nr <= this.nrSlots; first++) {
      if (BOUNCE_START + first * SLOT_BYTES + size - 1 > mask) return -1;
      if (Array.from({ length: nr }, (_, i) => this.atSlot(first + i)).every((used) => used === undefined))
        return first;
    }
    return -1;
  }

  #judgeSlots({ size }: MapRequest, bus: number): Verdict {
    const first = (bus - BOUNCE_START) / SLOT_BYTES;
    const nr = nrSlotsOf(size);
    if (!Number.isInteger(first) || first < 0 || first + nr > this.nrSlots)
      return fail("slots", `${size} bytes bounce at ${bus}: there are no ${count(nr, "slot")} of the bounce area`);
    if (nr > MAX_SLOTS) return fail("slots", `${size} bytes bounce in ${nr} slots; ${MAX_SLOTS} are allowed`);
    for (let slot = first; slot < first + nr; slot++) {
      const other = this.atSlot(slot);
      if (other !== undefined) return fail("slots", `slot ${slot} is taken, but it belongs to ${this.#name(other.op)}`);
    }
    return null;
  }

  #judgeCopies({ address, bus, size }: Mapping, { events }: Seen, what: string): Verdict {
    for (const event of events) {
      const [kind, to, from, nr] = event.map(Number);
      if (event[0] !== "copy") return fail("bad-claim", `${what} calls ${show(event[0])} of the machine: ${kind}`);
      if (bus === address) return fail("not-direct", `${what} of a direct mapping copies ${show(nr)} bytes`);
      const offset = Number(to) - (Number(to) >= address && Number(to) < address + size ? address : bus);
      const isIn = offset >= 0 && offset + Number(nr) <= size;
      const isAcross = Number(from) - (from === bus + offset ? bus : address) === offset;
      if (!isIn || !isAcross) {
        const mapped = `${size} bytes are mapped, ${address} at ${bus}`;
        return fail("copy-range", `${what} copies ${show(nr)} bytes from ${show(from)} to ${show(to)}; ${mapped}`);
      }
    }
    return null;
  }

  // ── unmap and sync ───────────────────────────────────────────────────────────────────────────────────────────────

  unmap(bus: number, size: number, direction: number, seen: Seen): Verdict {
    const { value } = seen;
    const call = `unmap(${bus},${size},${DIRECTION_NAMES[direction] ?? direction}) returns ${show(value)}`;
    const mapping = this.byBus.get(bus);
    if (mapping === undefined || mapping.size !== size || mapping.direction !== direction) {
      if (value === -EINVAL && seen.events.length === 0) return null;
      if (value === -EINVAL) return fail("unmap", `unmap at ${bus} is refused and calls ${show(seen.events[0]?.[0])}`);
      if (mapping === undefined) return fail("unmap", `${call}, but nothing is mapped there`);
      const is = `${mapping.size} bytes ${DIRECTION_NAMES[mapping.direction]} are mapped there`;
      return fail("unmap", `${call}, but ${is}`);
    }
    if (value !== 0) return fail("unmap-refused", `${call}, but that is mapped`);
    const verdict = this.#judgeCopies(mapping, seen, "unmap");
    if (verdict !== null) return verdict;
    if (mapping.hasCpuWritten) this.#muddle(mapping);
    this.#toCpu(mapping, "unmap");
    this.byBus.delete(bus);
    return null;
  }

  syncForCpu(bus: number, seen: Seen): Verdict {
    const mapping = this.byBus.get(bus);
    const verdict = this.#judgeSync("syncForCpu", bus, mapping, seen);
    if (verdict !== null || mapping === undefined) return verdict;
    if (mapping.hasCpuWritten) this.#muddle(mapping);
    this.#toCpu(mapping, "sync");
    mapping.isDevices = false;
    return null;
  }

  syncForDevice(bus: number, seen: Seen): Verdict {
    const mapping = this.byBus.get(bus);
    const verdict = this.#judgeSync("syncForDevice", bus, mapping, seen);
    if (verdict !== null || mapping === undefined) return verdict;
    // What the device wrote and the CPU has not fetched is lost, or not.
    if (mapping.isDevices && mapping.written.size > 0) this.#muddle(mapping);
    mapping.isDevices = true;
    mapping.hasSynced = true;
    mapping.hasCpuWritten = false;
    return null;
  }

  #judgeSync(name: string, bus: number, mapping: Mapping | undefined, seen: Seen): Verdict {
    const { value } = seen;
    if (mapping === undefined) {
      if (value === -EINVAL && seen.events.length === 0) return null;
      return fail("sync", `${name}(${bus}) returns ${show(value)}, but nothing is mapped there`);
    }
    if (value !== 0) return fail("sync", `${name}(${bus}) returns ${show(value)}, but that is mapped`);
    return this.#judgeCopies(mapping, seen, name);
  }

  /** What the device wrote belongs to the CPU. */
  #toCpu({ address, size, direction, written }: Mapping, from: Source): void {
    if (direction === TO_DEVICE) return;
    for (const [at, byte] of this.#bytes) {
      if (at >= address && at < address + size) this.#bytes.set(at, { ...byte, from: "left" });
    }
    for (const [offset, value] of written) this.#bytes.set(address + offset, { value, from });
    this.#returned.push([address, address + size]);
    written.clear();
  }

  owner(address: number, { value }: Seen): Verdict {
    const mapping = this.overlapping(address, address + 1);
    const expected = mapping?.isDevices === true ? 1 : 0;
    if (value === expected) return null;
    const what = mapping === undefined ? "no mapping has that byte" : `${this.#name(mapping.op)} has that byte`;
    const who = mapping === undefined ? "" : `, and it is the ${mapping.isDevices ? "device" : "CPU"}'s`;
    return fail("owner", `isDevices(${address}) returns ${show(value)}, but ${what}${who}`);
  }

  // ── Bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #muddle({ address, size }: Pick<Mapping, "address" | "size">): void {
    this.#muddled.push([address, address + size]);
  }

  #isMuddled(address: number): boolean {
    return isIn(this.#muddled, address);
  }

  cpuWrites(address: number, value: number): void {
    const mapping = this.overlapping(address, address + 1);
    this.#bytes.set(address, { value, from: "cpu" });
    if (mapping === undefined) return;
    mapping.hasCpuWritten = true;
    if (mapping.isDevices || mapping.direction === FROM_DEVICE) this.#muddle(mapping);
  }

  cpuReads(address: number, { value }: Seen): Verdict {
    if (this.overlapping(address, address + 1)?.isDevices === true || this.#isMuddled(address)) return null;
    const isReturned = isIn(this.#returned, address);
    const { value: expected, from } = this.#bytes.get(address) ?? { value: 0, from: isReturned ? "left" : "cpu" };
    if (value === expected) return null;
    const kinds = { cpu: "copy-range", unmap: "cpu-sees", sync: "sync-cpu", left: "unwritten" } as const;
    const who = { cpu: "the CPU wrote", unmap: "the device wrote", sync: "the device wrote", left: "was there before" };
    return fail(kinds[from], `the CPU reads ${show(value)} at ${address}; ${who[from]} ${expected}`);
  }

  deviceWrites(bus: number, offset: number, value: number): void {
    const mapping = this.byBus.get(bus);
    if (mapping === undefined || offset >= mapping.size) return;
    mapping.written.set(offset, value);
    if (!mapping.isDevices || mapping.direction === TO_DEVICE) this.#muddle(mapping);
  }

  deviceReads(bus: number, offset: number, { value }: Seen): Verdict {
    const mapping = this.byBus.get(bus);
    if (mapping === undefined || offset >= mapping.size || !mapping.isDevices) return null;
    const address = mapping.address + offset;
    if (mapping.direction === FROM_DEVICE || this.#isMuddled(address)) return null;
    const expected: Json = mapping.written.get(offset) ?? this.#bytes.get(address)?.value ?? 0;
    if (value === expected) return null;
    const kind = mapping.hasSynced ? "sync-device" : "device-sees";
    return fail(
      kind,
      `the device reads ${show(value)} at byte ${offset} of ${this.#name(mapping.op)}; it is ${expected}`,
    );
  }
}

function isIn(ranges: readonly (readonly [number, number])[], address: number): boolean {
  return ranges.some(([start, end]) => address >= start && address < end);
}
