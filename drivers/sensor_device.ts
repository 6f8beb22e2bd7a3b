/**
 * The sensor, as hardware: a sample every period, written into a ring in memory, and a deadline for each.
 *
 *   every `period` cycles:   sample n ──DMA──▶ ring slot n % slots        HEAD = n + 1, interrupt line up
 *   driver:                  takes it, writes ACK = n + 1                 line down when ACK = HEAD
 *   at the ACK:              later than its deadline?  →  MISSED is one more
 *
 * The deadline is judged by the device, from the moment of the sample to the moment of the ACK: a driver cannot talk
 * itself out of a late answer. Samples that nobody has taken yet count as missed once their deadline is past.
 *
 * Registers, at byte offsets:
 *
 *   | 0x00 | ID       | SENSOR_ID                                                    |
 *   | 0x04 | CONTROL  | bit 0 on, bit 1 interrupts on                                |
 *   | 0x08 | PERIOD   | cycles from one sample to the next, as set                   |
 *   | 0x0c | RING     | bus address of the ring                                      |
 *   | 0x10 | SLOTS    | samples in the ring, a power of two                          |
 *   | 0x14 | HEAD     | samples written so far                                       |
 *   | 0x18 | ACK      | samples that the driver has taken                            |
 *   | 0x1c | MISSED   | samples that were not taken before their deadline            |
 *   | 0x20 | OVERRUN  | samples not written because the ring was full                |
 *   | 0x24 | WORST    | longest time from a sample to its ACK, cycles                |
 *
 *   SNS-1  sample n is written once, at its moment, unless the ring is full; then it is counted as an overrun
 *   SNS-2  MISSED counts each sample once: acknowledged late, not acknowledged and late, or not written (overrun)
 */

import {
  SENSOR_CHECKSUM,
  SENSOR_SAMPLE_BYTES,
  SENSOR_SAMPLE_WORDS,
  SENSOR_SEQUENCE,
  SENSOR_TIME_HIGH,
  SENSOR_TIME_LOW,
  SENSOR_VALUES,
  sensorChecksum,
} from "../kernel/uapi/sensor.ts";
import { type DeviceEnv, type DeviceKind, type DeviceModel, numberSetting } from "./hardware.ts";

export const SENSOR_ID = 0x5ab5_e501;
export const SENSOR_REG_ID = 0x00;
export const SENSOR_REG_CONTROL = 0x04;
export const SENSOR_REG_PERIOD = 0x08;
export const SENSOR_REG_RING = 0x0c;
export const SENSOR_REG_SLOTS = 0x10;
export const SENSOR_REG_HEAD = 0x14;
export const SENSOR_REG_ACK = 0x18;
export const SENSOR_REG_MISSED = 0x1c;
export const SENSOR_REG_OVERRUN = 0x20;
export const SENSOR_REG_WORST = 0x24;

export const SENSOR_CONTROL_ON = 1 << 0;
export const SENSOR_CONTROL_IRQ = 1 << 1;

