/**
 * Lab 3, the checks about mappings.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Check } from "../../kit/lab_code.ts";
import {
  BIDIRECTIONAL,
  FRAME_BYTES,
  FROM_DEVICE,
  MAX_SLOTS,
  SLOT_BYTES,
  TO_DEVICE,
  ZONE_DMA,
  ZONE_NORMAL,
} from "../given/api.ts";
import { Builder, lastByteOf, machineOf } from "./programs.ts";

const MACHINE = machineOf([6, 6, 12], 6);
const LOW = lastByteOf(MACHINE, 0);
const ALL = lastByteOf(MACHINE, 2);
const DIRECTIONS = [TO_DEVICE, FROM_DEVICE, BIDIRECTIONAL];
/** Sizes that end within a slot, at its end, just behind it, and in the third one. */
const SIZES = [100, 2048, 2049, 4096, 5000, 3000, 1];
const sizeOf = (nr: number): number => SIZES[nr % SIZES.length] as number;

/** A builder with a block of two frames that only good devices reach. */
function withBlock(slots = 6): { builder: Builder; block: number } {
  const builder = new Builder(slots === 6 ? MACHINE : machineOf([6, 6, 12], slots));
  return { builder, block: builder.pages(ZONE_NORMAL, 1) };
}

/** First byte, last byte, and the ends of slots. */
function offsetsOf(size: number): number[] {
  const all = [0, size - 1, SLOT_BYTES - 1, SLOT_BYTES, size >>> 1];
  return [...new Set(all)].filter((offset) => offset < size);
}

const anyByte = (random: Prng): number => 1 + random.below(255);

