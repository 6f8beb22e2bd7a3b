/**
 * The inside of the child: a global scope for one set of modules, made safe and countable before student code runs.
 *
 * `prepareRealm` is sent into a new `vm` context as text and runs there, so that no object of the outside is ever in
 * the student's reach. It
 *
 *   1. takes away what makes runs differ: clocks, random numbers, locale, garbage collection, threads;
 *   2. makes built-ins that loop inside (`indexOf`, `fill`, …) count their elements as virtual steps;
 *   3. freezes every built-in, so that a patched one is an error of the student's and not of the lab's driver;
 *   4. returns one function: text in, text out. Each call evaluates all modules anew, so that programs share nothing:
 *      built-ins are frozen, and a program that leaves something in the global object is the last of its realm.
 *
 * Freezing takes ten times as long as a short program: that is why realms are kept (2026, Node 20).
 *
 * It must not refer to anything outside of itself.
 */

/**
 * What `prepareRealm` returns: evaluates modules and runs one program; request and reply are JSON. A reply that begins
 * with `!` asks for a new realm.
 */
export type RealmEntry = (request: string) => string;

/** Wraps a module's code as a function; the line numbers stay. */
export const MODULE_PREFIX = "(function (exports, require, $$tick, console) {";
export const MODULE_SUFFIX = "\n})";

export type ModuleFunction = (exports: object, require: unknown, tick: unknown, console: unknown) => void;

