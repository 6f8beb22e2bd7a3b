/**
 * The network driver: /dev/nic0. Probe and remove, files, statistics; the work is in the nic_*.ts beside this file.
 *
 *   hardirq ─▶ NET_RX softirq: nic_watch.poll ─▶ nic_rx ─▶ nic_socket (queue per reader) ─▶ read()
 *                                             └▶ nic_tx ◀───────────────────────────────── write()
 *
 * Memory: two rings of descriptors (coherent), 2 KiB buffers from a cache of its own (streaming mappings), GFP_KERNEL
 * in probe and write(), GFP_ATOMIC in the softirq. Probe takes things one after the other and pushes how to give each
 * back; a failing step and remove() both run that list backwards.
 *
 *   open       a reader gets a queue unless it opens for writing only; the card receives while any file is open
 *   read       one packet; 0 bytes when the wire has fallen silent
 *   write      one packet, header included (kernel/uapi/packet.ts)
 *   /sys/devices/nic0/traffic   `count=1000 rate=100000 burst=8`: asks the wire for traffic
 */

import type { OpenFile, TextFile } from "../kernel/file.ts";
import { initListHead } from "../kernel/lib/list.ts";
import type { Task } from "../kernel/task.ts";
import { type Context, NULL, type PhysAddr, physAdd, type Sleeping, type TaskContext } from "../kernel/types.ts";
import { EINVAL, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { O_WRONLY } from "../kernel/uapi/mman.ts";
import {
  type DmaDevice,
  type DmaMemory,
  GFP_KERNEL,
  type KmemCache,
  NO_DEVICE,
  SLAB_HWCACHE_ALIGN,
} from "../mm/index.ts";
import { type Driver, type DriverType, deviceLog, numberParam, type Platform } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";
import { createNicCore } from "./nic_core.ts";
import * as reg from "./nic_registers.ts";
import { createNicReceive } from "./nic_rx.ts";
import { createNicSockets } from "./nic_socket.ts";
import type { Nic, NicParams } from "./nic_state.ts";
import * as state from "./nic_state.ts";
import { createNicTransmit } from "./nic_tx.ts";
import { createNicWatch } from "./nic_watch.ts";

/** What probe has taken so far: how to give each back, in the order of taking. */
type Undo = ((ctx: TaskContext) => void)[];

const undoAll = (ctx: TaskContext, undo: Undo): void => {
  for (let give = undo.pop(); give !== undefined; give = undo.pop()) give(ctx);
};

interface Bound {
  readonly nic: Nic;
  readonly undo: Undo;
}

function createNic(platform: Platform, params: NicParams): Driver {
  const { machine, printk, contexts, waits, slab, dma, irqs, timers, napi, registry } = platform;
  const { port, harts } = machine;
  const core = createNicCore(platform);
  const sockets = createNicSockets(platform, core, params.queue);
  const rx = createNicReceive(platform, core, sockets, params.ring);
  const tx = createNicTransmit(platform, core, params.ring, (ctx, nic) => watcher.watch(ctx, nic));
  const watcher = createNicWatch(platform, core, { rx, tx: () => tx, sockets }, params);
  const bound = new Map<Hardware, Bound>();
  const nicOf = (field: PhysAddr, offset: number): Nic | undefined =>
    [...bound.values()].find(({ nic }) => nic.struct + offset === field)?.nic;
  const watchFn = timers.registerTimerFn((ctx, timer) => {
    const nic = nicOf(timer, state.NIC_WATCHDOG);
    if (nic !== undefined) watcher.look(ctx, nic);
  });
  const refillFn = timers.registerTimerFn((ctx, timer) => {
    const nic = nicOf(timer, state.NIC_REFILL);
    if (nic !== undefined && !core.hasState(nic, state.STATE_GONE | state.STATE_REMOVING)) rx.refill(ctx, nic);
  });

  const hostContext = (): Context => contexts.taskContext(harts.current[0] as number);

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const addOpen = (nic: Nic, n: number): void => {
    core.set(nic, state.NIC_NR_OPEN, core.get(nic, state.NIC_NR_OPEN) + n);
    watcher.setControl(nic);
  };

  const open = (nic: Nic, flags: number): OpenFile | number => {
    if (core.hasState(nic, state.STATE_GONE | state.STATE_REMOVING)) return -ENODEV;
    const ctx = hostContext();
    const isReading = (flags & 3) !== O_WRONLY;
    const reader = isReading ? sockets.open(ctx, nic) : NULL;
    if (isReading && reader === NULL) return -ENOMEM;
    addOpen(nic, 1);
    rx.refill(ctx, nic);
    watcher.watch(ctx, nic);
    return {
      refs: 1,
      isConsole: false,
      *read(task, max) {
        return reader === NULL ? -EINVAL : yield* sockets.read(task, nic, reader, max);
      },
      write: (task, bytes) => tx.send(task, nic, bytes),
      seek: () => -EINVAL,
      release() {
        addOpen(nic, -1);
        rx.countMissed(nic);
        if (reader !== NULL) sockets.close(hostContext(), nic, reader);
      },
    };
  };

  const trafficFile = (nic: Nic): TextFile => ({
    read: () => "",
    *write(task, text) {
      const words = text.trim().split(/\s+/);
      const isGood = words.every((word) => /^(count|rate|burst)=[1-9]\d{0,8}$/.test(word));
      const values = new Map(
        words.map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]),
      );
      if (!isGood || !values.has("count")) return -EINVAL;
      const { registers } = nic.device;
      if (values.has("rate")) registers.st32(reg.NIC_RATE, Number(values.get("rate")));
      if (values.has("burst")) registers.st32(reg.NIC_BURST, Number(values.get("burst")));
      registers.st32(reg.NIC_GO, Number(values.get("count")));
      watcher.watch(task.ctx, nic);
      return 0;
    },
  });

  // ── Probe ────────────────────────────────────────────────────────────────────────────────────────────────────────

  function* zalloc(task: Task, bytes: number, undo: Undo): Sleeping<PhysAddr> {
    let addr = slab.kmalloc.kzalloc(task.ctx, bytes, GFP_KERNEL);
    if (typeof addr === "object") addr = yield* addr;
    const got = addr;
    if (got !== NULL) undo.push((ctx) => slab.kmalloc.kfree(ctx, got));
    return got;
  }

  function* ring(task: Task, dev: DmaDevice, undo: Undo): Sleeping<DmaMemory | null> {
    const bytes = params.ring * reg.DESC_BYTES;
    const memory = yield* dma.allocCoherent(task.ctx, dev, bytes, GFP_KERNEL);
    if (memory !== null) undo.push((ctx) => dma.freeCoherent(ctx, dev, bytes, memory.cpu, memory.dma));
    return memory;
  }

  const takeDevice = (task: Task, device: Hardware, undo: Undo): DmaDevice => {
    const spec = { name: device.name, driver: "nic", master: device.master, maskBits: 32 };
    const dev = dma.createDevice(task.ctx, spec);
    if (dev !== NO_DEVICE) undo.push((ctx) => dma.releaseDevice(ctx, dev));
    return dev;
  };

  const takeCache = (task: Task, device: Hardware, undo: Undo): KmemCache => {
    const spec = { name: `${device.name}-buf`, size: state.BUFFER_BYTES, align: 64, flags: SLAB_HWCACHE_ALIGN };
    const cache = slab.kmemCacheCreate(task.ctx, spec);
    if (cache !== 0) undo.push((ctx) => slab.kmemCacheDestroy(ctx, cache));
    return cache;
  };

  /** All memory but the buffers: the card as the driver sees it, or null. */
  function* takeMemory(task: Task, device: Hardware, undo: Undo): Sleeping<Nic | null> {
    const struct = yield* zalloc(task, state.nicBytes(harts.nrCpus), undo);
    if (struct === NULL) return null;
    const dev = takeDevice(task, device, undo);
    if (dev === NO_DEVICE) return null;
    const rxRing = yield* ring(task, dev, undo);
    const txRing = rxRing === null ? null : yield* ring(task, dev, undo);
    if (rxRing === null || txRing === null) return null;
    const rxInfo = yield* zalloc(task, params.ring * state.INFO_BYTES, undo);
    const txInfo = rxInfo === NULL ? NULL : yield* zalloc(task, params.ring * state.INFO_BYTES, undo);
    const cache = txInfo === NULL ? (0 as KmemCache) : takeCache(task, device, undo);
    if (cache === 0) return null;
    const log = deviceLog(printk, "nic", device.name);
    const action = { name: device.name, handler: (ctx) => watcher.handler(ctx, nic) } satisfies Nic["action"];
    const nic: Nic = { device, log, struct, dev, rxRing, txRing, rxInfo, txInfo, cache, action };
    return nic;
  }

  const initStruct = (nic: Nic, undo: Undo): void => {
    const { struct } = nic;
    const fn = napi.registerPoll((ctx, _napi, budget) => watcher.poll(ctx, nic, budget));
    undo.push(() => napi.unregisterPoll(fn));
    napi.init(physAdd(struct, state.NIC_NAPI), fn);
    timers.init(physAdd(struct, state.NIC_WATCHDOG), watchFn);
    timers.init(physAdd(struct, state.NIC_REFILL), refillFn);
    initListHead(port, physAdd(struct, state.NIC_READERS));
    waits.init(physAdd(struct, state.NIC_READ_QUEUE));
    waits.init(physAdd(struct, state.NIC_TX_QUEUE));
    core.set(nic, state.NIC_MISSED_SEEN, nic.device.registers.ld32(reg.NIC_MISSED));
  };

  function* bringUp(task: Task, nic: Nic, undo: Undo): Sleeping<number> {
    initStruct(nic, undo);
    undo.push((ctx) => {
      rx.drop(ctx, nic);
      tx.drop(ctx, nic);
    });
    const filled = yield* rx.fill(task, nic);
    if (filled !== 0) return filled;
    const error = irqs.requestIrq(nic.device.line, nic.action);
    if (error !== 0) {
      nic.log.err(`irq ${nic.device.line} not available: ${error}`);
      return error;
    }
    undo.push(() => irqs.freeIrq(nic.device.line, nic.action));
    undo.push(() => nic.device.registers.st32(reg.NIC_CTRL, reg.CTRL_RESET));
    watcher.start(nic);
    nic.device.registers.st32(reg.NIC_RDT, core.get(nic, state.NIC_RX_FILL));
    return 0;
  }

  return {
    *probe(task, device) {
      if (device.registers.ld32(reg.NIC_STATUS) === ALL_ONES) return -ENODEV;
      const undo: Undo = [];
      const nic = yield* takeMemory(task, device, undo);
      const error = nic === null ? -ENOMEM : yield* bringUp(task, nic, undo);
      if (nic === null || error !== 0) {
        undoAll(task.ctx, undo);
        return error;
      }
      bound.set(device, { nic, undo });
      registry.registerDevice(device.name, (flags) => open(nic, flags));
      registry.registerText(`/sys/devices/${device.name}/traffic`, trafficFile(nic));
      nic.log.info(`rings of ${params.ring}, queue of ${params.queue}, irq ${device.line}: link is up`);
      return 0;
    },
    *remove(task, device) {
      const entry = bound.get(device);
      if (entry === undefined) return;
      const { nic, undo } = entry;
      core.setState(nic, state.STATE_REMOVING);
      sockets.wake(nic);
      tx.wake(nic);
      registry.unregisterText(`/sys/devices/${device.name}/traffic`);
      yield* registry.revokeDevice(task, device.name);
      timers.delTimerSync(task.ctx, physAdd(nic.struct, state.NIC_WATCHDOG));
      timers.delTimerSync(task.ctx, physAdd(nic.struct, state.NIC_REFILL));
      device.registers.st32(reg.NIC_IMC, reg.CAUSE_ALL);
      napi.disable(task.ctx, physAdd(nic.struct, state.NIC_NAPI));
      bound.delete(device);
      undoAll(task.ctx, undo);
      nic.log.info("link is down, unregistered");
    },
    stats(device) {
      const nic = bound.get(device)?.nic;
      if (nic === undefined) return [];
      const counters = state.COUNTERS.map((name) => [name, core.get(nic, state.counterAt(name))] as const);
      const perCpu = Array.from(
        { length: harts.nrCpus },
        (_, cpu) => [`rx_cpu${cpu}`, core.get(nic, state.RX_PER_CPU + cpu * 4)] as const,
      );
      return [...counters, ...perCpu];
    },
    check: () => {
      for (const { nic } of bound.values()) {
        const broken = sockets.check(nic);
        if (broken !== null) return broken;
      }
      return null;
    },
  };
}

const LIMITS = {
  ring: { min: 8, max: 1024, fallback: 64 },
  queue: { min: 1, max: 4096, fallback: 256 },
  moderation: { min: 0, max: 100_000_000, fallback: 20_000 },
  spread: { min: 0, max: 1, fallback: 0 },
} as const;

export const NIC_DRIVER: DriverType = {
  name: "nic",
  description: "network card with descriptor rings",
  params: {
    ring: "descriptors of each ring, 8-1024, default 64",
    queue: "packets that wait for one reader, 1-4096, default 256",
    moderation: "least cycles between two interrupts, default 20000",
    spread: "1: interrupts go round all CPUs; default 0",
  },
  create(platform, params) {
    const read = (name: keyof typeof LIMITS): number | undefined =>
      numberParam(platform, "nic", params, name, LIMITS[name]);
    const [ring, queue, moderation, spread] = [read("ring"), read("queue"), read("moderation"), read("spread")];
    if (ring === undefined || queue === undefined || moderation === undefined || spread === undefined) return -EINVAL;
    return createNic(platform, { ring, queue, moderation, spread });
  },
};
