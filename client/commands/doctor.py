"""Find everything that can go wrong before a round: all of it at once, each with how bad it is and what to do.

Looks at the data folder, every image, the tables, this machine and the way to the coordinator. Nothing is changed and
nothing is sent. Exit code 0 without errors, 1 with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.files import add_center, add_run, center_of, run_of

if TYPE_CHECKING:
    from client.center.config import CenterConfig
    from client.data.case import Case
    from client.doctor.finding import Finding
    from client.doctor.images import Examined

EXAMPLE = "python -m client doctor --center center.yaml --curriculum quickstart --html doctor.html"
SHOWN_CASES = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    add_run(parser, help="also try the steps of this curriculum on this machine, with random numbers")
    parser.add_argument("--json", action="store_true", help="findings as JSON, patients only counted")
    parser.add_argument("--ids", action="store_true", help="name the patients in the JSON too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with thumbnails; it shows patients")
    parser.add_argument("--thumbnails", type=int, default=60, help="at most so many, those with findings first (60)")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings."""
    from client.doctor.finding import ERROR
    from client.doctor.page import write_page
    from client.policy.explain import in_short

    config = center_of(arguments)
    pictures = _Pictures(arguments.thumbnails if arguments.html else 0)
    cases, found = diagnose(config, overrides=run_of(arguments), look=pictures.look)
    if arguments.html:
        facts = {
            "looked at": f"{len(cases)} patients",
            "folder": config.root,
            "when": f"{datetime.now():%Y-%m-%d %H:%M}",
        }
        write_page(arguments.html, found, pictures.ordered(found), center=config.code, facts=facts)
    if arguments.json:
        findings = [finding.as_json(with_cases=arguments.ids) for finding in found]
        print(json.dumps({"center": config.code, "patients": len(cases), "findings": findings}, indent=1))
    else:
        _print(config.code, found)
        if not any(finding.area == "policy" for finding in found):
            print(f"policy: {in_short(config.policy)} Every sentence: python -m client policy --explain")
        if arguments.html:
            print(f"page: {arguments.html} (it shows patients; keep it here)")
    return 1 if any(finding.severity == ERROR for finding in found) else 0


def diagnose(
    config: CenterConfig, *, overrides: Sequence[str] = (), look: Callable[[Examined], None] = lambda one: None
) -> tuple[list[Case], list[Finding]]:
    """The center's cases and every finding, joined over cases, the worst first.

    Args:
        overrides: a coordinator's run, whose steps are tried on this machine too.
        look: called with each case while its volumes are in memory.
    """
    from client.commands.files import vault_of
    from client.doctor.account import check_account
    from client.doctor.cohort import check_counts, check_duplicates, check_layout, check_records, check_waiting
    from client.doctor.finding import gathered
    from client.doctor.machine import check_machine
    from client.doctor.need import check_need
    from client.doctor.network import check_network
    from client.doctor.tables import check_tables

    cases, found = _cases(config)
    examined = []
    for case in cases:
        if case.images:
            examined.append(_examine(case, look))
            found += examined[-1].findings
    if cases:
        found += [*check_layout(config, cases), *check_duplicates(examined)]
        found += [*check_records(config, cases), *check_tables(config, cases), *check_counts(config, cases, examined)]
        found += check_waiting(config, cases, vault_of(config))
    found += [*check_account(config, vault_of(config)), *check_machine(config), *check_network(config)]
    if overrides:
        found += check_need(config, overrides)
    return cases, gathered(found)


def _cases(config: CenterConfig) -> tuple[list[Case], list[Finding]]:
    from client.commands.files import vault_of
    from client.data.layouts import survey
    from client.doctor.finding import ERROR, NOTE, WARNING, Finding, from_sentence
    from client.vault.cohort import read_cohort
    from client.vault.erased import hold_back
    from client.vault.standing import VaultError
    from common.errors import DataError, UnknownName

    try:
        seen = survey(Path(config.root), center=config.code, mapping=config.mapping or None, layout=config.layout)
        cohort = read_cohort(vault_of(config))
    except DataError as error:
        return [], [from_sentence(problem, "folder") for problem in error.problems]
    except VaultError as error:
        return [], [from_sentence(str(error), "folder")]
    except UnknownName as error:
        return [], [Finding(ERROR, "folder", f"layout is '{config.layout}'.", str(error))]
    shown = hold_back(seen.cases, cohort=cohort, modalities=config.modalities)
    area = "records" if seen.cases else "folder"
    found = [from_sentence(problem, area) for problem in seen.problems]
    for severity, sentences in ((WARNING, seen.odd), (NOTE, seen.notes)):
        found += [replace(from_sentence(sentence, "folder"), severity=severity) for sentence in sentences]
    return shown, found


def _examine(case: Case, look: Callable[[Examined], None]) -> Examined:
    from client.doctor.images import examine

    one = examine(case)
    look(one)
    one.volumes = {}
    return one


class _Pictures:
    """Thumbnails of cases as they pass, and which of them are shown."""

    def __init__(self, most: int):
        self._most = most
        self._made: dict[str, bytes] = {}

    def look(self, one: Examined) -> None:
        """Draw a case that has findings, or one of the first."""
        from client.doctor.page import thumbnail

        volume = one.volumes.get(one.reference)
        if self._most and volume is not None and volume.data.size and (one.findings or len(self._made) < self._most):
            self._made[one.patient] = thumbnail(one.volumes, one.reference)

    def ordered(self, findings: Sequence[Finding]) -> dict[str, bytes]:
        """At most the wanted number, in the order of the worst finding, then of patients."""
        from client.doctor.finding import SEVERITIES

        rank = {patient: len(SEVERITIES) for patient in self._made}
        for finding in findings:
            for patient in set(finding.cases) & set(rank):
                rank[patient] = min(rank[patient], SEVERITIES.index(finding.severity))
        shown = sorted(rank, key=lambda patient: (rank[patient], patient))[: self._most]
        return {patient: self._made[patient] for patient in shown}


def _print(code: str, found: Sequence[Finding]) -> None:
    from rich.console import Console

    console = Console(width=max(Console().width, 120), highlight=False)
    colors = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in found:
        count = f" [{len(finding.cases)} of its cases]" if finding.cases else ""
        console.print(f"{finding.severity:<8}", style=colors[finding.severity], end="")
        console.print(f"{finding.area}: {finding.what}{count}", markup=False)
        if finding.remedy:
            console.print(f"        -> {finding.remedy}", markup=False, style="dim")
        if finding.cases:
            more = "" if len(finding.cases) <= SHOWN_CASES else f" and {len(finding.cases) - SHOWN_CASES} more"
            console.print(f"           {', '.join(finding.cases[:SHOWN_CASES])}{more}", markup=False, style="dim")
    counts = [f"{sum(f.severity == name for f in found)} {name}s" for name in colors]
    console.print(f"{code}: {', '.join(counts)}")
