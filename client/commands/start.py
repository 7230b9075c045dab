"""Start this hospital's node. It connects outwards to the coordinator, waits for steps and answers them.

The node runs this checkout of the release and nothing else: a bundle that is not its own is refused before it is
installed. Stop it with Ctrl-C or SIGTERM; started again, it continues with the next message.
"""

from __future__ import annotations

import argparse

from client.commands.files import add_center

EXAMPLE = "python -m client start --center center.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped."""
    from client.node.node import start

    return start(arguments.center.resolve())
