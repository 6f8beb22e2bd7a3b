/**
 * The disk, as hardware: a command table in memory, 32 tags, scatter-gather, 24 address lines.
 *
 *   driver                         RAM                                        disk
 *   writes slot t, doorbell t ───▶ command table, slot t: opcode, lba, … ───▶ fetched when the arm is free
 *                                  segment table: address, length, …    ───▶ one transfer after the other, each at its
 *                                  buffers                              ◀──▶ own time
 *   reads DONE, clears it    ◀──── slot t: status                       ◀─── then bit t of DONE, and the interrupt line
 *
 * Registers, at byte offsets:
 *
 *   | 0x00 | ID       | DISK_ID                                                                             |
 *   | 0x04 | CAPACITY | sectors of 512 bytes                                                                |
 *   | 0x08 | CONTROL  | bit 0 on, bit 1 reset (forgets all commands), bit 2 interrupts on                   |
 *   | 0x0c | TABLE    | bus address of the command table, 32 slots of 64 bytes                              |
 *   | 0x10 | DOORBELL | writing t starts the command in slot t                                              |
 *   | 0x14 | DONE     | a bit for each finished tag; writing ones clears them. The line is up while any is set |
 *   | 0x18 | ACTIVE   | a bit for each tag that was started and has not finished                            |
 *
 *   slot:     | 0 opcode | 4 lba | 8 number of segments | 12 address of the segment table | 16 status | 20 moved |
 *   segment:  | 0 bus address | 4 bytes |
 *
 * Time: an arm moves for `seek_cycles` unless the command goes on where the last one ended; then every KiB takes
 * `kib_cycles`. Commands are done in the order of their doorbells. The content of the disk is the device's, not RAM.
 *
 *   DSK-1  a command moves bytes between its segments and its sectors, in order, and sets one status
 *   DSK-2  an access that the bus refuses ends the command with DISK_STATUS_BUS_ERROR
 */

import { type DeviceEnv, type DeviceKind, type DeviceModel, numberSetting } from "./hardware.ts";

export const DISK_ID = 0x5ab0_d15c;
export const DISK_REG_ID = 0x00;
export const DISK_REG_CAPACITY = 0x04;
export const DISK_REG_CONTROL = 0x08;
export const DISK_REG_TABLE = 0x0c;
export const DISK_REG_DOORBELL = 0x10;
export const DISK_REG_DONE = 0x14;
export const DISK_REG_ACTIVE = 0x18;

export const DISK_CONTROL_ON = 1 << 0;
export const DISK_CONTROL_RESET = 1 << 1;
export const DISK_CONTROL_IRQ = 1 << 2;

export const NR_DISK_TAGS = 32;
export const DISK_SLOT_BYTES = 64;
export const SLOT_OPCODE = 0;
export const SLOT_LBA = 4;
export const SLOT_NR_SEGMENTS = 8;
export const SLOT_SEGMENTS = 12;
export const SLOT_STATUS = 16;
export const SLOT_BYTES_MOVED = 20;

export const DISK_OP_READ = 1;
export const DISK_OP_WRITE = 2;

export const DISK_STATUS_NONE = 0;
export const DISK_STATUS_OK = 1;
export const DISK_STATUS_MEDIA_ERROR = 2;
export const DISK_STATUS_BAD_COMMAND = 3;
export const DISK_STATUS_BUS_ERROR = 4;

export const SECTOR_BYTES = 512;
export const SEGMENT_BYTES = 8;
export const MAX_DISK_SEGMENTS = 32;
/** Bits of an address that the disk can put on the bus, and what one segment may span: an ISA board's limits. */
export const DISK_MASK_BITS = 24;
export const DISK_MAX_SEGMENT_BYTES = 64 * 1024;
export const DISK_BOUNDARY_BYTES = 64 * 1024;

const SECTORS_PER_MIB = 2048;
/** The medium is kept in pieces of this size, made when they are first written. */
const MEDIA_PIECE = 64 * 1024;

interface Command {
  readonly tag: number;
  opcode: number;
  /** Position on the disk, bytes. */
  position: number;
  nrSegments: number;
  segments: number;
  next: number;
  moved: number;
}

