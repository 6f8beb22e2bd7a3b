/**
 * printk: the kernel's log, a ring of records in RAM.
 *
 *   record  | seq u32 | level u8, 0, length u16 | time f64 | text (Latin-1), padded to 16 |
 *
 * `head` counts bytes ever written, `tail` bytes overwritten; a record never wraps around the end of the ring: the
 * rest is skipped with a filler record of level 255. The oldest records make room for new ones. Each line also goes
 * to the console when its level is below `consoleLevel`.
 *
 *   LOG-1  tail ≤ head, head − tail ≤ size
 *   LOG-2  walking records from tail arrives exactly at head
 *   LOG-3  what is left before the end of the ring is nothing, or has room for a header: records are multiples of one
 *
 * Context: any, also under any lock. Its own lock is one word, taken per line and never held while anything else is
 * wanted; a CPU that finds it in its own hands (it was interrupted here) goes on without it. Lines are whole; the lines
 * of two CPUs may alternate.
 * Linux keeps descriptors and text in two rings (kernel/printk/printk_ringbuffer.c); one ring is enough to read here.
 */

import { CYC_PRINTK } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import type { KernelImage } from "./image.ts";
import { CYCLES_PER_SECOND } from "./params.ts";

export const KERN_EMERG = 0;
export const KERN_ALERT = 1;
export const KERN_CRIT = 2;
export const KERN_ERR = 3;
export const KERN_WARNING = 4;
export const KERN_NOTICE = 5;
export const KERN_INFO = 6;
export const KERN_DEBUG = 7;

const LOG_BUF_BYTES = 128 * 1024;
const HEADER_BYTES = 16;
const FILLER = 255;
const MAX_LINE = 1000;

export interface LogRecord {
  readonly seq: number;
  readonly level: number;
  /** Virtual time, cycles. */
  readonly time: number;
  readonly text: string;
}

export interface Printk {
  /** Logs each line of `text` at `level`. */
  (level: number, text: string): void;
  /** Records still in the ring, oldest first, with `seq ≥ fromSeq`. */
  records(fromSeq?: number): LogRecord[];
  /** Sequence number of the next record. */
  nextSeq(): number;
  /** Where lines of a level below `consoleLevel` go: `[    0.000000] text`. */
  setConsole(write: ((line: string, level: number) => void) | undefined, consoleLevel?: number): void;
  /** Nothing more is logged: the kernel has panicked. */
  silence(): void;
  /** LOG-1, LOG-2; a sentence about the first violation, or null. */
  check(): string | null;
}

/** `[    1.234567] text`, as dmesg prints it. */
export function formatLogLine(record: Pick<LogRecord, "time" | "text">): string {
  const micros = Math.floor(record.time / (CYCLES_PER_SECOND / 1_000_000));
  const seconds = String(Math.floor(micros / 1_000_000)).padStart(5);
  return `[${seconds}.${String(micros % 1_000_000).padStart(6, "0")}] ${record.text}`;
}

export function createPrintk(machine: Machine, image: KernelImage): Printk {
  const { port, harts } = machine;
  const state = image.bss("log_state", 24, 8);
  const ring = image.bss("log_buf", LOG_BUF_BYTES, 8);
  const HEAD = state;
  const TAIL = state + 8;
  const SEQ = state + 16;
  /** 0, or 1 + the CPU that is writing a line. */
  const LOCK = state + 20;
  let writeConsole: ((line: string, level: number) => void) | undefined;
  let consoleLevel = 8;
  let isSilent = false;

  const at = (position: number): number => ring + (position % LOG_BUF_BYTES);
  /** LOG-3 */
  const bytesFor = (length: number): number => HEADER_BYTES + Math.ceil(length / HEADER_BYTES) * HEADER_BYTES;
  const recordBytes = (position: number): number => bytesFor(port.ld16(at(position) + 6));

  /** Drops oldest records until `bytes` fit behind head. */
  const makeRoom = (bytes: number): void => {
    while (port.ldF64(HEAD) - port.ldF64(TAIL) + bytes > LOG_BUF_BYTES) {
      const tail = port.ldF64(TAIL);
      port.stF64(TAIL, tail + recordBytes(tail));
    }
  };

  const putRecord = (level: number, time: number, text: string): void => {
    const bytes = bytesFor(text.length);
    makeRoom(bytes);
    const position = port.ldF64(HEAD);
    const addr = at(position);
    port.st32(addr, port.ld32(SEQ));
    port.st8(addr + 4, level);
    port.st16(addr + 6, text.length);
    port.stF64(addr + 8, time);
    for (let i = 0; i < text.length; i++) port.st8(addr + HEADER_BYTES + i, text.charCodeAt(i) & 0xff);
    port.stF64(HEAD, position + bytes);
  };

  /** True if the caller has to unlock. */
  const lock = (cpu: number): boolean => {
    for (;;) {
      const holder = port.ld32(LOCK);
      if (holder === cpu + 1) return false;
      if (holder === 0 && port.cas(LOCK, 0, cpu + 1) === 0) return true;
    }
  };

  const putLine = (level: number, text: string): void => {
    const cpu = harts.current[0] as number;
    const mustUnlock = lock(cpu);
    const time = harts.clock[cpu] as number;
    harts.clock[cpu] = time + CYC_PRINTK;
    const untilEnd = LOG_BUF_BYTES - (port.ldF64(HEAD) % LOG_BUF_BYTES);
    if (untilEnd < bytesFor(text.length)) {
      putRecord(FILLER, time, "".padEnd(untilEnd - HEADER_BYTES));
    }
    putRecord(level, time, text);
    port.st32(SEQ, port.ld32(SEQ) + 1);
    if (mustUnlock) port.stAtomic(LOCK, 0);
    if (writeConsole && level < consoleLevel) writeConsole(formatLogLine({ time, text }), level);
  };

  const printk = (level: number, text: string): void => {
    if (isSilent) return;
    for (const line of text.split("\n")) putLine(level, line.slice(0, MAX_LINE));
  };

  const readText = (addr: number, length: number): string => {
    let text = "";
    for (let i = 0; i < length; i++) text += String.fromCharCode(port.ld8(addr + i));
    return text;
  };

  const records = (fromSeq = 0): LogRecord[] => {
    const out: LogRecord[] = [];
    for (let p = port.ldF64(TAIL); p < port.ldF64(HEAD); p += recordBytes(p)) {
      const addr = at(p);
      const level = port.ld8(addr + 4);
      const seq = port.ld32(addr);
      if (level === FILLER || seq < fromSeq) continue;
      out.push({ seq, level, time: port.ldF64(addr + 8), text: readText(addr + HEADER_BYTES, port.ld16(addr + 6)) });
    }
    return out;
  };

  const check = (): string | null => {
    const [head, tail] = [port.ldF64(HEAD), port.ldF64(TAIL)];
    if (tail > head || head - tail > LOG_BUF_BYTES) return `LOG-1: head ${head}, tail ${tail}`;
    let p = tail;
    while (p < head) p += recordBytes(p);
    return p === head ? null : `LOG-2: records end at ${p}, head is ${head}`;
  };

  return Object.assign(printk, {
    records,
    nextSeq: () => port.ld32(SEQ),
    setConsole(write: ((line: string, level: number) => void) | undefined, level = 8) {
      writeConsole = write;
      consoleLevel = level;
    },
    silence() {
      isSilent = true;
    },
    check,
  });
}
