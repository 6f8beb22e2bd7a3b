/**
 * Goal: `typeErrors` reports what the compiler would, and only for the snippet.
 * Method: snippets whose verdict is known, among them the three ways in which such a helper goes blind: imports that
 * resolve to nothing (everything is `any`), options that are not the project's, and a stale answer for new text.
 */
import { describe, expect, it } from "vitest";
import { typeErrors } from "./support/tsc_fixture.ts";

describe("typeErrors", () => {
  it("accepts correct code, unused names included", () => {
    expect(typeErrors("const nrPages: number = 1;")).toEqual([]);
  });

  it("reports a type error by its message", () => {
    expect(typeErrors('const nrPages: number = "one";')).toEqual(["Type 'string' is not assignable to type 'number'."]);
  });

  it("reports a syntax error", () => {
    expect(typeErrors("const = 1;")).not.toEqual([]);
  });

  it("sees the types of project modules", () => {
    const use = (kind: string) =>
      `import type { HeapRecording } from "../kernel/uapi/recording.ts";
       const kind: HeapRecording["kind"] = "${kind}";`;
    expect(typeErrors(use("heap"))).toEqual([]);
    expect(typeErrors(use("stack"))).toEqual([`Type '"stack"' is not assignable to type '"heap"'.`]);
  });

  it("reports an import of a module that does not exist", () => {
    expect(typeErrors('import type { Nothing } from "../kernel/nowhere.ts";').join()).toContain("Cannot find module");
  });

  it("applies the options of tsconfig.test.json", () => {
    expect(typeErrors("enum Colour { Red }").join()).toContain("erasableSyntaxOnly");
    expect(typeErrors("const o: { a?: number } = { a: undefined };").join()).toContain("exactOptionalPropertyTypes");
  });

  it("judges each text anew", () => {
    expect(typeErrors("const order: string = 1;")).toHaveLength(1);
    expect(typeErrors("const order: number = 1;")).toEqual([]);
    expect(typeErrors("const order: string = 1;")).toHaveLength(1);
  });
});
