#!/usr/bin/env node
/**
 * The program: the command line over this process's words and streams.
 *
 * `process.exit()` would lose output that is still on its way into a pipe: `process.exitCode` is set instead, and the
 * process ends when nothing is left to do.
 */

import { runCommandLine } from "./command_line.ts";
import { createHostOutput } from "./host_output.ts";

process.exitCode = await runCommandLine(process.argv.slice(2), createHostOutput());
