/**
 * The kernel on a student's code: what `labs/NN_name/seam.ts` exports.
 *
 * `seam(student, ram)` gives boot options that put the student's module in the place of the kernel's own part. What the
 * student's code does wrong is reported by `student.wrong`, which throws: the kernel oopses with the student's file and
 * line.
 */

import type { BootOptions } from "../../kernel/entry/kernel.ts";
import type { StudentModule } from "./driver.ts";

export interface StudentInKernel {
  readonly exports: StudentModule;
  /** Runs one call of the student's: counts its steps, and adds the place to what it throws. */
  call<T>(work: () => T): T;
  /** Says that function `name` of the student's has done wrong; throws. */
  wrong(name: string, message: string): never;
}

export type Seam = (student: StudentInKernel, ram: ArrayBuffer | SharedArrayBuffer) => Partial<BootOptions>;
