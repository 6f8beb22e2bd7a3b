/**
 * Boot: is memory zeroed whenever it is handed out, or whenever it comes back? As the command line says (INI-1, INI-2).
 */

import type { AutoInit } from "../../mm/index.ts";
import type { KernelParameters } from "../cmdline.ts";
import { KERN_INFO, type Printk } from "../printk.ts";

/** What `init_on_alloc` and `init_on_free` ask for; undefined if neither does. */
export function readAutoInit(parameters: KernelParameters, printk: Printk): AutoInit | undefined {
  const isOn = (name: "init_on_alloc" | "init_on_free"): boolean =>
    ["1", "on"].includes(parameters.choice(name, ["0", "1", "off", "on"]));
  const when = { onAlloc: isOn("init_on_alloc"), onFree: isOn("init_on_free") };
  if (!when.onAlloc && !when.onFree) return undefined;
  const word = (on: boolean): string => (on ? "on" : "off");
  printk(KERN_INFO, `mem auto-init: stack:off, heap alloc:${word(when.onAlloc)}, heap free:${word(when.onFree)}`);
  return when;
}
