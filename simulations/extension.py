"""What simulations add to a run: studies, and faults on purpose. Their modules are imported once a run has any."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from common.config.compose.registry import Extension, Node
from common.config.run import Run


def nodes() -> Iterable[Node]:
    """The studies' options and steps."""
    from simulations.studies.options import nodes as of_studies

    return of_studies()


def complete(run: Run) -> None:
    """A run's faults as dataclasses, every key and type checked."""
    if run.faults:
        from simulations.virtual.fault_options import typed

        typed(run)


def problems(run: Run) -> Iterable[str]:
    """What is wrong with a run's faults, and with the folder where it would be kept."""
    yield from _unwritable(Path(run.out))
    if run.faults:
        from simulations.virtual.fault_options import problems as of_faults

        yield from of_faults(run)


def _unwritable(out: Path) -> Iterable[str]:
    """Tried by a folder that is gone again: rights alone do not say it of every file system."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        yield f"out is '{out}', and {there} is a file; name a folder, as in out=runs."
        return
    try:
        with TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        yield f"out is '{out}', and in {there} no folder can be made ({error.strerror}); name another, as in out=runs."


EXTENSION = Extension(nodes, complete, problems)
