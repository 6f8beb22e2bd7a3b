/**
 * Goal: the pages about commands leave nothing out. Method: the tables of the code are compared with the words of the
 * pages: every kernel parameter, every program, every device setting, every shipped scenario has its place.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { DEVICE_SETTINGS } from "../drivers/index.ts";
import { PARAMETERS } from "../kernel/cmdline.ts";
import { builtinPrograms } from "../userland/index.ts";

const commands = readFileSync(new URL("../docs/commands.md", import.meta.url), "utf8");
const missing = (words: readonly string[]): string[] => words.filter((word) => !commands.includes(`\`${word}`));

it("docs/commands.md names every kernel parameter", () => {
  expect(missing(Object.keys(PARAMETERS))).toEqual([]);
});

it("docs/commands.md names every program of the shell", () => {
  const names = [...builtinPrograms().keys()].map((path) => path.slice(path.lastIndexOf("/") + 1));
  expect(missing(names.filter((name) => name !== "init"))).toEqual([]);
});

it("docs/commands.md names every device and every setting", () => {
  const settings = Object.values(DEVICE_SETTINGS).flatMap((table) => Object.keys(table));
  expect(missing([...new Set(settings)])).toEqual([]);
});

it("docs/commands.md names every shipped scenario", () => {
  expect(missing(readdirSync(new URL("../scripts/scenarios", import.meta.url)))).toEqual([]);
});

it("docs/architecture.md has a row for every file of kernel, mm and drivers", () => {
  const page = readFileSync(new URL("../docs/architecture.md", import.meta.url), "utf8");
  // `nic_{core,rx}.ts` stands for both.
  const text = page.replace(/`(\w*)\{([^}]+)\}(\w*\.ts)`/g, (_, head: string, parts: string, tail: string) =>
    parts
      .split(",")
      .map((part) => `\`${head}${part.trim()}${tail}\``)
      .join(" "),
  );
  const files = ["kernel", "kernel/arch", "kernel/lib", "kernel/entry", "mm", "drivers"].flatMap((room) =>
    readdirSync(new URL(`../${room}`, import.meta.url)).filter((name) => name.endsWith(".ts")),
  );
  expect(files.length).toBeGreaterThan(150);
  expect(files.filter((name) => !text.includes(`${name}\``))).toEqual([]);
});

it("docs/rules uses each id once", () => {
  const pages = readdirSync(new URL("../docs/rules", import.meta.url));
  const ids = pages.flatMap((page) =>
    [
      ...readFileSync(new URL(`../docs/rules/${page}`, import.meta.url), "utf8").matchAll(/^\| ([A-Z]\w*-\d+) \|/gm),
    ].map(([, id]) => id),
  );
  expect(ids.length).toBeGreaterThan(100);
  expect(ids.filter((id, i) => ids.indexOf(id) !== i)).toEqual([]);
});

it("labs/Dockerfile copies what is there, and docs/labs.md says how to use it", () => {
  const recipe = readFileSync(new URL("../labs/Dockerfile", import.meta.url), "utf8");
  const copies = [...recipe.matchAll(/^COPY (?:--from=build )?(.+) \S+$/gm)].map(([, sources]) => sources as string);
  const sources = copies.flatMap((words) => words.split(" ")).map((path) => path.replace("/slabtown/", ""));
  expect(sources).toContain("dist");
  const made = ["dist", "node_modules"];
  const missingPaths = sources.filter(
    (path) => !made.includes(path) && !existsSync(new URL(`../${path}`, import.meta.url)),
  );
  expect(missingPaths).toEqual([]);
  expect(readFileSync(new URL("../docs/labs.md", import.meta.url), "utf8")).toContain("-f labs/Dockerfile .");
});
