/**
 * Usage errors: what is wrong with the command line, in one line, and what to type instead.
 *
 * Thrown by everything that looks at arguments; printed by command_line.ts, and the exit code is 2. Errors in a file of
 * the user's are `InputError` (readers/input_error.ts), which knows the place in the file.
 */

/** The command line cannot be understood or obeyed. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  /** What the user can do about it: one line. */
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}
