/**
 * `lab watch`: a verdict after every save.
 *
 * The folder is watched by polling the files' contents' marks (time, size), which works on every file system; the child
 * is warm, and the check that failed last runs first, so the first verdict is there at once. Keys as rustlings has
 * them, without Enter:
 *
 *   n next failure   r run again   h hint   l list   c check everything   x skeleton again   q quit
 *   v picture of memory   t step through the trace   p predict   d what changed since it last passed more
 */

import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Paint } from "../paint.ts";
import { UsageError } from "../usage_error.ts";
import { SourceError } from "./compile.ts";
import { type Grade, gradeFolder, type Row } from "./grade.ts";
import { pointsOf, reset, type Snapshot, snapshots, tryToKeep } from "./history.ts";
import { rowLine } from "./human.ts";
import type { Lab } from "./lab_folder.ts";
import { makePatch } from "./patch.ts";
import { createSandbox, InfrastructureError, type Sandbox } from "./sandbox.ts";
import { readStudentFile } from "./student_files.ts";
import { hintText, quizText, replayText } from "./study.ts";

export interface WatchRequest {
  readonly lab: Lab;
  readonly dir: string;
  readonly paint: Paint;
  readonly out: (text: string) => void;
  /** Keys as they are typed; undefined without a terminal: then one run and the end. */
  readonly keys: NodeJS.ReadStream | undefined;
  readonly isStopped: () => boolean;
}

const POLL_MS = 60;
/** `q`, Ctrl-C and Ctrl-D, which are keys as others while the terminal is raw. */
const ENDS: ReadonlySet<string> = new Set(["q", "\u0003", "\u0004"]);
const KEYS =
  "n next · r run · h hint · l list · c check all · v memory · t step · p predict · d diff · x reset · q quit";

/** Watches until `q`; the last whole grade. */
export async function watchFolder(request: WatchRequest): Promise<Grade | null> {
  const watcher = new Watcher(request);
  try {
    return await watcher.serve();
  } finally {
    watcher.close();
  }
}

class Watcher {
  readonly #request: WatchRequest;
  readonly #sandbox: Sandbox = createSandbox();
  /** Keys that wait for their turn. */
  readonly #typed: string[] = [];
  #grade: Grade | null = null;
  /** Rows of the last run that need work, and which one is shown. */
  #failing: readonly Row[] = [];
  #at = 0;
  #hint = 0;
  #step = 0;
  #quiz = 0;
  #isResetAsked = false;

  constructor(request: WatchRequest) {
    this.#request = request;
  }

  async serve(): Promise<Grade | null> {
    const { keys, isStopped } = this.#request;
    const typed = this.#typed;
    const onData = (chunk: Buffer | string): void => {
      typed.push(...String(chunk));
    };
    keys?.setRawMode?.(true);
    keys?.resume();
    keys?.on("data", onData);
    try {
      let mark = this.#mark();
      await this.#run("quick");
      while (keys !== undefined && !isStopped()) {
        const key = typed.shift();
        if (key !== undefined && ENDS.has(key)) break;
        if (key !== undefined) await this.#tryPress(key);
        const now = this.#mark();
        if (now !== mark) {
          mark = now;
          await this.#run("quick");
        } else if (typed.length === 0) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } finally {
      keys?.off("data", onData);
      keys?.setRawMode?.(false);
      keys?.pause();
    }
    return this.#grade;
  }

  close(): void {
    this.#sandbox.close();
  }

  /** Changes when one of the student's files does. */
  #mark(): string {
    const { lab, dir } = this.#request;
    return lab.manifest.files
      .map((name) => {
        const path = join(dir, name);
        if (!existsSync(path)) return "-";
        const { mtimeMs, size, ino } = statSync(path);
        return `${mtimeMs}:${size}:${ino}`;
      })
      .join();
  }

