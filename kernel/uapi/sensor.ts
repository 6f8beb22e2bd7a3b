/**
 * A sample of a sensor, as read() of /dev/sensorN gives it: 64 bytes, little-endian words.
 *
 *   | word | meaning                                                                                   |
 *   |------|-------------------------------------------------------------------------------------------|
 *   | 0    | sequence number, from 0; a gap is a sample that was lost                                  |
 *   | 1, 2 | virtual time at which it was taken, cycles, low and high word                             |
 *   | 3-14 | twelve values                                                                             |
 *   | 15   | checksum of the others                                                                    |
 */

export const SENSOR_SAMPLE_BYTES = 64;
export const SENSOR_SAMPLE_WORDS = 16;
export const SENSOR_SEQUENCE = 0;
export const SENSOR_TIME_LOW = 1;
export const SENSOR_TIME_HIGH = 2;
export const SENSOR_VALUES = 3;
export const SENSOR_CHECKSUM = 15;

/** Checksum of a sample whose word `i` is `word(i)`: FNV-1a over the words before it. */
export function sensorChecksum(word: (i: number) => number): number {
  let sum = 0x811c_9dc5;
  for (let i = 0; i < SENSOR_CHECKSUM; i++) sum = Math.imul(sum ^ word(i), 0x0100_0193);
  return sum >>> 0;
}

if (SENSOR_SAMPLE_WORDS * 4 !== SENSOR_SAMPLE_BYTES) throw new Error("sensor: a sample is not its words");