function createDisk(env: DeviceEnv): DeviceModel {
  const { master, faults } = env;
  const nrSectors = env.setting("capacity_mib") * SECTORS_PER_MIB;
  /** Pieces of MEDIA_PIECE bytes in which something was written; all other bytes are zero. */
  const media = new Map<number, Uint8Array>();
  let control = 0;
  let table = 0;
  let done = 0;
  let active = 0;
  let queue: number[] = [];
  let isBusy = false;
  let armPosition = 0;

  /** Counts resets: what was planned before the last one does not happen. */
  let generation = 0;
  const after = (delay: number, act: () => void): void => {
    const planned = generation;
    env.after(delay, () => {
      if (planned === generation) act();
    });
  };

  const updateLine = (): void => env.setIrq((control & DISK_CONTROL_IRQ) !== 0 && done !== 0);

  const slotOf = (tag: number): number => table + tag * DISK_SLOT_BYTES;

  /** Calls `part` for each stretch of `[position, position + bytes)` that lies in one piece. */
  const eachPart = (
    position: number,
    bytes: number,
    part: (piece: number, offset: number, at: number, n: number) => void,
  ): void => {
    for (let at = 0; at < bytes; ) {
      const offset = (position + at) % MEDIA_PIECE;
      const n = Math.min(bytes - at, MEDIA_PIECE - offset);
      part((position + at - offset) / MEDIA_PIECE, offset, at, n);
      at += n;
    }
  };
  /** What is there now: to be used at once, it may be the medium itself. */
  const readMedia = (position: number, bytes: number): Uint8Array => {
    const inPiece = position % MEDIA_PIECE;
    const piece = inPiece + bytes <= MEDIA_PIECE ? media.get((position - inPiece) / MEDIA_PIECE) : undefined;
    if (piece !== undefined) return piece.subarray(inPiece, inPiece + bytes);
    const out = new Uint8Array(bytes);
    eachPart(position, bytes, (piece, offset, at, n) => {
      const content = media.get(piece);
      if (content !== undefined) out.set(content.subarray(offset, offset + n), at);
    });
    return out;
  };
  const writeMedia = (position: number, source: Uint8Array): void => {
    eachPart(position, source.length, (piece, offset, at, n) => {
      let content = media.get(piece);
      if (content === undefined) {
        content = new Uint8Array(MEDIA_PIECE);
        media.set(piece, content);
      }
      content.set(source.subarray(at, at + n), offset);
    });
  };

  // ── One command ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** The command in slot `tag`, or the status that says what is wrong with it. */
  const fetch = (tag: number): Command | number => {
    const [opcode, lba, nrSegments, segments] = [SLOT_OPCODE, SLOT_LBA, SLOT_NR_SEGMENTS, SLOT_SEGMENTS].map((field) =>
      master.ld32(slotOf(tag) + field),
    );
    if (opcode == null || lba == null || nrSegments == null || segments == null) return DISK_STATUS_BUS_ERROR;
    const isKnown = opcode === DISK_OP_READ || opcode === DISK_OP_WRITE;
    if (!isKnown || nrSegments < 1 || nrSegments > MAX_DISK_SEGMENTS || lba >= nrSectors)
      return DISK_STATUS_BAD_COMMAND;
    return { tag, opcode, position: lba * SECTOR_BYTES, nrSegments, segments, next: 0, moved: 0 };
  };

  /** Moves one segment; DISK_STATUS_NONE, or the status that ends the command. */
  const moveSegment = (command: Command): number => {
    const entry = command.segments + command.next * SEGMENT_BYTES;
    const [address, bytes] = [master.ld32(entry), master.ld32(entry + 4)];
    if (address === null || bytes === null) return DISK_STATUS_BUS_ERROR;
    const end = command.position + bytes;
    if (bytes === 0 || bytes % SECTOR_BYTES !== 0 || end > nrSectors * SECTOR_BYTES) return DISK_STATUS_BAD_COMMAND;
    if (command.opcode === DISK_OP_READ) {
      if (!master.write(address, readMedia(command.position, bytes))) return DISK_STATUS_BUS_ERROR;
      if (faults.strikes("stray_write")) master.write(address + bytes, new Uint8Array(SECTOR_BYTES).fill(0xee));
    } else {
      const source = master.view(address, bytes);
      if (source === null) return DISK_STATUS_BUS_ERROR;
      writeMedia(command.position, source);
    }
    command.position = end;
    command.moved += bytes;
    command.next++;
    return DISK_STATUS_NONE;
  };

  const step = (command: Command): void => {
    const status = moveSegment(command);
    if (status !== DISK_STATUS_NONE) finish(command.tag, status, command.moved);
    else if (command.next < command.nrSegments) transferNext(command);
    else {
      armPosition = command.position;
      finish(command.tag, DISK_STATUS_OK, command.moved);
    }
  };

  /** Plans the end of the next segment's transfer. */
  const transferNext = (command: Command): void => {
    const bytes = master.ld32(command.segments + command.next * SEGMENT_BYTES + 4) ?? SECTOR_BYTES;
    after(Math.max(1, Math.ceil((bytes / 1024) * env.setting("kib_cycles"))), () => step(command));
  };

  const finish = (tag: number, status: number, moved: number): void => {
    const isBad = faults.strikes("corrupt");
    master.st32(slotOf(tag) + SLOT_BYTES_MOVED, moved);
    master.st32(slotOf(tag) + SLOT_STATUS, isBad ? DISK_STATUS_MEDIA_ERROR : status);
    isBusy = false;
    if (!faults.strikes("never")) reportInTime(tag);
    startNext();
  };

  const reportInTime = (tag: number): void => {
    if (faults.strikes("late")) after(env.setting("late_cycles"), () => report(tag));
    else report(tag);
    if (faults.strikes("twice")) after(env.setting("seek_cycles") + 1, () => report(tag));
  };

  const report = (tag: number): void => {
    active &= ~(1 << tag);
    done |= 1 << tag;
    if (!faults.strikes("lost_irq")) updateLine();
  };

  const startNext = (): void => {
    const tag = queue[0];
    if (isBusy || tag === undefined) return;
    queue = queue.slice(1);
    if (faults.strikes("vanish")) {
      env.vanish();
      return;
    }
    isBusy = true;
    const command = fetch(tag);
    if (typeof command === "number") after(1, () => finish(tag, command, 0));
    else after(command.position === armPosition ? 1 : env.setting("seek_cycles"), () => transferNext(command));
  };

  // ── Registers ────────────────────────────────────────────────────────────────────────────────────────────────────

  const forgetCommands = (): void => {
    queue = [];
    isBusy = false;
    [active, done] = [0, 0];
    generation++;
    updateLine();
  };

  const ring = (tag: number): void => {
    if ((control & DISK_CONTROL_ON) === 0 || tag >= NR_DISK_TAGS || (active & (1 << tag)) !== 0) return;
    active |= 1 << tag;
    queue = [...queue, tag];
    startNext();
  };

  return {
    ld32(register) {
      switch (register) {
        case DISK_REG_ID:
          return DISK_ID;
        case DISK_REG_CAPACITY:
          return nrSectors;
        case DISK_REG_CONTROL:
          return control;
        case DISK_REG_TABLE:
          return table;
        case DISK_REG_DONE:
          return done;
        case DISK_REG_ACTIVE:
          return active;
        default:
          return 0;
      }
    },
    st32(register, value) {
      if (register === DISK_REG_CONTROL) {
        if ((value & DISK_CONTROL_RESET) !== 0) forgetCommands();
        control = value & (DISK_CONTROL_ON | DISK_CONTROL_IRQ);
        updateLine();
      } else if (register === DISK_REG_TABLE) table = value;
      else if (register === DISK_REG_DOORBELL) ring(value);
      else if (register === DISK_REG_DONE) {
        done &= ~value;
        updateLine();
      }
    },
    reset() {
      [control, table, armPosition] = [0, 0, 0];
      forgetCommands();
    },
  };
}

/** A disk that reaches the first 16 MiB of memory only, as a board on the ISA bus does. */
export const DISK_KIND: DeviceKind = {
  compatible: "disk",
  settings: {
    capacity_mib: numberSetting(1, 1024, 64, "size of the disk, MiB"),
    seek_cycles: numberSetting(1, 100_000_000, 100_000, "moving the arm, cycles"),
    kib_cycles: numberSetting(1, 10_000_000, 10_000, "transfer of 1 KiB, cycles"),
  },
  faults: ["lost_irq", "late", "corrupt", "twice", "never", "vanish", "stray_write"],
  create: createDisk,
};
