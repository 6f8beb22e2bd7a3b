/**
 * Shell completion: the commands and their options as a script for bash, zsh or fish.
 *
 * Generated from the commander program, so that it cannot fall behind it.
 *
 *   bash   source <(slabtown completion bash)
 *   zsh    slabtown completion zsh > "${fpath[1]}/_slabtown"
 *   fish   slabtown completion fish > ~/.config/fish/completions/slabtown.fish
 */

import type { Command } from "commander";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

interface CommandWords {
  readonly name: string;
  readonly about: string;
  readonly flags: readonly { readonly flag: string; readonly about: string }[];
}

/** The completion script of `program` for `shell`. */
export function completionScript(program: Command, shell: Shell): string {
  const commands = program.commands.map((command): CommandWords => {
    const flags = command.options.map(({ long, description }) => ({ flag: long ?? "", about: description }));
    return { name: command.name(), about: command.description(), flags };
  });
  if (shell === "bash") return bash(commands);
  return shell === "zsh" ? zsh(commands) : fish(commands);
}

function flagWords({ flags }: CommandWords): string {
  return flags.map(({ flag }) => flag).join(" ");
}

function bash(commands: readonly CommandWords[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const cases = commands.map((command) => `    ${command.name}) words="${flagWords(command)}" ;;`);
  return `# bash completion for slabtown
_slabtown() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" words=""
  if [ "$COMP_CWORD" -eq 1 ] && [[ "$cur" != -* ]]; then
    COMPREPLY=($(compgen -W "${names}" -- "$cur"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    *) words="--help --version" ;;
  esac
  if [[ "$cur" == -* ]]; then
    COMPREPLY=($(compgen -W "$words --help" -- "$cur"))
  else
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -o filenames -F _slabtown slabtown
`;
}

function zsh(commands: readonly CommandWords[]): string {
  const names = commands.map(({ name, about }) => `    '${name}:${single(about)}'`);
  const cases = commands.map((command) => `    ${command.name}) compadd -- ${flagWords(command)} --help; _files ;;`);
  return `#compdef slabtown
# zsh completion for slabtown
_slabtown() {
  local -a commands
  commands=(
${names.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case $words[2] in
${cases.join("\n")}
  esac
}
if [ "$funcstack[1]" = "_slabtown" ]; then _slabtown "$@"; else compdef _slabtown slabtown; fi
`;
}

function fish(commands: readonly CommandWords[]): string {
  const lines = commands.flatMap(({ name, about, flags }) => [
    `complete -c slabtown -n __fish_use_subcommand -a ${name} -d '${single(about)}'`,
    ...flags.map(
      ({ flag, about: text }) =>
        `complete -c slabtown -n '__fish_seen_subcommand_from ${name}' -l ${flag.slice(2)} -d '${single(text)}'`,
    ),
  ]);
  return `# fish completion for slabtown\n${lines.join("\n")}\n`;
}

/** Text inside single quotes of any of the three shells: without the quotes that would end it. */
function single(text: string): string {
  return text.replaceAll("'", "").replaceAll("\\", "");
}
