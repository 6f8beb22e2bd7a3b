/**
 * The header of a swap area: Linux's format, page 0 of the device.
 *
 *   | 0-1023 boot block, left alone | 1024 version = 1 | 1028 last page | 1032 number of bad pages | 1036 uuid |
 *   | 1052 volume name, 16 bytes | 1068 117 words of padding | 1536 bad page numbers, u32 each | 4086 "SWAPSPACE2" |
 *
 * mkswap writes it, swapon reads it. Pure functions over bytes; what is on a disk is not trusted.
 * Source: include/linux/swap.h (union swap_header).
 */

const PAGE_BYTES = 4096;
const MAGIC = "SWAPSPACE2";
const MAGIC_AT = PAGE_BYTES - MAGIC.length;
const VERSION_AT = 1024;
const LAST_PAGE_AT = 1028;
const NR_BAD_AT = 1032;
const UUID_AT = 1036;
const NAME_AT = 1052;
const NAME_BYTES = 16;
const BAD_AT = 1536;
const SWAP_VERSION = 1;
export const MAX_SWAP_BADPAGES = Math.floor((MAGIC_AT - BAD_AT) / 4);
/** The smallest area that is worth a header: mkswap's limit. */
export const MIN_SWAP_PAGES = 10;

export interface SwapHeader {
  /** Number of the last page; the first, 0, is the header. */
  readonly lastPage: number;
  readonly badPages: readonly number[];
}

/** The header page for an area of `nrPages` pages. `uuid` is 16 bytes, `label` at most 15 of ASCII. */
export function swapHeaderPage(nrPages: number, uuid: Uint8Array, label = ""): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  const view = new DataView(page.buffer);
  view.setUint32(VERSION_AT, SWAP_VERSION, true);
  view.setUint32(LAST_PAGE_AT, nrPages - 1, true);
  page.set(uuid.subarray(0, 16), UUID_AT);
  for (let i = 0; i < Math.min(label.length, NAME_BYTES - 1); i++) page[NAME_AT + i] = label.charCodeAt(i);
  for (let i = 0; i < MAGIC.length; i++) page[MAGIC_AT + i] = MAGIC.charCodeAt(i);
  return page;
}

/** What a header page says about a device of `nrPages` pages, or a sentence about what is wrong with it. */
export function parseSwapHeader(page: Uint8Array, nrPages: number): SwapHeader | string {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const hasMagic = [...MAGIC].every((letter, i) => page[MAGIC_AT + i] === letter.charCodeAt(0));
  if (page.length !== PAGE_BYTES || !hasMagic) return "Unable to find swap-space signature";
  const version = view.getUint32(VERSION_AT, true);
  if (version !== SWAP_VERSION) return `Unable to handle swap header version ${version}`;
  const lastPage = view.getUint32(LAST_PAGE_AT, true);
  if (lastPage === 0) return "Empty swap-file";
  if (lastPage >= nrPages) return "Swap area shorter than signature indicates";
  const nrBad = view.getUint32(NR_BAD_AT, true);
  if (nrBad > MAX_SWAP_BADPAGES) return "Swap area has more bad pages than a header can hold";
  const badPages = Array.from({ length: nrBad }, (_, i) => view.getUint32(BAD_AT + i * 4, true));
  if (badPages.some((bad) => bad === 0 || bad > lastPage)) return "Swap area has a bad page outside of itself";
  return { lastPage, badPages };
}
