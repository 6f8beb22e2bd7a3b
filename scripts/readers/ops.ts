/**
 * Operation lists: a heap typed on the command line, as in `--ops "+3,+0,-1"`.
 *
 * Owns the smallest of all formats, for quick experiments:
 *
 *   +N   allocate N bytes; the k-th `+` of the list, from 0, makes allocation k
 *   -k   free allocation k
 *
 * Items are separated by commas, blanks or both. Somebody typed this just now, so nothing is tolerated: the first
 * mistake is an error with its column.
 *
 * Source: the notation of the free-space homework in Arpaci-Dusseau's "Operating Systems: Three Easy Pieces".
 */

import { HEAP_FREE, HEAP_MALLOC, type HeapRecording } from "../../kernel/uapi/recording.ts";
import { HeapColumns } from "./heap_columns.ts";
import { InputError, quoted } from "./input_error.ts";

const LABEL = "--ops";
const HINT = 'for example --ops "+3,+0,-1": two allocations, then the second is freed';

/** The heap recording that `text` spells. Throws `InputError` with the column of the first mistake. */
export function readOps(text: string, name = "ops"): HeapRecording {
  const columns = new HeapColumns();
  let nrIds = 0;
  for (const match of text.matchAll(/[^\s,]+/g)) {
    const item = match[0];
    const fail = (what: string, expected: string): InputError =>
      new InputError(LABEL, what, { line: 1, column: match.index + 1, expected, hint: HINT });
    const value = Number(item.slice(1));
    if (!/^[+-]\d+$/.test(item)) throw fail(`${quoted(item)} is no operation`, "+BYTES or -INDEX");
    if (!Number.isSafeInteger(value)) throw fail(`${quoted(item)} is out of range`, "at most 2^53 - 1");
    if (item.startsWith("+")) {
      columns.push(HEAP_MALLOC, 0, nrIds++, value);
    } else if (value >= nrIds) {
      throw fail(`allocation ${value} does not exist yet`, nrIds === 0 ? "a + first" : `0 to ${nrIds - 1}`);
    } else if (!columns.push(HEAP_FREE, 0, value, 0)) {
      throw fail(`allocation ${value} is freed already`, "each freed once");
    }
  }
  if (columns.nrOps === 0) throw new InputError(LABEL, "the list is empty", { hint: HINT });
  return columns.finish(name, nrIds, 1, []);
}
