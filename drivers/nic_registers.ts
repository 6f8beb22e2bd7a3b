/**
 * The network card's registers and descriptors: the contract between nic_device.ts and nic.ts.
 *
 * | register | name        | meaning                                                                             |
 * |----------|-------------|-------------------------------------------------------------------------------------|
 * | 0x00     | NIC_CTRL    | bit 0 receive, bit 1 transmit; bit 31: reset (rings, causes and masks)              |
 * | 0x04     | NIC_STATUS  | bit 0 link up, bit 1 the wire has more to bring                                     |
 * | 0x08     | NIC_ICR     | causes since it was last read; reading clears them and releases the line            |
 * | 0x0c     | NIC_IMS     | storing 1 bits lets causes reach the line                                           |
 * | 0x10     | NIC_IMC     | storing 1 bits stops them                                                           |
 * | 0x14     | NIC_ITR     | least cycles between two interrupts (moderation)                                    |
 * | 0x20     | NIC_RDBA    | bus address of the receive ring; 0x24 RDLEN descriptors, 0x28 RDH, 0x2c RDT         |
 * | 0x30     | NIC_TDBA    | the same of the transmit ring, 0x34, 0x38, 0x3c                                     |
 * | 0x40     | NIC_MISSED  | packets for which there was no descriptor                                           |
 * | 0x44     | NIC_RX_GOOD | packets written to memory;  0x48 NIC_TX_GOOD sent;  0x4c NIC_DMA_ERRORS refused      |
 * | 0x60     | NIC_GO      | storing N starts N packets of traffic on the wire at 0x64 RATE (a second), 0x68 BURST |
 *
 * Rings: the device owns the descriptors from HEAD up to TAIL, the driver the others. A descriptor is 16 bytes:
 *
 *   | bus address u32 | 0 u32 | length u16 | cookie u16 | status u16 | 0 u16 |
 *
 * The device writes the second half back when it is done: length of the packet, the cookie that the driver had put
 * there, DESC_DONE, and DESC_ERROR for a packet that arrived damaged. By the cookie the driver knows a completion that
 * comes twice. Modelled on Intel's 8254x (registers, rings, causes) with the cookie of newer cards.
 */

export const NIC_CTRL = 0x00;
export const NIC_STATUS = 0x04;
export const NIC_ICR = 0x08;
export const NIC_IMS = 0x0c;
export const NIC_IMC = 0x10;
export const NIC_ITR = 0x14;
export const NIC_RDBA = 0x20;
export const NIC_RDLEN = 0x24;
export const NIC_RDH = 0x28;
export const NIC_RDT = 0x2c;
export const NIC_TDBA = 0x30;
export const NIC_TDLEN = 0x34;
export const NIC_TDH = 0x38;
export const NIC_TDT = 0x3c;
export const NIC_MISSED = 0x40;
export const NIC_RX_GOOD = 0x44;
export const NIC_TX_GOOD = 0x48;
export const NIC_DMA_ERRORS = 0x4c;
export const NIC_GO = 0x60;
export const NIC_RATE = 0x64;
export const NIC_BURST = 0x68;

export const CTRL_RX = 1;
export const CTRL_TX = 2;
export const CTRL_RESET = 0x8000_0000;
export const STATUS_LINK = 1;
export const STATUS_BUSY = 2;

/** Causes. */
export const CAUSE_RX = 1;
export const CAUSE_TX = 2;
/** The wire has brought what it had. */
export const CAUSE_QUIET = 4;
export const CAUSE_ALL = 7;

export const DESC_BYTES = 16;
export const DESC_ADDR = 0;
export const DESC_LENGTH = 8;
export const DESC_COOKIE = 10;
export const DESC_STATUS = 12;
export const DESC_DONE = 1;
export const DESC_ERROR = 2;
