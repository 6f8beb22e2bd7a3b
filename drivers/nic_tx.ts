/**
 * Sending: a packet from a program → buffer → mapped → descriptor → the card; and its completion.
 *
 * A writer that finds the ring full sleeps until completions make room. Completions are dealt with in the NET_RX
 * softirq, before receiving: they give memory back.
 */

import { CYC_PACKET } from "../kernel/arch/charges.ts";
import type { Task } from "../kernel/task.ts";
import { type Context, type IrqContext, NULL, physAdd, type Sleeping } from "../kernel/types.ts";
import { EINVAL, EIO, ENODEV, ENOMEM } from "../kernel/uapi/errno.ts";
import { PACKET_HEADER_BYTES, PACKET_MAX_BYTES } from "../kernel/uapi/packet.ts";
import { DMA_TO_DEVICE, GFP_KERNEL } from "../mm/index.ts";
import type { Platform } from "./driver.ts";
import type { NicCore, RingView } from "./nic_core.ts";
import * as reg from "./nic_registers.ts";
import { NIC_TX_CLEAN, NIC_TX_QUEUE, NIC_TX_USE, type Nic, STATE_GONE, STATE_REMOVING } from "./nic_state.ts";

export interface NicTransmit {
  /** Sends one packet: its length; −EINVAL for a wrong length, −ENOMEM, −EIO (mapping), −ENODEV. */
  send(task: Task, nic: Nic, packet: Uint8Array): Sleeping<number>;
  /** Frees what was sent and wakes writers. */
  clean(ctx: IrqContext, nic: Nic): void;
  /** Takes every buffer out of the ring, unsent. The device must not be running. */
  drop(ctx: Context, nic: Nic): void;
  isPending(nic: Nic): boolean;
  wake(nic: Nic): void;
}

export function createNicTransmit(
  platform: Platform,
  core: NicCore,
  ringSize: number,
  /** Something was sent: somebody should look whether it completes. */
  onSent: (ctx: Context, nic: Nic) => void,
): NicTransmit {
  const { machine, slab, spinlocks, waits } = platform;
  const { port } = machine;
  const { clock } = machine.harts;

  const view = (nic: Nic): RingView => ({ ring: nic.txRing.cpu, info: nic.txInfo, direction: DMA_TO_DEVICE });
  const next = (slot: number): number => (slot + 1) % ringSize;
  const isFull = (nic: Nic): boolean => next(core.get(nic, NIC_TX_USE)) === core.get(nic, NIC_TX_CLEAN);
  const isPending = (nic: Nic): boolean => core.get(nic, NIC_TX_USE) !== core.get(nic, NIC_TX_CLEAN);
  const wake = (nic: Nic): void => waits.wakeUp(physAdd(nic.struct, NIC_TX_QUEUE));

  /** Puts the packet on the ring; false when it filled up meanwhile. The lock is held. */
  const putLocked = (ctx: Context, nic: Nic, buffer: ReturnType<NicCore["unpost"]>, bytes: number): number => {
    const slot = core.get(nic, NIC_TX_USE);
    if (!core.post(ctx, nic, view(nic), slot, buffer, bytes)) return -EIO;
    core.set(nic, NIC_TX_USE, next(slot));
    nic.device.registers.st32(reg.NIC_TDT, next(slot));
    clock[ctx.cpu] = (clock[ctx.cpu] as number) + CYC_PACKET;
    return bytes;
  };

  function* queuePacket(task: Task, nic: Nic, buffer: ReturnType<NicCore["unpost"]>, bytes: number): Sleeping<number> {
    for (;;) {
      // Looked at without the lock: nothing can come between this look and the sleep.
      while (isFull(nic) && !core.hasState(nic, STATE_GONE | STATE_REMOVING)) {
        yield* waits.waitOn(physAdd(nic.struct, NIC_TX_QUEUE), task);
      }
      if (core.hasState(nic, STATE_GONE | STATE_REMOVING)) return -ENODEV;
      spinlocks.spinLockBh(task.ctx, core.lock(nic));
      const result = isFull(nic) ? 0 : putLocked(task.ctx, nic, buffer, bytes);
      spinlocks.spinUnlockBh(task.ctx, core.lock(nic));
      if (result !== 0) return result;
    }
  }

  return {
    *send(task, nic, packet) {
      if (packet.length < PACKET_HEADER_BYTES || packet.length > PACKET_MAX_BYTES) return -EINVAL;
      let buffer = slab.layer.kmemCacheAlloc(task.ctx, nic.cache, GFP_KERNEL);
      if (typeof buffer === "object") buffer = yield* buffer;
      if (buffer === NULL) return -ENOMEM;
      core.countAlloc(task.ctx, nic);
      port.writeBytes(buffer, packet);
      let result = -EIO;
      // A fatal signal may unwind the writer where it sleeps.
      try {
        result = yield* queuePacket(task, nic, buffer, packet.length);
      } finally {
        if (result < 0) {
          core.count(nic, "tx_errors");
          core.freeBuffer(task.ctx, nic, buffer);
        }
      }
      if (result > 0) onSent(task.ctx, nic);
      return result;
    },
    clean(ctx, nic) {
      const ring = view(nic);
      let nr = 0;
      spinlocks.spinLock(ctx, core.lock(nic));
      for (let slot = core.get(nic, NIC_TX_CLEAN); slot !== core.get(nic, NIC_TX_USE); slot = next(slot)) {
        const status = core.status(nic, ring, slot);
        if (status === 0) break;
        core.count(nic, (status & reg.DESC_ERROR) === 0 ? "tx_packets" : "tx_errors");
        core.count(nic, "tx_bytes", core.descLength(ring, slot));
        core.freeBuffer(ctx, nic, core.unpost(ctx, nic, ring, slot));
        core.set(nic, NIC_TX_CLEAN, next(slot));
        core.progress(nic);
        nr++;
      }
      spinlocks.spinUnlock(ctx, core.lock(nic));
      if (nr > 0) wake(nic);
    },
    drop(ctx, nic) {
      for (let slot = 0; slot < ringSize; slot++) {
        const buffer = core.unpost(ctx, nic, view(nic), slot);
        if (buffer === NULL) continue;
        core.count(nic, "tx_errors");
        core.freeBuffer(ctx, nic, buffer);
      }
      core.set(nic, NIC_TX_CLEAN, 0);
      core.set(nic, NIC_TX_USE, 0);
    },
    isPending,
    wake,
  };
}
