"""What goes on: which hospitals are there, which round is under way, what the ledger said last."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import FedgraftError
from common.store.ledger import Ledger
from server.deploy.certificates import days_left, ending
from server.deploy.folder import Deployment
from server.deploy.queue import waiting
from server.run.folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Group

LAST = 5


@dataclass
class RunStatus:
    """One run folder."""

    name: str
    flower: str  # what Flower says of its newest run over the folder
    step: str
    round: int
    rounds: int
    bytes: int  # both ways, all its Flower runs
    last: list[str] = field(default_factory=list)


@dataclass
class Status:
    """A coordinator, now."""

    is_serving: bool
    link: str
    certificate_days: float
    hospitals: dict[str, str]  # code -> online, offline, registered or not registered yet
    runs: list[RunStatus]
    ending: list[str] = field(default_factory=list)  # sentences about certificates that end within 30 days
    waiting: list[str] = field(default_factory=list)  # runs that wait for others, a sentence each


def warnings_of(deployment: Deployment) -> list[str]:
    """What of a coordinator's certificates ends within 30 days, and what to do."""
    found = [
        ending(deployment.certificate, remedy=f"python -m server renew {deployment.path}, then restart"),
        ending(deployment.authority, remedy="every hospital will need a new ca.crt (docs: operator/certificates)"),
    ]
    return [sentence for sentence in found if sentence]


def status(deployment: Deployment) -> Status:
    """Look at the SuperLink, where it runs, and at every run folder."""
    from server.deploy.control import control

    nodes, flower, link = {}, [], "serving"
    try:
        with control(deployment.link, deployment.authority) as door:
            nodes = {node.name: node.status for node in door.nodes()}
            flower = door.runs()
    except FedgraftError as error:
        link = str(error)
    runs = []
    for ledger in sorted(deployment.runs.glob("*/ledger.jsonl")):
        mine = [run for run in flower if Path(run.folder) == ledger.parent]
        said = f"{mine[0].status} {mine[0].outcome}".strip() if mine else "unknown to Flower"
        runs.append(_run_status(ledger.parent, said, sum(run.bytes_sent + run.bytes_received for run in mine)))
    hospitals = {code: nodes.get(code, "not registered yet") for code in deployment.codes()}
    days, ends = days_left(deployment.certificate), warnings_of(deployment)
    return Status(link == "serving", link, days, hospitals, runs, ends, waiting(deployment.path))


def table(found: Status) -> Group:
    """The same for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    hospitals = Table("hospital", "node")
    for code, state in found.hospitals.items():
        hospitals.add_row(code, state)
    runs = Table("run", "Flower", "step", "round", "MB")
    for run in found.runs:
        runs.add_row(run.name, run.flower, run.step, f"{run.round}/{run.rounds}", f"{run.bytes / 1e6:.1f}")
    story = [Text(f"{run.name}: {line}") for run in found.runs for line in run.last]
    head = Text(f"SuperLink: {found.link}; the certificate ends in {found.certificate_days:.0f} days")
    warned = [Text(sentence, style="bold yellow") for sentence in found.ending]
    return Group(head, *warned, hospitals, runs, *map(Text, found.waiting), *story)


def _run_status(folder: Path, flower: str, sent: int) -> RunStatus:
    events = Ledger(RunFolder(folder).ledger).events()
    cards: dict[str, Any] = events[0].get("steps", {}) if events else {}
    started = [event for event in events if event["kind"] == "step_started"]
    begun = started[-1] if started else {}
    step = begun.get("step", "—")
    done = len({event["round"] for event in events if event["kind"] == "round_finished" and event["step"] == step})
    rounds = int(begun.get("rounds", cards.get(step, {}).get("rounds", 0)))
    return RunStatus(folder.name, flower, step, done, rounds, sent, [_line(event) for event in events[-LAST:]])


def _line(event: dict[str, Any]) -> str:
    at = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S")
    words = [str(event[key]) for key in ("step", "round") if key in event]
    return " ".join([at, event["kind"], *words])