function createSensor(env: DeviceEnv): DeviceModel {
  const { master, faults } = env;
  const period = env.setting("period");
  const deadline = env.setting("deadline");
  let control = 0;
  let ring = 0;
  let nrSlots = 0;
  let sequence = 0;
  let [head, ack, missed, overrun, worst] = [0, 0, 0, 0, 0];
  /** Moments of the samples that wait for their ACK, oldest first. */
  let unacknowledged: number[] = [];

  /** Counts the times that the sensor was switched off: what was planned before does not happen. */
  let generation = 0;
  const after = (delay: number, act: () => void): void => {
    const planned = generation;
    env.after(delay, () => {
      if (planned === generation) act();
    });
  };

  const updateLine = (): void => env.setIrq((control & SENSOR_CONTROL_IRQ) !== 0 && head !== ack);

  const sampleBytes = (number: number): Uint8Array => {
    const words = new Uint32Array(SENSOR_SAMPLE_WORDS);
    const now = env.now();
    words[SENSOR_SEQUENCE] = number;
    words[SENSOR_TIME_LOW] = now % 2 ** 32;
    words[SENSOR_TIME_HIGH] = Math.floor(now / 2 ** 32);
    for (let i = SENSOR_VALUES; i < SENSOR_CHECKSUM; i++) words[i] = env.random.below(2 ** 16);
    words[SENSOR_CHECKSUM] = sensorChecksum((i) => words[i] as number);
    const isDamaged = faults.strikes("corrupt");
    if (isDamaged) words[SENSOR_VALUES] = (words[SENSOR_VALUES] as number) ^ 1;
    return new Uint8Array(words.buffer);
  };

  /** Writes the sample of period `periodNumber` into the next slot. */
  const writeSample = (periodNumber: number): void => {
    const number = head;
    const at = ring + (number % nrSlots) * SENSOR_SAMPLE_BYTES;
    if (!master.write(at, sampleBytes(periodNumber))) return;
    if (faults.strikes("stray_write"))
      master.write(ring + nrSlots * SENSOR_SAMPLE_BYTES, new Uint8Array(64).fill(0xee));
    head++;
    unacknowledged.push(env.now());
    if (!faults.strikes("lost_irq")) updateLine();
    if (faults.strikes("twice")) after(1, updateLine);
  };

  const tick = (): void => {
    if ((control & SENSOR_CONTROL_ON) === 0) return;
    if (faults.strikes("vanish")) {
      env.vanish();
      return;
    }
    after(period, tick);
    const number = sequence++;
    if (faults.strikes("never")) return;
    if (head - ack >= nrSlots) {
      overrun++;
      missed++;
    } else if (faults.strikes("late")) after(env.setting("late_cycles"), () => writeSample(number));
    else writeSample(number);
  };

  const setControl = (value: number): void => {
    const wasOn = (control & SENSOR_CONTROL_ON) !== 0;
    control = value & (SENSOR_CONTROL_ON | SENSOR_CONTROL_IRQ);
    const isOn = (control & SENSOR_CONTROL_ON) !== 0;
    if (isOn && !wasOn && nrSlots > 0) after(period, tick);
    if (!isOn && wasOn) generation++;
    updateLine();
  };

  const acknowledge = (value: number): void => {
    if (value < ack || value > head) return;
    const now = env.now();
    for (; ack < value; ack++) {
      const latency = now - (unacknowledged.shift() as number);
      worst = Math.max(worst, latency);
      if (latency > deadline) missed++;
    }
    updateLine();
  };

  const readable: Readonly<Record<number, () => number>> = {
    [SENSOR_REG_ID]: () => SENSOR_ID,
    [SENSOR_REG_CONTROL]: () => control,
    [SENSOR_REG_PERIOD]: () => period,
    [SENSOR_REG_RING]: () => ring,
    [SENSOR_REG_SLOTS]: () => nrSlots,
    [SENSOR_REG_HEAD]: () => head,
    [SENSOR_REG_ACK]: () => ack,
    [SENSOR_REG_MISSED]: () => missed + unacknowledged.filter((moment) => env.now() - moment > deadline).length,
    [SENSOR_REG_OVERRUN]: () => overrun,
    [SENSOR_REG_WORST]: () => worst,
  };

  return {
    ld32: (register) => readable[register]?.() ?? 0,
    st32(register, value) {
      if (register === SENSOR_REG_CONTROL) setControl(value);
      else if (register === SENSOR_REG_RING) ring = value;
      else if (register === SENSOR_REG_SLOTS) nrSlots = (value & (value - 1)) === 0 ? value : 0;
      else if (register === SENSOR_REG_ACK) acknowledge(value);
    },
    reset() {
      [control, ring, nrSlots, sequence] = [0, 0, 0, 0];
      [head, ack, missed, overrun, worst] = [0, 0, 0, 0, 0];
      unacknowledged = [];
      generation++;
      updateLine();
    },
  };
}

/** A sensor with a hard period. */
export const SENSOR_KIND: DeviceKind = {
  compatible: "sensor",
  settings: {
    period: numberSetting(1000, 1_000_000_000, 100_000, "from one sample to the next, cycles"),
    deadline: numberSetting(100, 1_000_000_000, 10_000, "from a sample to its acknowledgement, cycles"),
  },
  faults: ["lost_irq", "late", "corrupt", "twice", "never", "vanish", "stray_write"],
  create: createSensor,
};
