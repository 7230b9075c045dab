"""A policy in sentences: what a coordinator can and cannot ask of this hospital, each with the field that decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from client.policy.hours import quiet_spans
from client.policy.policy import ALL, NEED_A_WORD, SUMS, UNSAID, Policy, ceiling_of, demands_privacy, test_folds

CAN, CANNOT, WITHIN = "can", "cannot", "within"
HEADS = {
    CAN: "A coordinator can",
    CANNOT: "A coordinator cannot",
    WITHIN: "Whatever is asked,",
}
SUMS_SAY = {
    "curves": "counts of survival curves and calibration",
    "gram": "Gram sums of a ridge fit",
    "grid": "a histogram of event times",
    "keepsakes": "sums of squared gradients or of layer inputs that later steps go on from",
    "labels": "counts of labels, and the histograms of a step of statistics",
    "moments": "means and variances of columns",
    "newton": "gradients and Hessians of an exact fit",
    "paired": "sums, squares and cross sums of two models' scores of the same test patients",
    "scores": "sums of test and validation scores",
    "thresholds": "counts of voxels by score, for the threshold of an exact segmentation",
}


@dataclass(frozen=True)
class Sentence:
    """One thing that a policy decides; ``says`` goes on from ``HEADS[about]``."""

    about: str
    says: str
    decided_by: str

    def __str__(self) -> str:
        return f"{HEADS[self.about]} {self.says}. [{self.decided_by}]"


def explained(policy: Policy) -> list[Sentence]:
    """Every sentence, what can be asked before what cannot. Raises ConfigError for a policy that cannot be read."""
    found = [*_kinds(policy), *_models(policy), *_limits(policy), *_answers(policy), *_noise(policy), *_never(policy)]
    return sorted(found, key=lambda one: list(HEADS).index(one.about))


def in_short(policy: Policy) -> str:
    """One sentence with what a hospital is asked about most often."""
    folds = test_folds(policy)
    tested = "any fold" if folds is None else f"fold {_listed([str(fold) for fold in folds])}"
    refused = [kind for name in NEED_A_WORD for kind in _refused(getattr(policy, name), name)]
    without = f"; refuses {_listed(refused)}" if refused else ""
    return (
        f"Trains with {policy.minimum_cases} cases or more, tells results of {policy.minimum_cell} or more, tests on "
        f"{tested}, works at most {policy.maximum_seconds:g} s on a message{_spends(policy)}{without}."
    )


def _spends(policy: Policy) -> str:
    ceiling = ceiling_of(policy)
    if ceiling is None:
        return ", learns with noise only" if demands_privacy(policy) else ""
    return f", spends at most epsilon {ceiling.epsilon:g} at delta {ceiling.delta:g}"


def _kinds(policy: Policy) -> Iterator[Sentence]:
    whats = {
        "tasks": "steps of the tasks",
        "federations": "steps with the aggregation rules and local methods",
        "parts": "the training of adapter parts of the kinds",
    }
    for name, what in whats.items():
        listed = getattr(policy, name)
        if listed and ALL not in listed:
            yield Sentence(CAN, f"ask for {what} {_listed(listed)}", name)
            yield Sentence(CANNOT, f"ask for {what.replace('the ', 'other ', 1)}", name)
            continue
        refused = _refused(listed, name)
        yield Sentence(CAN, f"ask for {what} that this release has{', but for some' if refused else ''}", name)
        for kind in refused:
            yield Sentence(CANNOT, f"ask for {kind}: {NEED_A_WORD[name][kind]}", name)
        if ALL in listed:
            for kind, why in NEED_A_WORD.get(name, {}).items():
                yield Sentence(CAN, f"ask for {kind}, although {why}", name)


def _models(policy: Policy) -> Iterator[Sentence]:
    if policy.bases:
        yield Sentence(CANNOT, f"use a frozen model but the {len(policy.bases)} whose digests are listed", "bases")
    else:
        yield Sentence(CAN, "use any frozen model that is installed here", "bases")
    if policy.initialisations:
        yield Sentence(
            CANNOT,
            f"let a step start here from a state but the {len(policy.initialisations)} whose digests are listed, "
            "whatever its round",
            "initialisations",
        )
    else:
        yield Sentence(CAN, "choose the state that a step starts from", "initialisations")
    if policy.reach is None:
        yield Sentence(CAN, "put any state in the place of one between two rounds", "reach")
    else:
        yield Sentence(
            CANNOT,
            f"move a state between two rounds by more than {policy.reach:g} times what this center's own update did",
            "reach",
        )


def _limits(policy: Policy) -> Iterator[Sentence]:
    folds = test_folds(policy)
    if folds is None:
        yield Sentence(
            CAN, "let any fold be the test, as a cross-validated study does: who trained then tests", "test_folds"
        )
    else:
        named = _listed([str(fold) for fold in folds])
        yield Sentence(CANNOT, f"test on folds other than {named}, nor change who is in which", "test_folds")
    yield Sentence(CANNOT, f"train on batches of fewer than {policy.minimum_batch} cases", "minimum_batch")
    yield Sentence(CANNOT, f"ask for more than {policy.maximum_epochs} epochs in a round", "maximum_epochs")
    yield Sentence(CANNOT, f"number a round of a step above {policy.maximum_rounds}", "maximum_rounds")
    yield Sentence(
        CANNOT,
        f"ask exact fits for sums at more than {policy.maximum_questions} points about any one variable, feature or "
        "target, over every step and run together",
        "maximum_questions",
    )
    yield Sentence(
        WITHIN, f"a message that takes more than {policy.maximum_seconds:g} s of wall time is ended", "maximum_seconds"
    )
    most = policy.maximum_memory_gb
    memory = f"{most:g} GB" if most is not None else "nine tenths of this machine's memory"
    yield Sentence(WITHIN, f"a message that takes more than {memory} is ended", "maximum_memory_gb")
    if policy.maximum_vault_gb is not None:
        yield Sentence(
            CANNOT,
            f"begin another step once states of earlier ones take {policy.maximum_vault_gb:g} GB of the vault",
            "maximum_vault_gb",
        )
    else:
        yield Sentence(CAN, "have the vault keep states of any number of steps", "maximum_vault_gb")
    for start, end in quiet_spans(policy):
        yield Sentence(CANNOT, f"have anything done from {start:%H:%M} to {end:%H:%M}", "quiet_hours")


def _answers(policy: Policy) -> Iterator[Sentence]:
    allowed = list(SUMS) if not policy.sums or ALL in policy.sums else [kind for kind in SUMS if kind in policy.sums]
    kept = [kind for kind in SUMS if kind not in allowed]
    yield Sentence(CAN, f"ask for {_listed([SUMS_SAY[kind] for kind in allowed]) or 'no sums at all'}", "sums")
    if kept:
        yield Sentence(CANNOT, f"ask for {_listed([SUMS_SAY[kind] for kind in kept])}", "sums")
    yield Sentence(WITHIN, f"no update of fewer than {policy.minimum_cases} training cases leaves", "minimum_cases")
    yield Sentence(WITHIN, f"no result and no count of fewer than {policy.minimum_cell} cases leaves", "minimum_cell")


def _noise(policy: Policy) -> Iterator[Sentence]:
    ceiling = ceiling_of(policy)
    without = "have a step learn from patients without noise (a step with `privacy` has it)"
    if policy.require_privacy:
        yield Sentence(CANNOT, without, "require_privacy")
    if ceiling is not None or policy.privacy.strict:
        yield Sentence(CANNOT, without, "privacy")
    if ceiling is not None:
        yield Sentence(
            CANNOT,
            f"spend more than epsilon {ceiling.epsilon:g} at delta {ceiling.delta:g} of a patient's privacy, over "
            "every step, run and restart together: a round that would is not begun",
            "privacy",
        )
    if policy.privacy.strict:
        yield Sentence(CANNOT, "have scores without noise, statistics or losses", "privacy")
    elif demands_privacy(policy):
        yield Sentence(
            CAN, "have scores, statistics and losses without noise; each is a line in the privacy account", "privacy"
        )
    else:
        yield Sentence(CAN, "have steps learn from patients without noise, as often as it likes", "privacy")
    if ceiling is None and policy.minimum_cell > 1:
        yield Sentence(
            CANNOT,
            f"have sums, or scores, with noise in the place of minimums beyond epsilon {UNSAID.epsilon:g} at delta "
            f"{UNSAID.delta:g} each, over every step, run and restart together",
            "privacy",
        )


def _never(policy: Policy) -> Iterator[Sentence]:
    yield from _masks(policy)
    yield Sentence(CANNOT, "read files by their paths, this machine's environment, or run code of its own", "always")
    yield Sentence(CANNOT, "exceed the ceilings of the release: sizes, ranks, bins, classes, epochs", "always")


def _masks(policy: Policy) -> Iterator[Sentence]:
    if policy.require_secure_aggregation:
        yield Sentence(
            CANNOT,
            "have an update, a loss or a score of this hospital alone: they leave as secure sums with at least two "
            "others, and what cannot be summed so (exact fits, counts of labels, keepsakes, statistics) not at all",
            "require_secure_aggregation",
        )
    else:
        yield Sentence(
            CAN, "see this hospital's own updates, losses and scores, where a step has no secure sums",
            "require_secure_aggregation",
        )  # fmt: skip


def _refused(listed: Sequence[str], name: str) -> list[str]:
    """Kinds that need a word and have none."""
    return [kind for kind in NEED_A_WORD.get(name, {}) if ALL not in listed and kind not in listed]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
