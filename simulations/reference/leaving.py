"""docs/reference/what-leaves.md: every array, sum, count and code that can ever leave a hospital, and what guards it.

It is made from what code declares: what is not declared is refused on site, so that the page is whole by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from client.policy.policy import NEED_A_WORD, UNSAID
from common.adapters.lowrank import LORA_RULES
from common.config.adapter import PARTS
from common.config.federation import FEDERATIONS
from common.config.methods import CONTINUAL
from common.config.options import COMPARED_TASKS, COMPRESSIONS
from common.config.task import PrognosisTask
from common.data.quantities import QUANTITIES
from common.data.subgroups import LEVELS
from common.exact.columns import moment_shapes
from common.exact.objectives import build_objective, newton_shapes
from common.exact.ridge import ridge_shapes
from common.exact.thresholds import ALL, MISSED, TRUE
from common.privacy.scores.task import ABOVE, BELOW, VARIANCE
from common.protocol.wire import COUNTS_OF, FIT_SUMS, STATUS_COUNTS
from common.tasks import build_task
from common.tasks.cells import Cells, Histogram, Mean, RiskSets, Table
from common.tasks.cuts import BINS, EVENTS
from common.tasks.unlearned.paired import paired_cells, paired_shapes
from simulations.reference.markdown import generated, table
from simulations.reference.messages import CODES, EXAMPLES

OBJECTIVES = ("cox", "hazard", "logistic")
KIND_OF = {"sum_shapes": "scores", "curve_shapes": "curves", "label_shapes": "labels"}
INTRODUCTION = """\
A reply holds arrays, sums, counts and a code, each declared by the step before it is asked. A reply that holds
anything else is refused by the hospital itself (`wire`) and again by the server (`undeclared`); each reply is a line
in the hospital's own record ([audit](audit.md)). Every reply passes one gate (`client/privacy/release.py`) with the
minimums of the [policy](../hospital/policy.md): `minimum_cases` for arrays, `minimum_cell` for every sum and count.

