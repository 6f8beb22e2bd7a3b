/**
 * Goal: head, tail, grep and wc do in a pipeline what the programs of these names do. Method: the real kernel and shell.
 */
import { expect, it } from "vitest";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

function sh(commands: string): { readonly out: string; readonly status: number | undefined } {
  const kernel = bootKernel(Object.fromEntries(builtinPrograms()));
  const status = kernel.run("/bin/sh", "-c", commands);
  return { out: kernel.output(), status };
}

const MAKE = "echo one > /tmp/f; echo two words >> /tmp/f; echo Three >> /tmp/f; ";

it.each([
  ["head -n 2 /tmp/f", "one\ntwo words\n", 0],
  ["head -1 /tmp/f", "one\n", 0],
  ["head -n 0 /tmp/f", "", 0],
  ["cat /tmp/f | head -n 1", "one\n", 0],
  ["dmesg | head -n 1 | wc -l", "1\n", 0],
  ["grep o /tmp/f", "one\ntwo words\n", 0],
  ["grep -E 'one|hree' /tmp/f", "one\nThree\n", 0],
  ["grep -v o /tmp/f", "Three\n", 0],
  ["grep -i THREE /tmp/f", "Three\n", 0],
  ["grep -c '^t' /tmp/f", "1\n", 0],
  ["cat /tmp/f | grep '^T.*e$'", "Three\n", 0],
  ["grep nothing /tmp/f", "", 1],
  ["grep o /tmp/f /tmp/f", "/tmp/f:one\n/tmp/f:two words\n/tmp/f:one\n/tmp/f:two words\n", 0],
  ["wc /tmp/f", "3 4 20\n", 0],
  ["wc < /tmp/f", "3 4 20\n", 0],
  ["grep '(' /tmp/f", "usage: grep [-ivcE] PATTERN [FILE...]\n", 2],
  ["head /nope", "head: /nope: No such file or directory\n", 1],
  ["grep x /nope", "grep: /nope: No such file or directory\n", 2],
  ["tail -n 1 /tmp/f", "Three\n", 0],
  ["tail -n 0 /tmp/f", "", 0],
  ["cat /tmp/f | tail -1", "Three\n", 0],
  ["tail /nope", "tail: /nope: No such file or directory\n", 1],
  ["tail -n x", "usage: tail [-n LINES] [FILE]\n", 2],
  ["dd if=/dev/zero of=/tmp/z bs=4096 count=3 2> /dev/null; wc < /tmp/z", "0 1 12288\n", 0],
  ["echo -n > /tmp/e; wc /tmp/e", "0 0 0\n", 0],
  ["head -n x", "usage: head [-n LINES] [FILE]\n", 2],
])("%s", (command, expected, status) => {
  const result = sh(MAKE + command);
  expect(result.out).toBe(expected);
  expect(result.status).toBe(status);
});
