"""What a step under differential privacy must be, as finished sentences; a hospital checks the same of each order.

Every bound is one of public numbers. How many patients a center truly has is never compared with any of them: the
answer would tell it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from common.config.adapter import LoraPart
from common.config.methods import methods_asked
from common.config.objective import RIDGE
from common.config.privacy.base import PatientPrivacy, scores_are_noised
from common.config.privacy.dp_sgd import DpSgd
from common.config.privacy.noised_sums import NoisedSums
from common.config.run import Run
from common.config.step import BEST, KEPT, LAST, Step
from common.data.modality_sets import scored_modes

LARGEST_EPSILON = 1000.0
LONGEST_ROW = 100.0
# Methods under which what leaves is still a function of noised gradients, of released states and of single patients
# within the clipping; anything else, a plugin's too, may look at patients elsewhere.
SOUND = frozenset({"features", "feddyn", "local", "lwf", "mib", "proximal", "scaffold", "sequential"})
WHY_NOT = {
    "ditto": "trains a model of each center's own on the same patients without noise",
    "few_shot": "trains on few of a center's patients, drawn without noise, and the account is of all of them",
    "inflora": "asks for second moments of what layers see of the patients, on which no noise is put",
    "rehearsal": "draws its memory of patients by itself, and no noise is charged for who is in it",
}
UNKNOWN = "may compute from patients outside the clipped gradients, and nobody has shown that it does not"
NO_OWN = "so that no patient has a gradient of its own to clip"


def privacy_problems(step: Step, run: Run) -> Iterator[str]:
    """Everything that keeps a step from being what its ``privacy`` promises."""
    if step.selection.keep not in ("", *KEPT):
        yield f"selection.keep is '{step.selection.keep}'; it can be {', '.join(KEPT)}."
    if step.privacy is None:
        return
    own = (_batches, _schedule, _parts) if isinstance(step.privacy, DpSgd) else (_fit,)
    for problems in (_numbers, *own, _choice, _scores, _losses, _methods):
        yield from problems(step, step.privacy)
    if len(run.compare.learning_rates) > 1:
        yield (
            f"compare.learning_rates tries {len(run.compare.learning_rates)} rates, and each try is drawn from the "
            "same patients, on top of the step's epsilon; fix one rate in advance (compare.learning_rates=[1.0])."
        )


def _numbers(step: Step, spec: PatientPrivacy) -> Iterator[str]:
    if not 0 < spec.epsilon <= LARGEST_EPSILON:
        yield f"privacy.epsilon is {spec.epsilon:g}; it must be above 0 and at most {LARGEST_EPSILON:g}, such as 8."
    if spec.cohort < 1 and not spec.cohorts:
        yield (
            f"privacy.cohort is {spec.cohort}; set it to a public bound of how many training patients a center has, "
            "such as 100 (never the true number, which noise must hide)."
        )
        return
    for place, bound in _bounds(step, spec).items():
        if bound < 1:
            yield f"{place} is {bound}; it must be 1 or more, a public bound of training patients."
        elif spec.delta is not None and not 0 < spec.delta < 1 / bound:
            yield (
                f"privacy.delta is {spec.delta:g}; it must be above 0 and below {1 / bound:.4g}, one over the public "
                f"bound that {place} gives: from there on to tell all of one patient would be allowed."
            )


def _bounds(step: Step, spec: PatientPrivacy) -> dict[str, int]:
    """The public bounds that the step's centers have, by option."""
    open_to_all = "*" in step.centers or bool({*step.centers} - {*spec.cohorts})
    own = {f"privacy.cohorts.{center}": bound for center, bound in spec.cohorts.items()}
    return own | ({"privacy.cohort": spec.cohort} if open_to_all or spec.cohort > 0 else {})


def _batches(step: Step, spec: DpSgd) -> Iterator[str]:
    if not 0 < spec.clip < math.inf:
        yield f"privacy.clip is {spec.clip:g}; it must be positive and finite, such as 1."
    if spec.draws < 0:
        yield f"privacy.draws is {spec.draws}; it must be 0 or more (0: cohort / batch, rounded up, for each epoch)."
    for place, bound in _bounds(step, spec).items():
        if bound >= 1 and not 1 <= spec.batch <= bound:
            yield f"privacy.batch is {spec.batch}; it must be 1 to {bound}, the public bound that {place} gives."


def _fit(step: Step, spec: NoisedSums) -> Iterator[str]:
    if not 0 < spec.clip <= LONGEST_ROW:
        yield f"privacy.clip is {spec.clip:g}; it must be above 0 and at most {LONGEST_ROW:g}, such as 2."
    if step.federation.kind != "newton" and step.rounds > 0:
        yield (
            f"privacy is noised_sums, which an exact fit has, and federation is {step.federation.kind}; set "
            "privacy=dp_sgd for training by batches."
        )
        return
    if getattr(step.federation, "objective", "") == RIDGE and step.rounds > 1:
        yield f"rounds is {step.rounds}, and a ridge on noised sums is one question; set rounds to 1."
    if any(part.kind == "voxel_linear" for part in step.adapter.parts.values()):
        yield "its rows are voxels, of which no test here shows what one patient adds; noised_sums fits patients' rows."
    if getattr(step.federation, "penalties", None):
        yield (
            "federation.penalties are chosen among by validation patients, without noise; fix one federation.penalty "
            "in advance."
        )


