/**
 * The border of scenarios: YAML that is damaged, far too large in places, or tries what YAML can do.
 *
 * Loading ends with workloads, or with an `InputError` or `UsageError` of at most two printable lines.
 */

import { readFileSync } from "node:fs";
import { packageFile } from "../package_files.ts";
import { inputFromBytes } from "../readers/input.ts";
import { InputError } from "../readers/input_error.ts";
import { UsageError } from "../usage_error.ts";
import { loadScenario } from "../workloads.ts";
import { complaintAbout } from "./border_readers.ts";
import { createDraw, type Draw } from "./draw.ts";
import { drawCase, FUZZ_DRIVERS } from "./draw_machine.ts";
import type { Border } from "./finding.ts";
import { caseText } from "./fuzz_case.ts";
import { mutate } from "./mutate.ts";
import { crashOf, type Failure } from "./run_case.ts";
import { shorter, shrink } from "./shrink.ts";

const SHIPPED = ["deadline.yaml", "isa-disk.yaml", "packets.yaml"];
const INPUTS_PER_RUN = 15;
const SHRINK_BUDGET = 300;
/** What an editor, a macro or an attacker puts into a line. */
const PIECES = [
  ...[
    "&a ",
    "*a",
    "!!js/function x",
    "!!binary AAAA",
    "{",
    "}",
    "[",
    "]",
    "? ",
    "<<: *a",
    "\t",
    "|\n",
    ">-\n",
    "---\n",
    "%YAML 9\n",
  ],
  ...[
    "~",
    "null",
    ".inf",
    ".nan",
    "0x7fffffffffffffff",
    "1_000",
    "1e400",
    "__proto__: 1",
    "constructor: 1",
    "'",
    '"',
    "#",
  ],
  ...["- - - - - - ", "a: &a [*a]", "\u0000", "\u2028", "ä€", "x".repeat(2000), "2020-01-01", "yes", "!<x> "],
];

function mutateText(d: Draw, text: string): string {
  const lines = text.split("\n");
  const at = d.whole(0, lines.length - 1);
  const line = lines[at] as string;
  const column = d.whole(0, line.length);
  switch (d.whole(0, 6)) {
    case 0:
      return lines.toSpliced(at, 1).join("\n");
    case 1:
      return lines.toSpliced(at, 0, lines[d.whole(0, lines.length - 1)] as string).join("\n");
    case 2:
      return lines.with(at, `${" ".repeat(d.whole(0, 8))}${line.trimStart()}`).join("\n");
    case 3:
      return lines.with(at, line.replace(/:.*$/, `: ${d.of(PIECES)}`)).join("\n");
    case 4:
      return lines
        .with(at, line.replace(/\d+/, d.of(["0", "-1", "1.5", "1e99", "18446744073709551616", ""])))
        .join("\n");
    case 5:
      return new TextDecoder().decode(mutate(d, Buffer.from(`${text} `), Buffer.from(`${text} `)));
    default:
      return lines.with(at, line.slice(0, column) + d.of(PIECES) + line.slice(column)).join("\n");
  }
}

function drawText(d: Draw): string {
  const whole = d.chance(30)
    ? readFileSync(packageFile(`scenarios/${d.of(SHIPPED)}`), "utf8")
    : caseText(drawCase(d), FUZZ_DRIVERS);
  let text = whole;
  for (let i = d.whole(1, 4); i > 0; i--) text = mutateText(d, text);
  return text;
}

/** Loads `text`; what went wrong, or null. */
export async function tryLoading(text: string): Promise<Failure | null> {
  try {
    await loadScenario(inputFromBytes("fuzz.yaml", text));
    return null;
  } catch (error) {
    if (error instanceof InputError) return complaintAbout(error.format());
    return error instanceof UsageError ? complaintAbout(error.message) : crashOf(error);
  }
}

export const SCENARIO_BORDER: Border = {
  async run(seed, run, note) {
    const d = createDraw(seed, run);
    for (let nrInputs = 1; nrInputs <= INPUTS_PER_RUN; nrInputs++) {
      const text = drawText(d);
      const failure = await tryLoading(text);
      note("damaged scenarios", failure === null ? "read or refused" : "found something");
      if (failure === null) continue;
      const isAlike = async (lines: readonly string[]): Promise<boolean> =>
        (await tryLoading(lines.join("\n")))?.what === failure.what;
      const { smallest, nrRuns } = await shrink(
        text.split("\n") as readonly string[],
        (lines) => shorter(lines),
        isAlike,
        SHRINK_BUDGET,
      );
      const file = { ending: "yaml", content: smallest.join("\n") };
      return { nrInputs, finding: { failure, file, replay: "slabtown run FILE", nrShrinkRuns: nrRuns } };
    }
    return { nrInputs: INPUTS_PER_RUN, finding: null };
  },
};
