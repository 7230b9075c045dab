"""``sbom``: the same command at the coordinator and at a hospital."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("folder", type=Path, nargs="?", help="a run folder or an exported bank, whose weights join")
    parser.add_argument("--out", type=Path, default=Path("sbom.json"), help="CycloneDX file to write (sbom.json)")
    parser.add_argument("--licences", type=Path, metavar="FILE", help="also: a Markdown list of every licence")


def run(arguments: argparse.Namespace) -> int:
    """Write, and print what is in it and what whoever uses the weights must know."""
    from datetime import UTC, datetime

    from common.files import write_bytes, write_json
    from common.materials.libraries import NOT_DECLARED, direct_requirements, libraries_of
    from common.materials.sbom import SPECIFICATION, licence_rows, sbom
    from common.materials.weights import SHIPPED, weights_in
    from common.runtime.release import own_digest, version

    weights = list(SHIPPED) if arguments.folder is None else weights_in(arguments.folder)
    libraries = libraries_of(direct_requirements())
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_json(arguments.out, sbom(libraries, weights, version=version(), release=own_digest(), time=time))
    silent = sum(one.licence == NOT_DECLARED for one in libraries)
    print(f"{arguments.out}: CycloneDX {SPECIFICATION}, {len(libraries)} libraries, {len(weights)} models and adapters")
    if silent:
        print(f"{silent} libraries declare no licence in their metadata")
    for sentence in dict.fromkeys(one.licence.sentence for one in weights):
        print(sentence)
    if arguments.licences is not None:
        write_bytes(arguments.licences, _as_table(licence_rows(libraries, weights)).encode())
        print(arguments.licences)
    return 0


def _as_table(rows: list[tuple[str, str, str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(
        ["# Licences of code and weights", "", "| what | version | licence |", "| --- | --- | --- |", *lines, ""]
    )
