/**
 * fbtest: draws pictures on the screen, flips between them, and compares what the display says it has shown.
 *
 * Every pixel of every picture is different from its neighbours, so a line that is missing, doubled or torn changes the
 * checksum. The picture is drawn where the screen does not look, then shown.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { fbChecksumOf, fbChecksumStart } from "../../kernel/uapi/framebuffer.ts";
import { O_RDWR } from "../../kernel/uapi/mman.ts";
import { SYS_lseek } from "../../kernel/uapi/syscall.ts";
import { decodeUtf8 } from "../../kernel/uapi/utf8.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const DEFAULT_PICTURES = "4";
/** What is written at once. */
const PIECE_WORDS = (2 * PAGE_SIZE) / 4;
const SEEK_SET = 0;

interface Screen {
  readonly fd: number;
  readonly ctl: number;
  readonly height: number;
  readonly stride: number;
}

/** The numbers of one line of the control file. */
const numbersOf = (text: string, name: string): readonly number[] =>
  (text.split("\n").find((line) => line.startsWith(`${name} `)) ?? "").split(" ").slice(1).map(Number);

function* controlText(tool: Tool, ctl: number): Sleeping<string> {
  yield* tool.sys(SYS_lseek, ctl, 0, SEEK_SET);
  const got = yield* tool.libc.read(ctl, PAGE_SIZE);
  return typeof got === "number" ? "" : decodeUtf8(got);
}

/** Draws picture number `picture` from line `line` on: its checksum, or −errno. */
function* draw(tool: Tool, screen: Screen, picture: number, line: number): Sleeping<number> {
  const at = yield* tool.sys(SYS_lseek, screen.fd, line * screen.stride, SEEK_SET);
  if (at < 0) return at;
  const nrWords = (screen.stride * screen.height) / 4;
  const tint = Math.imul(picture + 1, 0x85eb_ca6b);
  let sum = fbChecksumStart;
  for (let done = 0; done < nrWords; done += PIECE_WORDS) {
    const words = new Int32Array(Math.min(PIECE_WORDS, nrWords - done));
    for (let i = 0; i < words.length; i++) words[i] = Math.imul(done + i + 1, 0x9e37_79b1) ^ tint;
    sum = fbChecksumOf(sum, words);
    const written = yield* tool.libc.writeAll(screen.fd, new Uint8Array(words.buffer));
    if (written < 0) return written;
  }
  return sum >>> 0;
}

/** Draws a picture behind the scenes, shows it, compares: what went wrong, or null. */
function* showOne(tool: Tool, screen: Screen, picture: number): Sleeping<string | null> {
  const line = picture % 2 === 0 ? screen.height : 0;
  const drawn = yield* draw(tool, screen, picture, line);
  if (drawn < 0) return `draw: ${strerror(drawn)}`;
  const panned = yield* tool.libc.write(screen.ctl, `pan 0,${line}\n`);
  if (panned < 0) return `pan: ${strerror(panned)}`;
  const text = yield* controlText(tool, screen.ctl);
  const shownLine = numbersOf(text, "line")[0];
  if (shownLine !== line) return `line ${shownLine} is shown, ${line} was asked for`;
  const shown = /^checksum ([0-9a-f]{8})$/m.exec(text)?.[1];
  const wanted = drawn.toString(16).padStart(8, "0");
  return shown === wanted ? null : `the display has shown ${shown}, drawn was ${wanted}`;
}

function* open(tool: Tool, path: string): Sleeping<Screen | string> {
  const fd = yield* tool.libc.open(path, O_RDWR);
  if (fd < 0) return `${path}: ${strerror(fd)}`;
  const ctl = yield* tool.libc.open(`${path}ctl`, O_RDWR);
  if (ctl < 0) return `${path}ctl: ${strerror(ctl)}`;
  const text = yield* controlText(tool, ctl);
  const [, height = 0] = numbersOf(text, "size");
  const [stride = 0] = numbersOf(text, "stride");
  return height > 0 && stride > 0 ? { fd, ctl, height, stride } : `${path}ctl: no size`;
}

export const FBTEST: ToolDefinition = {
  name: "fbtest",
  synopsis: "[PICTURES [DEVICE]]",
  summary: "draw pictures on a screen, flip, compare with what it has shown (fbtest 4 /dev/fb0)",
  *main(tool) {
    const [wanted = DEFAULT_PICTURES, path = "/dev/fb0"] = tool.args;
    if (tool.args.length > 2 || !/^[1-9]\d{0,5}$/.test(wanted)) return yield* tool.usage();
    const screen = yield* open(tool, path);
    if (typeof screen === "string") {
      yield* tool.complain(screen);
      return EXIT_FAILED;
    }
    const nrPictures = Number(wanted);
    for (let picture = 0; picture < nrPictures; picture++) {
      const problem = yield* showOne(tool, screen, picture);
      if (problem === null) continue;
      yield* tool.complain(`${path}: picture ${picture}: ${problem}`);
      return EXIT_FAILED;
    }
    yield* tool.out(
      `fbtest: ${path}: ${nrPictures} pictures of ${screen.stride / 4}x${screen.height} shown as drawn\n`,
    );
    return EXIT_OK;
  },
};
