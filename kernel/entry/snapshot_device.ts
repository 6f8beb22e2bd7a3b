/**
 * The snapshot device: a program asks the host to keep this moment, or to go back.
 *
 *   program                    host, between two steps
 *   write "take before\n"
 *   read ──▶ request ────────▶ takes a mark, answers ──▶ the text that read returns
 *
 * The device is there only while a host serves it. A program that reads stays runnable and polls: it sleeps nowhere, so
 * that nothing of it is in the machine but the request. Machine and program see the answer as input from outside, like
 * typed keys; whoever runs the same again gives the same answers (docs/adr/0009-time-travel.md).
 *
 * Where a real kernel differs: Linux's /dev/snapshot (kernel/power/user.c) lets a program store the image itself.
 */

import type { OpenFile } from "../file.ts";
import { PREEMPTED } from "../types.ts";
import { EBUSY, EINVAL } from "../uapi/errno.ts";
import { decodeUtf8, encodeUtf8 } from "../uapi/utf8.ts";

/** Longest request. */
const MAX_REQUEST_BYTES = 8192;

export interface SnapshotDevice {
  open(): OpenFile;
  /** What a program waits for; null when none does. */
  request(): string | null;
  /** Ends the request. */
  answer(text: string): void;
}

export function createSnapshotDevice(): SnapshotDevice {
  let request: string | null = null;
  let answer = "";

  const open = (): OpenFile => {
    let asked = "";
    let reply: Uint8Array | undefined;
    let position = 0;
    return {
      refs: 1,
      isConsole: false,
      *write(_task, bytes) {
        if (reply !== undefined || asked.length + bytes.length > MAX_REQUEST_BYTES) return -EINVAL;
        asked += decodeUtf8(bytes);
        return bytes.length;
      },
      *read(_task, max) {
        if (reply === undefined) {
          if (request !== null) return -EBUSY;
          request = asked;
          while (request !== null) yield PREEMPTED;
          reply = encodeUtf8(answer);
        }
        const part = reply.subarray(position, position + max);
        position += part.length;
        return part;
      },
      seek: () => -EINVAL,
      release() {},
    };
  };
  return {
    open,
    request: () => request,
    answer(text) {
      answer = text;
      request = null;
    },
  };
}
