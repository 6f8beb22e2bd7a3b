/**
 * The network card, as hardware: two descriptor rings in memory, moderated interrupts, a wire (nic_wire.ts).
 *
 *   packet arrives ─▶ descriptor at RDH read ─▶ packet written ─▶ second half written back ─▶ cause RX ─▶ interrupt
 *   driver stores TDT ─▶ descriptor at TDH read ─▶ packet read ─▶ on the wire ─▶ written back ─▶ cause TX
 *
 * Everything in memory goes through the bus master: what the bus refuses did not happen and counts in NIC_DMA_ERRORS. A
 * packet that finds no descriptor is lost (NIC_MISSED). An interrupt asserts the line when a cause is unmasked and
 * NIC_ITR cycles have passed since the last one; causes meanwhile gather. Registers: nic_registers.ts.
 *
 * Faults: each completion, rx or tx, is a chance for late, corrupt, twice, never, vanish, stray_write; each assertion
 * of the line for lost_irq.
 */

import { PACKET_MAX_BYTES } from "../kernel/uapi/packet.ts";
import { type DeviceEnv, type DeviceKind, type DeviceModel, numberSetting } from "./hardware.ts";
import * as nic from "./nic_registers.ts";
import { createWire } from "./nic_wire.ts";

/** 10 Gbit/s and the card's own work per packet. */
const CYCLES_PER_BYTE = 0.8;
const CYCLES_PER_PACKET = 400;
/** When an act is reported for the second time: the driver has long dealt with it. */
const REPEAT_CYCLES = 200_000;

interface Ring {
  base: number;
  nr: number;
  head: number;
  tail: number;
}

const emptyRing = (): Ring => ({ base: 0, nr: 0, head: 0, tail: 0 });

interface Descriptor {
  /** Bus address of the descriptor. */
  readonly at: number;
  readonly address: number;
  readonly length: number;
  readonly cookie: number;
}

