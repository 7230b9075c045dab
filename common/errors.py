"""Every exception that fedgraft raises on purpose, so that a caller can catch them by kind.

FedgraftError                 something a person can act on; the message is one finished sentence
├── ConfigError               the run cannot be composed, or breaks rules (all of them listed)
├── UnknownName               a name that no registry knows; carries the options and a suggestion
├── DataError                 a center's data cannot be used (all problems of the center listed)
├── BackboneError             weights that do not fit, or a base that is not the one agreed on
│   └── BaseMissing           a base that grew by stages which are not all here; they can be sent
├── AdapterError              an adapter state that does not belong to this step or base
├── WireError                 a message that carries what it must not, or lacks what it must
├── BankError                 a bank entry that is missing, damaged or never learned
├── LedgerError               a ledger whose hash chain does not hold
├── PolicyRefusal             a center declines a step; the reason travels as a code
└── RoundFailed               too few usable replies; the model stays as it was
    └── TooFewUpdates         fewer than a robust rule's bound
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class FedgraftError(Exception):
    """Base of all errors with a message meant for a person. Commands print it and exit with 2."""

    code = "error"


class ConfigError(FedgraftError):
    code = "config"


class DataError(FedgraftError):
    """All problems of one center's data, one sentence each."""

    code = "data"

    def __init__(self, problems: str | Sequence[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class BackboneError(FedgraftError):
    code = "backbone"


class BaseMissing(BackboneError):
    """Stages of a grown base are not here: the server sends them in their order and asks again."""

    code = "base_missing"


class AdapterError(FedgraftError):
    code = "adapter"


class WireError(FedgraftError):
    code = "wire"


class BankError(FedgraftError):
    code = "bank"


class LedgerError(FedgraftError):
    code = "ledger"


class PolicyRefusal(FedgraftError):
    """A center declines work; ``code`` is what travels, the sentence stays on site."""

    def __init__(self, code: str, sentence: str):
        self.code = code
        super().__init__(sentence)


class RoundFailed(FedgraftError):
    code = "round"


class TooFewUpdates(RoundFailed):
    """A robust rule promises nothing below its bound, so it refuses: the round is void."""

    code = "round.too_few"


def suggestion(name: object, options: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where an option is near, else nothing."""
    close = difflib.get_close_matches(str(name), list(options), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


class UnknownName(FedgraftError):
    code = "unknown"

    def __init__(self, what: str, name: object, options: Iterable[str], where: str = ""):
        known = sorted(options)
        place = f" ({where})" if where else ""
        super().__init__(
            f"Unknown {what} '{name}'. Known: {', '.join(known) or 'none'}.{suggestion(name, known)}{place}"
        )
