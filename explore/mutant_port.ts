/**
 * A machine whose port does some accesses otherwise: how bugs in accesses are planted without touching the code.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import type { MemoryPort } from "../kernel/arch/port.ts";

/** `machine` with the methods of `change(port)` in place of its port's. */
export function withPort(machine: Machine, change: (port: MemoryPort) => Partial<MemoryPort>): Machine {
  const { port } = machine;
  const mutated: MemoryPort = {
    sizeBytes: port.sizeBytes,
    ld8: (addr) => port.ld8(addr),
    ld16: (addr) => port.ld16(addr),
    ld32: (addr) => port.ld32(addr),
    ldF64: (addr) => port.ldF64(addr),
    st8: (addr, value) => port.st8(addr, value),
    st16: (addr, value) => port.st16(addr, value),
    st32: (addr, value) => port.st32(addr, value),
    stF64: (addr, value) => port.stF64(addr, value),
    ldWord: (word) => mutated.ld32(word * 4),
    stWord: (word, value) => mutated.st32(word * 4, value),
    ldAtomic: (addr) => port.ldAtomic(addr),
    stAtomic: (addr, value) => port.stAtomic(addr, value),
    cas: (addr, expected, desired) => port.cas(addr, expected, desired),
    casBelow: (addr, limit, desired) => port.casBelow(addr, limit, desired),
    fetchAdd: (addr, delta) => port.fetchAdd(addr, delta),
    copy: (dst, src, bytes) => port.copy(dst, src, bytes),
    fill: (addr, byte, bytes) => port.fill(addr, byte, bytes),
    writeBytes: (addr, source) => port.writeBytes(addr, source),
    readBytes: (addr, bytes) => port.readBytes(addr, bytes),
    ...change(port),
  };
  return { ...machine, port: mutated };
}
