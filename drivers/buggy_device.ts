/**
 * A device to make mistakes with: it raises its line so many cycles after a store to GO, and that is all it does.
 *
 *   | 0x00 | GO     | writing n: the line goes up in n cycles                          |
 *   | 0x04 | STATUS | 1 while the line is up; reading it lets the line fall            |
 */

import type { DeviceKind } from "./hardware.ts";

export const BUGGY_GO = 0x00;
export const BUGGY_STATUS = 0x04;

export const BUGGY_KIND: DeviceKind = {
  compatible: "buggy",
  settings: {},
  faults: [],
  create(env) {
    let status = 0;
    return {
      ld32(register) {
        if (register !== BUGGY_STATUS) return 0;
        const value = status;
        status = 0;
        env.setIrq(false);
        return value;
      },
      st32(register, value) {
        if (register !== BUGGY_GO) return;
        env.after(value, () => {
          status = 1;
          env.setIrq(true);
        });
      },
      reset() {
        status = 0;
      },
    };
  },
};
