/**
 * Lab 3, the student's side: a machine with zones and memory, the student's code on it, and what it asked for.
 *
 * Operations return `[value, events]`: `["take", zone, order, frame]`, `["return", zone, frame, order]`, `["wake"]`,
 * `["copy", to, from, bytes]` in their order. An operation on what was refused does nothing and returns `[null, []]`.
 */

import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";
import { BOUNCE_START, type DmaConfig, Frames, zonesOf } from "./checks/model.ts";
import { FRAME_BYTES, MIN_BLOCK, NO_ADDRESS } from "./given/api.ts";

/** More is code out of its mind, and a long message. */
const MAX_EVENTS = 200;

function createMachine(config: DmaConfig, note: (...event: unknown[]) => void) {
  const frames = new Frames(zonesOf(config));
  const bytes = new Uint8Array(frames.nrFrames * FRAME_BYTES);
  const counts = { wakes: 0 };
  return {
    frames,
    bytes,
    counts,
    memory: {
      zones: frames.zones,
      nrFrames: frames.nrFrames,
      freeFrames: (zone: number) => frames.nrFree(zone),
      takeBlock(zone: number, order: number): number {
        const frame = frames.take(zone, order);
        note("take", zone, order, frame);
        return frame;
      },
      returnBlock(zone: number, frame: number, order: number): void {
        note("return", zone, frame, order);
        frames.giveBack(zone, frame, order);
      },
      wakeReclaim(): void {
        counts.wakes++;
        note("wake");
      },
      /** What is outside of memory is left out: the judge sees the arguments. */
      copy(to: number, from: number, nr: number): void {
        note("copy", to, from, nr);
        for (let i = 0; i < nr && i < bytes.length; i++) {
          const value = bytes[from + i];
          if (value !== undefined) bytes[to + i] = value;
        }
      },
      bounceStart: BOUNCE_START,
      nrSlots: config.slots,
      orderOf: new Uint8Array(frames.nrFrames),
      poolOf: new Uint8Array(frames.nrFrames),
      state: new Uint8Array(bytes.length / MIN_BLOCK),
      slotUsed: new Uint8Array(config.slots),
    },
  };
}

/** A number that means something: what was refused is none. */
function usable(given: unknown): number | null {
  const value = Array.isArray(given) ? given[0] : given;
  return typeof value === "number" && value !== NO_ADDRESS && value >= 0 ? value : null;
}

export const create: CreateInstance = (student, config: DmaConfig) => {
  const createDma = exportedFunction(student, "createDma", "dma.ts");
  let events: unknown[] = [];
  const machine = createMachine(config, (...event) => {
    if (events.length < MAX_EVENTS) events[events.length] = event;
  });
  const { frames, bytes, counts } = machine;
  const dma = createDma(machine.memory);
  const of = (name: string) => method(dma, name, "createDma");
  const own = {
    reserveOf: of("reserveOf"),
    allocPages: of("allocPages"),
    freePages: of("freePages"),
    createPool: of("createPool"),
    poolAlloc: of("poolAlloc"),
    poolFree: of("poolFree"),
    destroyPool: of("destroyPool"),
    map: of("map"),
    unmap: of("unmap"),
    syncForCpu: of("syncForCpu"),
    syncForDevice: of("syncForDevice"),
    isDevices: of("isDevices"),
  };

  const seen = (call: (...args: unknown[]) => unknown, ...args: unknown[]): readonly [unknown, unknown] => {
    events = [];
    const value = call(...args);
    return [value, events];
  };
  const on = (given: unknown, run: (value: number) => readonly [unknown, unknown]): readonly [unknown, unknown] => {
    const value = usable(given);
    return value === null ? [null, []] : run(value);
  };
  /** The address at `offset` of a block of frames. */
  const at = (frame: number, offset: number): number => frame * FRAME_BYTES + offset;

  return {
    reserve: (zone: number, highest: number) => seen(own.reserveOf, zone, highest),
    pages: (highest: number, order: number, isUrgent: boolean) => seen(own.allocPages, highest, order, isUrgent),
    back: (given: unknown, order: number, delta = 0) => on(given, (frame) => seen(own.freePages, frame + delta, order)),
    pool: (size: number, align: number, boundary: number, mask: number) =>
      seen(own.createPool, size, align, boundary, mask),
    take: (given: unknown) => on(given, (pool) => seen(own.poolAlloc, pool)),
    put: (given: unknown, block: unknown, delta = 0) =>
      on(given, (pool) => on(block, (address) => seen(own.poolFree, pool, address + delta))),
    end: (given: unknown) => on(given, (pool) => seen(own.destroyPool, pool)),
    mapPart: (given: unknown, offset: number, size: number, direction: number, mask: number) =>
      on(given, (frame) => seen(own.map, at(frame, offset), size, direction, mask)),
    unmapPart: (given: unknown, size: number, direction: number, delta = 0) =>
      on(given, (bus) => seen(own.unmap, bus + delta, size, direction)),
    syncCpu: (given: unknown, delta = 0) => on(given, (bus) => seen(own.syncForCpu, bus + delta)),
    syncDevice: (given: unknown, delta = 0) => on(given, (bus) => seen(own.syncForDevice, bus + delta)),
    owner: (given: unknown, offset: number) => on(given, (frame) => seen(own.isDevices, at(frame, offset))),
    write: (given: unknown, offset: number, value: number) =>
      on(given, (frame) => {
        bytes[at(frame, offset)] = value;
        return [null, []];
      }),
    read: (given: unknown, offset: number) => on(given, (frame) => [bytes[at(frame, offset)] ?? null, []]),
    deviceWrites: (given: unknown, offset: number, value: number) =>
      on(given, (bus) => {
        bytes[bus + offset] = value;
        return [null, []];
      }),
    deviceReads: (given: unknown, offset: number) => on(given, (bus) => [bytes[bus + offset] ?? null, []]),

    // For own tests.
    ...own,
    cpuWrite(address: number, value: number) {
      bytes[address] = value;
    },
    cpuRead: (address: number) => bytes[address] ?? 0,
    deviceWrite(bus: number, value: number) {
      bytes[bus] = value;
    },
    deviceRead: (bus: number) => bytes[bus] ?? 0,
    freeFrames: (zone: number) => frames.nrFree(zone),
    wakes: () => counts.wakes,
  };
};
