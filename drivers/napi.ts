/**
 * NAPI: a device that has packets is polled in softirq context, with its interrupt off, until it has none.
 *
 *   hardirq: mask device, schedule(napi) ─▶ poll list of this CPU ─▶ NET_RX softirq: poll(budget 64), poll, …
 *                                              ▲                        │ fewer than its budget: complete, unmask
 *                                              └── all of its budget ───┘
 *
 * One interrupt thus announces any number of packets, and a flood costs softirq time, which is bounded: one run takes
 * at most 300 packets or 2 ms and leaves the rest to the next, in the end to ksoftirqd. A device that is not done goes
 * to the back of the list, so that devices take turns.
 *
 * struct napi, NAPI_BYTES of the driver's memory:   | list node 8 | state u32 | poll function u32 |
 *
 *   NAPI-1  a napi is on one poll list at most, and then SCHED is set
 *   NAPI-2  poll is never entered again while it runs, nor after disable() returned
 *   NAPI-3  a napi that used its whole budget stays scheduled
 *   NAPI-4  a CPU that goes offline leaves its list to another
 *
 * Poll lists: one head per CPU in static memory, touched with interrupts off.
 * Source: Linux net/core/dev.c (napi_schedule, net_rx_action), Documentation/networking/napi.rst.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bug } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import { initListHead, LIST_HEAD_BYTES, listAddTail, listDel, listFirst, listIsEmpty } from "../kernel/lib/list.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { NET_RX_SOFTIRQ, type Softirqs } from "../kernel/softirq.ts";
import { asPhys, type Context, type IrqContext, NULL, type PhysAddr } from "../kernel/types.ts";

/** Packets that one poll may take. */
export const NAPI_WEIGHT = 64;
/** Packets and time that one run of the softirq may take. */
const NAPI_BUDGET = 300;
const NAPI_CYCLES = CYCLES_PER_SECOND / 500;

export const NAPI_BYTES = 16;
const NAPI_STATE = 8;
const NAPI_FN = 12;
const SCHED = 1;
const DISABLED = 2;

/** Takes up to `budget` packets; their number. Calls complete() when it took fewer. */
export type NapiPoll = (ctx: IrqContext, napi: PhysAddr, budget: number) => number;

export interface Napi {
  /** Gives a poll function its number. A driver that is loaded; free it when it goes. */
  registerPoll(poll: NapiPoll): number;
  unregisterPoll(fn: number): void;
  /** Makes the NAPI_BYTES at `napi` one that is not scheduled. */
  init(napi: PhysAddr, fn: number): void;
  /** Puts it on this CPU's poll list; false if it was scheduled or is disabled. Any context. */
  schedule(ctx: Context, napi: PhysAddr): boolean;
  /** Its poll has found no more: it may be scheduled again. From its poll function. */
  complete(ctx: IrqContext, napi: PhysAddr): void;
  /** Takes it off its list and keeps it off. Process or softirq context. */
  disable(ctx: Context, napi: PhysAddr): void;
  enable(napi: PhysAddr): void;
  isScheduled(napi: PhysAddr): boolean;
  /** Moves the poll list of a CPU that goes offline to this one. */
  adopt(ctx: Context, cpu: number): void;
  /** How often a poll used its whole budget, and how often the softirq stopped with work left. */
  nrExhausted(): number;
  nrSqueezed(): number;
}

export interface NapiDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly softirqs: Softirqs;
  /** napiStaticBytes(nrCpus) of zeroed static memory. */
  readonly statics: PhysAddr;
}

/** A poll list per CPU and two counters. */
export const napiStaticBytes = (nrCpus: number): number => nrCpus * LIST_HEAD_BYTES + 8;

