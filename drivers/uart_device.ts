/**
 * The serial port, as hardware: two FIFOs of 16 bytes, a line to the outside that leads back.
 *
 * | register | name      | meaning                                                                            |
 * |----------|-----------|------------------------------------------------------------------------------------|
 * | 0x00     | UART_DATA | load: the oldest byte received (0 if none); store: a byte to send                  |
 * | 0x04     | UART_IER  | bit 0: interrupt while bytes have been received; bit 1: while all is sent          |
 * | 0x08     | UART_IIR  | the causes that hold the line up just now, as in UART_IER                          |
 * | 0x0c     | UART_LSR  | bit 0 a byte is there, bit 1 one was lost (cleared by reading), bit 5 room to send |
 *
 * A byte takes ten bit times. What is sent comes back as received (`loopback`), so that a port alone can be tested. The
 * line is level: it is up as long as a cause is. Modelled on the 16550.
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { type DeviceEnv, type DeviceKind, type DeviceModel, numberSetting } from "./hardware.ts";

export const UART_DATA = 0x00;
export const UART_IER = 0x04;
export const UART_IIR = 0x08;
export const UART_LSR = 0x0c;
export const UART_RX = 1;
export const UART_TX = 2;
export const LSR_READY = 0x01;
export const LSR_OVERRUN = 0x02;
export const LSR_ROOM = 0x20;
export const UART_FIFO_BYTES = 16;

function createUartModel(env: DeviceEnv): DeviceModel {
  const received: number[] = [];
  const toSend: number[] = [];
  let enabled = 0;
  let isSending = false;
  let isOverrun = false;
  let life = 0;

  const causes = (): number =>
    enabled & ((received.length > 0 ? UART_RX : 0) | (toSend.length === 0 && !isSending ? UART_TX : 0));
  let wasUp = false;
  const updateLine = (): void => {
    const isUp = causes() !== 0;
    if (isUp && !wasUp && env.faults.strikes("lost_irq")) return;
    wasUp = isUp;
    env.setIrq(isUp);
  };

  const receive = (byte: number): void => {
    const damaged = env.faults.strikes("corrupt") ? byte ^ (1 << env.random.below(8)) : byte;
    if (received.length >= UART_FIFO_BYTES) isOverrun = true;
    else received.push(damaged);
  };

  const sendNext = (): void => {
    const byte = toSend.shift();
    isSending = byte !== undefined;
    if (byte === undefined) return;
    const planned = life;
    const bits = (CYCLES_PER_SECOND * 10) / env.setting("baud");
    const late = env.faults.strikes("late") ? env.setting("late_cycles") : 0;
    env.after(Math.round(bits) + late, () => {
      if (planned !== life) return;
      if (env.faults.strikes("vanish")) {
        env.vanish();
        return;
      }
      if (env.setting("loopback") === 1) receive(byte);
      sendNext();
      updateLine();
    });
  };

  const reset = (): void => {
    life++;
    received.length = 0;
    toSend.length = 0;
    [enabled, isSending, isOverrun, wasUp] = [0, false, false, false];
  };

  const status = (): number => {
    const ready = received.length > 0 ? LSR_READY : 0;
    const room = toSend.length < UART_FIFO_BYTES ? LSR_ROOM : 0;
    const overrun = isOverrun ? LSR_OVERRUN : 0;
    isOverrun = false;
    return ready | room | overrun;
  };

  const load = (register: number): number => {
    if (register === UART_DATA) return received.shift() ?? 0;
    if (register === UART_LSR) return status();
    if (register === UART_IIR) return causes();
    return register === UART_IER ? enabled : 0;
  };

  return {
    ld32(register) {
      const value = load(register);
      updateLine();
      return value;
    },
    st32(register, value) {
      if (register === UART_IER) enabled = value & (UART_RX | UART_TX);
      if (register === UART_DATA && toSend.length < UART_FIFO_BYTES) {
        toSend.push(value & 0xff);
        if (!isSending) sendNext();
      }
      updateLine();
    },
    reset,
  };
}

export const UART_KIND: DeviceKind = {
  compatible: "uart",
  settings: {
    baud: numberSetting(300, 4_000_000, 115_200, "bits a second; a byte is ten"),
    loopback: numberSetting(0, 1, 1, "1: what is sent comes back"),
  },
  faults: ["lost_irq", "late", "corrupt", "vanish"],
  create: createUartModel,
};
