"""`airssys completion SHELL`: completion scripts, made from the parsers themselves so that they can't drift."""

from __future__ import annotations

import argparse
import importlib

from ipc.struct import Struct


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `completion` command."""
    parser = subparsers.add_parser(
        "completion", help="print the shell completion script", epilog='example: eval "$(airssys completion bash)"'
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="bash|zsh|fish")


class _Words(Struct, frozen=True):
    """What can follow a command: its own commands, and the long options of all of them."""

    commands: list[str]
    options: list[str]


def _words() -> dict[str, _Words]:
    """Return command → what can follow it, read from the parsers."""
    from supervisor.cli.main import COMMANDS

    found: dict[str, _Words] = {}
    for name, (module_name, _) in COMMANDS.items():
        root = argparse.ArgumentParser()
        subparsers = root.add_subparsers()
        importlib.import_module(module_name).register(subparsers)
        parser = subparsers.choices[name]
        parsers = {"": parser}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers.update(action.choices)
        options = {option for each in parsers.values() for a in each._actions for option in a.option_strings}
        long = sorted(option for option in options if option.startswith("--"))
        found[name] = _Words(sorted(parsers.keys() - {""}), long)
    return found


def run(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    found = _words()
    match args.shell:
        case "bash":
            print(_bash(found))
        case "zsh":
            print("autoload -U +X bashcompinit && bashcompinit\n" + _bash(found))
        case _:
            for option in ("help", "version"):
                print(f"complete -c airssys -n __fish_use_subcommand -l {option}")
            for command, words in found.items():
                print(f"complete -c airssys -n __fish_use_subcommand -a {command}")
                for inner in words.commands:
                    print(f"complete -c airssys -n '__fish_seen_subcommand_from {command}' -a {inner}")
                for option in words.options:
                    print(f"complete -c airssys -n '__fish_seen_subcommand_from {command}' -l {option[2:]}")
    return 0


def _bash(found: dict[str, _Words]) -> str:
    cases = "\n".join(
        f"        {command}) words='{' '.join(words.options)}' commands='{' '.join(words.commands)}' ;;"
        for command, words in found.items()
    )
    return f"""_airssys() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words commands
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{" ".join(found)} --help --version' -- "$current"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    case $current in
        -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
        *) if [ "$COMP_CWORD" -eq 2 ] && [ -n "$commands" ]; then
               COMPREPLY=($(compgen -W "$commands" -- "$current"))
           else
               COMPREPLY=($(compgen -f -- "$current"))
           fi ;;
    esac
}}
complete -o filenames -F _airssys airssys"""
