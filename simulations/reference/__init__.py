"""Pages of docs/ that code and schema write: commands, results.json, messages, ledger, modules, the house's drawing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.files import write_bytes
from simulations.options import options_page
from simulations.reference.commands import commands_page
from simulations.reference.ethics import ethics_page
from simulations.reference.events import audit_page, ledger_page
from simulations.reference.house import house_drawing
from simulations.reference.leaving import leaving_page
from simulations.reference.messages import codes_page, wire_page
from simulations.reference.modules import modules_page
from simulations.reference.policy import policy_page
from simulations.reference.results import results_page

PAGES: dict[str, Callable[[], str]] = {  # page below docs/ -> what writes it
    "developer/house.svg": house_drawing,
    "developer/modules.md": modules_page,
    "hospital/ethics.md": ethics_page,
    "hospital/policy.md": policy_page,
    "reference/audit.md": audit_page,
    "reference/codes.md": codes_page,
    "reference/commands.md": commands_page,
    "reference/ledger.md": ledger_page,
    "reference/options.md": options_page,
    "reference/results.md": results_page,
    "reference/what-leaves.md": leaving_page,
    "reference/wire.md": wire_page,
}


def write_pages(docs: Path) -> list[Path]:
    """Write every generated page below ``docs``; the paths whose content changed."""
    changed = []
    for name, page in PAGES.items():
        path, text = docs / name, page()
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, text.encode())
            changed.append(path)
    return changed
