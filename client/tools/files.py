"""What the commands share: where center.yaml is, and how it is read without starting anything."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it brings PyTorch, which --help does not need
    from client.center import CenterConfig

DEFAULT = Path("center.yaml")


def add_center(parser: argparse.ArgumentParser) -> None:
    """The option that names the center's file."""
    parser.add_argument("--center", type=Path, default=DEFAULT, metavar="FILE", help="this center's file (center.yaml)")


def center_of(arguments: argparse.Namespace) -> CenterConfig:
    """The configuration that the command was pointed at. Raises ConfigError."""
    from client.center import read_config

    return read_config(arguments.center)


def vault_of(config: CenterConfig) -> Path:
    """The folder of what must survive, as in `Center.vault`."""
    return Path(config.vault) / config.code
