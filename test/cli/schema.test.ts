/**
 * The JSON Schema that editors use for scenarios is the schema that the reader uses.
 *
 * Method: it is made anew and compared with the shipped file; a failure prints what the file should say.
 */

import { readFileSync } from "node:fs";
import { toJsonSchema } from "@valibot/to-json-schema";
import { expect, it } from "vitest";
import { SCENARIO_SCHEMA } from "../../scripts/scenario.ts";

const FILE = new URL("../../scripts/schema/scenario.schema.json", import.meta.url);

it("scripts/schema/scenario.schema.json is up to date", () => {
  const schema = {
    $id: "https://slabtown.invalid/schema/scenario/v1",
    title: "Slabtown scenario",
    ...toJsonSchema(SCENARIO_SCHEMA, { errorMode: "ignore" }),
  };
  expect(schema).toMatchObject({ type: "object", properties: { machine: { type: "object" } } });
  expect(JSON.parse(readFileSync(FILE, "utf8"))).toEqual(JSON.parse(JSON.stringify(schema)));
});