  async #run(depth: "quick" | "visible"): Promise<void> {
    const { lab, dir, out, paint } = this.#request;
    const first = this.#failing[this.#at]?.check.id;
    // A long run is left after the check at hand.
    const isStopped = (): boolean => this.#request.isStopped() || this.#typed.some((key) => ENDS.has(key));
    let isFirst = true;
    let grade: Grade;
    try {
      grade = await gradeFolder({
        lab,
        dir,
        depth,
        sandbox: this.#sandbox,
        isStopped,
        order: (checks) => [...checks].sort((a, b) => Number(b.id === first) - Number(a.id === first)),
        onRow: (row) => {
          if (isFirst) out(`\n${rowLine(row, paint)}\n`);
          isFirst = false;
        },
      });
    } catch (error) {
      if (!(error instanceof InfrastructureError)) throw error;
      out(`no verdict: ${error.message}\n`);
      return;
    }
    if (isStopped()) return;
    this.#grade = grade;
    const { problem, rows, score, max } = grade;
    tryToKeep(lab, dir, `${score}/${max}`);
    const broken = rows.filter(({ status }) => status !== "passed");
    this.#failing = [
      ...broken.filter(({ status }) => status !== "blocked"),
      ...broken.filter(({ status }) => status === "blocked"),
    ];
    this.#at = Math.max(
      0,
      this.#failing.findIndex(({ check }) => check.id === first),
    );
    this.#step = 0;
    if (problem !== null) out(`${paint.bad(`✗ ${problem}`)}\n`);
    else this.#show();
    for (const line of grade.typeErrors) out(`${paint.dim(`type error (costs nothing): ${line}`)}\n`);
    out(
      `${score}/${max} points of ${depth === "quick" ? "the quick run" : "the visible checks"}\n${paint.dim(KEYS)}\n`,
    );
  }

  #show(): void {
    const { out, paint } = this.#request;
    const row = this.#failing[this.#at];
    if (row === undefined) {
      out(`${paint.good("✓ all that was run passes: c checks everything")}\n`);
      return;
    }
    const [headline = "", ...rest] = row.lines;
    out(`${paint.bad(headline)}\n${rest.join("\n")}\n`);
  }

  /** A key that cannot be obeyed says why: files may be gone, or other ones than the verdict was about. */
  async #tryPress(key: string): Promise<void> {
    try {
      await this.#press(key);
    } catch (error) {
      const isOfFiles = error instanceof Error && "code" in error;
      if (error instanceof SourceError) this.#request.out(`${error.file}:${error.line}: ${error.message}\n`);
      else if (isOfFiles || error instanceof UsageError || error instanceof InfrastructureError)
        this.#request.out(`${error.message}\n`);
      else throw error;
    }
  }

  async #press(key: string): Promise<void> {
    const { lab, dir, out, paint } = this.#request;
    const wasResetAsked = this.#isResetAsked;
    this.#isResetAsked = false;
    if (key === "r") return this.#run("quick");
    if (key === "c") return this.#run("visible");
    if (key === "l") return out(`${(this.#grade?.rows ?? []).map((row) => rowLine(row, paint)).join("\n")}\n`);
    if (key === "h") {
      this.#hint = (this.#hint % 3) + 1;
      return out(`\n${hintText(lab, this.#hint)}`);
    }
    if (key === "n") {
      this.#at = this.#failing.length === 0 ? 0 : (this.#at + 1) % this.#failing.length;
      this.#step = 0;
      return this.#show();
    }
    if (key === "p") return out(`\n${await quizText(lab, ++this.#quiz, false)}`);
    if (key === "d") return this.#diff();
    if (key === "v" || key === "t") return this.#trace(key === "t");
    if (key !== "x") return;
    this.#isResetAsked = !wasResetAsked;
    if (!wasResetAsked)
      return out("x once more puts the skeleton back; what you have is kept (slabtown lab history)\n");
    reset(lab, dir);
    return out("the skeleton is back\n");
  }

  /** The failing trace: all of it with the picture at its end, or one operation further. */
  async #trace(isStepping: boolean): Promise<void> {
    const { lab, dir, out } = this.#request;
    const row = this.#failing[this.#at];
    const found = /--seed (0x[0-9a-f]+)(?: --step (\d+))?/.exec(row?.lines.join(" ") ?? "");
    if (row === undefined || found === null) return out("there is no trace to show\n");
    const last = Number(found[2] ?? 1);
    this.#step = isStepping ? (this.#step % last) + 1 : last;
    const request = {
      lab,
      dir,
      sandbox: this.#sandbox,
      caseId: row.check.id,
      seed: Number(found[1]),
      step: this.#step,
    };
    out(`\n${await replayText(request)}`);
  }

  /** What is different from the last state with the most points in a run like this one. */
  #diff(): void {
    const { lab, dir, out } = this.#request;
    const max = this.#grade?.max ?? 0;
    const best = snapshots(dir)
      .filter((state) => pointsOf(state, max) >= 0)
      .reduce<Snapshot | null>(
        (found, next) => (found === null || pointsOf(next, max) >= pointsOf(found, max) ? next : found),
        null,
      );
    if (best === null) {
      out("there is no earlier state\n");
      return;
    }
    const which = `${best.name} (${pointsOf(best, max)}/${max})`;
    for (const name of lab.manifest.files) {
      const before = readStudentFile(join(dir, ".lab", "history", best.name), name);
      const patch = makePatch(name, before, readStudentFile(dir, name));
      out(patch === "" ? `${name} is as in ${which}\n` : `since ${which}:\n${patch}`);
    }
  }
}
