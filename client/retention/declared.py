"""``retention`` in center.yaml: after how many days what may go goes."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import ConfigError


@dataclass
class Retention:
    """Days; null: never by age. `python -m client tidy` carries it out. The accounts of privacy and of what left, the
    split and the erased patients stay for good, whatever is written here."""

    cache_days: float | None = None  # prepared volumes that no order has read for so long
    log_days: float | None = None  # lines of the node's logs that are older
    step_days: float | None = None  # what methods remember of a step that nothing was written for since


def check_retention(retention: Retention, path: object) -> None:
    """Raise ConfigError for numbers of days that are none."""
    for name, days in vars(retention).items():
        if days is not None and not 0 < days < 1e6:
            raise ConfigError(f"{path} has retention.{name}: {days}; write a number of days above 0, or null.")