"""


def leaving_page() -> str:
    """The page."""
    text = generated("What leaves a hospital", "what tasks, objectives, parts and rules declare") + INTRODUCTION
    text += "## By action\n\n" + table(("asked", "arrays", "sums", "counts", "guarded by"), actions()) + ALWAYS
    text += "\n## Arrays\n\n" + table(("what", "leaves", "guarded by"), _arrays())
    text += "\n## Sums of tasks\n\n" + table(("task", "sum", "asked as", "guarded by"), _task_sums())
    text += "\n## Two models on the same patients\n\n" + PAIRED + table(("task", "sum", "guarded by"), _paired_sums())
    text += "\n## Scores by subgroup\n\n" + BY_SUBGROUP + table(("task", "metric", "sums"), _subgroup_sums())
    text += "\n## Sums of exact fits\n\n" + table(("asked as", "sums", "guarded by"), _exact_sums())
    text += "\n## Statistics before training\n\n" + STATISTICS + table(("quantity", "of", "bins"), _quantities())
    text += FILES + table(("command", "writes", "what is in it"), WRITTEN) + ELSEWHERE
    text += "\n## Counts\n\n" + table(("count", "of", "guarded by"), COUNTS)
    text += "\n## Codes\n\nOne of these, and never a sentence: " + _listed(CODES) + ".\n"
    return text + NEVER


def _quantities() -> Iterator[tuple[str, str, str]]:
    for quantity in QUANTITIES.values():
        of = {"record": "the clinical record", "outcome": "the outcome", "image": "the image", "label": "the label"}
        yield f"`{quantity.name}`", of[quantity.source], ", ".join(quantity.bins)


ACTIONS = {
    "describe": ("none", "labels, where the task declares some", "`minimum_cell`, `sums`"),
    "evaluate": (
        "none",
        "scores, those by subgroup among them, and curves once a step is learned",
        "`minimum_cell`, `test_folds`, `sums`",
    ),
    "evaluate two models": (
        "none",
        "paired scores of the same test patients: n, sums, squares and cross sums",
        "`minimum_cell`, `test_folds`, `sums` (`paired`), the release record: the same question as scores",
    ),
    "masking": (
        "bytes of a fixed form: keys for one sum alone, signed by this node; shares of two secrets, sealed for the "
        "other hospitals; a signature on who answered; shares of the masks that are taken off the sum",
        "none",
        "no patient is looked at; whose keys they are, three hospitals or more, one list of those that answered, never "
        "both secrets of one hospital, the same question over the same hospitals only (`client/masking`)",
    ),
    "stage": ("none", "none", "no patient is looked at"),
    "sums": (
        "none",
        "event times, moments, Gram sums, a gradient and Hessian, or voxels by score",
        "`minimum_cases`, `minimum_cell`, `sums`, `maximum_questions`, no rows that a few share "
        "(`client/privacy/rows.py`)",
    ),
    "sums for statistics": (
        "none",
        "histograms of quantities, as in a file of `client statistics`",
        "`minimum_cell`, `sums` (`labels`), the release record; refused where no file would be written",
    ),
    "sums at a step's end": (
        "none",
        "what a listed method keeps for later steps: of `ewc` and `online_ewc`, squared gradients summed over patients "
        "(`fisher/`), one number for each trained one; of `projection`, second moments of the inputs of each linear "
        "layer that trains (`moment/`); of `inflora`, those of what each LoRA part reads, also before the first round",
        "`minimum_cases`, `minimum_cell`, `sums`, `federations`, `reach`; no two answers differ by a few, and a number "
        "that a few patients, or all but a few, have a part in is zero",
    ),
    "train": (
        "trained tensors of parts that train and are not local",
        ", ".join(sorted(FIT_SUMS)),
        "`minimum_cases`, `federations`, `parts`, `initialisations`, `reach`",
    ),
}
ALWAYS = """
Every answer, a refusal too, also holds the center's code, its status code, the round and the id of the order that it
answers, and `seconds`: how long the work took, 0 where it was not measured. Time goes with the number of patients, and
nothing rounds it.
"""
BY_SUBGROUP = f"""\
Where a step names `subgroups` ({", ".join(f"`{name}`" for name in sorted(LEVELS))}), test scores leave once more for
each level, as `GROUP=LEVEL/SUM`: `cases`, and the sums below. A level leaves only where no combination of this answer
and all earlier ones is a sum over 1 to `minimum_cell` - 1 patients (`client/privacy/subgroups.py`): not a level of a
few, not the level that the total would tell it by, not two groups that differ by a few. Cells within a level (who has
a structure, who had an event, bins of scores) keep the same rule against the total and the levels before; what fails
it is left out. What is left of a total, patients without a recorded value, counts as a level.

"""
PAIRED = """\
An order that brings two models (`curriculum=evaluate`, `compared_with`) is answered by sums over the patients that
both can see, one number for each metric: `n`; `a` and `b`, the sums of both models' scores; `w`, of weights; `dd`, `dw`
and `ww`, of squared differences, of differences times weights, of squared weights. Areas under the ROC curve are
compared by placements, likewise summed. Whether a patient counts depends on labels alone.

"""
STATISTICS = """\
`python -m client statistics` writes these to a file that a person looks at and sends; a step of statistics asks for
the same over the wire, with the hospital's own minimum beside them. Both pass the same gate. A number is a histogram
with fixed bins, told in cells of exactly `minimum_cell`; levels are a table that is told whole or not at all; what is
not recorded is a cell, too. The release record holds whom they are over, as of the rows of exact fits: the same
patients again, or enough others. Images are told again by make of scanner where that is of no few. What leaves is a
line of `sent.jsonl`. `privacy.strict`, a budget, `require_secure_aggregation`, or `sums` without `labels`: nothing.

"""
FILES = """
## Files that no order asks for

What a hospital's own commands write stays there until a person sends it, and no server is asked.

