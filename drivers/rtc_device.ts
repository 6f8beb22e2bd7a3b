/**
 * The clock, as hardware: a periodic interrupt at a rate that the driver sets, and the time.
 *
 * | register | name       | meaning                                                                     |
 * |----------|------------|-----------------------------------------------------------------------------|
 * | 0x00     | RTC_CTRL   | bit 0: periods run; storing 1 begins a period now                           |
 * | 0x04     | RTC_RATE   | periods per second, 1-8192                                                  |
 * | 0x08     | RTC_STATUS | bit 0: a period has ended; reading clears it and releases the line          |
 * | 0x0c     | RTC_COUNT  | periods since they were switched on, modulo 2^24: shows what a lost interrupt hid |
 * | 0x10     | RTC_TIME   | seconds since power-on                                                      |
 *
 * The line is level: it stays asserted until RTC_STATUS is read. Like the MC146818's register C.
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import type { DeviceEnv, DeviceKind, DeviceModel } from "./hardware.ts";

export const RTC_CTRL = 0x00;
export const RTC_RATE = 0x04;
export const RTC_STATUS = 0x08;
export const RTC_COUNT = 0x0c;
export const RTC_TIME = 0x10;
export const RTC_ENABLE = 1;
export const RTC_PERIODIC = 1;
export const RTC_MAX_RATE = 8192;
export const RTC_COUNT_MASK = 0xff_ffff;

function createRtcModel(env: DeviceEnv): DeviceModel {
  let isOn = false;
  let rate = 1;
  let status = 0;
  let count = 0;
  /** Which switching-on a planned period belongs to. */
  let run = 0;

  const period = (): number => CYCLES_PER_SECOND / rate;

  const endPeriod = (): void => {
    if (env.faults.strikes("vanish")) {
      env.vanish();
      return;
    }
    if (env.faults.strikes("never")) return;
    count = (count + 1) & RTC_COUNT_MASK;
    status |= RTC_PERIODIC;
    if (!env.faults.strikes("lost_irq")) env.setIrq(true);
    plan();
  };

  const plan = (): void => {
    const planned = run;
    const late = env.faults.strikes("late") ? env.setting("late_cycles") : 0;
    env.after(period() + late, () => {
      if (planned === run) endPeriod();
    });
  };

  const setControl = (value: number): void => {
    const wasOn = isOn;
    isOn = (value & RTC_ENABLE) !== 0;
    if (isOn === wasOn) return;
    run++;
    if (!isOn) return;
    count = 0;
    plan();
  };

  return {
    ld32(register) {
      switch (register) {
        case RTC_CTRL:
          return isOn ? RTC_ENABLE : 0;
        case RTC_RATE:
          return rate;
        case RTC_STATUS: {
          const value = status;
          status = 0;
          env.setIrq(false);
          return value;
        }
        case RTC_COUNT:
          return count;
        case RTC_TIME:
          return Math.floor(env.now() / CYCLES_PER_SECOND);
        default:
          return 0;
      }
    },
    st32(register, value) {
      if (register === RTC_CTRL) setControl(value);
      if (register === RTC_RATE) rate = Math.min(Math.max(value, 1), RTC_MAX_RATE);
    },
    reset() {
      isOn = false;
      rate = 1;
      status = 0;
      count = 0;
      run++;
    },
  };
}

export const RTC_KIND: DeviceKind = {
  compatible: "rtc",
  settings: {},
  faults: ["lost_irq", "late", "never", "vanish"],
  create: createRtcModel,
};
