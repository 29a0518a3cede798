"""docs/reference/commands.md: every command with its arguments and options."""

import re
from typing import Any, cast

import typer
from markup import table
from method_pages import MADE

from selfdistill.cli import app


def pages() -> dict[str, str]:
    """The page, by its path below docs/."""
    top = cast(Any, typer.main.get_command(app))
    with top.make_context("selfdistill", [], resilient_parsing=True) as context:
        parts = [MADE, "# Commands", "`selfdistill COMMAND --help` says the same."]
        for name in top.list_commands(context):
            parts += _command(top.get_command(context, name), name, context)
    parts += ["## Exit codes", (
        "0 fine, 2 usage or configuration, 3 run directory busy or taken, 4 data, 5 divergence, "
        "6 corrupt, untrusted or too new, 7 resources, 130 and 143 signals (the run is saved "
        "first). An error is one sentence on stderr; a traceback is a bug."
    )]  # fmt: skip
    return {"reference/commands.md": "\n\n".join(parts) + "\n"}


def _command(command: Any, name: str, above: Any) -> list[str]:
    with command.make_context(name, [], parent=above, resilient_parsing=True) as context:
        pieces = [_bare(piece) for piece in command.collect_usage_pieces(context)]
        usage = " ".join([context.command_path, *pieces])
        shown = [parameter.get_help_record(context) for parameter in command.params]
    rows = [[f"`{_untyped(names)}`", _meaning(text)] for names, text in filter(None, shown)]
    parts = [f"## {name}", command.help, f"```text\n{usage}\n```"]
    return [*parts, table(("option", "meaning"), rows)] if rows else parts


# Versions of typer differ in how they mark an argument, a type and a default.


def _bare(piece: str) -> str:
    """`RUN` of `{RUN}`, `[ROW]` of `[[ROW]]`."""
    return re.sub(r"\{(.*)\}(\.\.\.)?|\[(\[.*\])\]", r"\1\3", piece)


def _untyped(names: str) -> str:
    """`--seed` of `--seed <int>` or `--seed INTEGER`."""
    return re.sub(r" (<.*>|TEXT|INTEGER.*|FLOAT.*|PATH|BOOLEAN)$", "", names)


def _meaning(text: str) -> str:
    """The help with its default in brackets."""
    words = re.sub(r"\s*\[required\]$", "", " ".join(text.split()))
    return re.sub(r" \[default: \(?(.*?)\)?(; x>=\d+)?\]$", r" (\1)", words)
