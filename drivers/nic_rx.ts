/**
 * Receiving: completed descriptors → packets → readers, and new buffers for the ring.
 *
 * Runs in the NET_RX softirq. The ring keeps one descriptor free, so that full and empty differ. Memory that is short
 * makes the ring shorter, not the driver fail: what could not be refilled is tried again by a timer.
 */

import { CYC_PACKET } from "../kernel/arch/charges.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import { type Context, type IrqContext, NULL, type PhysAddr, physAdd, type Sleeping } from "../kernel/types.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import { readPacket } from "../kernel/uapi/packet.ts";
import { DMA_FROM_DEVICE, GFP_KERNEL } from "../mm/index.ts";
import type { Platform } from "./driver.ts";
import { ALL_ONES } from "./hardware.ts";
import type { NicCore, RingView } from "./nic_core.ts";
import * as reg from "./nic_registers.ts";
import type { NicSockets } from "./nic_socket.ts";
import {
  BUFFER_DATA,
  NIC_MISSED_SEEN,
  NIC_NR_OPEN,
  NIC_REFILL,
  NIC_RX_CLEAN,
  NIC_RX_FILL,
  type Nic,
  RX_PER_CPU,
  STATE_GONE,
} from "./nic_state.ts";

/** How long until memory is asked for again. */
const REFILL_CYCLES = CYCLES_PER_SECOND / 1000;

export interface NicReceive {
  view(nic: Nic): RingView;
  /** Fills the ring at probe: 0, or −ENOMEM with what was done left for drop(). */
  fill(task: Task, nic: Nic): Sleeping<number>;
  /** Deals with up to `budget` completed descriptors; their number. */
  clean(ctx: IrqContext, nic: Nic, budget: number): number;
  /** Gives buffers to free descriptors; arms the timer if memory is short. */
  refill(ctx: Context, nic: Nic): void;
  /** Takes every buffer out of the ring and frees it. The device must not be running. */
  drop(ctx: Context, nic: Nic): void;
  /** The device has taken descriptors that it has not completed. */
  isOwed(nic: Nic): boolean;
  /** Adds what the card has counted as missed since the last call. */
  countMissed(nic: Nic): void;
}

export function createNicReceive(platform: Platform, core: NicCore, sockets: NicSockets, ringSize: number): NicReceive {
  const { machine, slab, timers } = platform;
  const { port } = machine;
  const { clock } = machine.harts;

  const view = (nic: Nic): RingView => ({ ring: nic.rxRing.cpu, info: nic.rxInfo, direction: DMA_FROM_DEVICE });
  const next = (slot: number): number => (slot + 1) % ringSize;

  const isRoom = (nic: Nic): boolean => next(core.get(nic, NIC_RX_FILL)) !== core.get(nic, NIC_RX_CLEAN);

  /** Puts a buffer into the next free descriptor; frees it and says false if it cannot be mapped. */
  const put = (ctx: Context, nic: Nic, buffer: PhysAddr): boolean => {
    const slot = core.get(nic, NIC_RX_FILL);
    if (!core.post(ctx, nic, view(nic), slot, buffer, BUFFER_DATA)) {
      core.freeBuffer(ctx, nic, buffer);
      return false;
    }
    core.set(nic, NIC_RX_FILL, next(slot));
    return true;
  };

  const refill = (ctx: Context, nic: Nic): void => {
    let isShort = false;
    while (isRoom(nic) && !isShort) {
      const buffer = core.allocBuffer(ctx, nic);
      isShort = buffer === NULL || !put(ctx, nic, buffer);
    }
    nic.device.registers.st32(reg.NIC_RDT, core.get(nic, NIC_RX_FILL));
    if (!isShort) return;
    core.count(nic, "refill_failed");
    if (core.get(nic, NIC_NR_OPEN) > 0) {
      timers.modTimer(ctx, physAdd(nic.struct, NIC_REFILL), (clock[ctx.cpu] as number) + REFILL_CYCLES);
    }
  };

  /** One packet, its buffer being the driver's again. */
  const receive = (ctx: IrqContext, nic: Nic, buffer: PhysAddr, length: number, status: number): void => {
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PACKET;
    core.count(nic, "rx_packets");
    core.count(nic, "rx_bytes", length);
    const perCpu = nic.struct + RX_PER_CPU + ctx.cpu * 4;
    port.st32(perCpu, port.ld32(perCpu) + 1);
    const isWhole = (status & reg.DESC_ERROR) === 0 && length <= BUFFER_DATA;
    const header = isWhole ? readPacket(port.readBytes(buffer, length)) : null;
    if (header !== null) {
      sockets.deliver(ctx, nic, buffer, length, header.flow);
      return;
    }
    core.count(nic, isWhole ? "drop_checksum" : "drop_corrupt");
    core.freeBuffer(ctx, nic, buffer);
  };

  return {
    view,
    *fill(task, nic) {
      while (isRoom(nic)) {
        let buffer = slab.layer.kmemCacheAlloc(task.ctx, nic.cache, GFP_KERNEL);
        if (typeof buffer === "object") buffer = yield* buffer;
        if (buffer === NULL) return -ENOMEM;
        core.countAlloc(task.ctx, nic);
        if (!put(task.ctx, nic, buffer)) return -ENOMEM;
      }
      return 0;
    },
    clean(ctx, nic, budget) {
      const ring = view(nic);
      let nr = 0;
      while (nr < budget && !core.hasState(nic, STATE_GONE)) {
        const slot = core.get(nic, NIC_RX_CLEAN);
        if (slot === core.get(nic, NIC_RX_FILL)) break;
        const status = core.status(nic, ring, slot);
        if (status === 0) break;
        const length = core.descLength(ring, slot);
        const buffer = core.unpost(ctx, nic, ring, slot);
        core.set(nic, NIC_RX_CLEAN, next(slot));
        core.progress(nic);
        receive(ctx, nic, buffer, length, status);
        nr++;
      }
      return nr;
    },
    refill,
    drop(ctx, nic) {
      for (let slot = 0; slot < ringSize; slot++) {
        const buffer = core.unpost(ctx, nic, view(nic), slot);
        if (buffer !== NULL) core.freeBuffer(ctx, nic, buffer);
      }
      core.set(nic, NIC_RX_CLEAN, 0);
      core.set(nic, NIC_RX_FILL, 0);
    },
    isOwed(nic) {
      return nic.device.registers.ld32(reg.NIC_RDH) !== core.get(nic, NIC_RX_CLEAN);
    },
    countMissed(nic) {
      const missed = nic.device.registers.ld32(reg.NIC_MISSED);
      if (missed === ALL_ONES) return;
      core.count(nic, "drop_no_buffer", missed - core.get(nic, NIC_MISSED_SEEN));
      core.set(nic, NIC_MISSED_SEEN, missed);
    },
  };
}