"""
WRITTEN = (
    (
        "`statistics`",
        "one file, to be sent",
        "histograms through the gate, see above; a line of `sent.jsonl` and, where one is kept, of the privacy account",
    ),
    ("`describe`, `policy`, `budget`", "what is printed, a figure", "counts under the same minimums; no patient"),
    ("`audit`", "what is printed", "names, sizes and digests of what left, counts as they were told"),
    (
        "`predict`, with `--dicom` too, `challenge`",
        "masks, risks, DICOM objects in the patient's own study",
        "**patients, with their identifiers: for this hospital's archive, never for the coordinator**",
    ),
    ("`sbom`", "a list of libraries and weights", "licences and digests; no patient"),
    ("`doctor`, `prepare`", "pages and tables for this hospital", "**file names and codes of patients**"),
)
ELSEWHERE = """
At the coordinator, `server status --metrics` holds codes of hospitals, names of runs and steps, numbers of
rounds and bytes: nothing that no reply told, and no count of patients. Arms of a comparison that train without one
center, or at one alone, exist in simulations only, where one machine holds everybody's patients.
"""
FEW, FLAG = "told in whole steps of `minimum_cell`, upwards", "nothing: it counts no patients"
COUNTS_SAY = {
    "adjusted": ("patients whose recorded variables or times were changed before a sum", FEW),
    "afresh": ("1 where the hospital accepted that its vault lost an entry", FLAG),
    "ahead": ("1 where the vault has seen later rounds than the order's", FLAG),
    "batches": ("batches trained on", "that of as many patients as `cases` tells"),
    "cases": ("patients that the answer is of", FEW),
    "merged": ("1 where cells were merged", FLAG),
    "skipped": ("patients whose files could not be used", FEW),
    "suppressed": ("1 where something was kept back", FLAG),
    "waiting": ("patients who wait until enough have come", FEW),
}
COUNTS = tuple((f"`{name}`", *COUNTS_SAY.get(name, (f"patients: {name}", FEW))) for name in STATUS_COUNTS)
NEVER = """
## Never

Images, labels, records, patients' codes, file paths, texts of errors, what the environment of the machine says,
tensors that no part of the step trains, and anything of a node whose release is not the one that its hospital
reviewed. What an adapter may still tell about patients: [threat model](../concepts/threat-model.md).
"""


def actions() -> Iterator[tuple[str, str, str, str, str]]:
    """Rows: what is asked, and the arrays, sums, counts and guards of its answer."""
    for action, (arrays, sums, guard) in sorted(ACTIONS.items()):
        yield action, arrays, sums, _listed(COUNTS_OF[action.partition(" ")[0]]) or "none", guard


def _arrays() -> Iterator[tuple[str, str, str]]:
    for kind in sorted(PARTS.shipped):
        why = NEED_A_WORD["parts"].get(kind)
        guard = f"`parts` must name it: {why}" if why else "`parts`; `minimum_cases`"
        yield f"part of kind `{kind}`", "its tensors as trained, not its start", guard
    yield (
        "the task's `head`, where no part is one",
        "its tensors as trained: of outcomes, classes and structures; of self-supervised stages what restores images",
        "`minimum_cases`",
    )
    yield "LoRA by rule", f"the factors that the rule trains in the round: {_listed(LORA_RULES)}", "`parts`"
    yield (
        "scaffold's `control/NAME`",
        "one number for each that is sent; in the first round a mean raw gradient",
        ("`federations` must name scaffold"),
    )
    yield (
        "`training.moments=averaged`: `adam_first/NAME`, `adam_second/NAME`",
        "two numbers for each that is sent: running means of the round's gradients and of their squares",
        "`federations` must name averaged_moments",
    )
    yield (
        f"methods {_listed(sorted(CONTINUAL))}",
        "nothing beside the parts: the teacher, and what earlier steps kept, come with the order",
        "`federations`; what comes with the order and changes within a step is refused",
    )
    others = sorted(set(FEDERATIONS.shipped) - {"scaffold", "newton"})
    yield f"rules {_listed(others)}", "nothing beside the parts", "`federations`"
    yield (
        "`federation.secure_aggregation`",
        "in the place of the parts, of losses and of scores: `masked/update` and `masked/sums`, whole numbers under "
        "masks, and `masked/parts`, which parts trained, signed; no count of patients, and no time",
        "masks of every other hospital (`common/privacy/masking`); a sum of fewer than three is not opened",
    )
    yield "`federation.local`, `federation.personal`", "nothing: these tensors stay in the vault", "the declaration"
    yield (
        "masked reports",
        "nothing of words: their embeddings never train, the head that guesses them stays in the vault",
        "the declaration",
    )
    yield f"compression {_listed(COMPRESSIONS)}", "the same numbers, rounded differences of them, or fewer", "the form"


def _task_sums() -> Iterator[tuple[str, str, str, str]]:
    seen: set[tuple[str, str]] = set()
    specs: dict[str, Any] = {**EXAMPLES, "prognosis, loss cox": PrognosisTask(loss="cox")}
    for label, spec in specs.items():
        task = build_task(spec)
        for attribute, kind in KIND_OF.items():
            for name, shape in sorted(getattr(task, attribute).items()):
                if (spec.kind, f"{name}{shape}") in seen:
                    continue
                seen.add((spec.kind, f"{name}{shape}"))
                yield label, f"`{name}` {list(shape) or 'a number'}", f"`{kind}`", _guard(name, task.cells)
    noised = "with `privacy.score_epsilon`, in the place of all others"
    for name in (ABOVE, BELOW):
        yield noised, f"`{name}` [one for each of the score's parts]", "`scores`", "noise, charged before it is drawn"
    yield noised, f"`{VARIANCE}` a number", "`scores`", "of the noise: public"


def _paired_sums() -> Iterator[tuple[str, str, str]]:
    for label, spec in EXAMPLES.items():
        if spec.kind not in COMPARED_TASKS:
            continue
        for name, shape in sorted(paired_shapes(spec).items()):
            yield label, f"`{name}` {list(shape) or 'a number'}", _guard(name, paired_cells(spec))


def _subgroup_sums() -> Iterator[tuple[str, str, str]]:
    for label, spec in EXAMPLES.items():
        for metric, needs in build_task(spec).by_subgroup.items():
            yield label, f"`{metric}`", _listed(needs)


def _guard(name: str, cells: Sequence[Cells]) -> str:
    """What a task's cells say of a sum."""
    found = [says for rule in cells if (says := _of_rule(name, rule))]
    return "; ".join(dict.fromkeys(found)) or "none of fewer than `minimum_cell` cases"


