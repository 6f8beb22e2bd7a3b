/**
 * For tests that hostile input costs no more than its length: the CPU time of a call, in milliseconds.
 *
 * The bound is a guard against a hang, far above what the call takes and far below what a quadratic one would: CPU
 * time, so that a busy machine does not fail it.
 */

export const HANG_MS = 10_000;

export function cpuMsOf(call: () => void): number {
  const before = process.cpuUsage();
  call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
