"""Show what this center's patients have spent of their privacy, what is left, and what a planned curriculum would cost.

One account holds every noised release of the cohort, over every step, run and restart, and how much left without any
noise, which no epsilon covers. With --curriculum the rounds of its private steps are added as a coordinator would ask
for them, and the first one that this center would refuse is named. Nothing is changed and nothing is sent.

A damaged account stops every private step. Where no backup of the vault has it, --afresh sets it aside and begins a new
one, which says for good that what was spent before is not known: ask your ethics board first.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.files import add_center, add_run, center_of, run_of, vault_of

if TYPE_CHECKING:
    from client.budget.statement import Line, Statement

EXAMPLE = "python -m client budget --center center.yaml --curriculum quickstart privacy=dp_sgd --figure budget.svg"
DELTA = 0.001


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    add_run(parser, help="also what the private steps of this curriculum would cost")
    parser.add_argument(
        "--delta", type=float, help=f"at which epsilon is told (policy.privacy.delta, or {DELTA:g} without one)"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw it, as .svg or .png")
    parser.add_argument("--json", action="store_true", help="the statement as JSON")
    parser.add_argument("--afresh", action="store_true", help="set a damaged account aside and begin a new one")


def run(arguments: argparse.Namespace) -> int:
    """Print the statement; 1 where there is nothing to begin afresh."""
    from client.budget.figure import draw
    from client.budget.statement import plan_of_steps, statement_of
    from client.policy.policy import ceiling_of
    from client.privacy.spending import read_account
    from common.config.load import compose_run

    config = center_of(arguments)
    if arguments.afresh:
        return _afresh(vault_of(config))
    ceiling, overrides = ceiling_of(config.policy), run_of(arguments)
    told = statement_of(
        read_account(vault_of(config)),
        ceiling=ceiling,
        delta=arguments.delta or (ceiling.delta if ceiling else DELTA),
        plan=plan_of_steps(compose_run(overrides).steps, config.code, vault=vault_of(config)) if overrides else None,
    )
    if arguments.json:
        print(json.dumps({"center": config.code, **asdict(told)}, indent=1))
    else:
        _print(told, config.code, planned=bool(overrides))
    if arguments.figure:
        draw(told, arguments.figure, title=f"{config.code}: privacy spent and planned")
    return 0


def _afresh(vault: Path) -> int:
    from client.privacy.spending import FILE, AccountProblem, begin, read_account
    from client.vault.ending import set_aside
    from client.vault.lock import alone

    with alone(vault / FILE):
        try:
            read_account(vault)
        except AccountProblem as problem:
            print(problem)
            kept = set_aside(vault / FILE)
            begin(vault, lost=True)
        else:
            print("The account can be read: there is nothing to begin afresh.")
            return 1
    print(
        f"A new account is begun{f', and the damaged one is kept as {kept}' if kept else ''}. It says that what was "
        "spent before is not known."
    )
    return 0


def _print(told: Statement, code: str, *, planned: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 110))
    console.print("\n".join(_without_noise(told)), highlight=False)
    table = Table(title=f"{code}: epsilon at delta {told.delta:.4g}", title_justify="left")
    for name in ("step", "run", "rounds", "draws", "noise", "epsilon", "all so far", "refused"):
        table.add_column(name, justify="left" if name in ("step", "run", "refused") else "right")
    for line in (*told.lines, *told.planned):
        table.add_row(*_row(line))
    console.print(table)
    console.print(_spent(told), highlight=False)
    if planned and not told.planned:
        console.print("The curriculum has no private step: it would cost no epsilon and has no noise.", highlight=False)


def _without_noise(told: Statement) -> list[str]:
    """The first lines: what no epsilon covers."""
    lines = []
    if not told.is_private:
        lines.append("NOT PRIVATE: noise of this account came from a known seed, which protects nobody.")
    if told.lost:
        lines.append("An earlier account was lost: what was spent before is not known.")
    counted = ", ".join(f"{what} {number}" for what, number in told.unnoised.items())
    lines.append(f"Released without noise, which no epsilon covers: {counted or 'nothing since the account began'}.")
    if told.replies_before:
        lines.append(f"Before the account began {told.replies_before} replies had left, none of them with noise.")
    return lines


def _row(line: Line) -> tuple[str, ...]:
    refused = f"from round {line.refused_from}" if line.refused_from else ""
    return (
        line.step, line.run[:12], str(line.rounds), f"{line.draws:,}", f"{line.noise:.3f}", f"{line.alone:.2f}",
        f"{line.after:.2f}", refused,
    )  # fmt: skip


def _spent(told: Statement) -> str:
    text = f"spent: epsilon {told.spent:.2f} (by the Renyi accountant {told.spent_rdp:.2f})"
    return text if told.left is None else f"{text}; ceiling {told.ceiling:g}, left {told.left:.2f}"
