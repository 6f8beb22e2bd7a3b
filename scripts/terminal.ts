/**
 * The terminal: a person at the console of the running machine.
 *
 * The host's terminal is in raw mode while the shell runs. Lines are edited here (line_editor.ts) and fed to the
 * kernel's console whole; Ctrl-C and Ctrl-D become the console's own. The machine runs in slices of virtual time, and
 * between two of them the host reads its keys, so a program that never ends can be interrupted.
 */

import { setImmediate } from "node:timers/promises";
import type { RunStop } from "../kernel/entry/kernel.ts";
import { type Completer, createLineEditor, type EditorEvent } from "./line_editor.ts";
import type { Session } from "./snapshots/session.ts";

/** The half of `process.stdin` that is needed. */
export interface KeySource {
  setRawMode?(isRaw: boolean): unknown;
  setEncoding(encoding: "utf8"): unknown;
  resume(): unknown;
  pause(): unknown;
  on(event: "data", listener: (text: string) => void): unknown;
  off(event: "data", listener: (text: string) => void): unknown;
}

export interface TerminalOptions {
  readonly keys: KeySource;
  readonly write: (text: string) => void;
  readonly complete: Completer;
}

/** Why the session is over: the kernel's reason, or the user pulled the plug. */
export type SessionEnd = RunStop | "quit";

export interface TerminalSession {
  /** Console output of the kernel goes here. */
  console(text: string): void;
  /** Serves the console until power-off, panic, or the plug is pulled. */
  serve(session: Session): Promise<SessionEnd>;
}

/** A session on the terminal of `options`; nothing is touched before `serve()`. */
export function createTerminal(options: TerminalOptions): TerminalSession {
  const editor = createLineEditor(options.write, options.complete);
  const queue: EditorEvent[] = [];
  let wake: (() => void) | undefined;
  const onKeys = (text: string): void => {
    queue.push(...editor.feed(text));
    if (queue.length > 0) wake?.();
  };
  const keyPressed = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve;
    });

  const serveLoop = async (session: Session): Promise<SessionEnd> => {
    for (;;) {
      const reason = await session.run();
      if (reason === "poweroff" || reason === "panic") return reason;
      if (session.isClosed() && reason !== "budget") return reason;
      if (reason === "budget") await setImmediate();
      else if (queue.length === 0) await keyPressed();
      for (const event of queue.splice(0)) {
        if (event.type === "quit") return "quit";
        session.feed(event.type, event.type === "line" ? `${event.text}\n` : "");
      }
    }
  };

  return {
    console(text) {
      options.write(text.replaceAll(/\r?\n/g, "\r\n"));
      editor.sawOutput(text);
    },
    async serve(session) {
      const { keys } = options;
      keys.setEncoding("utf8");
      keys.setRawMode?.(true);
      keys.on("data", onKeys);
      keys.resume();
      try {
        return await serveLoop(session);
      } finally {
        keys.off("data", onKeys);
        keys.setRawMode?.(false);
        keys.pause();
      }
    },
  };
}

/** Completes commands at the start of a command, and paths under /proc and / elsewhere. */
export function shellCompleter(programs: Iterable<string>, procFiles: readonly string[]): Completer {
  const commands = [...programs].map((path) => path.slice(path.lastIndexOf("/") + 1)).sort();
  return (before) => {
    const word = /\S*$/.exec(before)?.[0] ?? "";
    const isCommand = /(?:^|[|;&])\s*$/.test(before.slice(0, before.length - word.length));
    if (isCommand && !word.includes("/")) return commands;
    const cut = word.lastIndexOf("/") + 1;
    const next = new Set<string>();
    for (const path of procFiles) {
      if (!path.startsWith(word)) continue;
      const slash = path.indexOf("/", Math.max(cut, 1));
      next.add(slash < 0 ? path : path.slice(0, slash + 1));
    }
    return [...next].sort();
  };
}
