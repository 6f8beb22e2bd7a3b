/**
 * The child process of a grade: runs programs over the student's code, and says what came out. It judges nothing.
 *
 * One line of JSON on standard input is one request, one line on descriptor 3 is its reply; the student's own output
 * goes nowhere. Reading is synchronous: nothing of the student's runs between two requests. A reply says how many
 * seconds of CPU time the child has used.
 *
 *   {"id": 1, "load": "name", "modules": [{"name", "code"}]}      compiles a set of modules
 *   {"id": 2, "run": "name", "entry", "driver", "tests", "stepLimit", "programs": [{"config", "ops"}]}
 *
 * It is started with no rights that it does not need (sandbox.ts). Each set of modules has its own realm (realm.ts).
 */

import { readSync, writeSync } from "node:fs";
import { createContext, Script } from "node:vm";
import { MODULE_PREFIX, MODULE_SUFFIX, prepareRealm, type RealmEntry } from "./realm.ts";

interface Request {
  readonly id: number;
  readonly load?: string;
  readonly modules?: readonly { readonly name: string; readonly code: string }[];
  readonly run?: string;
  readonly entry?: string;
  readonly driver?: string;
  readonly tests?: unknown;
  readonly stepLimit?: number;
  readonly programs?: readonly { readonly config: unknown; readonly ops: readonly unknown[] }[];
}

const REPLY_FD = 3;
const sets = new Map<string, ReadonlyMap<string, Script>>();
const realms = new Map<string, RealmEntry>();
const realmScript = new Script(`(${prepareRealm.toString()})`, { filename: "lab" });
const tableScript = new Script("({ __proto__: null })", { filename: "lab" });

/** Compiles; what is wrong with a module, or null. */
function load({ load: name = "", modules = [] }: Request): object | null {
  const scripts = new Map<string, Script>();
  for (const module of modules) {
    try {
      const code = `${MODULE_PREFIX}${module.code}${MODULE_SUFFIX}`;
      scripts.set(module.name, new Script(code, { filename: `lab:${module.name}` }));
    } catch (error) {
      const stack = error instanceof Error ? (error.stack ?? "") : "";
      return { module: module.name, message: error instanceof Error ? error.message : String(error), stack };
    }
  }
  sets.clear();
  realms.clear();
  sets.set(name, scripts);
  return null;
}

/** A new global scope with the modules of a set. */
function createRealm(scripts: ReadonlyMap<string, Script>): RealmEntry {
  const context = createContext(Object.create(null), { codeGeneration: { strings: false, wasm: false } });
  const table = tableScript.runInContext(context) as Record<string, unknown>;
  for (const [name, script] of scripts) table[name] = script.runInContext(context);
  return (realmScript.runInContext(context) as (modules: object) => RealmEntry)(table);
}

function run(request: Request): string {
  const set = request.run ?? "";
  const scripts = sets.get(set);
  if (scripts === undefined) throw new Error(`no set ${set}`);
  const { entry, driver, tests, stepLimit } = request;
  const replies = (request.programs ?? []).map(({ config, ops }) => {
    const enter = realms.get(set) ?? createRealm(scripts);
    realms.set(set, enter);
    const reply: unknown = enter(JSON.stringify({ entry, driver, tests: tests ?? null, config, ops, stepLimit }));
    if (typeof reply !== "string") return "null";
    if (!reply.startsWith("!")) return reply;
    realms.delete(set);
    return reply.slice(1);
  });
  return `[${replies.join(",")}]`;
}

function answer(line: string): string {
  const request = JSON.parse(line) as Request;
  if (request.load !== undefined) return `{"id":${request.id},"problem":${JSON.stringify(load(request))}}\n`;
  const observations = run(request);
  const { user, system } = process.cpuUsage();
  return `{"id":${request.id},"cpu":${(user + system) / 1e6},"observations":${observations}}\n`;
}

function writeAll(text: string): void {
  const bytes = Buffer.from(text);
  for (let from = 0; from < bytes.length; ) {
    try {
      from += writeSync(REPLY_FD, bytes, from);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error;
    }
  }
}

function serve(): void {
  const chunk = Buffer.alloc(1 << 16);
  let pending = Buffer.alloc(0);
  for (;;) {
    const nrRead = readSync(0, chunk);
    if (nrRead === 0) return;
    pending = Buffer.concat([pending, chunk.subarray(0, nrRead)]);
    for (let end = pending.indexOf(10); end >= 0; end = pending.indexOf(10)) {
      const line = pending.toString("utf8", 0, end);
      pending = pending.subarray(end + 1);
      writeAll(answer(line));
    }
  }
}

serve();
