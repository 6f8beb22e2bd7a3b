/**
 * Virtual steps: a counter call in every loop body and every function of the student's source.
 *
 *      while (more()) next();      →      while (more()) { $$tick(7);next(); }
 *
 * Text is inserted and never moved, and no line is added, so places in messages stay those of the student's file.
 * Each call carries the number of its place, so that an endless loop can be named. The counter itself lives in the
 * child's realm (realm.ts), where student code can call it, which only makes it run out earlier.
 */

import ts from "typescript";

export const TICK = "$$tick";

/** A place that ticks. */
export interface Site {
  readonly file: string;
  readonly line: number;
  readonly what: "loop" | "function";
  /** Name of the function, if it has one. */
  readonly name: string;
}

interface Insertion {
  readonly at: number;
  readonly text: string;
  /** Among insertions at one place: openings outer first, closings inner first. */
  readonly rank: number;
}

type Loop = ts.ForStatement | ts.ForInStatement | ts.ForOfStatement | ts.WhileStatement | ts.DoStatement;

function isLoop(node: ts.Node): node is Loop {
  return (
    ts.isForStatement(node) ||
    ts.isForInStatement(node) ||
    ts.isForOfStatement(node) ||
    ts.isWhileStatement(node) ||
    ts.isDoStatement(node)
  );
}

/** `text` with counters; appends its places to `sites`. */
export function instrument(file: string, text: string, sites: Site[]): string {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const insertions: Insertion[] = [];
  let rank = 0;
  const tickAt = (node: ts.Node, what: Site["what"]): string => {
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
    const name = "name" in node && node.name !== undefined ? (node.name as ts.Node).getText(source) : "";
    sites.push({ file, line, what, name });
    return `${TICK}(${sites.length - 1})`;
  };
  const insert = (at: number, text: string): void => {
    insertions.push({ at, text, rank: rank++ });
  };
  const around = (node: ts.Node, before: string, after: string): void => {
    insert(node.getStart(source), before);
    // Closings of inner nodes come first: they are visited later, so their rank is lower.
    insertions.push({ at: node.getEnd(), text: after, rank: -rank++ });
  };

  const visit = (node: ts.Node): void => {
    if (isLoop(node)) {
      const call = tickAt(node, "loop");
      if (ts.isBlock(node.statement)) insert(node.statement.getStart(source) + 1, ` ${call};`);
      else around(node.statement, `{ ${call};`, " }");
    } else if (ts.isArrowFunction(node) && !ts.isBlock(node.body)) {
      around(node.body, `(${tickAt(node, "function")}, `, ")");
    } else if (ts.isFunctionLike(node)) {
      const { body } = node as ts.FunctionLikeDeclaration;
      if (body !== undefined && ts.isBlock(body)) insert(body.getStart(source) + 1, ` ${tickAt(node, "function")};`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);

  insertions.sort((a, b) => a.at - b.at || a.rank - b.rank);
  let out = "";
  let from = 0;
  for (const insertion of insertions) {
    out += text.slice(from, insertion.at) + insertion.text;
    from = insertion.at;
  }
  return out + text.slice(from);
}
