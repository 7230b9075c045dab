"""What the commands share: where center.yaml is, and how it is read without starting anything."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it brings PyTorch, which --help does not need
    from client.center.config import CenterConfig

DEFAULT = Path("center.yaml")


def add_center(parser: argparse.ArgumentParser) -> None:
    """The option that names the center's file."""
    parser.add_argument("--center", type=Path, default=DEFAULT, metavar="FILE", help="this center's file (center.yaml)")


def add_run(parser: argparse.ArgumentParser, *, help: str) -> None:
    """The options that describe a coordinator's run."""
    parser.add_argument("--curriculum", help=help)
    parser.add_argument(
        "overrides", nargs="*", help="what else the coordinator sets, e.g. backbone=ct_clip backbone.weights=FILE"
    )


def run_of(arguments: argparse.Namespace) -> list[str]:
    """The run's overrides; empty where no curriculum is named."""
    return [f"curriculum={arguments.curriculum}", *arguments.overrides] if arguments.curriculum else []


def center_of(arguments: argparse.Namespace) -> CenterConfig:
    """The configuration that the command was pointed at. Raises ConfigError."""
    from client.center.config import read_config

    return read_config(arguments.center)


def vault_of(config: CenterConfig) -> Path:
    """The folder of what must survive, as in `Center.vault`."""
    return Path(config.vault) / config.code
