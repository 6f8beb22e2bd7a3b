/**
 * The /proc files that the host side knows by name: for completion, and for `slabtown procfs`.
 */

/** The memory files, as `slabtown procfs` writes them. */
export const MEMORY_PROC_FILES: readonly string[] = [
  "buddyinfo",
  "meminfo",
  "pagetypeinfo",
  "slabinfo",
  "vmstat",
  "zoneinfo",
];

/** Everything under /proc that is worth completing. */
export const PROC_FILES: readonly string[] = [
  ...MEMORY_PROC_FILES,
  "cmdline",
  "interrupts",
  "loadavg",
  "mounts",
  "stat",
  "uptime",
  "version",
];
