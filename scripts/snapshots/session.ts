/**
 * A session: a machine with a shell, its host's input, and the way back.
 *
 *   boot ──▶ run a slice ──▶ feed what was typed ──▶ run a slice ──▶ …
 *                │ a program reads /dev/snapshot
 *                ├─ take ──▶ a mark, and how much of the input came before it
 *                └─ back ──▶ a new machine; the same slices; the same input at the same steps; each mark compared
 *
 * The whole of the input is in the log: typed lines, Ctrl-C, end of file, and the answers of /dev/snapshot. Slices are
 * in virtual time. So the second machine is the first one, byte for byte, and takes its place when it has reached the
 * mark.
 *
 *   SES-1  input is logged with the number of steps after which it came, and comes again after as many
 *   SES-2  going back forgets what came after the mark: later marks, later input
 *   SES-3  a repetition that differs in a mark is given up: the machine stays where it is, and says so
 */

import { setImmediate } from "node:timers/promises";
import type { Kernel, RunStop } from "../../kernel/entry/kernel.ts";
import type { SnapshotDevice } from "../../kernel/entry/snapshot_device.ts";
import { differences, type Mark, markLabel, takeMark } from "./mark.ts";
import { createMarkChain, type MarkChain, readMarks } from "./mark_chain.ts";

/** What the host did to the machine after `steps` steps. */
interface Input {
  readonly kind: "line" | "interrupt" | "eof" | "answer";
  readonly text: string;
  readonly steps: number;
}

export interface SessionOptions {
  /** A fresh machine with its first program started; the same each time. */
  readonly boot: (console: (text: string) => void) => Kernel;
  readonly console: (text: string) => void;
  /** Stop after so much virtual time. */
  readonly cycles?: number | undefined;
}

export interface Session {
  /** The machine; another one after going back. */
  kernel(): Kernel;
  /** Runs a slice of virtual time; "snapshot" and "pause" are never the reason. */
  run(): Promise<Exclude<RunStop, "snapshot" | "pause">>;
  feed(kind: "line" | "interrupt" | "eof", text?: string): void;
  /** True once the input has ended, in the history of this machine. */
  isClosed(): boolean;
  /** True once --cycles is over. */
  isOver(): boolean;
}

const SLICE_CYCLES = 10_000_000;
/** Most marks of a session. */
const MAX_MARKS = 1000;

/** One machine and what it has been told. */
interface Timeline {
  readonly kernel: Kernel;
  readonly device: SnapshotDevice;
  readonly limit: number;
  readonly log: Input[];
  readonly chain: MarkChain;
}

/** A slice of an idle machine ends where it wakes up. */
const runSlice = ({ kernel, limit }: Timeline): RunStop =>
  kernel.run({ untilCycles: Math.min(Math.max(kernel.now() + SLICE_CYCLES, quietUntil(kernel)), limit) });
const quietUntil = (kernel: Kernel): number => {
  const time = kernel.quietUntil();
  return time === Number.POSITIVE_INFINITY ? 0 : time;
};

/** Gives `input` to the machine, and writes it down. */
function apply({ kernel, device, log }: Timeline, kind: Input["kind"], text: string): void {
  log.push({ kind, text, steps: kernel.steps() });
  if (kind === "line") kernel.feedConsole(text);
  else if (kind === "interrupt") kernel.interruptConsole();
  else if (kind === "eof") kernel.closeConsole();
  else device.answer(text);
}

const markText = (mark: Pick<Mark, "number" | "name" | "cycle" | "freePages">): string =>
  `snapshot ${markLabel(mark)}: cycle ${mark.cycle}, ${mark.freePages} pages free\n`;

function take(timeline: Timeline, name: string): Mark {
  const mark = takeMark(timeline.kernel, { number: timeline.chain.stored.length + 1, name });
  timeline.chain.add(mark);
  return mark;
}

/** A session that has booted. */
export function createSession(options: SessionOptions): Session {
  let current: Timeline;
  const start = (): Timeline => {
    let timeline: Timeline | undefined;
    const kernel = options.boot((text) => {
      if (timeline === undefined ? current === undefined : timeline === current) options.console(text);
    });
    const limit = kernel.now() + (options.cycles ?? Number.POSITIVE_INFINITY);
    timeline = { kernel, device: kernel.serveSnapshots(), limit, log: [], chain: createMarkChain() };
    return timeline;
  };
  current = start();

  /** Answers the request of a program. */
  const serve = async (): Promise<void> => {
    const [words = "", rest = ""] = (current.device.request() ?? "").split("\0");
    const [verb, which = ""] = words.split(" ");
    const { stored } = current.chain;
    if (verb === "list") apply(current, "answer", `ok ${stored.map(markText).join("")}`);
    else if (verb === "back") await goBack(which === "" ? stored.length : Number(which), rest);
    else if (verb === "take" && stored.length < MAX_MARKS)
      apply(current, "answer", `ok ${markText(take(current, which))}`);
    else apply(current, "answer", `error sh: ${verb === "take" ? "too many snapshots" : "no such request"}\n`);
  };

  const goBack = async (number: number, rest: string): Promise<void> => {
    const { stored } = current.chain;
    const mark = stored[number - 1];
    if (mark === undefined) {
      const known = stored.length === 0 ? "none was taken" : `there are 1 to ${stored.length}`;
      apply(current, "answer", `error sh: back: no snapshot ${number}: ${known}\n`);
      return;
    }
    const target = start();
    const problem = await repeat(current, target, number);
    if (problem !== null) {
      apply(current, "answer", `error sh: back: ${problem}; please report this\n`);
      return;
    }
    current = target;
    apply(current, "answer", `back back at ${markText(mark)}\0${rest}`);
  };

  return {
    kernel: () => current.kernel,
    async run() {
      for (;;) {
        const reason = runSlice(current);
        if (reason === "snapshot") await serve();
        else if (reason !== "pause") return reason;
      }
    },
    feed(kind, text = "") {
      apply(current, kind, text);
    },
    isClosed: () => current.log.some(({ kind }) => kind === "eof"),
    isOver: () => current.kernel.now() >= current.limit,
  };
}

/** Brings `target`, freshly booted, to mark `number` of `model`, as it went there; what went wrong, or null. */
async function repeat(model: Timeline, target: Timeline, number: number): Promise<string | null> {
  const { kernel } = target;
  const marks = readMarks(model.chain.stored, kernel.machine.port.sizeBytes / 4096);
  for (let next = 0; ; ) {
    const reason = runSlice(target);
    if (reason === "snapshot" && target.device.request()?.startsWith("take ") === true) {
      const mark = marks.next().value;
      if (mark === undefined) return "running again led to a snapshot that was not taken";
      const found = differences(mark, take(target, mark.name));
      if (found.length > 0)
        return `running again led to another machine at snapshot ${mark.number} (${found.join("; ")})`;
      if (mark.number === number) return null;
    }
    const before = next;
    const isAnswer = reason === "snapshot";
    for (let input = model.log[next]; input?.steps === kernel.steps(); input = model.log[next]) {
      if (isAnswer !== (input.kind === "answer") || (isAnswer && next > before)) break;
      apply(target, input.kind, input.text);
      next++;
    }
    if (next === before && reason !== "budget") return `running again ended in "${reason}" at step ${kernel.steps()}`;
    await setImmediate();
  }
}
