/**
 * insmod, rmmod, lsmod: drivers come and go.
 *
 * The messages are those of kmod; the kernel's log (dmesg) says more. A module is named, not a file: the drivers are
 * compiled in and sleep until they are asked for.
 */

import { EBUSY, EEXIST, ENOENT, strerror } from "../../kernel/uapi/errno.ts";
import { columnsOf, linesOf } from "./proc_text.ts";
import { EXIT_FAILED, EXIT_OK, type ToolDefinition } from "./tool.ts";

const insmod: ToolDefinition = {
  name: "insmod",
  synopsis: "NAME [PARAM=VALUE]...",
  summary: "load a driver",
  *main(tool) {
    const [name, ...params] = tool.args;
    if (name === undefined) return yield* tool.usage();
    const result = yield* tool.libc.initModule(name, params.join(" "));
    if (result === 0) return EXIT_OK;
    const why = result === -EEXIST ? "File exists" : result === -ENOENT ? "Unknown symbol or module" : strerror(result);
    yield* tool.complain(`ERROR: could not insert module ${name}: ${why}`);
    return EXIT_FAILED;
  },
};

const rmmod: ToolDefinition = {
  name: "rmmod",
  synopsis: "NAME...",
  summary: "unload drivers",
  *main(tool) {
    if (tool.args.length === 0) return yield* tool.usage();
    let status = EXIT_OK;
    for (const name of tool.args) {
      const result = yield* tool.libc.deleteModule(name);
      if (result === 0) continue;
      status = EXIT_FAILED;
      if (result === -EBUSY) yield* tool.complain(`ERROR: Module ${name} is in use`);
      else if (result === -ENOENT) yield* tool.complain(`ERROR: Module ${name} is not currently loaded`);
      else yield* tool.complain(`ERROR: could not remove module ${name}: ${strerror(result)}`);
    }
    return status;
  },
};

const lsmod: ToolDefinition = {
  name: "lsmod",
  synopsis: "",
  summary: "list the loaded drivers",
  *main(tool) {
    if (tool.args.length > 0) return yield* tool.usage();
    const text = yield* tool.text("/proc/modules");
    if (text === null) return EXIT_FAILED;
    const rows = linesOf(text).map((line) => {
      const [name = "", bytes = "", refs = ""] = columnsOf(line);
      return `${name.padEnd(19)} ${bytes.padStart(8)}  ${refs}\n`;
    });
    yield* tool.out(`Module                  Size  Used by\n${rows.join("")}`);
    return EXIT_OK;
  },
};

export const MODULE_TOOLS: readonly ToolDefinition[] = [insmod, rmmod, lsmod];
