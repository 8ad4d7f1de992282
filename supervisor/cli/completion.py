"""`airssys completion SHELL`: completion scripts, made from the parsers themselves so that they can't drift."""

from __future__ import annotations

import argparse
import importlib


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `completion` command."""
    parser = subparsers.add_parser(
        "completion", help="print the shell completion script", epilog='example: eval "$(airssys completion bash)"'
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _flags() -> dict[str, list[str]]:
    """Return command → its long options, read from the parsers."""
    from supervisor.cli.main import COMMANDS

    found: dict[str, list[str]] = {}
    for name, (module_name, _) in COMMANDS.items():
        root = argparse.ArgumentParser()
        subparsers = root.add_subparsers()
        importlib.import_module(module_name).register(subparsers)
        parser = subparsers.choices[name]
        found[name] = sorted(
            option for action in parser._actions for option in action.option_strings if option.startswith("--")
        )
    return found


def run(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    flags = _flags()
    match args.shell:
        case "bash":
            print(_bash(flags))
        case "zsh":
            print("autoload -U +X bashcompinit && bashcompinit\n" + _bash(flags))
        case _:
            for command, options in flags.items():
                print(f"complete -c airssys -n __fish_use_subcommand -a {command}")
                for option in options:
                    print(f"complete -c airssys -n '__fish_seen_subcommand_from {command}' -l {option[2:]}")
    return 0


def _bash(flags: dict[str, list[str]]) -> str:
    cases = "\n".join(f"        {command}) words='{' '.join(options)}' ;;" for command, options in flags.items())
    return f"""_airssys() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{" ".join(flags)}' -- "$current"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    case $current in
        -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
        *) COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
}}
complete -o filenames -F _airssys airssys"""
