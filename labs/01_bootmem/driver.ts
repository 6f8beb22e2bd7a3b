/**
 * Lab 1, the student's side: the firmware's tables for one machine, and the allocator's functions as operations.
 *
 * `changedRow` compares the tables with what they were.
 */

import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";
import type { BootConfig } from "./checks/model.ts";

/** Rows of the hand-over list and of the student's own table. */
const OWN_ROWS = 256;

export const create: CreateInstance = (student, { map, reserved }: BootConfig) => {
  const createBootmem = exportedFunction(student, "createBootmem", "bootmem.ts");
  const memory = {
    nrRows: map.length,
    start: new Float64Array(map.length),
    end: new Float64Array(map.length),
    type: new Uint8Array(map.length),
    nrReserved: reserved.length,
    reservedStart: new Float64Array(reserved.length),
    reservedEnd: new Float64Array(reserved.length),
    firstFrame: new Uint32Array(OWN_ROWS),
    endFrame: new Uint32Array(OWN_ROWS),
    spareStart: new Float64Array(OWN_ROWS),
    spareEnd: new Float64Array(OWN_ROWS),
  };
  const { start, end, type, reservedStart, reservedEnd, firstFrame, endFrame } = memory;
  for (let row = 0; row < map.length; row++) {
    const [from, to, kind] = map[row] as BootConfig["map"][number];
    start[row] = from;
    end[row] = to;
    type[row] = kind;
  }
  for (let row = 0; row < reserved.length; row++) {
    const [from, to] = reserved[row] as BootConfig["reserved"][number];
    reservedStart[row] = from;
    reservedEnd[row] = to;
  }

  const boot = createBootmem(memory);
  const alloc = method(boot, "alloc", "createBootmem");
  const handOver = method(boot, "handOver", "createBootmem");
  const reservedBytes = method(boot, "reservedBytes", "createBootmem");
  const usedBytes = method(boot, "usedBytes", "createBootmem");

  return {
    alloc: (size: number, align: number) => alloc(size, align),
    /** The rows of the list; what is no number of rows as it is. */
    handOver() {
      const nr = handOver();
      if (typeof nr !== "number" || !(nr >= 0 && nr <= OWN_ROWS) || nr % 1 !== 0) return nr;
      const rows: number[][] = [];
      for (let row = 0; row < nr; row++) rows[row] = [firstFrame[row] as number, endFrame[row] as number];
      return rows;
    },
    reservedBytes: () => reservedBytes(),
    usedBytes: () => usedBytes(),
    /** First row of the firmware's tables that is not what it was, or −1; rows of reserved ranges follow the map's. */
    changedRow() {
      for (let row = 0; row < map.length; row++) {
        const [from, to, kind] = map[row] as BootConfig["map"][number];
        if (start[row] !== from || end[row] !== to || type[row] !== kind) return row;
      }
      for (let row = 0; row < reserved.length; row++) {
        const [from, to] = reserved[row] as BootConfig["reserved"][number];
        if (reservedStart[row] !== from || reservedEnd[row] !== to) return map.length + row;
      }
      return -1;
    },
  };
};
