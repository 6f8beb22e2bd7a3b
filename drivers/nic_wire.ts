/**
 * The wire at the network card: seeded traffic of a made-up world outside.
 *
 *   N packets, a burst at a time: every `burst / rate` seconds, jittered by ± half, `burst` packets back to back
 *
 * Sizes are a mix like the Internet's (IMIX) or fixed. Each packet is a small web request: its sequence number, a flow,
 * and the text of the request as payload. Two runs with one seed bring the same packets at the same times.
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import {
  buildPacket,
  IMIX,
  IMIX_TOTAL,
  PACKET_HEADER_BYTES,
  PACKET_MAX_BYTES,
  PACKET_MIN_BYTES,
} from "../kernel/uapi/packet.ts";
import { encodeUtf8 } from "../kernel/uapi/utf8.ts";
import type { DeviceEnv } from "./hardware.ts";

const NR_FLOWS = 64;
const NR_PAGES = 64;

export interface Wire {
  /** Adds `count` packets to what is to come. */
  start(count: number): void;
  /** Packets still to come. */
  nrToCome(): number;
  setRate(packetsPerSecond: number): void;
  setBurst(packets: number): void;
  reset(): void;
}

/** The text of request `sequence`; short enough for the shortest packet. */
const requestText = (page: number, sequence: number, bytes: number): Uint8Array => {
  const line = `GET /p/${page}?n=${sequence}\nHost: s\n`;
  const padding = bytes - line.length - "X: \n\n".length;
  return encodeUtf8(padding > 0 ? `${line}X: ${"x".repeat(padding)}\n\n` : `${line}\n`.slice(0, bytes));
};

/** `arrive` takes each packet when its time has come; `quiet` is told after the last. */
export function createWire(env: DeviceEnv, arrive: (packet: Uint8Array) => void, quiet: () => void): Wire {
  let left = 0;
  let sequence = 0;
  let rate = env.setting("rate");
  let burst = env.setting("burst");
  let isRunning = false;

  const sizeOf = (): number => {
    const fixed = env.setting("size");
    if (fixed !== 0) return Math.min(Math.max(fixed, PACKET_MIN_BYTES), PACKET_MAX_BYTES);
    let draw = env.random.below(IMIX_TOTAL);
    for (const [bytes, share] of IMIX) {
      if (draw < share) return bytes;
      draw -= share;
    }
    return PACKET_MIN_BYTES;
  };

  const nextPacket = (): Uint8Array => {
    const length = sizeOf();
    const flow = env.random.below(NR_FLOWS);
    const text = requestText(env.random.below(NR_PAGES), sequence, length - PACKET_HEADER_BYTES);
    return buildPacket({ length, flow, sequence: sequence++, sentMicros: Math.floor(env.now() / 1000) }, text);
  };

  const bringBurst = (): void => {
    const nr = Math.min(burst, left);
    left -= nr;
    for (let i = 0; i < nr; i++) arrive(nextPacket());
    if (left > 0) plan();
    else {
      isRunning = false;
      quiet();
    }
  };
  const plan = (): void => {
    isRunning = true;
    const period = (CYCLES_PER_SECOND * burst) / rate;
    env.after(Math.max(1, Math.round(period * (0.5 + env.random.next()))), bringBurst);
  };

  return {
    start(count) {
      left += count;
      if (left > 0 && !isRunning) plan();
    },
    nrToCome: () => left,
    setRate(packets) {
      if (packets > 0) rate = packets;
    },
    setBurst(packets) {
      if (packets > 0) burst = Math.min(packets, 1024);
    },
    reset() {
      left = 0;
      isRunning = false;
    },
  };
}
