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
    """What can follow a command, or one of its own: commands or a choice of words, and long options."""

    commands: list[str]
    options: list[str]


def _words() -> dict[str, _Words]:
    """Return command → what can follow it, `command inner` → what can follow that, read from the parsers."""
    from supervisor.cli.main import COMMANDS

    found: dict[str, _Words] = {}
    for name, (module_name, _) in COMMANDS.items():
        root = argparse.ArgumentParser()
        subparsers = root.add_subparsers()
        importlib.import_module(module_name).register(subparsers)
        parser = subparsers.choices[name]
        found[name] = _words_of(parser)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found.update({f"{name} {inner}": _words_of(each) for inner, each in action.choices.items()})
    return found


def _words_of(parser: argparse.ArgumentParser) -> _Words:
    options = {option for action in parser._actions for option in action.option_strings}
    chosen = next((each.choices for each in parser._actions if each.choices and not each.option_strings), ())
    return _Words(sorted(map(str, chosen)), sorted(option for option in options if option.startswith("--")))


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
            for called, words in found.items():
                command, _, inner = called.partition(" ")
                seen = f"__fish_seen_subcommand_from {command}"
                if inner:
                    seen += f"; and __fish_seen_subcommand_from {inner}"
                else:
                    print(f"complete -c airssys -n __fish_use_subcommand -a {command}")
                for word in words.commands:
                    print(f"complete -c airssys -n '{seen}' -a {word}")
                for option in words.options:
                    print(f"complete -c airssys -n '{seen}' -l {option[2:]}")
    return 0


def _bash(found: dict[str, _Words]) -> str:
    cases = "\n".join(
        f"        '{called}') words='{' '.join(words.options)}' commands='{' '.join(words.commands)}' ;;"
        for called, words in found.items()
    )
    with_own = "|".join(dict.fromkeys(called.partition(" ")[0] for called in found if " " in called))
    commands = " ".join(called for called in found if " " not in called)
    return f"""_airssys() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} called=${{COMP_WORDS[1]}} at=2 words='' commands=''
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{commands} --help --version' -- "$current"))
        return
    fi
    case $called in
        {with_own}) [ "$COMP_CWORD" -eq 2 ] || {{ called="$called ${{COMP_WORDS[2]}}"; at=3; }} ;;
    esac
    case $called in
{cases}
    esac
    case $current in
        -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
        *) if [ "$COMP_CWORD" -eq "$at" ] && [ -n "$commands" ]; then
               COMPREPLY=($(compgen -W "$commands" -- "$current"))
           else
               COMPREPLY=($(compgen -f -- "$current"))
           fi ;;
    esac
}}
complete -o filenames -F _airssys airssys"""
