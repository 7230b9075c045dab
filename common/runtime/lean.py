"""MONAI without what it loads only in case it is wanted: half of what a center's process takes to start.

``import monai`` imports all of its modules, and through some of them BERT of transformers (with torch's distributed
tensors), matplotlib and scipy.signal. Nothing here uses these through MONAI, which goes on without a package that it
does not find. A script that wants MONAI's parts of them (Transchex, `monai.visualize`) imports monai before this
project; a plugin, which this project loads, imports those packages itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

UNUSED = ("matplotlib", "scipy.signal", "transformers")


class Lean(MetaPathFinder):
    """Answers, while MONAI is being imported and only then, that the packages that nothing here uses are not there."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if is_unused(fullname) and being_imported("monai"):
            raise ModuleNotFoundError(f"{fullname} is left out while MONAI is imported", name=fullname)


def is_unused(name: str) -> bool:
    """Whether a module belongs to a package that nothing here uses through MONAI."""
    return any(name == package or name.startswith(f"{package}.") for package in UNUSED)


def being_imported(name: str) -> bool:
    """Whether a module's own code is running for the first time."""
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def import_less() -> None:
    """Keep this process's MONAI lean; a second call changes nothing."""
    if not any(isinstance(finder, Lean) for finder in sys.meta_path):
        sys.meta_path.insert(0, Lean())
