"""A curriculum over real hospitals: submitted to the SuperLink, followed through its ledger, resubmitted after a crash.

Flower marks a run failed when its ServerApp or SuperLink dies, and keeps nothing of it. The run folder does: a new run
over the same folder continues after the last finished round.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.config.load import plugins_named
from common.config.rules import check_run
from common.config.run import Run
from common.errors import ConfigError, RoundFailed
from common.plugins import load
from common.store.ledger import Ledger
from server.deploy.control import LinkUnreachable, RunState, control
from server.deploy.folder import Deployment
from server.deploy.queue import centers_of, in_turn, living
from server.run.composed import as_absolute, composed_run
from server.run.finish import verify_in_fresh_process, write_outputs
from server.run.folder import RunFolder
from server.run.length import rounds_of_steps
from server.run.narration import Narrator
from server.run.unfinished import rounds_done, unfinished

POLL_S = 1.0
PATIENCE_S = 180.0  # for a SuperLink that is starting again
FRUITLESS = {True: 2, False: 10}  # runs without one finished round more that are tried: after an exception, a crash


def run_curriculum_here(
    deployment: Deployment, overrides: Sequence[str], *, say: Callable[[str], None] = print
) -> RunFolder:
    """Run or resume a curriculum over the enrolled hospitals, to its report.

    Raises:
        ConfigError: the overrides name plugins, which are the coordinator's own settings.
        RoundFailed: several runs in a row ended without progress; the sentence says how the last one did.
    """
    if plugins_named(overrides):
        raise ConfigError(
            "Plugins are not named on a coordinator's command line: write them into "
            f"{deployment.path / 'server.yaml'}, and into each hospital's center.yaml, and start both again."
        )
    load(deployment.config.plugins, folder=deployment.path)
    run = composed_run(list(overrides))
    check_run(run)
    if run.out != Run.out:
        raise ConfigError(
            f"A federation keeps its runs in {deployment.runs}; leave out={run.out} out, or choose a name=…."
        )
    folder = RunFolder(deployment.runs / run.name)
    folder.path.mkdir(parents=True, exist_ok=True)
    orphans = partial(_others, deployment, folder)
    with in_turn(deployment.path, run.name, centers_of(run), orphans=orphans, say=say):
        _to_its_end(deployment, run, folder, overrides, say)
    if not Ledger(folder.ledger).events("verified"):
        verify_in_fresh_process(folder.path)
    write_outputs(folder.path)
    return folder


def _to_its_end(
    deployment: Deployment, run: Run, folder: RunFolder, overrides: Sequence[str], say: Callable[[str], None]
) -> None:
    """Flower's runs over the folder, one after another, until the curriculum is finished. Raises RoundFailed."""
    story, fruitless = Follower(folder, run, say), 0
    while unfinished(run, folder):
        before = rounds_done(folder)
        state = _run_once(deployment, run, folder, overrides, story)
        if not unfinished(run, folder):
            break
        fruitless = fruitless + 1 if rounds_done(folder) == before else 0
        if fruitless >= FRUITLESS["exception" in state.details]:
            raise RoundFailed(
                f"Flower's run ended before step '{unfinished(run, folder)[0]}' was finished: "
                f"{state.details or state.outcome} (its log is {deployment.logs / 'executor.log'}). Start the same "
                "command again to continue after the last finished round."
            )
        say(f"the run {state.outcome or 'ended'}: {state.details or 'no reason given'}; it is resumed")


LOST = RunState(0, "finished", "was lost", "the SuperLink's database is gone or another one", "", 0, 0, 0.0)


class Follower:
    """Tells what a ledger gained since it was last looked at."""

    def __init__(self, folder: RunFolder, run: Run, say: Callable[[str], None]):
        self.folder, self.run = folder, run
        self.narrator = Narrator(None, say=say, rounds=rounds_of_steps(run.steps, Ledger(folder.ledger)))
        self.told = len(Ledger(folder.ledger).events())

    def look(self) -> None:
        """Tell the new events."""
        events = Ledger(self.folder.ledger).events()
        for event in events[self.told :]:
            self._tell(event)
        self.told = len(events)

    def _tell(self, event: dict[str, Any]) -> None:
        if event["kind"] == "step_started":
            self.narrator.step_started(event)
        elif event["kind"] == "round_finished":
            self.narrator.round_finished(event, of=self.narrator.rounds_of(event["step"]))
        elif event["kind"] == "step_finished":
            self.narrator.step_finished(event)
        elif event["kind"] == "run_resumed":
            self.narrator.say("resumed after the last finished round")


def _run_once(
    deployment: Deployment, run: Run, folder: RunFolder, overrides: Sequence[str], story: Follower
) -> RunState:
    """Start a Flower run over the folder, or join the one that is under way, and follow it to its end."""
    mine = str(folder.path.resolve())
    config = {
        "overrides": shlex.join([*overrides, *absolute(run)]),
        "run-dir": mine,
        "nodes": str(deployment.nodes),
    }
    started = _patiently(deployment, lambda link: _joined(link.runs(), mine) or link.start_run(config))
    while True:
        state = _patiently(deployment, lambda link: next((r for r in link.runs() if r.run == started), LOST))
        story.look()
        if state.is_over:
            return state
        time.sleep(POLL_S)


def _others(deployment: Deployment, folder: RunFolder) -> list[str]:
    """Names of other runs under way that no `server run` follows: those that one follows hold tickets themselves."""
    followed = {ticket.name for ticket in living(deployment.path)}
    mine = str(folder.path.resolve())
    going = [state for state in _patiently(deployment, lambda link: link.runs()) if not state.is_over]
    return sorted({Path(s.folder).name for s in going if s.folder not in ("", mine)} - followed)


def _joined(runs: list[RunState], folder: str) -> int | None:
    return next((run.run for run in runs if run.folder == folder and not run.is_over), None)


def _patiently(deployment: Deployment, ask: Callable[[Any], Any]) -> Any:
    """An answer of the SuperLink, which may be starting again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with control(deployment.link, deployment.authority) as link:
                return ask(link)
        except LinkUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def absolute(run: Run) -> list[str]:
    """Overrides that make the run's own paths independent of the working directory."""
    paths = {"backbone.weights": run.backbone.weights, "backbone.text_folder": run.backbone.text_folder}
    files = [f"{key}={Path(path).resolve()}" for key, path in paths.items() if path and not Path(path).is_absolute()]
    return [*files, *as_absolute(run)]
