"""Lay the statistics of centers side by side, before any training: who differs from whom, and in what."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server statistics CHUM.json MDA.json --html statistics.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", help="what each hospital's `python -m client statistics` wrote")
    parser.add_argument("--html", type=Path, help="also write a page with every quantity of every center")


def run(arguments: argparse.Namespace) -> int:
    """Print what differs, and write the page."""
    from server.statistics.compare import differences, read_told
    from server.statistics.page import summary, write_page

    told = read_told(arguments.files)
    found = differences(told)
    print("\n".join(summary(told, found)))
    if arguments.html is not None:
        write_page(arguments.html, told, found)
        print(arguments.html)
    return 0
