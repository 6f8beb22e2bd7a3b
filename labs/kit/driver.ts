/**
 * What a lab's driver is: the thin piece between programs and the student's module, on the student's side.
 *
 * `labs/NN_name/driver.ts` exports `create: CreateInstance`. It is loaded into the child's realm before the student's
 * files, with every built-in frozen, and builds what the student's code works on: plain typed arrays, mostly. The
 * methods of the instance are the operations of programs, and what own tests of students call. It judges nothing.
 */

/** What the student's entry file exports. */
export type StudentModule = Readonly<Record<string, unknown>>;

/** Operations by name. They return JSON; anything else that the student returns goes through `claim`. */
export type Instance = Readonly<Record<string, (...args: never[]) => unknown>>;

/** Makes an instance for one program. Throws an Error with a sentence for students if an export is missing. */
export type CreateInstance = (student: StudentModule, config: never) => Instance;

/** The exported function `name`, or an Error that says which export is missing. */
export function exportedFunction(student: StudentModule, name: string, file: string): (...args: unknown[]) => unknown {
  const value = student[name];
  if (typeof value === "function") return value as (...args: unknown[]) => unknown;
  throw new Error(`${file} does not export a function ${name}()`);
}

/** The method `name` of what the student's factory returned. */
export function method(object: unknown, name: string, of: string): (...args: unknown[]) => unknown {
  const value = typeof object === "object" && object !== null ? (object as StudentModule)[name] : undefined;
  if (typeof value === "function") return (...args) => (value as (...args: unknown[]) => unknown).apply(object, args);
  throw new Error(`what ${of} returns has no method ${name}()`);
}