function createNicModel(env: DeviceEnv): DeviceModel {
  const { master, faults } = env;
  let [rx, tx] = [emptyRing(), emptyRing()];
  let [control, causes, mask, moderation] = [0, 0, 0, 0];
  let lastAssertion = Number.NEGATIVE_INFINITY;
  let isAssertionPlanned = false;
  let isSending = false;
  /** Counts resets: what was on its way before one does not arrive. */
  let life = 0;
  const counts = { missed: 0, rx: 0, tx: 0, dmaErrors: 0 };

  const later = (delay: number, act: () => void): void => {
    const planned = life;
    env.after(delay, () => {
      if (planned === life) act();
    });
  };

  // ── Interrupts ───────────────────────────────────────────────────────────────────────────────────────────────────

  const assertLine = (): void => {
    if ((causes & mask) === 0) return;
    const wait = lastAssertion + moderation - env.now();
    if (wait > 0) {
      if (!isAssertionPlanned) {
        later(wait, () => {
          isAssertionPlanned = false;
          assertLine();
        });
      }
      isAssertionPlanned = true;
      return;
    }
    lastAssertion = env.now();
    if (!faults.strikes("lost_irq")) env.setIrq(true);
  };
  const raise = (cause: number): void => {
    causes |= cause;
    assertLine();
  };

  // ── Descriptors ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** The descriptor at a ring's head, which moves on; null if the driver gave none or the bus refuses. */
  const take = (ring: Ring): Descriptor | null => {
    if (ring.nr === 0 || ring.head === ring.tail) return null;
    const at = ring.base + ring.head * nic.DESC_BYTES;
    const bytes = master.read(at, nic.DESC_BYTES);
    if (bytes === null) {
      counts.dmaErrors++;
      return null;
    }
    ring.head = (ring.head + 1) % ring.nr;
    const half = (offset: number): number => (bytes[offset] as number) | ((bytes[offset + 1] as number) << 8);
    const address = half(nic.DESC_ADDR) + half(nic.DESC_ADDR + 2) * 0x1_0000;
    return { at, address, length: half(nic.DESC_LENGTH), cookie: half(nic.DESC_COOKIE) };
  };

  const writeBack = (descriptor: Descriptor, length: number, status: number): void => {
    const { at, cookie } = descriptor;
    const bytes = Uint8Array.of(length & 255, length >>> 8, cookie & 255, cookie >>> 8, status, 0, 0, 0);
    if (!master.write(at + nic.DESC_LENGTH, bytes)) counts.dmaErrors++;
  };

  /**
   * The end of an act on a descriptor, with all that can go wrong then: `finish` writes, `cause` tells, `again` is the
   * second report.
   */
  const complete = (cause: number, delay: number, finish: () => void, again: () => void): void => {
    if (faults.strikes("vanish")) {
      env.vanish();
      return;
    }
    if (faults.strikes("never")) return;
    if (faults.strikes("stray_write")) strayWrite();
    const wait = delay + (faults.strikes("late") ? env.setting("late_cycles") : 0);
    const act = (what: () => void) => (): void => {
      what();
      raise(cause);
    };
    if (wait > 0) later(wait, act(finish));
    else act(finish)();
    if (faults.strikes("twice")) later(wait + REPEAT_CYCLES, act(again));
  };

  const strayWrite = (): void => {
    const wild = 0x10_0000 + env.random.below(0x10_0000) * 16;
    if (!master.write(wild, new Uint8Array(64).fill(0xee))) counts.dmaErrors++;
  };

  // ── Receiving, sending ───────────────────────────────────────────────────────────────────────────────────────────

  const arrive = (packet: Uint8Array): void => {
    const descriptor = (control & nic.CTRL_RX) === 0 ? null : take(rx);
    if (descriptor === null) {
      counts.missed++;
      return;
    }
    if (descriptor.length < packet.length) {
      writeBack(descriptor, 0, nic.DESC_DONE | nic.DESC_ERROR);
      return;
    }
    let status = nic.DESC_DONE;
    if (faults.strikes("corrupt")) {
      // Half of the damage is seen by the card, the other half only by the checksum.
      if (env.random.below(2) === 0) status |= nic.DESC_ERROR;
      const at = env.random.below(packet.length);
      packet[at] = (packet[at] as number) ^ (1 + env.random.below(255));
    }
    const report = (): void => writeBack(descriptor, packet.length, status);
    const finish = (): void => {
      if (master.write(descriptor.address, packet)) {
        counts.rx++;
        report();
      } else counts.dmaErrors++;
    };
    complete(nic.CAUSE_RX, 0, finish, report);
  };

  const send = (): void => {
    isSending = false;
    if ((control & nic.CTRL_TX) === 0) return;
    const descriptor = take(tx);
    if (descriptor === null) return;
    const packet = descriptor.length <= PACKET_MAX_BYTES ? master.read(descriptor.address, descriptor.length) : null;
    if (packet === null) counts.dmaErrors++;
    const wireCycles = CYCLES_PER_PACKET + Math.round(descriptor.length * CYCLES_PER_BYTE);
    const status = packet === null ? nic.DESC_DONE | nic.DESC_ERROR : nic.DESC_DONE;
    const report = (): void => writeBack(descriptor, descriptor.length, status);
    const finish = (): void => {
      if (packet !== null) {
        counts.tx++;
        if (env.setting("loopback") === 1) arrive(packet);
      }
      report();
    };
    complete(nic.CAUSE_TX, wireCycles, finish, report);
    startSending(wireCycles);
  };
  const startSending = (delay: number): void => {
    if (isSending || tx.head === tx.tail) return;
    isSending = true;
    later(delay, send);
  };

  const wire = createWire(env, arrive, () => raise(nic.CAUSE_QUIET));
  /** The wire's own traffic begins when somebody first listens. */
  let hasListened = false;

  // ── Registers ────────────────────────────────────────────────────────────────────────────────────────────────────

  const resetRings = (): void => {
    life++;
    [rx, tx] = [emptyRing(), emptyRing()];
    [control, causes, mask, moderation] = [0, 0, 0, 0];
    isAssertionPlanned = false;
    isSending = false;
    env.setIrq(false);
  };

  const setControl = (value: number): void => {
    if (value >= nic.CTRL_RESET) {
      resetRings();
      return;
    }
    control = value;
    if ((control & nic.CTRL_RX) === 0 || hasListened) return;
    hasListened = true;
    wire.start(env.setting("count"));
  };

  const readCauses = (): number => {
    const value = causes;
    causes = 0;
    env.setIrq(false);
    return value;
  };

  const readers: Readonly<Record<number, () => number>> = {
    [nic.NIC_CTRL]: () => control,
    [nic.NIC_STATUS]: () => nic.STATUS_LINK | (wire.nrToCome() > 0 ? nic.STATUS_BUSY : 0),
    [nic.NIC_ICR]: readCauses,
    [nic.NIC_RDH]: () => rx.head,
    [nic.NIC_TDH]: () => tx.head,
    [nic.NIC_MISSED]: () => counts.missed,
    [nic.NIC_RX_GOOD]: () => counts.rx,
    [nic.NIC_TX_GOOD]: () => counts.tx,
    [nic.NIC_DMA_ERRORS]: () => counts.dmaErrors,
  };
  const writers: Readonly<Record<number, (value: number) => void>> = {
    [nic.NIC_CTRL]: setControl,
    [nic.NIC_IMS]: (value) => {
      mask |= value;
      assertLine();
    },
    [nic.NIC_IMC]: (value) => {
      mask &= ~value;
    },
    [nic.NIC_ITR]: (value) => {
      moderation = value;
    },
    [nic.NIC_RDBA]: (value) => {
      rx.base = value;
    },
    [nic.NIC_RDLEN]: (value) => {
      rx.nr = value;
    },
    [nic.NIC_RDT]: (value) => {
      rx.tail = value;
    },
    [nic.NIC_TDBA]: (value) => {
      tx.base = value;
    },
    [nic.NIC_TDLEN]: (value) => {
      tx.nr = value;
    },
    [nic.NIC_TDT]: (value) => {
      tx.tail = value;
      startSending(CYCLES_PER_PACKET);
    },
    [nic.NIC_GO]: (value) => wire.start(value),
    [nic.NIC_RATE]: (value) => wire.setRate(value),
    [nic.NIC_BURST]: (value) => wire.setBurst(value),
  };

  return {
    ld32: (register) => readers[register]?.() ?? 0,
    st32: (register, value) => writers[register]?.(value),
    reset() {
      resetRings();
      wire.reset();
      hasListened = false;
    },
  };
}

export const NIC_KIND: DeviceKind = {
  compatible: "nic",
  settings: {
    rate: numberSetting(1, 10_000_000, 100_000, "packets a second that the wire brings"),
    burst: numberSetting(1, 1024, 1, "packets that come back to back"),
    count: numberSetting(0, 1_000_000_000, 0, "packets that the wire brings once somebody listens; 0: only on demand"),
    size: numberSetting(0, PACKET_MAX_BYTES, 0, "bytes of each packet; 0: a mix like the Internet's (64, 594, 1518)"),
    loopback: numberSetting(0, 1, 0, "1: what is sent comes back as received"),
  },
  faults: ["lost_irq", "late", "corrupt", "twice", "never", "vanish", "stray_write"],
  create: createNicModel,
};