def _schedule(step: Step, spec: DpSgd) -> Iterator[str]:
    if step.federation.kind == "newton":
        yield "it is fitted exactly from sums, on which dp_sgd puts no noise; set privacy=noised_sums for that."
    if step.budget:
        yield (
            f"budget is '{step.budget}', from which rounds follow by the true numbers of patients; under dp_sgd set "
            "rounds (and privacy.draws)."
        )


def _choice(step: Step, spec: DpSgd | NoisedSums) -> Iterator[str]:
    if step.rounds > 0 and step.selection.keep == BEST and not (isinstance(spec, DpSgd) and scores_are_noised(spec)):
        yield (
            f"selection.keep is '{BEST}', which chooses a round by its validation patients, without noise; under "
            f"{spec.kind} rounds are fixed in advance: leave selection.keep empty, or set it to {LAST}"
            + (", or give privacy.score_epsilon." if isinstance(spec, DpSgd) else ".")
        )


def _scores(step: Step, spec: DpSgd | NoisedSums) -> Iterator[str]:
    """What noise on scores asks of a step."""
    for name in ("score_answers", "score_cohort"):
        if getattr(spec, name) < 0:
            yield f"privacy.{name} is {getattr(spec, name)}; it must be 0 or more."
    if not 0 <= spec.score_epsilon <= LARGEST_EPSILON:
        yield (
            f"privacy.score_epsilon is {spec.score_epsilon:g}; it must be at most {LARGEST_EPSILON:g}, and above 0 for "
            "scores with noise (0: without)."
        )
    elif scores_are_noised(spec):
        yield from _noised_scores(step, spec)


def _noised_scores(step: Step, spec: DpSgd | NoisedSums) -> Iterator[str]:
    from common.privacy.plan import answers_of  # with scipy, which the rules of other steps need not
    from common.privacy.scores import RATIOS, ratio_of

    ratio = ratio_of(step.task)
    if ratio is None:
        yield (
            f"privacy.score_epsilon asks for scores with noise, and no score of a {step.task.kind} task has a bound by "
            f"patient (it can be {', '.join(sorted(RATIOS))}); set it to 0, and scores leave without noise."
        )
    elif step.selection.metric not in ("", ratio.metric) and answers_of(step) > 2 * len(scored_modes(step)):
        yield (
            f"selection.metric is '{step.selection.metric}', of which no sum has a bound by patient; with noised "
            f"scores a round is chosen by {ratio.metric}: leave selection.metric empty."
        )
    if 0 < spec.score_answers < answers_of(step):
        yield (
            f"privacy.score_answers is {spec.score_answers}, and the step itself asks for {answers_of(step)} (its "
            "validations, and test patients before and after it in each mode); give as many or more, or 0."
        )
    if step.subgroups:
        yield (
            "scores by subgroup carry no noise, and privacy.score_epsilon promises it of all scores; leave subgroups "
            "empty."
        )


def _losses(step: Step, spec: PatientPrivacy) -> Iterator[str]:
    task = step.task
    kind = getattr(task, "kind", "")
    if kind == "prognosis" and task.loss == "cox":
        yield f"task.loss is 'cox', whose risk sets couple the patients of a batch, {NO_OWN}; use hazard or mtlr."
    if kind == "prognosis" and task.loss == "deephit" and task.alpha > 0:
        yield (
            f"task.alpha is {task.alpha:g}: DeepHit's ranking couples the patients of a batch, {NO_OWN}; set "
            "task.alpha to 0, or use hazard or mtlr."
        )
    if kind == "prognosis" and task.grid == "quantiles" and not task.cuts_days:
        yield "task.grid is 'quantiles', which reads the patients' event times without noise; use equal, or cuts_days."
    if kind == "classification" and task.imbalance == "counts":
        yield "task.imbalance is 'counts', which reads the patients' labels without noise; use none, or weights."


def _parts(step: Step, spec: DpSgd) -> Iterator[str]:
    for name, part in step.adapter.parts.items():
        if isinstance(part, LoraPart) and part.dora:
            yield (
                f"part '{name}' is DoRA, whose row norms divide each gradient by what all patients have learned, and "
                "which no test here shows to be exact patient by patient; use LoRA (dora=false)."
            )


def _methods(step: Step, spec: DpSgd | NoisedSums) -> Iterator[str]:
    for kind in sorted({method.kind for method in methods_asked(step)} - SOUND):
        yield f"method {kind} {WHY_NOT.get(kind, UNKNOWN)}; under {spec.kind} use {', '.join(sorted(SOUND))}."
