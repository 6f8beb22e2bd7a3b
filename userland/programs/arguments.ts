/**
 * Arguments of programs: numbers, sizes, and options of the form `--name VALUE`.
 *
 * Pure functions. What cannot be understood gives null, and the program answers with its usage line.
 */

const UNIT_BYTES: Readonly<Record<string, number>> = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

/** A whole number ≥ 0 in decimal or 0x…, at most 2^53 − 1; else null. */
export function parseCount(text: string): number | null {
  if (!/^(\d+|0x[0-9a-f]+)$/i.test(text)) return null;
  const n = Number(text);
  return Number.isSafeInteger(n) ? n : null;
}

/** Bytes of `4096`, `64K`, `16M`, `2G`, also `16MiB`; else null. */
export function parseSize(text: string): number | null {
  const found = /^(\d+)(?:([KMG])(?:i?B)?)?$/i.exec(text);
  if (!found) return null;
  const bytes = Number(found[1]) * (UNIT_BYTES[(found[2] ?? "").toUpperCase()] as number);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

export interface Options {
  /** What is no option, in order. */
  readonly operands: readonly string[];
  /** Value of an option by its name, dashes included. */
  readonly values: ReadonlyMap<string, number>;
  readonly flags: ReadonlySet<string>;
}

export interface OptionRules {
  /** Options with a value, and how to read it. */
  readonly values?: Readonly<Record<string, (text: string) => number | null>>;
  /** Options without. Single letters may be joined: `-so`. */
  readonly flags?: readonly string[];
  readonly minOperands?: number;
  readonly maxOperands?: number;
}

/** Splits `args` by `rules`; null for an unknown option, a bad or missing value, or a wrong number of operands. */
export function parseOptions(args: readonly string[], rules: OptionRules): Options | null {
  const operands: string[] = [];
  const values = new Map<string, number>();
  const flags = new Set<string>();
  const known = rules.flags ?? [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string;
    const [name = "", joined] = arg.startsWith("--") ? splitOnce(arg, "=") : [arg];
    const read = rules.values !== undefined && Object.hasOwn(rules.values, name) ? rules.values[name] : undefined;
    if (read !== undefined) {
      const text = joined ?? args[++i];
      const value = text === undefined ? null : read(text);
      if (value === null) return null;
      values.set(name, value);
    } else if (known.includes(arg)) {
      flags.add(arg);
    } else if (/^-[a-zA-Z]+$/.test(arg)) {
      for (const letter of arg.slice(1)) {
        if (!known.includes(`-${letter}`)) return null;
        flags.add(`-${letter}`);
      }
    } else if (arg.startsWith("--")) {
      return null;
    } else {
      operands.push(arg);
    }
  }
  if (operands.length < (rules.minOperands ?? 0) || operands.length > (rules.maxOperands ?? 0)) return null;
  return { operands, values, flags };
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