export function createNapi({ machine, contexts, softirqs, statics }: NapiDeps): Napi {
  const { port } = machine;
  const { clock, nrCpus } = machine.harts;
  const polls: (NapiPoll | undefined)[] = [];
  const EXHAUSTED = statics + nrCpus * LIST_HEAD_BYTES;
  const SQUEEZED = EXHAUSTED + 4;
  let isOpen = false;

  const listOf = (cpu: number): PhysAddr => asPhys(statics + cpu * LIST_HEAD_BYTES);
  const stateOf = (napi: PhysAddr): number => port.ld32(napi + NAPI_STATE);
  const setState = (napi: PhysAddr, state: number): void => port.st32(napi + NAPI_STATE, state);
  const add = (addr: number): void => port.st32(addr, port.ld32(addr) + 1);

  const irqsOff = <T>(ctx: Context, act: () => T): T => {
    const flags = contexts.localIrqSave(ctx);
    const result = act();
    contexts.localIrqRestore(ctx, flags);
    return result;
  };

  /** One poll of the first on this CPU's list: packets taken. */
  const pollFirst = (ctx: IrqContext, napi: PhysAddr): number => {
    irqsOff(ctx, () => listDel(port, napi));
    const poll = polls[port.ld32(napi + NAPI_FN)];
    if (poll === undefined) return bug("NAPI-2: a napi without poll function is scheduled", napi);
    const taken = poll(ctx, napi, NAPI_WEIGHT);
    if (taken < NAPI_WEIGHT) return taken;
    add(EXHAUSTED);
    // The poll itself may have been the end of the device.
    if ((stateOf(napi) & DISABLED) === 0) irqsOff(ctx, () => listAddTail(port, napi, listOf(ctx.cpu)));
    return taken;
  };

  const netRxAction = (ctx: IrqContext): void => {
    const list = listOf(ctx.cpu);
    const end = (clock[ctx.cpu] as number) + NAPI_CYCLES;
    for (let budget = NAPI_BUDGET; !listIsEmpty(port, list); ) {
      if (budget <= 0 || (clock[ctx.cpu] as number) >= end) {
        add(SQUEEZED);
        softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
        return;
      }
      budget -= pollFirst(ctx, listFirst(port, list));
    }
  };

  /** At the first device: a machine without one has no NET_RX. */
  const open = (): void => {
    if (isOpen) return;
    isOpen = true;
    for (let cpu = 0; cpu < nrCpus; cpu++) initListHead(port, listOf(cpu));
    softirqs.openSoftirq(NET_RX_SOFTIRQ, netRxAction);
  };

  return {
    registerPoll(poll) {
      open();
      const free = polls.indexOf(undefined);
      const fn = free < 0 ? polls.length : free;
      polls[fn] = poll;
      return fn;
    },
    unregisterPoll(fn) {
      polls[fn] = undefined;
    },
    init(napi, fn) {
      initListHead(port, napi);
      setState(napi, 0);
      port.st32(napi + NAPI_FN, fn);
    },
    schedule: (ctx, napi) =>
      irqsOff(ctx, () => {
        if (stateOf(napi) !== 0) return false;
        setState(napi, SCHED);
        listAddTail(port, napi, listOf(ctx.cpu));
        softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
        return true;
      }),
    complete(_ctx, napi) {
      setState(napi, stateOf(napi) & ~SCHED);
    },
    disable: (ctx, napi) =>
      irqsOff(ctx, () => {
        listDel(port, napi);
        setState(napi, DISABLED);
      }),
    enable(napi) {
      setState(napi, 0);
    },
    adopt(ctx, cpu) {
      if (!isOpen || listIsEmpty(port, listOf(cpu))) return;
      irqsOff(ctx, () => {
        for (let napi = listFirst(port, listOf(cpu)); napi !== NULL; napi = listFirst(port, listOf(cpu))) {
          listDel(port, napi);
          listAddTail(port, napi, listOf(ctx.cpu));
        }
      });
      softirqs.raiseSoftirq(ctx, NET_RX_SOFTIRQ);
    },
    isScheduled: (napi) => (stateOf(napi) & SCHED) !== 0,
    nrExhausted: () => port.ld32(EXHAUSTED),
    nrSqueezed: () => port.ld32(SQUEEZED),
  };
}
