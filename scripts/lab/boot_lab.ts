/**
 * `slabtown boot --lab 02-buddy=DIR`: the whole kernel on a student's code.
 *
 * The student's files are evaluated in this process, with the same counters as in a grade: an endless loop ends in an
 * oops that names it. This is for looking, not for grading: nothing is walled off.
 */

import { existsSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { runInThisContext } from "node:vm";
import { createRam } from "../../kernel/arch/port.ts";
import { KernelBug } from "../../kernel/bug.ts";
import type { BootOptions } from "../../kernel/entry/kernel.ts";
import type { Seam, StudentInKernel } from "../../labs/kit/seam.ts";
import { InputError } from "../readers/input_error.ts";
import { UsageError } from "../usage_error.ts";
import { type Compiled, compileStudent, SourceError } from "./compile.ts";
import { codeFile, labNames, openLab } from "./lab_folder.ts";
import { MODULE_PREFIX, MODULE_SUFFIX, type ModuleFunction } from "./realm.ts";
import { givenFiles } from "./skeleton.ts";
import { readStudentFiles, studentFolder } from "./student_files.ts";

/** Steps that one call from the kernel may take. */
const STEP_LIMIT = 10_000_000;

/**
 * Boot options that put the code in `spec`, `LAB=DIR`, into a kernel: fresh ones at each call of what is returned.
 * Throws `UsageError`, `InputError`.
 */
export async function labBootOptions(spec: string, ramBytes: number): Promise<() => Partial<BootOptions>> {
  const [name = "", ...rest] = spec.split("=");
  if (rest.length === 0)
    throw new UsageError(`--lab ${spec}: no folder`, `--lab LAB=DIR; labs: ${labNames().join(", ")}`);
  const lab = openLab(name);
  const dir = studentFolder(rest.join("="));
  if (lab.manifest.seam === undefined || !existsSync(codeFile(lab, "seam")))
    throw new UsageError(`${lab.name} has no place in the kernel`, "grade it instead");
  const { seam } = (await import(pathToFileURL(codeFile(lab, "seam")).href)) as { seam: Seam };
  try {
    const compiled = compileStudent(new Map([...readStudentFiles(lab, dir), ...givenFiles(lab)]));
    return () => {
      const ram = createRam(ramBytes);
      return { ...seam(evaluate(compiled, lab.manifest.files[0] ?? "", dir), ram), ram };
    };
  } catch (error) {
    if (!(error instanceof SourceError)) throw error;
    throw new InputError(`${dir}/${error.file}`, error.message, { line: error.line, column: error.column });
  }
}

function evaluate(compiled: Compiled, entry: string, dir: string): StudentInKernel {
  let left = STEP_LIMIT;
  const tick = (site: number): void => {
    if (--left >= 0) return;
    const at = compiled.sites[site];
    throw new KernelBug(`${dir}/${at?.file}:${at?.line}: does not end: this ${at?.what} has taken all steps`, []);
  };
  const loaded = new Map<string, object>();
  const load = (name: string): object => {
    const known = loaded.get(name);
    if (known !== undefined) return known;
    const module = compiled.modules.find((other) => other.name === name);
    if (module === undefined) throw new SourceError(entry, 1, 1, `imports ${name}, which is no file of the lab`);
    const exports = {};
    loaded.set(name, exports);
    const code = `${MODULE_PREFIX}${module.code}${MODULE_SUFFIX}`;
    const run = runInThisContext(code, { filename: `lab:${name}` }) as ModuleFunction;
    run(exports, (specifier: string) => load(specifier.replace(/^(?:\.\/)+/, "")), tick, console);
    return exports;
  };

  const placeOf = (error: Error): string => {
    for (const [, module, line] of (error.stack ?? "").matchAll(/\blab:([^\s():]+):(\d+)/g)) {
      const original = compiled.originalLine(module ?? "", Number(line));
      if (original > 0) return `${dir}/${module}:${original}: `;
    }
    return "";
  };
  const call = <T>(work: () => T): T => {
    left = STEP_LIMIT;
    try {
      return work();
    } catch (error) {
      if (error instanceof KernelBug) throw error;
      const thrown = error instanceof Error ? error : new Error(String(error));
      throw new KernelBug(`${placeOf(thrown)}${thrown.message}`, []);
    }
  };
  const wrong = (name: string, message: string): never => {
    const at = compiled.sites.find((site) => site.name === name);
    throw new KernelBug(`${dir}/${at?.file ?? entry}:${at?.line ?? 1}: ${name} ${message}`, []);
  };
  try {
    return { exports: call(() => load(entry)) as StudentInKernel["exports"], call, wrong };
  } catch (error) {
    if (error instanceof SourceError) throw new KernelBug(`${dir}/${error.file}: ${error.message}`, []);
    throw error;
  }
}
