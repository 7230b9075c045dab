"""python -m simulations options [PREFIX]: every option with default, unit and meaning, as a table or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from common.errors import ConfigError
from simulations.catalog import Option, matching, options_of_run

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("option", "of", "default", "unit", "meaning")


def options(prefix: str = "") -> list[Option]:
    """Every option of a run, its studies and faults, that begins with ``prefix``; else those whose last word it is.

    Raises:
        ConfigError: there is none.
    """
    from simulations.studies.options import OPTIONS
    from simulations.virtual.fault_options import Fault

    every = options_of_run({"study": OPTIONS, "faults.NAME": {"fault": Fault}})
    found = matching(every, prefix) or [option for option in every if option.path.rpartition(".")[2] == prefix]
    if not found:
        heads = sorted({option.path.partition(".")[0] for option in every})
        raise ConfigError(f"No option begins with '{prefix}'; options begin with {', '.join(heads)}.")
    return found


def options_table(found: Sequence[Option]) -> Table:
    """For the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for option in found:
        table.add_row(*map(Text, _cells(option)))
    return table


def options_page() -> str:
    """The page of every option, for docs/reference."""
    head = (
        "# Every option\n\n`python -m simulations options [PREFIX]` prints the same. STEP, PART and NAME stand for a "
        "name of your own.\n\n"
    )
    return head + options_markdown(options())


def options_markdown(found: Sequence[Option]) -> str:
    """One table a section: a page of docs/reference."""
    lines: list[str] = []
    section = None
    for option in found:
        if _section(option) != section:
            section = _section(option)
            lines += ["", f"## {section}", "", f"| {' | '.join(HEADINGS)} |", "|---|---|---|---|---|"]
        path, kinds, default, unit, meaning = (cell.replace("|", "\\|") for cell in _cells(option))
        lines.append(f"| `{path}` | {kinds} | `{default}` | {unit} | {meaning} |")
    return "\n".join(lines[1:]) + "\n"


def _cells(option: Option) -> Iterator[str]:
    yield from (option.path, option.kinds, option.default, option.unit, option.meaning)


def _section(option: Option) -> str:
    """The path without its last word; a run's own options stand under ``run``."""
    return option.path.rpartition(".")[0] or "run"
