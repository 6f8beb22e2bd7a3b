/**
 * The JSON Schema that editors use for scenarios is the schema that the reader uses.
 *
 * Method: it is generated anew and compared with the shipped file (`npx vitest run test/cli/schema.test.ts -u` writes it).
 */

import { toJsonSchema } from "@valibot/to-json-schema";
import { expect, it } from "vitest";
import { SCENARIO_SCHEMA } from "../../scripts/scenario.ts";

it("scripts/schema/scenario.schema.json is up to date", async () => {
  const schema = {
    $id: "https://slabtown.invalid/schema/scenario/v1",
    title: "Slabtown scenario",
    ...toJsonSchema(SCENARIO_SCHEMA, { errorMode: "ignore" }),
  };
  expect(schema).toMatchObject({ type: "object", properties: { machine: { type: "object" } } });
  await expect(`${JSON.stringify(schema, null, 2)}\n`).toMatchFileSnapshot("../../scripts/schema/scenario.schema.json");
});
