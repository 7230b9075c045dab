"""Write what may be told of this center's patients before any training, as a file to look at and to send.

Histograms with fixed bins of records, outcomes, spacing, intensity and uptake, of all patients and by make of scanner,
under the rules of every reply: no cell of a few, the same patients as in earlier exact answers. No server is asked. The
coordinator lays the files of several centers side by side with `python -m server statistics`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from client.commands.files import add_center, center_of

EXAMPLE = "python -m client statistics --center center.yaml --out statistics.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--out", type=Path, required=True, help="the file to write: JSON, which a person can read")


def run(arguments: argparse.Namespace) -> int:
    """Write the file, put it on the record of what left, and print what it holds."""
    import hashlib
    import json

    from client.center.center import Center
    from client.privacy.release import Minimum
    from client.privacy.unnoised import enter_file
    from client.statistics.told import KIND, statistics_of
    from client.vault.outbox import record_file
    from common.files import write_bytes

    center = Center(center_of(arguments), keeps_split=False)
    policy = center.config.policy
    minimum = Minimum(max(policy.minimum_cases, 1), max(policy.minimum_cell, 1))
    found = statistics_of(center.code, center.cases, policy=policy, vault=center.vault, minimum=minimum)
    content = (json.dumps(found, indent=1) + "\n").encode()
    enter_file(center.vault, policy)
    facts = {"size": len(content), "digest": hashlib.sha256(content).hexdigest(), "cases": found["cases"]}
    record_file(center.vault, action=KIND, sums=sorted(found["histograms"]), **facts)
    write_bytes(arguments.out, content)
    print(
        f"{arguments.out}: {found['cases']} patients (in steps of {found['minimum']}), {len(found['histograms'])} "
        f"quantities, by scanner: {', '.join(found['by_scanner']) or 'none'}. Look at it before you send it."
    )
    return 0
