/**
 * The CPUs' own registers: local clock, interrupt-enable flag, pending lines, timer deadline, address space.
 *
 * Structure of arrays, one element per CPU (a "hart" in RISC-V's words). This is hardware, not kernel memory: it is
 * not in RAM and the kernel reaches it only through these arrays, as it would through control registers. A saved
 * machine saves them all.
 *
 * Time is local. A CPU's clock advances by what its work costs (charges.ts); the scheduler always runs the CPU whose
 * clock is least, so that clocks stay close together.
 */

export interface Harts {
  readonly nrCpus: number;
  /** Local virtual time in cycles; only ever grows. */
  readonly clock: Float64Array;
  /** 1 while the CPU accepts interrupts. */
  readonly irqOn: Uint8Array;
  /** Interrupt lines raised and not yet delivered, one bit each. */
  readonly pending: Uint32Array;
  /** Clock value at which the CPU's timer raises its line; Infinity when disarmed. */
  readonly timerDeadline: Float64Array;
  /** Frame of the root page table; 0 runs the kernel's identity map. */
  readonly satpRoot: Uint32Array;
  /** Address-space id that tags TLB entries. */
  readonly satpAsid: Uint32Array;
  /** 1 once the CPU runs. */
  readonly online: Uint8Array;
  /** Element 0: the CPU whose code the host is executing at this moment. */
  readonly current: Uint8Array;
}

/**
 * A buffer of its own for a register file. V8 keeps a typed array of up to 64 bytes inside the object, where
 * it may move; only one outside is a constant address in compiled code, and a clock is moved by every step.
 */
const registerBuffer = (nrCpus: number, bytesPerCpu: number): ArrayBuffer => new ArrayBuffer(nrCpus * bytesPerCpu);

export function createHarts(nrCpus: number): Harts {
  return {
    nrCpus,
    clock: new Float64Array(registerBuffer(nrCpus, 8)),
    irqOn: new Uint8Array(registerBuffer(nrCpus, 1)),
    pending: new Uint32Array(registerBuffer(nrCpus, 4)),
    timerDeadline: new Float64Array(registerBuffer(nrCpus, 8)).fill(Number.POSITIVE_INFINITY),
    satpRoot: new Uint32Array(registerBuffer(nrCpus, 4)),
    satpAsid: new Uint32Array(registerBuffer(nrCpus, 4)),
    online: new Uint8Array(registerBuffer(nrCpus, 1)),
    current: new Uint8Array(registerBuffer(1, 1)),
  };
}
