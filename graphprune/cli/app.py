"""Puts the commands together, completes the short form, and says what is wrong with a command line."""

from __future__ import annotations

import inspect as inspect_
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from graphprune.cli import (
    audit,
    bench,
    build,
    criteria,
    explain,
    finetune,
    inspect,
    plan,
    prune,
    recoveries,
    sensitivity,
    sparsify,
    sweep,
    targets,
    verify,
)
from graphprune.cli import run as run_artifact
from graphprune.errors import GraphPruneError, did_you_mean

_HELP = """Prune trained networks: fewer channels, heads and features, same interface, proven right.

graphprune IN OUT --macs 0.6 is short for graphprune prune IN OUT --macs 0.6.
"""
_FIRST = frozenset({"--help", "-h", "--version", "--install-completion", "--show-completion"})

app = typer.Typer(
    name="graphprune",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
COMMANDS = {
    "prune": (prune.prune, "Prune to a budget, verify, write."),
    "clean": (prune.clean, "Remove dead and constant channels only."),
    "sparsify": (sparsify.sparsify, "Write zeros in a pattern that kernels can use, verify, write."),
    "finetune": (finetune.finetune, "Train a pruned module on, within a budget."),
    "inspect": (inspect.inspect, "Show groups, what is kept and why, and costs."),
    "plan": (plan.plan, "Choose what to keep, without cutting."),
    "apply": (plan.apply, "Cut a model by a plan."),
    "verify": (verify.verify, "Prove a pruned model right."),
    "audit": (audit.audit, "Say what pruning did to the answers, and for whom."),
    "build": (build.build, "Compile a whole network for a kind of machine."),
    "run": (run_artifact.run, "Run what build made."),
    "bench": (bench.bench, "Measure latency against the dense model."),
    "sweep": (sweep.sweep, "Compare criteria and recoveries at several budgets."),
    "sensitivity": (sensitivity.sensitivity, "Say what each group is worth alone."),
    "explain": (explain.explain, "Say what a code means, or why an axis is as it is."),
    "ops": (explain.ops, "List the operators that are known."),
    "criteria": (criteria.criteria, "List the criteria: how channels can be scored."),
    "recoveries": (recoveries.recoveries, "List the recoveries: what can be done for the weights that stay."),
    "formats": (sparsify.formats, "List the sparsity formats: which zeros kernels can use."),
    "passes": (explain.passes, "List the passes that are installed."),
    "targets": (targets.targets, "List what can be built for, and what this machine can run."),
}


def _help(command: Callable[..., Any]) -> str:
    """What a command says of itself; \\b keeps the lines of a paragraph of examples apart."""
    text = inspect_.getdoc(command) or ""
    return "\n\n".join(f"\b\n{part}" if part.startswith("graphprune ") else part for part in text.split("\n\n"))


for _name, (_command, _short) in COMMANDS.items():
    app.command(_name, help=_help(_command), short_help=_short)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from graphprune import __version__

        print(f"graphprune {__version__}")
        raise typer.Exit


@app.callback(help=_HELP)
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options that need no command."""


def run(arguments: list[str]) -> int:
    """Run a command line; its exit code. Raises GraphPruneError for anything that the user can act on."""
    for name in ("onnx_ir", "onnxscript"):  # warnings of what checks refuse anyway, and of nodes that stay as they are
        logging.getLogger(name).setLevel(logging.ERROR)
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(args=_completed(arguments), prog_name="graphprune", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.Exit as done:
        return done.exit_code
    except _USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error, file=sys.stderr)
            return 2
        raise _usage(error, arguments) from None
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    return int(code or 0)


_INTERRUPTED = 130
"""What typer makes of an interrupt."""
_USAGE: type[Exception] = typer.BadParameter.__mro__[1]
"""UsageError, of click or of typer's own copy of it, whichever is installed."""


def _completed(arguments: list[str]) -> list[str]:
    """The short form with its command; a misspelt command gets a suggestion."""
    if not arguments or arguments[0] in COMMANDS or arguments[0] in _FIRST:
        return arguments
    first = arguments[0]
    if first.startswith("-") or os.path.exists(first) or any(mark in first for mark in (os.sep, ".", ":")):
        return ["prune", *arguments]
    remedy = did_you_mean(first, COMMANDS).replace("known:", "commands:")
    raise GraphPruneError("GP106", f"{first!r} is neither a command nor a file", "", remedy)


def _usage(error: Any, arguments: list[str]) -> GraphPruneError:
    """What the option parser found, as three lines."""
    context = getattr(error, "ctx", None)
    command = context.command if context is not None else None
    shown = context.command_path if context is not None else "graphprune"
    what = str(error.format_message()).rstrip(".")
    where = f"graphprune {arguments[0]}" if arguments else "graphprune"
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and command is not None:
        known = [name for each in command.params for name in each.opts if name.startswith("--")]
        question = did_you_mean(option or "", known).partition("known:")[0]
        return GraphPruneError("GP106", f"there is no option {option}", shown, f"{question}see {shown} --help".lstrip())
    return GraphPruneError("GP107", what[:1].lower() + what[1:], shown or where, f"see {shown} --help")