/** Runs inside the context. `modules`, an object of the context without prototype, has the wrappers by name. */
export function prepareRealm(modules: Readonly<Record<string, ModuleFunction>>): RealmEntry {
  const { apply, ownKeys, getPrototypeOf, getOwnPropertyDescriptor, defineProperty } = Reflect;
  const { freeze } = Object;
  const { parse, stringify } = JSON;
  const TheError = Error;
  const text = String;
  const root = globalThis as unknown as Record<string, unknown>;

  // ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────
  let left = Number.POSITIVE_INFINITY;
  let limit = 0;
  let site = -1;
  let overrunSite = -2;
  const overrun = freeze({ overrun: true });
  const spend = (steps: number): void => {
    left -= steps;
    if (left >= 0) return;
    if (overrunSite === -2) overrunSite = site;
    throw overrun;
  };
  const tick = (at: number): void => {
    site = at;
    spend(1);
  };

  // ── What differs from run to run ─────────────────────────────────────────────────────────────────────────────────
  for (const name of ["Date", "WeakRef", "FinalizationRegistry", "Intl", "WebAssembly", "SharedArrayBuffer"]) {
    delete root[name];
  }
  for (const name of ["Atomics", "ShadowRealm", "Promise", "eval", "console"]) delete root[name];
  delete (Math as unknown as Record<string, unknown>).random;
  const plainString = Object.prototype.toString;
  for (const proto of [Object.prototype, Array.prototype, Number.prototype, getPrototypeOf(Uint8Array.prototype)]) {
    defineProperty(proto as object, "toLocaleString", { value: plainString });
  }
  // Source text would tell own tests which implementation they are run against.
  defineProperty(Function.prototype, "toString", { value: () => "function" });

  // ── Built-ins that loop ──────────────────────────────────────────────────────────────────────────────────────────
  const counting = (
    proto: object,
    name: PropertyKey,
    cost: (self: { length?: number; size?: number }) => number,
  ): void => {
    const found = getOwnPropertyDescriptor(proto, name);
    const original: unknown = found?.value;
    if (typeof original !== "function") return;
    // A method, so that it has neither `prototype` nor a way to be constructed.
    const wrapper = {
      counted(this: { length?: number; size?: number }, ...args: unknown[]): unknown {
        spend(cost(this));
        return apply(original as () => unknown, this, args);
      },
    }.counted;
    defineProperty(proto, name, { ...found, value: wrapper });
  };
  const lengthOf = (self: { length?: number }): number => (typeof self?.length === "number" ? self.length : 1);
  const sizeOf = (self: { size?: number }): number => (typeof self?.size === "number" ? self.size : 1);
  const linear =
    "indexOf lastIndexOf includes find findIndex findLast findLastIndex filter map forEach every some reduce " +
    "reduceRight slice splice concat join reverse sort fill copyWithin flat flatMap shift unshift toSorted " +
    "toReversed toSpliced with set toString";
  for (const proto of [Array.prototype, getPrototypeOf(Uint8Array.prototype) as object]) {
    for (const name of linear.split(" ")) counting(proto, name, lengthOf);
  }
  for (const proto of [Map.prototype, Set.prototype]) {
    counting(proto, "forEach", sizeOf);
    counting(proto, "clear", sizeOf);
  }
  const one = (): number => 1;
  for (const iterator of [[][Symbol.iterator](), new Map().entries(), new Set().values(), ""[Symbol.iterator]()]) {
    counting(getPrototypeOf(iterator) as object, "next", one);
  }
  for (const name of ["keys", "values", "entries", "assign"]) counting(Object, name, one);

  // ── Frozen built-ins ─────────────────────────────────────────────────────────────────────────────────────────────
  const frozen = new Set<unknown>();
  const freezeAll = (value: unknown): void => {
    const isObject = (typeof value === "object" && value !== null) || typeof value === "function";
    if (!isObject || value === root || frozen.has(value)) return;
    frozen.add(value);
    freeze(value);
    freezeAll(getPrototypeOf(value as object));
    for (const key of ownKeys(value as object)) {
      const found = getOwnPropertyDescriptor(value as object, key);
      freezeAll(found?.value);
      freezeAll(found?.get);
      freezeAll(found?.set);
    }
  };
  for (const key of ownKeys(root)) {
    const found = getOwnPropertyDescriptor(root, key);
    freezeAll(found?.value);
    if (found?.configurable === true && "value" in found) {
      defineProperty(root, key, { ...found, writable: false, configurable: false });
    }
  }
  freezeAll(getPrototypeOf(function* () {}));
  freezeAll(getPrototypeOf(async () => {}));
  freezeAll(getPrototypeOf(async function* () {}));
  for (const iterator of [[][Symbol.iterator](), new Map().entries(), new Set().values(), ""[Symbol.iterator]()]) {
    freezeAll(getPrototypeOf(iterator));
  }
  freezeAll(getPrototypeOf("".matchAll(/a/g)));

  // ── Modules ──────────────────────────────────────────────────────────────────────────────────────────────────────
  let log: string[] = [];
  const show = (value: unknown): string => {
    if (typeof value === "string") return value;
    if (typeof value !== "object" || value === null) return text(value);
    try {
      return stringify(value) ?? "object";
    } catch {
      return "object";
    }
  };
  const print = (...values: unknown[]): void => {
    spend(1);
    if (log.length < 20) log[log.length] = values.map(show).join(" ").slice(0, 200);
  };
  const studentConsole = { log: print, info: print, warn: print, error: print, debug: print };
  freezeAll(studentConsole);
  freezeAll(tick);
  const nrGlobals = ownKeys(root).length;

  let loaded = new Map<string, object>();
  const resolve = (from: string, specifier: string): string => {
    const parts = from.split("/").slice(0, -1);
    for (const part of text(specifier).split("/")) {
      if (part === "..") {
        if (parts.length === 0) return specifier;
        parts.length -= 1;
      } else if (part !== ".") parts[parts.length] = part;
    }
    return parts.join("/");
  };
  const load = (name: string): object => {
    const known = loaded.get(name);
    if (known !== undefined) return known;
    const run = modules[name];
    if (run === undefined) throw new TheError(`there is no file ${name}`);
    const exports = {};
    loaded.set(name, exports);
    const require = (specifier: string): object => {
      const target = resolve(name, specifier);
      // The lab's own modules are named "!/…"; only they import each other.
      const isForeign = target[0] === "!" && name[0] !== "!";
      if (isForeign || modules[target] === undefined)
        throw new TheError(`cannot import "${text(specifier)}": only files of the lab`);
      return load(target);
    };
    run(exports, require, tick, studentConsole);
    if (name[0] === "!") freeze(exports);
    return exports;
  };

  // ── Programs ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const claimOf = (value: unknown, depth = 0): unknown => {
    if (value === null || typeof value === "boolean" || typeof value === "string") return value;
    if (typeof value === "number") return Number.isFinite(value) ? value : { not: text(value) };
    if (typeof value !== "object") return { not: typeof value };
    if (!Array.isArray(value) || depth > 4) return { not: "object" };
    const claims: unknown[] = [];
    for (let i = 0; i < value.length && i < 10_000; i++) claims[i] = claimOf(value[i], depth + 1);
    return claims;
  };
  const describeError = (error: unknown): { message: string; stack: string } => {
    try {
      if (error instanceof TheError) {
        return { message: show(error.message).slice(0, 300), stack: show(error.stack).slice(0, 3000) };
      }
      return { message: `threw ${show(error)}`.slice(0, 300), stack: "" };
    } catch {
      return { message: "threw something that cannot be shown", stack: "" };
    }
  };

  const runProgram = (requestText: string): string => {
    loaded = new Map();
    log = [];
    const { entry, driver, tests, config, ops, stepLimit } = parse(requestText) as {
      entry: string;
      driver: string;
      tests: { module: string; harness: string } | null;
      config: unknown;
      ops: readonly (readonly unknown[])[];
      stepLimit: number;
    };
    const claims: unknown[] = [];
    const steps: number[] = [];
    let at = -1;
    limit = stepLimit;
    // Of modules and the instance: no search, however many steps an operation of this lab may take.
    left = 1_000_000;
    try {
      const { create } = load(driver) as { create: (student: object, config: unknown) => object };
      const harness = tests === null ? null : load(tests.harness);
      const student = load(entry);
      let instance: Record<string, (...args: unknown[]) => unknown>;
      if (tests === null) instance = create(student, config) as typeof instance;
      else {
        const { createOwnTests } = harness as { createOwnTests: (...args: unknown[]) => typeof instance };
        instance = createOwnTests(create, student, load(tests.module));
      }
      for (at = 0; at < ops.length; at++) {
        left = limit;
        overrunSite = -2;
        const [name, ...args] = ops[at] as readonly [string, ...unknown[]];
        const values = args.map((arg) =>
          typeof arg === "object" && arg !== null ? claims[(arg as { ref: number }).ref] : arg,
        );
        site = -1;
        left = limit;
        const value = instance[name]?.(...values);
        // An overrun that student code caught is one all the same.
        if (overrunSite !== -2) throw overrun;
        claims[at] = claimOf(value);
        steps[at] = limit - left;
      }
      return stringify({ claims, steps, stop: null, log });
    } catch (error) {
      const isOverrun = error === overrun || overrunSite !== -2;
      const kind = at < 0 && !isOverrun ? "load" : isOverrun ? "steps" : "throw";
      const { message, stack } = isOverrun ? { message: "", stack: "" } : describeError(error);
      return stringify({ claims, steps, stop: { kind, op: at, message, stack, site: overrunSite }, log });
    }
  };

  return (requestText) => {
    const reply = runProgram(requestText);
    return ownKeys(root).length === nrGlobals ? reply : `!${reply}`;
  };
}
