/**
 * Goal: the graders are proven, on every run of the tests in a short form: fixed seeds, all wrong solutions.
 * Method: `proveInShort` over each lab has no findings, and finds what is wrong with a page. Patches and blanks by
 * themselves. Skipped if dist/ is not built. The full proof: `npm run labs:prove`.
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { matrixPage } from "../../scripts/lab/author.ts";
import { checkLabs } from "../../scripts/lab/author_actions.ts";
import { proveInShort } from "../../scripts/lab/author_short.ts";
import { labNames, openLab, wrongSolutions } from "../../scripts/lab/lab_folder.ts";
import { applyPatch, makePatch } from "../../scripts/lab/patch.ts";
import { asUsageError, createSandbox, InfrastructureError, type Sandbox } from "../../scripts/lab/sandbox.ts";
import { blankOut } from "../../scripts/lab/skeleton.ts";
import { UsageError } from "../../scripts/usage_error.ts";

const isBuilt = existsSync(fileURLToPath(new URL("../../dist/scripts/lab/runner_child.js", import.meta.url)));
const page = readFileSync(new URL("../../docs/kill_matrix.md", import.meta.url), "utf8");
let sandbox: Sandbox;

beforeAll(() => {
  sandbox = createSandbox();
});
afterAll(() => sandbox.close());

describe.skipIf(!isBuilt)("the gates", () => {
  it.each(labNames())(
    "of %s have no findings, and its kill matrix is in docs",
    async (name) => {
      expect(await proveInShort({ lab: openLab(name), sandbox, nrSeeds: 2 }, page)).toEqual([]);
    },
    120_000,
  );

  it("find a page that is not of the lab", async () => {
    // Without the dots of checks that were stopped, every row is old.
    const other = page.replace("| merge-ignores-order |", "| merge-ignores-orders |").replaceAll("·", "");
    const findings = await proveInShort({ lab: openLab("buddy"), sandbox, nrSeeds: 1 }, other);
    expect(findings).toContain("docs/kill_matrix.md is not of this lab as it is: npm run labs:matrix");
    expect(findings).toContainEqual(expect.stringMatching(/is old at/));
  });

  it("say on the page how many labs and wrong solutions there are", () => {
    const nrWrong = labNames()
      .map((name) => openLab(name))
      .filter(({ manifest }) => manifest.files.length > 0)
      .reduce((sum, lab) => sum + Object.keys(wrongSolutions(lab).wrong).length, 0);
    expect(page, "npm run labs:matrix").toContain(`${labNames().length} labs · ${nrWrong} wrong solutions · 0 survive`);
    expect(matrixPage([])).toContain("0 labs · 0 wrong solutions");
  });
});

describe("lab author", () => {
  it("says no verdict when a child is silent (bug: it was called a bug in slabtown itself)", () => {
    expect(asUsageError(new InfrastructureError("no answer"))).toBeInstanceOf(UsageError);
    const other = new Error("ours");
    expect(asUsageError(other)).toBe(other);
  });

  it("says what it is doing (bug: minutes of silence)", async () => {
    let said = "";
    const err = (text: string): void => {
      said += text;
    };
    expect(await checkLabs(["tour"], 1, 0, { out: () => {}, err, stop: { reason: "none" } })).toBe(0);
    expect(said).toContain("00-tour: manifest");
  });
});

describe("patches", () => {
  const before = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
  it.each([
    ["one line", before.replace("e", "E")],
    ["two places", before.replace("a", "A").replace("j", "J")],
    ["lines gone", before.replace("d\ne\nf\n", "")],
    ["lines more", before.replace("d\n", "d\nd1\nd2\n")],
    ["everything", "x\n"],
  ])("%s: what makePatch writes, applyPatch reads", (_name, after) => {
    expect(applyPatch(new Map([["f.ts", before]]), makePatch("f.ts", before, after)).get("f.ts")).toBe(after);
  });

  it("a hunk that does not fit is refused, one that moved is found", () => {
    const patch = makePatch("f.ts", before, before.replace("e", "E"));
    expect(() => applyPatch(new Map([["f.ts", before.replace("d", "D")]]), patch)).toThrow("does not fit");
    expect(applyPatch(new Map([["f.ts", `0\n1\n${before}`]]), patch).get("f.ts")).toBe(
      `0\n1\n${before.replace("e", "E")}`,
    );
  });
});

describe("blanks", () => {
  it("become a comment and a throw; cuts vanish", () => {
    const text =
      "a\n  // BLANK BEGIN do it\n  secret();\n  // BLANK END\nb\n// BLANK CUT\nhelper();\n// BLANK END\nc\n";
    expect(blankOut("f.ts", text)).toBe(
      'a\n  // Write here: do it\n  throw new Error("not written yet: do it");\nb\nc\n',
    );
  });

  it.each(["// BLANK BEGIN a\n", "// BLANK END\n", "// BLANK BEGIN a\n// BLANK CUT\n// BLANK END\n"])(
    "%j is refused",
    (text) => {
      expect(() => blankOut("f.ts", text)).toThrow("BLANK");
    },
  );
});
