/**
 * sensord: reads a sensor's samples as a real-time task, and tells how many came, were lost, or are damaged.
 */

import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { O_RDONLY } from "../../kernel/uapi/mman.ts";
import {
  SENSOR_CHECKSUM,
  SENSOR_SAMPLE_BYTES,
  SENSOR_SEQUENCE,
  SENSOR_TIME_HIGH,
  SENSOR_TIME_LOW,
  sensorChecksum,
} from "../../kernel/uapi/sensor.ts";
import { SYS_getpid, SYS_nanosleep, SYS_sched_setscheduler } from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const POLICY_REAL_TIME = 1;
const DEFAULT_PRIORITY = 50;
const SAMPLES_PER_READ = 16;
/** With --pause: reads between two pauses. What comes meanwhile waits in the driver. */
const READS_PER_PAUSE = 16;

interface Tally {
  nrSamples: number;
  nrLost: number;
  nrDamaged: number;
  /** Longest time from the taking of a sample to its reading here, cycles. */
  worstAge: number;
}

/** Takes the samples in `bytes` into account; the sequence number that comes next. */
function count(bytes: Uint8Array, expected: number, now: number, tally: Tally): number {
  let next = expected;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + SENSOR_SAMPLE_BYTES <= bytes.length; at += SENSOR_SAMPLE_BYTES) {
    const word = (i: number): number => view.getUint32(at + i * 4, true);
    tally.nrSamples++;
    if (sensorChecksum(word) !== word(SENSOR_CHECKSUM)) {
      tally.nrDamaged++;
      continue;
    }
    const sequence = word(SENSOR_SEQUENCE);
    tally.nrLost += Math.max(0, sequence - next);
    next = sequence + 1;
    tally.worstAge = Math.max(tally.worstAge, now - (word(SENSOR_TIME_LOW) + word(SENSOR_TIME_HIGH) * 2 ** 32));
  }
  return next;
}

/** Reads up to and including sample number `nrWanted` − 1, or to the end, with pauses: 0, or −errno. */
function* collect(tool: Tool, fd: number, nrWanted: number, pauseCycles: number, tally: Tally): Sleeping<number> {
  let next = 0;
  for (let nrReads = 0; next < nrWanted; nrReads++) {
    if (pauseCycles > 0 && nrReads % READS_PER_PAUSE === 0) yield* tool.sys(SYS_nanosleep, pauseCycles);
    const got = yield* tool.libc.read(fd, SAMPLES_PER_READ * SENSOR_SAMPLE_BYTES);
    if (typeof got === "number") return got;
    if (got.length === 0) return 0;
    next = count(got, next, tool.env.now(), tally);
  }
  return 0;
}

export const SENSORD: ToolDefinition = {
  name: "sensord",
  synopsis: "DEVICE [SAMPLES] [--pause CYCLES]",
  summary: "read samples of a sensor as a real-time task (sensord /dev/sensor0 100)",
  *main(tool) {
    const options = parseOptions(tool.args, { values: { "--pause": parseCount }, minOperands: 1, maxOperands: 2 });
    const [path, wanted = "100"] = options?.operands ?? [];
    if (options === null || path === undefined || !/^[1-9]\d{0,8}$/.test(wanted)) return yield* tool.usage();
    const pid = yield* tool.sys(SYS_getpid);
    yield* tool.sys(SYS_sched_setscheduler, pid, POLICY_REAL_TIME, DEFAULT_PRIORITY);
    const fd = yield* tool.libc.open(path, O_RDONLY);
    if (fd < 0) {
      yield* tool.complain(`${path}: ${strerror(fd)}`);
      return EXIT_FAILED;
    }
    const tally: Tally = { nrSamples: 0, nrLost: 0, nrDamaged: 0, worstAge: 0 };
    const error = yield* collect(tool, fd, Number(wanted), options.values.get("--pause") ?? 0, tally);
    yield* tool.libc.close(fd);
    yield* tool.out(
      `sensord: ${path}: ${tally.nrSamples} samples, ${tally.nrLost} lost, ${tally.nrDamaged} damaged, ` +
        `read ${tally.worstAge} cycles after they were taken at the latest\n`,
    );
    if (error < 0) yield* tool.complain(`${path}: ${strerror(error)}`);
    return error < 0 || tally.nrDamaged > 0 ? EXIT_FAILED : EXIT_OK;
  },
};
