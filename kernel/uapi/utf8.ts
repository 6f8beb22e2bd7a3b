/**
 * UTF-8: text to bytes and back, for programs. The language library of the portable rooms has no codec.
 *
 *   U+0000 … U+007F      0xxxxxxx
 *   U+0080 … U+07FF      110xxxxx 10xxxxxx
 *   U+0800 … U+FFFF      1110xxxx 10xxxxxx 10xxxxxx           (without the surrogates U+D800 … U+DFFF)
 *   U+10000 … U+10FFFF   11110xxx 10xxxxxx 10xxxxxx 10xxxxxx
 *
 * What is no UTF-8 (a stray or missing continuation, a longer form than needed, a surrogate, too large) becomes
 * U+FFFD, one for each longest piece that could have begun a character, as browsers do it; a lone surrogate in a
 * string is encoded as U+FFFD. Source: RFC 3629; the Unicode standard, chapter 3.9.
 */

const REPLACEMENT = 0xfffd;

const isSurrogate = (code: number): boolean => code >= 0xd800 && code <= 0xdfff;

/** The bytes of `text`. */
export function encodeUtf8(text: string): Uint8Array {
  // No UTF-16 unit becomes more than three bytes.
  const bytes = new Uint8Array(text.length * 3);
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    let code = text.codePointAt(i) as number;
    if (code > 0xffff) i++;
    if (isSurrogate(code)) code = REPLACEMENT;
    if (code < 0x80) {
      bytes[at++] = code;
      continue;
    }
    if (code < 0x800) bytes[at++] = 0xc0 | (code >> 6);
    else {
      if (code < 0x1_0000) bytes[at++] = 0xe0 | (code >> 12);
      else {
        bytes[at++] = 0xf0 | (code >> 18);
        bytes[at++] = 0x80 | ((code >> 12) & 0x3f);
      }
      bytes[at++] = 0x80 | ((code >> 6) & 0x3f);
    }
    bytes[at++] = 0x80 | (code & 0x3f);
  }
  return bytes.slice(0, at);
}

/** Number of continuation bytes that `lead` announces; −1 if it begins no character. */
function continuationsOf(lead: number): number {
  if (lead < 0x80) return 0;
  if (lead < 0xc2 || lead > 0xf4) return -1;
  return lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
}

/** Smallest and largest second byte behind `lead`: excludes overlong forms, surrogates and what is above U+10FFFF. */
const secondMin = (lead: number): number => (lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80);
const secondMax = (lead: number): number => (lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf);

/** The text of `bytes`. */
export function decodeUtf8(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; ) {
    const lead = bytes[i++] as number;
    const nrMore = continuationsOf(lead);
    let code = nrMore < 0 ? REPLACEMENT : nrMore === 0 ? lead : lead & (0x3f >> nrMore);
    for (let k = 0; k < nrMore; k++) {
      const next = bytes[i] ?? 0;
      if (next < (k === 0 ? secondMin(lead) : 0x80) || next > (k === 0 ? secondMax(lead) : 0xbf)) {
        code = REPLACEMENT;
        break;
      }
      code = code * 64 + (next & 0x3f);
      i++;
    }
    text += String.fromCodePoint(code);
  }
  return text;
}
