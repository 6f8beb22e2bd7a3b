/**
 * mkswap, swapon, swapoff: from a disk to a swap area and back.
 */

import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { O_RDWR, SEEK_END, SEEK_SET } from "../../kernel/uapi/mman.ts";
import { MIN_SWAP_PAGES, swapHeaderPage } from "../../kernel/uapi/swap.ts";
import { SWAP_FLAG_PREFER, SWAP_FLAG_PRIO_MASK, SYS_lseek } from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { createRandom } from "./random.ts";
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type Tool, type ToolDefinition } from "./tool.ts";

const PAGE_BYTES = 4096;

/** 16 bytes as a UUID of version 4, from a stream that the size of the disk starts: the same disk, the same name. */
function uuidOf(seed: number): Uint8Array {
  const random = createRandom(seed);
  const bytes = Uint8Array.from({ length: 16 }, () => random.below(256));
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return bytes;
}

function uuidText(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Writes the header on an open disk of `bytes`; 0 or −errno. */
function* writeHeader(tool: Tool, fd: number, bytes: number, uuid: Uint8Array): Sleeping<number> {
  const page = swapHeaderPage(Math.floor(bytes / PAGE_BYTES), uuid);
  const at = yield* tool.sys(SYS_lseek, fd, 0, SEEK_SET);
  return at < 0 ? at : Math.min(0, yield* tool.libc.writeAll(fd, page));
}

const mkswap: ToolDefinition = {
  name: "mkswap",
  synopsis: "DEVICE",
  summary: "write the header of a swap area on a disk",
  *main(tool) {
    const [path] = tool.args;
    if (path === undefined || tool.args.length !== 1 || path.startsWith("-")) return yield* tool.usage();
    const fd = yield* tool.libc.open(path, O_RDWR);
    const fail = function* (error: number): Sleeping<number> {
      yield* tool.complain(`${path}: ${strerror(error)}`);
      if (fd >= 0) yield* tool.libc.close(fd);
      return EXIT_FAILED;
    };
    if (fd < 0) return yield* fail(fd);
    const bytes = yield* tool.sys(SYS_lseek, fd, 0, SEEK_END);
    if (bytes < 0) return yield* fail(bytes);
    if (bytes < MIN_SWAP_PAGES * PAGE_BYTES) {
      yield* tool.libc.close(fd);
      yield* tool.complain(`error: swap area needs to be at least ${(MIN_SWAP_PAGES * PAGE_BYTES) / 1024} KiB`);
      return EXIT_FAILED;
    }
    const uuid = uuidOf(bytes / PAGE_BYTES);
    const error = yield* writeHeader(tool, fd, bytes, uuid);
    if (error < 0) return yield* fail(error);
    yield* tool.libc.close(fd);
    const usable = bytes - PAGE_BYTES;
    const size = bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MiB` : `${bytes / 1024} KiB`;
    yield* tool.out(
      `Setting up swapspace version 1, size = ${size} (${usable} bytes)\nno label, UUID=${uuidText(uuid)}\n`,
    );
    return EXIT_OK;
  },
};

/** EXIT_OK, or EXIT_FAILED after a complaint. */
function* checked(tool: Tool, path: string, what: string, error: number): Sleeping<number> {
  if (error >= 0) return EXIT_OK;
  yield* tool.complain(`${path}: ${what} failed: ${strerror(error)}`);
  return EXIT_FAILED;
}
function* switchOff(tool: Tool, path: string): Sleeping<number> {
  return yield* checked(tool, path, "swapoff", yield* tool.libc.swapoff(path));
}

const swapon: ToolDefinition = {
  name: "swapon",
  synopsis: "[-s | [-p PRIORITY] DEVICE]",
  summary: "use a disk as swap area; -s or nothing: show them",
  *main(tool) {
    const options = parseOptions(tool.args, {
      flags: ["-s", "--show"],
      values: { "-p": parseCount, "--priority": parseCount },
      maxOperands: 1,
    });
    const priority = options?.values.get("-p") ?? options?.values.get("--priority");
    const [path] = options?.operands ?? [];
    const isShown = path === undefined;
    if (options === null || (isShown && priority !== undefined) || (!isShown && options.flags.size > 0)) {
      return yield* tool.usage();
    }
    if ((priority ?? 0) > SWAP_FLAG_PRIO_MASK) {
      yield* tool.complain(`${priority}: a priority is a number from 0 to ${SWAP_FLAG_PRIO_MASK}`);
      return EXIT_USAGE;
    }
    if (!isShown) {
      const flags = priority === undefined ? 0 : SWAP_FLAG_PREFER | priority;
      return yield* checked(tool, path, "swapon", yield* tool.libc.swapon(path, flags));
    }
    const text = yield* tool.text("/proc/swaps");
    if (text === null) return EXIT_FAILED;
    yield* tool.out(text.split("\n").length > 2 ? text : "");
    return EXIT_OK;
  },
};

/** Devices in use, from the text of /proc/swaps. */
const devicesOf = (swaps: string): string[] =>
  swaps
    .split("\n")
    .slice(1)
    .map((line) => line.split(/\s/)[0] as string)
    .filter((name) => name !== "");

const swapoff: ToolDefinition = {
  name: "swapoff",
  synopsis: "DEVICE | -a",
  summary: "bring everything back and stop using a disk as swap area",
  *main(tool) {
    const [path] = tool.args;
    if (path === undefined || tool.args.length !== 1) return yield* tool.usage();
    if (path !== "-a") return yield* switchOff(tool, path);
    const text = yield* tool.text("/proc/swaps");
    if (text === null) return EXIT_FAILED;
    let status = EXIT_OK;
    for (const device of devicesOf(text)) status = Math.max(status, yield* switchOff(tool, device));
    return status;
  },
};

export const SWAP_TOOLS: readonly ToolDefinition[] = [mkswap, swapon, swapoff];