def _of_rule(name: str, rule: Cells) -> str:
    if isinstance(rule, Histogram) and name in (*rule.counts, *rule.alike, *rule.within):
        cell = "`minimum_cell`" if rule.each == 1 else f"{rule.each} times `minimum_cell`"
        return f"dealt by outcome into cells of exactly {cell}; weighted bins are merged until each is of enough"
    if isinstance(rule, Table) and name in (*rule.counts, *rule.alike):
        dealt = "; else in multiples of it" if rule.dealt else ""
        return "small cells are left out" if rule.partly else f"left out whole where a cell is of fewer{dealt}"
    if isinstance(rule, RiskSets) and name in (rule.at_risk, rule.gone):
        return "times of cells of exactly `minimum_cell`, dealt before any grid; else left out"
    if isinstance(rule, Mean) and name in rule.left_out:
        return "left out where a few are counted"
    if isinstance(rule, Mean) and name in (rule.count, *rule.sums):
        return "left out where a few are counted; else of a multiple of `minimum_cell` cases, or of all"
    return ""


def _exact_sums() -> Iterator[tuple[str, str, str]]:
    few = "no variable, pair of variables or time that fewer than `minimum_cell` share"
    yield "`grid`", f"`{EVENTS}` [{BINS}]", "times of cells of exactly `minimum_cell`, dealt before the horizon"
    yield "`moments`", _named(moment_shapes(2)), few
    yield "`gram` (ridge)", _named(ridge_shapes(2, 1, 1)), few
    volumes = dict.fromkeys((TRUE, ALL, MISSED), ())
    yield (
        "`thresholds`",
        _named(volumes),
        "neighboring bins are merged until voxels of `minimum_cell` patients are in each, and no few have nearly all",
    )
    for name in OBJECTIVES:
        shapes = newton_shapes(build_objective(name, bins=12, classes=1), 3)
        yield f"`newton` ({name})", _named(shapes), few
    yield (
        "under `privacy=noised_sums` any of these",
        f"{_named(newton_shapes(build_objective('logistic'), 3))}: a gradient and, at zero, a Hessian, with noise",
        "noise alone, over everybody: within the hospital's ceiling, or epsilon "
        f"{UNSAID.epsilon:g} at delta {UNSAID.delta:g} where it names none",
    )
    shared = "no structure and no set of modalities that fewer than `minimum_cell` patients have"
    yield "`newton` (segmentation)", _named(newton_shapes(build_objective("logistic"), 3)), shared
    yield (
        "every training reply",
        _listed(FIT_SUMS),
        "no fewer than `minimum_cases` cases",
    )


def _named(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(shapes))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
