/**
 * The replayer: the same run once more, compared with its marks on the way, up to a point.
 *
 *   power-on ──▶ mark 0 ✓ ──▶ mark 1 ✓ ──▶ the point: a view of the machine          or: mark 2 ✗ ──▶ stop
 *
 *   RPL-1  every mark before the point is compared: pages, registers, random streams, time
 *   RPL-2  at the last mark of a file RAM is also compared byte for byte with the image
 *   RPL-3  a point that is a cycle is reached inside the slice that passes it; the machine is what the recorded run had
 *          been there, in the middle of that slice
 */

import type { Kernel } from "../../kernel/entry/kernel.ts";
import { PAGE_SIZE } from "../../kernel/params.ts";
import type { RunWatch } from "../run_workloads.ts";
import { differences, type Mark, takeMark } from "./mark.ts";
import { readMarks } from "./mark_chain.ts";
import { forEachPage, type RamImage, type Recording } from "./snapshot_file.ts";

/** Where to go: a cycle, or the end of a step. */
export type Point = { readonly cycle: number } | { readonly step: number };

/** A run that went another way than recorded. */
export interface Divergence {
  readonly mark: { readonly number: number; readonly name: string; readonly cycle: number };
  /** The last mark that agreed; −1 if none did. */
  readonly lastGood: number;
  readonly differences: readonly string[];
}

export interface Replayer {
  readonly watch: RunWatch;
  /** Marks compared, all equal but the one of `divergence`. */
  nrCompared(): number;
  divergence(): Divergence | null;
  /** The machine at the point, or at the end of the run if that came first; null before, and after a divergence. */
  view(): Mark | null;
  /** True if the run ended before the point. */
  hasEnded(): boolean;
}

/** A replayer that stops the run at `point`. */
export function createReplayer({ marks: stored, run, image }: Recording, point: Point): Replayer {
  const marks = readMarks(stored, run.machine.ramBytes / PAGE_SIZE);
  let next: Mark | undefined = marks.next().value ?? undefined;
  let nrCompared = 0;
  let divergence: Divergence | null = null;
  let view: Mark | null = null;
  let hasEnded = false;

  const isThere = (kernel: Kernel): boolean =>
    "step" in point ? kernel.steps() >= point.step : kernel.now() >= point.cycle;
  /** The step of `mark` is over: it has not been cut short at the point. */
  const hasPassed = (kernel: Kernel, { steps, cycle }: Mark): boolean =>
    kernel.steps() >= steps && !("cycle" in point && isThere(kernel) && kernel.now() < cycle);

  const fail = ({ number, name, cycle }: Mark, lines: readonly string[]): void => {
    divergence = { mark: { number, name, cycle }, lastGood: nrCompared - 2, differences: lines };
  };
  const compare = (kernel: Kernel): void => {
    while (next !== undefined && divergence === null && hasPassed(kernel, next)) {
      const mark = next;
      next = marks.next().value ?? undefined;
      nrCompared++;
      const bytes = next === undefined ? firstByte(kernel, image) : [];
      const found = [...differences(mark, takeMark(kernel, mark)), ...bytes];
      if (found.length > 0) fail(mark, found);
    }
  };
  const look = (kernel: Kernel): "go on" | "stop" => {
    compare(kernel);
    if (divergence !== null) return "stop";
    if (!isThere(kernel)) return "go on";
    view = takeMark(kernel, { number: 0, name: "" });
    return "stop";
  };
  return {
    watch: {
      begin: look,
      isDue: (kernel) => isThere(kernel) || (next !== undefined && kernel.steps() >= next.steps),
      look,
      stopCycle: "cycle" in point ? point.cycle : undefined,
      end(kernel) {
        compare(kernel);
        hasEnded = true;
        const where = `cycle ${kernel.now()}, step ${kernel.steps()}`;
        if (next !== undefined && divergence === null) fail(next, [`the run ended at ${where}, before this snapshot`]);
        if (divergence === null) view = takeMark(kernel, { number: 0, name: "" });
      },
    },
    nrCompared: () => nrCompared,
    divergence: () => divergence,
    view: () => view,
    hasEnded: () => hasEnded,
  };
}

/** The first byte of RAM that is not what the image says, in words; none if all are. */
function firstByte(kernel: Kernel, image: RamImage): readonly string[] {
  const { port } = kernel.machine;
  const hex = (n: number): string => `0x${n.toString(16).padStart(2, "0")}`;
  let found: string[] = [];
  forEachPage(image, (pfn, bytes) => {
    if (found.length > 0) return;
    const now = port.readBytes(pfn * PAGE_SIZE, PAGE_SIZE);
    const at = now.findIndex((byte, i) => byte !== bytes[i]);
    if (at < 0) return;
    found = [`at ${hex(pfn * PAGE_SIZE + at)}: ${hex(now[at] as number)} instead of ${hex(bytes[at] as number)}`];
  });
  return found;
}
