/**
 * The card's interrupt, its poll, and the watchdog over both.
 *
 *   interrupt ─▶ causes read, card masked ─▶ poll: transmit ring, receive ring, refill ─▶ card unmasked
 *   every 10 ms while something is expected:   causes that nobody came for → poll (the interrupt was lost)
 *                                              five looks without progress → the card is reset
 *
 * The watchdog runs only while the wire has more to bring, or the card owes completions, so that a machine at its
 * prompt comes to rest. A card that reads as all ones is gone: it is not asked again, and whoever waits is told.
 *
 * Real kernels: drivers/net/ethernet/intel/e1000/e1000_main.c; net/sched/sch_generic.c (dev_watchdog).
 */

import { IRQ_HANDLED, IRQ_NONE } from "../kernel/irq.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { type Context, type IrqContext, physAdd } from "../kernel/types.ts";
import type { Platform } from "./driver.ts";
import { ALL_ONES } from "./hardware.ts";
import type { NicCore } from "./nic_core.ts";
import * as reg from "./nic_registers.ts";
import type { NicReceive } from "./nic_rx.ts";
import type { NicSockets } from "./nic_socket.ts";
import {
  NIC_NAPI,
  NIC_NR_OPEN,
  NIC_PROGRESS,
  NIC_QUIET,
  NIC_SEEN,
  NIC_STALLED,
  NIC_WATCHDOG,
  type Nic,
  type NicParams,
  STATE_GONE,
  STATE_QUIET,
  STATE_REMOVING,
} from "./nic_state.ts";
import type { NicTransmit } from "./nic_tx.ts";

const WATCH_CYCLES = CYCLES_PER_SECOND / 100;
/** Looks without progress after which the card is reset. */
const MAX_STALLED = 5;

export interface NicWatch {
  handler(ctx: IrqContext, nic: Nic): number;
  poll(ctx: IrqContext, nic: Nic, budget: number): number;
  /** The watchdog timer's function. */
  look(ctx: IrqContext, nic: Nic): void;
  /** Starts the watchdog unless it runs. */
  watch(ctx: Context, nic: Nic): void;
  /** Tells the card where its rings are, and lets it run. */
  start(nic: Nic): void;
  /** Receives while files are open, sends always. */
  setControl(nic: Nic): void;
}

