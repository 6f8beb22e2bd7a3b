/**
 * The sensor driver: /dev/sensorN, samples of 64 bytes from a device with a hard period.
 *
 *   device ──DMA──▶ ring in coherent memory ──interrupt handler──▶ buffer ──read()──▶ program
 *                   16 slots                   copies, then ACK    sensor_buffer.ts
 *
 * The handler must have taken a sample before its deadline; the device keeps the score. How the handler stores it is
 * the parameter `buffer`: one kind for all devices, or a list, one for each in turn: `buffer=kmalloc,mempool,ring`.
 * With `cpu=0,1,2` each has its interrupts on a CPU of its own, so that one handler does not delay another.
 * The device runs while its file is open; one program at a time.
 *
 * struct sensor, in RAM, 72 bytes: 0 wait queue · 8 samples taken · 12 is open · 16 is gone · 20 counters · 48 buffer.
 *
 *   SENS-1  after the handler, the samples taken are those that the device has acknowledged
 *   SENS-2  read gives samples in order, each once; those that found no place are counted as lost
 *
 * Context: the handler and read share the buffer, with interrupts off.
 */

import type { OpenFile } from "../kernel/file.ts";
import { IRQ_HANDLED, IRQ_NONE, type IrqAction } from "../kernel/irq.ts";
import { KERN_ERR } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import { asPhys, type Context, type IrqContext, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { EBUSY, EINVAL, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { SENSOR_SAMPLE_BYTES } from "../kernel/uapi/sensor.ts";
import { type DmaDevice, type DmaMemory, GFP_KERNEL } from "../mm/index.ts";
import { type DeviceLog, type Driver, type DriverType, deviceLog, type Platform } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";
import {
  makeSensorBuffer,
  SENSOR_BUFFER_BYTES,
  SENSOR_BUFFER_KINDS,
  type SensorBuffer,
  type SensorBufferKind,
} from "./sensor_buffer.ts";
import {
  SENSOR_CONTROL_IRQ,
  SENSOR_CONTROL_ON,
  SENSOR_ID,
  SENSOR_REG_ACK,
  SENSOR_REG_CONTROL,
  SENSOR_REG_HEAD,
  SENSOR_REG_ID,
  SENSOR_REG_MISSED,
  SENSOR_REG_OVERRUN,
  SENSOR_REG_PERIOD,
  SENSOR_REG_RING,
  SENSOR_REG_SLOTS,
  SENSOR_REG_WORST,
} from "./sensor_device.ts";

const QUEUE = 0;
const TAKEN = 8;
const IS_OPEN = 12;
const IS_GONE = 16;
const COUNTERS = 20;
const BUFFER = 48;
const SENSOR_BYTES = BUFFER + SENSOR_BUFFER_BYTES;

const COUNTER_NAMES = ["irqs", "delivered", "lost", "lost_irqs"] as const;
const NR_SLOTS = 16;
/** Periods without an interrupt after which a reader looks for itself. */
const PATIENCE_PERIODS = 8;
const RING_BYTES = NR_SLOTS * SENSOR_SAMPLE_BYTES;

interface Sensor {
  readonly device: Hardware;
  readonly struct: PhysAddr;
  readonly dev: DmaDevice;
  readonly ring: DmaMemory;
  readonly buffer: SensorBuffer;
  readonly action: IrqAction;
  readonly log: DeviceLog;
}

function createSensorDriver(platform: Platform, kinds: readonly SensorBufferKind[], cpus: readonly number[]): Driver {
  const { machine, contexts, printk, irqs, waits, slab, dma, registry } = platform;
  const { port, harts } = machine;
  const now = (ctx: Context): number => harts.clock[ctx.cpu] as number;
  const bound = new Map<Hardware, Sensor>();

  const word = (sensor: Pick<Sensor, "struct">, offset: number): number => port.ld32(sensor.struct + offset);
  const setWord = (sensor: Pick<Sensor, "struct">, offset: number, value: number): void =>
    port.st32(sensor.struct + offset, value);
  const count = (sensor: Sensor, name: (typeof COUNTER_NAMES)[number], n = 1): void => {
    const offset = COUNTERS + COUNTER_NAMES.indexOf(name) * 4;
    setWord(sensor, offset, word(sensor, offset) + n);
  };
  const queueOf = (sensor: Sensor): PhysAddr => asPhys(sensor.struct + QUEUE);

  // ── The handler ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes what is in the ring: number of samples. The sensor may turn out to be gone. Interrupts are off. */
  const collect = (ctx: Context, sensor: Sensor): number => {
    const { registers } = sensor.device;
    const head = registers.ld32(SENSOR_REG_HEAD);
    if (head === ALL_ONES && registers.ld32(SENSOR_REG_ID) !== SENSOR_ID) {
      setWord(sensor, IS_GONE, 1);
      waits.wakeUp(queueOf(sensor));
      return 0;
    }
    const taken = word(sensor, TAKEN);
    if (head === taken) return 0;
    for (let number = taken; number < head; number++) {
      const slot = sensor.ring.cpu + (number % NR_SLOTS) * SENSOR_SAMPLE_BYTES;
      if (!sensor.buffer.put(ctx, slot)) count(sensor, "lost");
    }
    setWord(sensor, TAKEN, head);
    registers.st32(SENSOR_REG_ACK, head);
    waits.wakeUp(queueOf(sensor));
    return head - taken;
  };

  const handler = (ctx: IrqContext, sensor: Sensor): number => {
    if (collect(ctx, sensor) === 0) return IRQ_NONE;
    count(sensor, "irqs");
    return IRQ_HANDLED;
  };

  // ── The file ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const takeOne = (sensor: Sensor, task: Task): Uint8Array | undefined => {
    const flags = contexts.localIrqSave(task.ctx);
    const sample = sensor.buffer.take(task.ctx);
    contexts.localIrqRestore(task.ctx, flags);
    return sample;
  };

  /** No interrupt for a long time: it may have been lost, or the sensor may be gone. */
  const lookAgain = (sensor: Sensor, task: Task): void => {
    const flags = contexts.localIrqSave(task.ctx);
    if (collect(task.ctx, sensor) > 0) count(sensor, "lost_irqs");
    contexts.localIrqRestore(task.ctx, flags);
  };

  function* read(sensor: Sensor, task: Task, max: number): Sleeping<Uint8Array | number> {
    if (max < SENSOR_SAMPLE_BYTES) return -EINVAL;
    while (sensor.buffer.isEmpty()) {
      if (word(sensor, IS_GONE) !== 0) return -ENODEV;
      const patience = sensor.device.registers.ld32(SENSOR_REG_PERIOD) * PATIENCE_PERIODS;
      const isWoken = yield* waits.waitOnTimeout(queueOf(sensor), task, now(task.ctx) + patience);
      if (!isWoken) lookAgain(sensor, task);
    }
    const out = new Uint8Array(max - (max % SENSOR_SAMPLE_BYTES));
    let length = 0;
    while (length < out.length) {
      const sample = takeOne(sensor, task);
      if (sample === undefined) break;
      out.set(sample, length);
      length += SENSOR_SAMPLE_BYTES;
    }
    count(sensor, "delivered", length / SENSOR_SAMPLE_BYTES);
    return out.subarray(0, length);
  }

  const switchOn = (sensor: Sensor): void => {
    const { registers } = sensor.device;
    registers.st32(SENSOR_REG_RING, sensor.ring.dma);
    registers.st32(SENSOR_REG_SLOTS, NR_SLOTS);
    registers.st32(SENSOR_REG_CONTROL, SENSOR_CONTROL_ON | SENSOR_CONTROL_IRQ);
  };

  const open = (sensor: Sensor): OpenFile | number => {
    if (word(sensor, IS_GONE) !== 0) return -ENODEV;
    if (word(sensor, IS_OPEN) !== 0) return -EBUSY;
    setWord(sensor, IS_OPEN, 1);
    switchOn(sensor);
    return {
      refs: 1,
      isConsole: false,
      read: (task, max) => read(sensor, task, max),
      *write() {
        return -EINVAL;
      },
      seek: () => -EINVAL,
      release() {
        sensor.device.registers.st32(SENSOR_REG_CONTROL, 0);
        setWord(sensor, IS_OPEN, 0);
      },
    };
  };

  // ── Probe and remove ─────────────────────────────────────────────────────────────────────────────────────────────

  function* bring(task: Task, device: Hardware, undo: (() => void)[]): Sleeping<Sensor | number> {
    const { ctx } = task;
    if (device.registers.ld32(SENSOR_REG_ID) !== SENSOR_ID) return -ENODEV;
    let struct = slab.kmalloc.kzalloc(ctx, SENSOR_BYTES, GFP_KERNEL);
    if (typeof struct === "object") struct = yield* struct;
    if (struct === NULL) return -ENOMEM;
    const memory = struct;
    undo.push(() => slab.kmalloc.kfree(ctx, memory));
    waits.init(asPhys(struct + QUEUE));
    const dev = dma.createDevice(ctx, { name: device.name, driver: "sensor", master: device.master });
    if (dev === 0) return -ENOMEM;
    undo.push(() => dma.releaseDevice(ctx, dev));
    const ring = yield* dma.allocCoherent(ctx, dev, RING_BYTES, GFP_KERNEL);
    if (ring === null) return -ENOMEM;
    undo.push(() => dma.freeCoherent(ctx, dev, RING_BYTES, ring.cpu, ring.dma));
    const kind = kinds[bound.size % kinds.length] as SensorBufferKind;
    const buffer = yield* makeSensorBuffer(platform, task, kind, asPhys(struct + BUFFER));
    if (buffer === undefined) return -ENOMEM;
    undo.push(() => buffer.drop(ctx));
    const log = deviceLog(platform.printk, "sensor", device.name);
    const action: IrqAction = { name: device.name, handler: (irq) => handler(irq, sensor) };
    const sensor: Sensor = { device, struct, dev, ring, buffer, action, log };
    const error = irqs.requestIrq(device.line, action);
    if (error !== 0) return error;
    undo.push(() => irqs.freeIrq(device.line, action));
    const cpu = cpus[bound.size % cpus.length];
    if (cpu !== undefined && irqs.setAffinity(device.line, cpu) !== 0) log.warn(`no interrupts on CPU ${cpu}`);
    log.info(`samples go to a ${kind} buffer`);
    return sensor;
  }

  return {
    *probe(task, device) {
      const undo: (() => void)[] = [];
      const sensor = yield* bring(task, device, undo);
      if (typeof sensor === "number") {
        deviceLog(printk, "sensor", device.name).err(`probe failed: ${sensor}`);
        for (const step of undo.reverse()) step();
        return sensor;
      }
      bound.set(device, sensor);
      registry.registerDevice(device.name, () => open(sensor));
      return 0;
    },
    *remove(task, device) {
      const sensor = bound.get(device);
      if (sensor === undefined) return;
      const { ctx } = task;
      setWord(sensor, IS_GONE, 1);
      waits.wakeUp(queueOf(sensor));
      yield* registry.revokeDevice(task, device.name);
      device.registers.st32(SENSOR_REG_CONTROL, 0);
      irqs.freeIrq(device.line, sensor.action);
      sensor.buffer.drop(ctx);
      dma.freeCoherent(ctx, sensor.dev, RING_BYTES, sensor.ring.cpu, sensor.ring.dma);
      dma.releaseDevice(ctx, sensor.dev);
      bound.delete(device);
      slab.kmalloc.kfree(ctx, sensor.struct);
      sensor.log.info("removed");
    },
    stats(device) {
      const sensor = bound.get(device);
      if (sensor === undefined) return [];
      const { registers } = device;
      const score = (register: number): number => (device.isPresent() ? registers.ld32(register) : 0);
      return [
        ...COUNTER_NAMES.map((name, i) => [name, word(sensor, COUNTERS + i * 4)] as const),
        ["samples", score(SENSOR_REG_HEAD)],
        ["missed", score(SENSOR_REG_MISSED)],
        ["overrun", score(SENSOR_REG_OVERRUN)],
        ["worst_latency", score(SENSOR_REG_WORST)],
      ];
    },
  };
}

/** The kinds in `kmalloc,ring`; undefined if one is unknown. */
function parseKinds(text: string): SensorBufferKind[] | undefined {
  const kinds = text.split(",").map((word) => SENSOR_BUFFER_KINDS.find((kind) => kind === word));
  return kinds.includes(undefined) ? undefined : (kinds as SensorBufferKind[]);
}

export const SENSOR_DRIVER: DriverType = {
  name: "sensor",
  description: "sensor with a hard period",
  params: {
    buffer: `${SENSOR_BUFFER_KINDS.join(", ")}, or a list of them for one device each; default kmalloc`,
    cpu: "which CPU takes the interrupts, or a list for one device each; default 0",
  },
  create(platform, params) {
    const text = params.get("buffer") ?? "kmalloc";
    const kinds = parseKinds(text);
    const cpus = (params.get("cpu") ?? "").split(",").filter((word) => word !== "");
    const isBad = cpus.some((word) => !/^\d{1,2}$/.test(word) || Number(word) >= platform.machine.config.nrCpus);
    if (isBad) {
      platform.printk(KERN_ERR, `sensor: parameter cpu=${cpus.join(",")}: expected numbers of CPUs`);
      return -EINVAL;
    }
    if (kinds !== undefined) return createSensorDriver(platform, kinds, cpus.map(Number));
    platform.printk(KERN_ERR, `sensor: parameter buffer=${text}: expected ${SENSOR_BUFFER_KINDS.join(", ")}`);
    return -EINVAL;
  },
};
