/**
 * struct nic: what the network driver keeps of a card, in RAM; and the counters.
 *
 * | offset | field      | width | meaning; who writes it                                                   |
 * |--------|------------|-------|--------------------------------------------------------------------------|
 * | 0      | napi       | 16    | napi.ts                                                                  |
 * | 16     | watchdog   | 32    | kernel timer                                                             |
 * | 48     | refill     | 32    | kernel timer: memory was short                                           |
 * | 80     | readers    | 8     | list of struct reader; under the lock                                    |
 * | 88     | read queue | 8     | wait queue of sleeping readers                                           |
 * | 96     | tx queue   | 8     | wait queue of writers that found the ring full                           |
 * | 104    | lock       | u32   | readers, their packets, the transmit ring; taken with softirqs off       |
 * | 108    | state      | u32   | STATE_…                                                                  |
 * | 112    | nr open    | u32   | open files; under the lock                                               |
 * | 116    | quiet      | u32   | how often the wire has fallen silent; softirq                            |
 * | 120    | rx clean   | u32   | next receive descriptor to look at; softirq                              |
 * | 124    | rx fill    | u32   | next one to give a buffer; softirq, probe                                |
 * | 128    | tx use     | u32   | next transmit descriptor to use; under the lock                          |
 * | 132    | tx clean   | u32   | next one to complete; under the lock                                     |
 * | 136    | cookie     | u32   | last one given to a descriptor                                           |
 * | 140    | progress   | u32   | descriptors dealt with, for the watchdog                                 |
 * | 144    | seen       | u32   | progress at the watchdog's last look                                     |
 * | 148    | stalled    | u32   | looks without progress while there should have been some                 |
 * | 152    | missed     | u32   | NIC_MISSED when it was last read                                         |
 * | 160    | counters   | u32 each, then packets received per CPU                                          |
 *
 * rx info and tx info, one row of INFO_BYTES per descriptor: buffer, bus address, cookie, length (0: no buffer).
 * A packet buffer is 2 KiB: 1536 bytes for the packet; its last 8 bytes link and measure it while it is queued.
 */

import type { IrqAction } from "../kernel/irq.ts";
import type { PhysAddr } from "../kernel/types.ts";
import type { DmaDevice, DmaMemory, KmemCache } from "../mm/index.ts";
import type { DeviceLog } from "./driver.ts";
import type { Hardware } from "./hardware.ts";

export const NIC_NAPI = 0;
export const NIC_WATCHDOG = 16;
export const NIC_REFILL = 48;
export const NIC_READERS = 80;
export const NIC_READ_QUEUE = 88;
export const NIC_TX_QUEUE = 96;
export const NIC_LOCK = 104;
export const NIC_STATE = 108;
export const NIC_NR_OPEN = 112;
export const NIC_QUIET = 116;
export const NIC_RX_CLEAN = 120;
export const NIC_RX_FILL = 124;
export const NIC_TX_USE = 128;
export const NIC_TX_CLEAN = 132;
export const NIC_COOKIE = 136;
export const NIC_PROGRESS = 140;
export const NIC_SEEN = 144;
export const NIC_STALLED = 148;
export const NIC_MISSED_SEEN = 152;
const NIC_COUNTERS = 160;

/** The device reads as all ones. */
export const STATE_GONE = 1;
/** remove() has begun. */
export const STATE_REMOVING = 2;
/** The wire is silent; readers learn of it once all that came is delivered. */
export const STATE_QUIET = 4;

/** Names of the counters, in their order in RAM and in /sys/devices/<name>/stats. */
export const COUNTERS = [
  "rx_packets",
  "rx_bytes",
  "rx_delivered",
  "drop_no_buffer",
  "drop_queue_full",
  "drop_no_reader",
  "drop_corrupt",
  "drop_checksum",
  "refill_failed",
  "alloc_task",
  "alloc_softirq",
  "alloc_hardirq",
  "irqs",
  "irqs_lost",
  "polls",
  "budget_exhausted",
  "bad_completions",
  "resets",
  "tx_packets",
  "tx_bytes",
  "tx_errors",
  "tx_timeouts",
] as const;
export type Counter = (typeof COUNTERS)[number];

export const counterAt = (name: Counter): number => NIC_COUNTERS + COUNTERS.indexOf(name) * 4;
export const RX_PER_CPU = NIC_COUNTERS + COUNTERS.length * 4;
export const nicBytes = (nrCpus: number): number => RX_PER_CPU + nrCpus * 4;

export const INFO_BUFFER = 0;
export const INFO_DMA = 4;
export const INFO_COOKIE = 8;
export const INFO_LENGTH = 12;
export const INFO_BYTES = 16;

export const BUFFER_BYTES = 2048;
/** What the device may write of a buffer. */
export const BUFFER_DATA = 1536;
export const BUFFER_LINK = BUFFER_BYTES - 8;
export const BUFFER_LENGTH = BUFFER_BYTES - 4;

export interface NicParams {
  /** Descriptors of each ring. */
  readonly ring: number;
  /** Packets that wait for one reader. */
  readonly queue: number;
  /** Least cycles between two interrupts. */
  readonly moderation: number;
  /** 1: the line goes on to the next CPU after each round of polling. */
  readonly spread: number;
}

/** One bound card: addresses, and what reaches the kernel's services. Filled in by probe. */
export interface Nic {
  readonly device: Hardware;
  readonly log: DeviceLog;
  readonly struct: PhysAddr;
  readonly dev: DmaDevice;
  readonly rxRing: DmaMemory;
  readonly txRing: DmaMemory;
  readonly rxInfo: PhysAddr;
  readonly txInfo: PhysAddr;
  readonly cache: KmemCache;
  readonly action: IrqAction;
}

/** struct reader: one open file that receives.  | node 8 | first u32 | last u32 | nr u32 | quiet seen u32 | */
export const READER_FIRST = 8;
export const READER_LAST = 12;
export const READER_NR = 16;
export const READER_QUIET = 20;
export const READER_BYTES = 24;
