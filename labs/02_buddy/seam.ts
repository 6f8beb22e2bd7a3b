/**
 * Lab 2 in the kernel: each zone's frames come from the student's createBuddy.
 *
 * The student's columns lie beside the machine's RAM, one set per zone: struct page keeps its links in rows with other
 * words, so that they are no typed array. Flags and counters of the kernel stay in RAM (mm/simple_frames.ts).
 */

import { createSimpleFrames } from "../../mm/index.ts";
import { exportedFunction, method } from "../kit/driver.ts";
import type { Seam } from "../kit/seam.ts";
import { NO_FRAME } from "./given/api.ts";

const MAX_ORDER = 10;

export const seam: Seam = (student) => ({
  frameAllocator(deps) {
    const { nrFrames } = deps.pages;
    let nrLeaves = 1;
    while (nrLeaves < nrFrames) nrLeaves *= 2;
    const createBuddy = exportedFunction(student.exports, "createBuddy", "buddy.ts");
    const buddy = student.call(() =>
      createBuddy({
        nrFrames,
        maxOrder: MAX_ORDER,
        next: new Uint32Array(nrFrames + MAX_ORDER + 1),
        prev: new Uint32Array(nrFrames + MAX_ORDER + 1),
        firstHead: nrFrames,
        state: new Uint8Array(nrFrames),
        order: new Uint8Array(nrFrames),
        spare: new Uint16Array(2 * nrLeaves),
      }),
    );
    const addFreeRange = method(buddy, "addFreeRange", "createBuddy");
    const allocBlock = method(buddy, "allocBlock", "createBuddy");
    const freeBlock = method(buddy, "freeBlock", "createBuddy");
    return createSimpleFrames(
      deps,
      {
        addFreeRange: (start, end) => student.call(() => addFreeRange(start, end)),
        allocBlock(order) {
          const frame = student.call(() => allocBlock(order));
          if (typeof frame !== "number") return Number.NaN;
          return frame === NO_FRAME ? -1 : frame;
        },
        freeBlock: (pfn, order) => Number(student.call(() => freeBlock(pfn, order))),
      },
      (what, message, pfn, order) => student.wrong(what, `${message} (frame ${pfn}, order ${order})`),
    );
  },
});
