/**
 * The screen, as programs use it: /dev/fb0 and /dev/fb0ctl.
 *
 *   /dev/fb0      the memory of the screen: `lines` lines of `stride` bytes, of which `height` are shown. read, write,
 *                 lseek; a pixel is a 32-bit word
 *   /dev/fb0ctl   write `pan 0,LINE`: show the picture that starts at LINE, from the next frame on; returns when a
 *                 whole frame of it has been shown, −EIO if that does not come
 *                 read: `size W H`, `lines N`, `stride BYTES`, `frame N`, `line LINE`, `checksum HEX`, one a line;
 *                 the last three are about the frame shown last
 *
 * Linux: FBIOPAN_DISPLAY and FBIO_WAITFORVSYNC, which are ioctls; the checksum is what display controllers call the CRC
 * of a frame (drm: `crc` in debugfs).
 */

export const FB_BYTES_PER_PIXEL = 4;

const FNV_BASIS = 0x811c_9dc5;
const FNV_PRIME = 0x0100_0193;

/** Checksum of no words yet. */
export const fbChecksumStart = FNV_BASIS | 0;

/** Goes on with a checksum over little-endian words: FNV-1a, a word at a time. Finish with `>>> 0`. */
export function fbChecksumOf(sum: number, words: Int32Array): number {
  let result = sum;
  for (let i = 0; i < words.length; i++) result = Math.imul(result ^ (words[i] as number), FNV_PRIME);
  return result;
}
