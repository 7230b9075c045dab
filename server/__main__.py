"""python -m server {plan,inspect,verify,report,...}: look before a run, prove it afterwards, change who is in it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common.cli import run_command
from common.offline import go_offline

EXAMPLES = """examples:
  python -m server plan curriculum=quickstart steps.tumour_ct.rounds=5
  python -m server inspect backbone=swin_unetr
  python -m server verify runs/quickstart
  python -m server report runs/quickstart
  python -m server release runs/quickstart CHUP --reason "scanner fixed"
  python -m server withdraw runs/quickstart --center CHUM
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, call one function, print."""
    parser = argparse.ArgumentParser(
        prog="python -m server", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="print the resolved run and every broken rule")
    plan.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")
    inspect = commands.add_parser("inspect", help="what a backbone and every adapter on it weigh, without its weights")
    inspect.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. backbone=swin_unetr")
    inspect.add_argument("--json", action="store_true", help="the same as JSON")
    inspect.add_argument("--digest", action="store_true", help="load the weights and print their SHA-256 instead")
    inspect.add_argument("--table", action="store_true", help="docs/sizes.md: the real sizes of every backbone")
    for name, text in (
        ("verify", "recompute every step's probe in this process"),
        ("report", "write the report again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")
    release = commands.add_parser("release", help="let suspended centers take part again, on the ledger")
    release.add_argument("folder", type=Path, help="a run folder, also of a run that is going on")
    release.add_argument("centers", nargs="+", help="center codes, e.g. CHUP")
    release.add_argument("--reason", default="", help="for the record")
    leaving = commands.add_parser("withdraw", help="take a center out of what was fitted from its sums")
    leaving.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")
    leaving.add_argument("--center", required=True, help="the code of the center that leaves, e.g. CHUM")
    arguments = parser.parse_args(argv)
    go_offline()
    actions = {
        "plan": lambda: _plan(arguments.overrides),
        "inspect": lambda: _inspect(arguments),
        "verify": lambda: _verify(arguments.folder),
        "report": lambda: _report(arguments.folder),
        "release": lambda: _release(arguments.folder, arguments.centers, arguments.reason),
        "withdraw": lambda: _withdraw(arguments.folder, arguments.center),
    }
    return run_command(actions[arguments.command])


def _plan(overrides: list[str]) -> int:
    from common.config.load import compose_run, run_to_yaml
    from common.config.rules import broken_rules

    run = compose_run(overrides)
    print(run_to_yaml(run))
    problems = broken_rules(run)
    for problem in problems:
        print(f"broken rule: {problem}", file=sys.stderr)
    if not problems:
        print(f"{len(run.steps)} steps, no broken rule.")
    return 2 if problems else 0


def _inspect(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from common.backbones import backbone_digest, load_backbone
    from common.config.load import compose_run
    from server.inspection import described, sizes_page
    from server.sizes import backbone_sizes

    if arguments.table:
        print(sizes_page(), end="")
        return 0
    run = compose_run(arguments.overrides)
    if arguments.digest:
        print(backbone_digest(load_backbone(run.backbone)))
        return 0
    asked = any(override.startswith(("curriculum=", "steps.")) for override in arguments.overrides)
    sizes = backbone_sizes(run.backbone, run.steps if asked else None)
    print(json.dumps(asdict(sizes), indent=2) if arguments.json else described(sizes))
    return 0


def _verify(path: Path) -> int:
    from server.finish import verify_folder

    found = verify_folder(path)
    print(json.dumps({"changed_bits": found.changed_bits, "base_after": found.base_after}))
    return 0 if found.total == 0 else 1


def _report(path: Path) -> int:
    from server.finish import write_outputs

    print(write_outputs(path))
    return 0


def _release(path: Path, centers: list[str], reason: str) -> int:
    from common.ledger import Ledger
    from server.folder import RunFolder
    from server.quarantine import release

    released = release(Ledger(RunFolder(path).ledger), centers, reason=reason)
    print(f"released: {', '.join(released)}; they take part from the next round on")
    return 0


def _withdraw(path: Path, center: str) -> int:
    from server.withdraw import withdraw

    for done in withdraw(path, center):
        print(done.told)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
