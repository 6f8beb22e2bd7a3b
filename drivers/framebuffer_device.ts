/**
 * The display controller, as hardware: it reads a frame from RAM, again and again, and shows it.
 *
 * | register | name         | meaning                                                                        |
 * |----------|--------------|--------------------------------------------------------------------------------|
 * | 0x00     | FB_CTRL      | bit 0: scan-out runs; storing 1 begins a frame now                             |
 * | 0x04     | FB_BASE      | bus address of the picture; taken over when the next frame begins              |
 * | 0x08     | FB_WIDTH     | pixels of 32 bits in a line, 1-4096                                            |
 * | 0x0c     | FB_HEIGHT    | lines, 1-4096                                                                  |
 * | 0x10     | FB_RATE      | frames per second, 1-240                                                       |
 * | 0x14     | FB_STATUS    | bit 0: a frame has ended, bit 1: the bus refused one; reading clears, releases the line |
 * | 0x18     | FB_FRAMES    | frames shown since scan-out was switched on, modulo 2^24                       |
 * | 0x1c     | FB_SHOWN     | base of the frame shown last                                                   |
 * | 0x20     | FB_CHECKSUM  | checksum of the frame shown last (uapi/framebuffer.ts)                         |
 *
 * A frame is one run of neighbouring bus addresses: no scatter list, no second chance. All of it is read at the end of
 * its period, line by line, by one transfer each. A screen tears when its picture is changed meanwhile; this one shows
 * what is there at the end.
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { FB_BYTES_PER_PIXEL, fbChecksumOf, fbChecksumStart } from "../kernel/uapi/framebuffer.ts";
import type { DeviceEnv, DeviceKind, DeviceModel } from "./hardware.ts";

export const FB_CTRL = 0x00;
export const FB_BASE = 0x04;
export const FB_WIDTH = 0x08;
export const FB_HEIGHT = 0x0c;
export const FB_RATE = 0x10;
export const FB_STATUS = 0x14;
export const FB_FRAMES = 0x18;
export const FB_SHOWN = 0x1c;
export const FB_CHECKSUM = 0x20;

export const FB_ENABLE = 1;
export const FB_VSYNC = 1;
export const FB_BUS_ERROR = 2;
export const FB_MAX_SIDE = 4096;
export const FB_MAX_RATE = 240;
export const FB_FRAMES_MASK = 0xff_ffff;

const FLIPPED_BIT = 1 << 9;

interface FbState {
  isOn: boolean;
  base: number;
  width: number;
  height: number;
  rate: number;
  status: number;
  frames: number;
  shown: number;
  checksum: number;
}

const powerOn = (): FbState => ({
  isOn: false,
  base: 0,
  width: 1,
  height: 1,
  rate: 1,
  status: 0,
  frames: 0,
  shown: 0,
  checksum: 0,
});

const clampSide = (value: number, max: number): number => Math.min(Math.max(value, 1), max);

function createFbModel(env: DeviceEnv): DeviceModel {
  let fb = powerOn();
  /** Which switching-on a planned frame belongs to. */
  let run = 0;

  /** Checksum of the picture at `base`, or null if the bus refuses a line of it. */
  const scan = (base: number): number | null => {
    const lineBytes = fb.width * FB_BYTES_PER_PIXEL;
    let sum = fbChecksumStart;
    for (let line = 0; line < fb.height; line++) {
      const bytes = env.master.read(base + line * lineBytes, lineBytes);
      if (bytes === null) return null;
      sum = fbChecksumOf(sum, new Int32Array(bytes.buffer, bytes.byteOffset, fb.width));
    }
    return env.faults.strikes("corrupt") ? sum ^ FLIPPED_BIT : sum;
  };

  const endFrame = (base: number): void => {
    if (env.faults.strikes("vanish")) {
      env.vanish();
      return;
    }
    if (env.faults.strikes("never")) return;
    const sum = scan(base);
    fb.status |= sum === null ? FB_BUS_ERROR | FB_VSYNC : FB_VSYNC;
    fb.frames = (fb.frames + 1) & FB_FRAMES_MASK;
    fb.shown = base;
    fb.checksum = sum ?? 0;
    if (!env.faults.strikes("lost_irq")) env.setIrq(true);
    beginFrame();
  };

  const beginFrame = (): void => {
    const planned = run;
    const base = fb.base;
    const late = env.faults.strikes("late") ? env.setting("late_cycles") : 0;
    env.after(Math.floor(CYCLES_PER_SECOND / fb.rate) + late, () => {
      if (planned === run) endFrame(base);
    });
  };

  const setControl = (value: number): void => {
    const wasOn = fb.isOn;
    fb.isOn = (value & FB_ENABLE) !== 0;
    if (fb.isOn === wasOn) return;
    run++;
    fb.status = 0;
    env.setIrq(false);
    if (!fb.isOn) return;
    fb.frames = 0;
    beginFrame();
  };

  const takeStatus = (): number => {
    const value = fb.status;
    fb.status = 0;
    env.setIrq(false);
    return value;
  };

  return {
    ld32(register) {
      switch (register) {
        case FB_CTRL:
          return fb.isOn ? FB_ENABLE : 0;
        case FB_BASE:
          return fb.base;
        case FB_WIDTH:
          return fb.width;
        case FB_HEIGHT:
          return fb.height;
        case FB_RATE:
          return fb.rate;
        case FB_STATUS:
          return takeStatus();
        case FB_FRAMES:
          return fb.frames;
        case FB_SHOWN:
          return fb.shown;
        case FB_CHECKSUM:
          return fb.checksum;
        default:
          return 0;
      }
    },
    st32(register, value) {
      if (register === FB_CTRL) setControl(value);
      if (register === FB_BASE) fb.base = value;
      if (register === FB_WIDTH) fb.width = clampSide(value, FB_MAX_SIDE);
      if (register === FB_HEIGHT) fb.height = clampSide(value, FB_MAX_SIDE);
      if (register === FB_RATE) fb.rate = clampSide(value, FB_MAX_RATE);
    },
    reset() {
      fb = powerOn();
      run++;
    },
  };
}

export const FRAMEBUFFER_KIND: DeviceKind = {
  compatible: "framebuffer",
  settings: {},
  faults: ["lost_irq", "late", "corrupt", "never", "vanish"],
  create: createFbModel,
};