export const MAPPINGS: readonly Check[] = [
  {
    id: "mask",
    rule: "MAP-1",
    title: "a device reaches every byte at the address that map returned",
    cause: "the first byte is compared with the mask and not the last one, or the slots themselves are too high",
    kinds: ["above-mask"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const low = builder.pages(ZONE_DMA, 0);
      const size = sizeOf(nr);
      const slotEnd = FRAME_BYTES + SLOT_BYTES * (1 + (nr % 3));
      // Not even the lowest slots are low enough, by one byte.
      builder.map(block, 200, size, TO_DEVICE, FRAME_BYTES + size - 2);
      if (nr % 2 === 0) builder.map(low, 0, size, DIRECTIONS[nr % 3] as number, LOW);
      // The mask is within the buffer of this one, or within the bounce area.
      const offset = random.below(200);
      const start = (builder.config.zones[2]?.[0] ?? 0) * FRAME_BYTES + offset;
      const mask = [start + size - 2, slotEnd - 1, slotEnd - 2][nr % 3] as number;
      builder.map(block, offset, size, TO_DEVICE, mask);
      builder.map(block, 6000, 100 + random.below(400), FROM_DEVICE, slotEnd);
      return builder.build();
    },
  },
  {
    id: "direct",
    rule: "MAP-2",
    title: "memory that the device reaches is mapped where it is, and nothing is copied",
    cause: "everything is bounced, or the mask itself is taken for out of reach",
    kinds: ["not-direct"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = sizeOf(nr);
      const start = builder.config.zones[2]?.[0] ?? 0;
      const offset = random.below(300);
      // The block lies at the start of its zone, or behind it: exact masks for both.
      const mask = nr % 2 === 0 ? ALL : start * FRAME_BYTES + offset + size - 1;
      const mapping = builder.map(block, offset, size, DIRECTIONS[nr % 3] as number, mask);
      builder.on("syncCpu", mapping);
      builder.on("syncDevice", mapping);
      builder.unmapRef(mapping);
      return builder.build();
    },
  },
  {
    id: "slots",
    rule: "MAP-3",
    title: "a bounce takes free slots side by side for all of its bytes",
    cause: "too few slots are taken, those of another mapping, or more than there are",
    kinds: ["slots"],
    program(random, nr) {
      const { builder, block } = withBlock(nr % 3 === 2 ? 10 : 6);
      if (nr % 4 === 1) {
        // Exactly a slot each, and the one in the middle comes and goes.
        for (let i = 0; i < 3; i++) builder.map(block, i * SLOT_BYTES, SLOT_BYTES, FROM_DEVICE, LOW);
        builder.unmap(1);
        for (let i = 0; i < 2; i++) builder.map(block, 3 * SLOT_BYTES - i * 2 * SLOT_BYTES, 10, TO_DEVICE, LOW);
      }
      const other = builder.pages(ZONE_NORMAL, 1);
      for (let i = 0; i < 5; i++) {
        const size = sizeOf(nr + i) >>> (nr % 2);
        builder.map(i % 2 === 0 ? block : other, (i >>> 1) * 2700, Math.max(1, Math.min(2700, size)), TO_DEVICE, LOW);
      }
      builder.unmap(random.below(3));
      builder.map(block, 0, sizeOf(random.below(4)), FROM_DEVICE, LOW);
      while (builder.mapped.length > 0) builder.unmap(0);
      builder.map(builder.pages(ZONE_NORMAL, 2), 0, MAX_SLOTS * SLOT_BYTES + (nr % 2), TO_DEVICE, LOW);
      return builder.build();
    },
  },
  {
    id: "map-refusal",
    rule: "MAP-8",
    title: "a range that makes no sense, or overlaps one that is mapped, is not mapped",
    cause: "only the start of a range is looked at, or only equal ranges are taken for overlapping",
    kinds: ["map-bad", "direct-refused"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const mask = nr % 2 === 0 ? ALL : LOW;
      builder.map(block, 1000, 500, TO_DEVICE, mask);
      const offset = [1499, 0, 1200, 900, 1000][nr % 5] as number;
      const size = [1, 1001, 10, 2000, 500][nr % 5] as number;
      builder.map(block, offset, size, DIRECTIONS[random.below(3)] as number, mask);
      builder.map(block, 3000, [0, -1, 1.5, 0][nr % 4] as number, TO_DEVICE, mask);
      builder.map(block, 4000, 10, [0, 4, 5, -1][nr % 4] as number, mask);
      builder.map(builder.pages(ZONE_NORMAL, 0), 0, 2 ** 18, TO_DEVICE, 2 ** 32);
      // In front of memory, up to its last byte, and one behind.
      const end = (builder.config.zones[2]?.[1] ?? 0) - 1;
      builder.mapFrame(0, -8, 8 + (nr % 2), ALL);
      builder.mapFrame(end, FRAME_BYTES - 50, 50 + (nr % 2), ALL);
      builder.map(block, 1500, 20, TO_DEVICE, mask);
      builder.map(block, 990, 10, TO_DEVICE, mask);
      return builder.build();
    },
  },
  {
    id: "to-device",
    rule: "MAP-5",
    title: "the device reads what the CPU wrote before map",
    cause: "the bounce is not filled, or not all of it",
    kinds: ["device-sees"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = sizeOf(nr);
      const start = random.below(100);
      const direction = nr % 2 === 0 ? TO_DEVICE : BIDIRECTIONAL;
      const offsets = offsetsOf(size);
      for (const offset of offsets) builder.on("write", block, start + offset, anyByte(random));
      const mapping = builder.map(block, start, size, direction, nr % 4 === 3 ? ALL : LOW);
      for (const offset of offsets) builder.on("deviceReads", mapping, offset);
      return builder.build();
    },
  },
  {
    id: "from-device",
    rule: "MAP-5",
    title: "after unmap the CPU reads what the device wrote",
    cause: "the bounce is not copied back, not all of it, or after its slots were given to somebody else",
    kinds: ["cpu-sees"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = sizeOf(nr);
      const start = random.below(100);
      const direction = nr % 2 === 0 ? FROM_DEVICE : BIDIRECTIONAL;
      const offsets = offsetsOf(size);
      const mapping = builder.map(block, start, size, direction, nr % 4 === 3 ? ALL : LOW);
      for (const offset of offsets) builder.on("deviceWrites", mapping, offset, anyByte(random));
      builder.unmapRef(mapping);
      for (const offset of offsets) builder.on("read", block, start + offset);
      return builder.build();
    },
  },
  {
    id: "unwritten",
    rule: "MAP-7",
    title: "bytes that the device did not write are after unmap as they were before map",
    cause: "for FROM_DEVICE nothing is copied into the bounce, so that what was in its slots before comes back",
    kinds: ["unwritten"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = Math.max(2, sizeOf(nr));
      builder.on("write", block, 0, anyByte(random));
      const first = builder.map(block, 0, size, nr % 2 === 0 ? BIDIRECTIONAL : TO_DEVICE, LOW);
      builder.unmapRef(first);
      const other = builder.pages(ZONE_NORMAL, 1);
      builder.on("write", other, size - 1, anyByte(random));
      const second = builder.map(other, 0, size, nr % 3 === 2 ? BIDIRECTIONAL : FROM_DEVICE, LOW);
      builder.on("deviceWrites", second, size >>> 1, anyByte(random));
      builder.unmapRef(second);
      builder.on("read", other, 0);
      builder.on("read", other, size - 1);
      return builder.build();
    },
  },
  {
    id: "copy-range",
    rule: "MAP-5",
    title: "a copy moves bytes of the mapping, and no others",
    cause: "whole slots are copied instead of the size, over what the CPU keeps beside its buffer",
    kinds: ["copy-range"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = sizeOf(nr % 5) - (nr % 2);
      const direction = DIRECTIONS[(nr + 1) % 3] as number;
      const mapping = builder.map(block, 64, size, direction, LOW);
      builder.on("write", block, 64 + size, anyByte(random));
      if (nr % 3 === 2) builder.on("syncCpu", mapping);
      if (nr % 3 === 2) builder.on("syncDevice", mapping);
      builder.unmapRef(mapping);
      builder.on("read", block, 64 + size);
      return builder.build();
    },
  },
  {
    id: "sync",
    rule: "MAP-6",
    title: "syncForCpu shows the CPU what the device wrote, syncForDevice the device what the CPU wrote",
    cause: "a sync moves bytes in the wrong direction, only once, or only marks the owner",
    kinds: ["sync-cpu", "sync-device", "sync"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = sizeOf(nr);
      const direction = DIRECTIONS[(nr + 2) % 3] as number;
      const mapping = builder.map(block, 10, size, direction, nr % 5 === 4 ? ALL : LOW);
      for (let round = 0; round < 2; round++) {
        const offset = random.below(size);
        if (direction !== TO_DEVICE) builder.on("deviceWrites", mapping, offset, anyByte(random));
        builder.on("syncCpu", mapping);
        builder.on("read", block, 10 + offset);
        if (direction !== FROM_DEVICE) builder.on("write", block, 10 + (size - 1), anyByte(random));
        builder.on("syncDevice", mapping);
        builder.on("deviceReads", mapping, size - 1);
        builder.on("deviceReads", mapping, offset);
      }
      builder.on(nr % 2 === 0 ? "syncCpu" : "syncDevice", mapping, 64);
      builder.unmapRef(mapping);
      builder.on(nr % 2 === 0 ? "syncCpu" : "syncDevice", mapping);
      return builder.build();
    },
  },
  {
    id: "unmap-once",
    rule: "MAP-8",
    title: "each mapping is unmapped once, with its own size and direction; another unmap changes nothing",
    cause: "the arguments are not compared with those of map, or the mapping is not taken off the books",
    kinds: ["unmap", "unmap-refused"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const mask = nr % 2 === 0 ? LOW : ALL;
      const size = sizeOf(nr);
      const direction = DIRECTIONS[nr % 3] as number;
      const mapping = builder.map(block, 100, size, direction, mask);
      const other = builder.map(builder.pages(ZONE_NORMAL, 0), 0, 300, TO_DEVICE, mask);
      builder.on("unmapPart", mapping, size + 1 - 2 * random.below(2), direction);
      builder.on("unmapPart", mapping, size, (direction % 3) + 1);
      builder.on("unmapPart", mapping, size, direction, 8);
      for (let i = 0; i < 2; i++) builder.on("unmapPart", mapping, size, direction);
      builder.unmapRef(other);
      return builder.build();
    },
  },
  {
    id: "owner",
    rule: "MAP-10",
    title: "a byte is the device's from map to unmap, but for the time between syncForCpu and syncForDevice",
    cause: "whole frames are marked, the last byte is not, or the bounce is asked about instead of the buffer",
    kinds: ["owner"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const size = sizeOf(nr);
      const start = 200 + random.below(1000);
      const ask = (): void => {
        for (const offset of [start - 1, start, start + size - 1, start + size]) builder.on("owner", block, offset);
      };
      const mapping = builder.map(block, start, size, DIRECTIONS[nr % 3] as number, nr % 2 === 0 ? ALL : LOW);
      ask();
      builder.on("syncCpu", mapping);
      builder.on("owner", block, start);
      builder.on("syncDevice", mapping);
      builder.on("owner", block, start);
      builder.unmapRef(mapping);
      ask();
      return builder.build();
    },
  },
  {
    id: "busy-free",
    rule: "MAP-9",
    title: "a block is not freed while a part of it is mapped, whoever owns that part now",
    cause: "freePages does not look at mappings, or only at the first frame, or only at what the device owns",
    kinds: ["busy"],
    program(random, nr) {
      const { builder, block } = withBlock();
      const offset = [0, FRAME_BYTES, 2 * FRAME_BYTES - 1, FRAME_BYTES - 2][nr % 4] as number;
      const size = [100, 50, 1, 4][nr % 4] as number;
      const mapping = builder.map(block, offset, size, DIRECTIONS[random.below(3)] as number, nr % 2 === 0 ? LOW : ALL);
      if (nr % 3 === 2) builder.on("syncCpu", mapping);
      builder.on("back", block, 1);
      builder.unmapRef(mapping);
      builder.back(0);
      return builder.build();
    },
  },
];

export const SLOT_BOOKS: readonly Check[] = [
  {
    id: "slots-back",
    rule: "MAP-4",
    title: "a bounce is refused only if there are not enough free slots side by side; unmap frees the slots",
    cause: "slots are not given back, or not all of them; a refused map keeps some",
    kinds: ["map-refused"],
    program(random, nr) {
      const { builder, block } = withBlock(nr % 2 === 0 ? 6 : 4);
      const other = builder.pages(ZONE_NORMAL, 2);
      for (let round = 0; round < 4; round++) {
        builder.map(block, 0, sizeOf(nr + round), DIRECTIONS[round % 3] as number, LOW);
        builder.map(other, 0, 2048 * (1 + random.below(3)), FROM_DEVICE, LOW);
        builder.map(other, 2048 * 3, 2048 * (2 + random.below(2)), TO_DEVICE, LOW);
        while (builder.mapped.length > round % 2) builder.unmap(0);
      }
      while (builder.mapped.length > 0) builder.unmap(0);
      // The lowest slots, and no byte of them too many.
      builder.map(block, 0, sizeOf(nr), FROM_DEVICE, FRAME_BYTES + sizeOf(nr) - 1);
      return builder.build();
    },
  },
];