export function createNicWatch(
  platform: Platform,
  core: NicCore,
  parts: { readonly rx: NicReceive; readonly tx: () => NicTransmit; readonly sockets: NicSockets },
  params: NicParams,
): NicWatch {
  const { machine, napi, timers, irqs } = platform;
  const { rx, tx, sockets } = parts;
  const { clock, nrCpus, online } = machine.harts;

  const napiOf = (nic: Nic) => physAdd(nic.struct, NIC_NAPI);

  const markGone = (nic: Nic): void => {
    if (core.hasState(nic, STATE_GONE)) return;
    core.setState(nic, STATE_GONE);
    nic.log.err("device is gone: its registers read as all ones");
    sockets.wake(nic);
    tx().wake(nic);
  };

  /** Takes the causes; false if there were none or the card is gone. */
  const takeCauses = (nic: Nic): boolean => {
    const { registers } = nic.device;
    const causes = registers.ld32(reg.NIC_ICR);
    if (causes === ALL_ONES) {
      markGone(nic);
      return false;
    }
    if (causes === 0) return false;
    if ((causes & reg.CAUSE_QUIET) !== 0) core.setState(nic, STATE_QUIET);
    registers.st32(reg.NIC_IMC, reg.CAUSE_ALL);
    return true;
  };

  /** Readers learn that the wire is silent once the card owes nothing. */
  const tellQuiet = (nic: Nic): void => {
    if (!core.hasState(nic, STATE_QUIET) || rx.isOwed(nic)) return;
    core.clearState(nic, STATE_QUIET);
    core.set(nic, NIC_QUIET, core.get(nic, NIC_QUIET) + 1);
    sockets.wake(nic);
  };

  /** The line goes to the next CPU, so that all take their share. */
  const spread = (ctx: IrqContext, nic: Nic): void => {
    let cpu = (ctx.cpu + 1) % nrCpus;
    while (online[cpu] !== 1) cpu = (cpu + 1) % nrCpus;
    irqs.setAffinity(nic.device.line, cpu);
  };

  const setControl = (nic: Nic): void => {
    const isOpen = core.get(nic, NIC_NR_OPEN) > 0;
    nic.device.registers.st32(reg.NIC_CTRL, reg.CTRL_TX | (isOpen ? reg.CTRL_RX : 0));
  };

  const start = (nic: Nic): void => {
    const { registers } = nic.device;
    registers.st32(reg.NIC_RDBA, nic.rxRing.dma);
    registers.st32(reg.NIC_RDLEN, params.ring);
    registers.st32(reg.NIC_TDBA, nic.txRing.dma);
    registers.st32(reg.NIC_TDLEN, params.ring);
    registers.st32(reg.NIC_ITR, params.moderation);
    setControl(nic);
    registers.st32(reg.NIC_IMS, reg.CAUSE_ALL);
  };

  /** What a card that stopped completing needs: everything from the beginning. */
  const reset = (ctx: IrqContext, nic: Nic): void => {
    core.count(nic, "resets");
    nic.device.registers.st32(reg.NIC_CTRL, reg.CTRL_RESET);
    rx.drop(ctx, nic);
    tx().drop(ctx, nic);
    start(nic);
    rx.refill(ctx, nic);
    tx().wake(nic);
    tellQuiet(nic);
  };

  const noteStall = (ctx: IrqContext, nic: Nic): void => {
    const stalled = core.get(nic, NIC_STALLED) + 1;
    core.set(nic, NIC_STALLED, stalled);
    if (stalled < MAX_STALLED) return;
    core.set(nic, NIC_STALLED, 0);
    const millis = (MAX_STALLED * WATCH_CYCLES) / (CYCLES_PER_SECOND / 1000);
    const isSending = tx().isPending(nic);
    const what = isSending ? "transmit" : "receive";
    if (isSending) core.count(nic, "tx_timeouts");
    nic.log.warn(`NETDEV WATCHDOG: ${nic.device.name}: ${what} queue timed out ${millis} ms; resetting the card`);
    reset(ctx, nic);
  };

  const watch = (ctx: Context, nic: Nic): void => {
    const timer = physAdd(nic.struct, NIC_WATCHDOG);
    if (timers.isPending(timer) || core.hasState(nic, STATE_GONE | STATE_REMOVING)) return;
    core.set(nic, NIC_SEEN, core.get(nic, NIC_PROGRESS));
    timers.modTimer(ctx, timer, (clock[ctx.cpu] as number) + WATCH_CYCLES);
  };

  return {
    handler(ctx, nic) {
      if (!takeCauses(nic)) return IRQ_NONE;
      core.count(nic, "irqs");
      napi.schedule(ctx, napiOf(nic));
      return IRQ_HANDLED;
    },
    poll(ctx, nic, budget) {
      core.count(nic, "polls");
      tx().clean(ctx, nic);
      const nr = rx.clean(ctx, nic, budget);
      if (core.hasState(nic, STATE_GONE)) {
        napi.complete(ctx, napiOf(nic));
        return 0;
      }
      rx.refill(ctx, nic);
      if (nr >= budget) {
        core.count(nic, "budget_exhausted");
        return nr;
      }
      rx.countMissed(nic);
      tellQuiet(nic);
      napi.complete(ctx, napiOf(nic));
      if (params.spread === 1) spread(ctx, nic);
      nic.device.registers.st32(reg.NIC_IMS, reg.CAUSE_ALL);
      return nr;
    },
    look(ctx, nic) {
      if (core.hasState(nic, STATE_GONE | STATE_REMOVING)) return;
      const status = nic.device.registers.ld32(reg.NIC_STATUS);
      if (status === ALL_ONES) {
        markGone(nic);
        return;
      }
      const isStill = core.get(nic, NIC_PROGRESS) === core.get(nic, NIC_SEEN);
      const isIdle = isStill && !napi.isScheduled(napiOf(nic));
      const isExpecting = (): boolean => rx.isOwed(nic) || tx().isPending(nic);
      if (isIdle && takeCauses(nic)) {
        core.count(nic, "irqs_lost");
        napi.schedule(ctx, napiOf(nic));
      } else if (isIdle && isExpecting()) noteStall(ctx, nic);
      else core.set(nic, NIC_STALLED, 0);
      const isBusy = (status & reg.STATUS_BUSY) !== 0 && core.get(nic, NIC_NR_OPEN) > 0;
      if (!isIdle || isBusy || isExpecting()) watch(ctx, nic);
    },
    watch,
    start,
    setControl,
  };
}
