"""Rules between fields, each a function that returns finished sentences; all broken rules are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from math import prod
from typing import Any

from common.adapters.compatibility import misfits
from common.adapters.lowrank import FEDSVD, FLEXLORA, FLORA, lora_rule
from common.config.adapter import EXACT, LinearPart, LoraPart, VoxelLinearPart
from common.config.compatibility import (
    SERVER_OPTIMIZERS,
    center_problems,
    clashes,
    option_problems,
    part_problems,
)
from common.config.compose.registry import EXTENSIONS
from common.config.declared import (
    compared_problems,
    metric_problems,
    name_problems,
    structure_problems,
    twice_problems,
    window_problems,
)
from common.config.limits.budget import budget_of
from common.config.limits.ceilings import LONGEST_NAME, ceiling_problems
from common.config.methods import methods_asked
from common.config.methods.problems import lineage_problems, method_problems
from common.config.methods.stages import masked_problems, rehearsal_problems, stage_order_problems
from common.config.methods.standing import standing_problems
from common.config.objective import RIDGE, objective_name
from common.config.options import (
    ADAMW,
    ATTRIBUTES,
    AVERAGED,
    AXES,
    CENTER,
    COMPRESSIONS,
    CROPS,
    EVALUATE,
    FORMS,
    HARMONIZERS,
    IMBALANCES,
    LOSSES,
    MOMENTS,
    NONE,
    OPTIMIZERS,
    PET_SCALES,
    PROMPTS,
    SCALES,
    SCORE_ON,
    STATISTICS,
    VALIDATIONS,
    VIEWS,
    WEIGHTINGS,
)
from common.config.privacy.problems import privacy_problems
from common.config.privacy.sums import sum_problems
from common.config.run import BackboneSpec, Data, Run
from common.config.step import Step
from common.data.batch import CT, MODALITY, PET, RECORD, is_volume, parse_mode, volumes_of
from common.data.findings import FINDINGS_TARGET
from common.data.records import MODEL_VARIABLES
from common.data.subgroups import LEVELS
from common.errors import ConfigError, suggestion

DATA_KINDS = ("folder", "phantom")
ALL = "all"  # in a list: whatever the data folder holds
TARGETS = (FINDINGS_TARGET, "hpv", "n_stage", "t_stage")
TEXTS = ("ngrams", "own")
ACROSS = "_across_centers"
AVERAGING = frozenset({"mean"}) | SERVER_OPTIMIZERS
REMADE = frozenset({FEDSVD, FLEXLORA, FLORA})


def check_run(run: Run, *, may_be_open: bool = False) -> None:
    """Raise one ConfigError that lists every broken rule.

    Args:
        may_be_open: a step that leaves something to the data folder is checked once the folder has been asked.
    """
    problems = broken_rules(run, may_be_open=may_be_open)
    if problems:
        raise ConfigError("\n".join(problems))


def broken_rules(run: Run, *, may_be_open: bool = False) -> list[str]:
    """Every broken rule of a run, one sentence each, in the order of its steps."""
    problems = list(_run_rules(run))
    for step in run.steps.values():
        rules = STEP_RULES if not left_open(step) else () if may_be_open else (_open,)
        problems += [f"Step '{step.name}': {problem}" for rule in rules for problem in rule(step, run)]
    return problems


def broken_by_step(step: Step, backbone: BackboneSpec) -> list[str]:
    """Every rule that a step by itself breaks: what a hospital checks of each order, as the server did of its run."""
    run = Run(backbone=backbone, data=Data(kind="folder", root="here"), steps={step.name: step})
    too_large = list(ceiling_problems(step, run))  # the other rules need not cope with what is
    rules = () if too_large else (_open,) if left_open(step) else [r for r in STEP_RULES if r not in OF_A_RUN]
    problems = [*too_large, *(problem for rule in rules for problem in rule(step, run))]
    return [f"Step '{step.name[:LONGEST_NAME]}': {problem}" for problem in problems]


def left_open(step: Step) -> list[str]:
    """What a step leaves to the data folder to say, by option; only a simulation can ask it."""
    options = {
        "modalities": ALL in step.modalities,
        "task.structures": ALL in getattr(step.task, "structures", []),
        "view.spacing_mm": min(step.view.spacing_mm, default=1.0) == 0,
        "training.epochs": step.training.epochs == 0,
    }
    return [name for name, is_open in options.items() if is_open]


def _open(step: Step, run: Run) -> Iterator[str]:
    yield (
        f"{', '.join(left_open(step))} are left to the data folder, which python -m simulations reads; for a "
        "federation of hospitals name them, as in steps.own.task.structures=[tumor,edema] (a simulation says what it "
        "chose)."
    )


def _run_rules(run: Run) -> Iterator[str]:
    if not run.steps and run.curriculum != EVALUATE:  # a bank's models become its steps (server/run/models.py)
        yield "The run has no steps; choose a curriculum: curriculum=quickstart."
    if run.backbone.text not in TEXTS:
        yield f"backbone.text is '{run.backbone.text}'; it can be {', '.join(TEXTS)}."
    if run.runtime.device not in ("cpu", "cuda"):
        yield f"runtime.device is '{run.runtime.device}'; it can be cpu or cuda."
    if run.runtime.threads < 1 or run.runtime.workers < 0:
        yield "runtime.threads must be at least 1 and runtime.workers at least 0 (0: one per core)."
    if run.data.kind not in DATA_KINDS:
        yield f"data.kind is '{run.data.kind}'; it can be {', '.join(DATA_KINDS)}."
    if run.seed < 0:
        yield f"seed is {run.seed}; it must be 0 or more."
    if not run.data.root:
        yield "data.root is not set; set it to the folder of the images."
    split = run.data.split
    if split.folds < 2 or not 0 <= split.fold < split.folds or not 0 < split.validation < 1:
        yield f"data.split has fold {split.fold} of {split.folds}, validation {split.validation}; use 2 or more folds."
    if not run.compare.learning_rates or min(run.compare.learning_rates) <= 0 or not 0 < run.compare.tuning_share <= 1:
        yield "compare.learning_rates takes positive factors ([1]: no tuning), compare.tuning_share a share in (0, 1]."
    for extension in EXTENSIONS:
        yield from extension.problems(run)
    yield from name_problems(run)
    yield from lineage_problems(run)
    yield from standing_problems(run)
    yield from compared_problems(run)


def _task(step: Step, run: Run) -> Iterator[str]:
    if step.task is None:
        yield "it has no task; set task@steps.NAME.task=deephit, findings or tumour."
    elif step.task.kind == "classification":
        yield from _classification(step)
    elif step.task.kind == "segmentation":
        yield from _segmentation(step)
    elif step.task.kind == "grounding":
        yield from _grounding(step.task)
    elif step.task.kind == STATISTICS and (step.rounds > 0 or step.budget or step.adapter.parts or step.methods):
        yield "statistics are told once and nothing is learned of them; give the step no rounds, adapter or methods."
    elif step.task.kind == "prognosis" and step.task.loss == "cox" and step.selection.metric == "loss":
        yield "a single case has no Cox loss, so validation cannot choose by it; set selection.metric to nll."
    if step.selection.metric.endswith(ACROSS):
        yield (
            f"selection.metric is '{step.selection.metric}'; pairs of patients of different centers need every "
            f"patient's time, event and risk in one place, which only a simulation has. Use "
            f"'{step.selection.metric.removesuffix(ACROSS)}', which counts pairs within each center."
        )


def _grounding(task: Any) -> Iterator[str]:
    if task.prompts not in PROMPTS:
        yield f"task.prompts is '{task.prompts}'; it can be {' or '.join(PROMPTS)}.{suggestion(task.prompts, PROMPTS)}"
    yield from _outlined(task)
    for option in ("phrases", "attributes"):
        strangers = sorted({*getattr(task, option)} - {*task.structures})
        if strangers:
            yield (
                f"task.{option} says something of {', '.join(strangers)}, which task.structures does not name; it "
                f"names {', '.join(task.structures)}."
            )
    long = sorted(name for name, said in task.attributes.items() if len(said) > 3)
    if long:
        yield f"task.attributes has more than color, shape and location of {', '.join(long)}; leave the others out."
    if task.prompts == ATTRIBUTES and (bare := sorted({*task.structures} - {*task.attributes})):
        yield (
            f"task.prompts is attributes, and task.attributes says nothing of {', '.join(bare)}; give "
            "[color, shape, location], each may be empty."
        )
    if task.prompts != ATTRIBUTES and task.attributes:
        yield "task.attributes is given, and task.prompts=manual does not look at it; set task.prompts=attributes."


def _outlined(task: Any) -> Iterator[str]:
    strangers = sorted({*chain(*task.outlined.values())} - {*task.structures})
    if strangers:
        yield (
            f"task.outlined says something of {', '.join(strangers)}, which task.structures does not name; it names "
            f"{', '.join(task.structures)}."
        )


def _segmentation(step: Step) -> Iterator[str]:
    names = step.task.structures
    yield from _outlined(step.task)
    if step.task.outlined and step.task.within:
        yield "task.outlined and task.within exclude each other: who outlines an inner structure knows no outer one."
    strangers = sorted({*step.task.within, *(n for inside in step.task.within.values() for n in inside)} - {*names})
    if strangers:
        yield f"task.within names {', '.join(strangers)}, not among task.structures {names}."
    if not 0 < step.task.tolerance_mm < 1000:
        yield f"task.tolerance_mm is {step.task.tolerance_mm:g}; a surface Dice takes some mm, such as 3."
    if step.task.loss not in LOSSES:
        yield f"task.loss is '{step.task.loss}'; it can be {', '.join(LOSSES)}.{suggestion(step.task.loss, LOSSES)}"
    if step.task.smallest_ml < 0:
        yield f"task.smallest_ml is {step.task.smallest_ml:g}; a piece has 0 ml or more."


def _classification(step: Step) -> Iterator[str]:
    task = step.task
    if not task.classes:
        yield "its classification task has no classes."
    if task.form not in FORMS or task.imbalance not in IMBALANCES:
        yield (
            f"its task has form '{task.form}' and imbalance '{task.imbalance}'; forms: {', '.join(FORMS)}; imbalance: "
            f"{', '.join(IMBALANCES)}."
        )
    if task.target not in TARGETS:
        yield f"its task predicts '{task.target}'; it can be {', '.join(TARGETS)}."
    if task.form == "binary" and len(task.classes) != 1:
        yield f"a binary task has one class, the one that is present or not; it names {len(task.classes)}."
    if task.form in ("multi_class", "ordinal") and len(task.classes) < 2:
        yield f"a task of form {task.form} needs two classes or more."
    if task.imbalance == "weights" and len(task.weights) != len(task.classes):
        yield f"task.weights has {len(task.weights)} entries for {len(task.classes)} classes; give one for each."
    if task.target != "findings" and task.form == "multi_label":
        yield f"'{task.target}' is one fact per patient; set task.form to binary, multi_class or ordinal."


def _modalities(step: Step, run: Run) -> Iterator[str]:
    for modality in (m for m in step.modalities if not MODALITY.fullmatch(m)):
        yield (
            f"'{modality}' is no name of a modality; write CT, PET, EHR, RECORD, or another image in capitals, as MR "
            "or T1C."
        )
    for mode in step.modes:
        if not {*parse_mode(mode)} <= {*step.modalities}:
            yield f"modes has '{mode}', which is not made of its modalities {step.modalities} joined by '+'."


def _parts(step: Step, run: Run) -> Iterator[str]:
    yield from misfits(step)
    parts = step.adapter.parts
    for name, part in parts.items():
        if isinstance(part, LoraPart) and run.backbone.text == "ngrams" and any(s[:4] == "text" for s in part.sites):
            yield f"part '{name}' adapts the text side, but hashed n-grams have no layers; keep its image sites only."
        if isinstance(part, LoraPart):
            yield from part_problems(name, part)
            strangers = sorted(set(part.ranks) - set(step.centers)) if "*" not in step.centers else []
            if strangers:
                yield f"part '{name}' gives {', '.join(strangers)} a rank, but only {step.centers} train this step."
    asks = step.task is not None and step.task.kind == "grounding"  # its head trains on cells that stay as they are
    if step.rounds > 0 and not parts and not asks:
        yield "it has rounds but nothing to train; give it an adapter or set rounds to 0."


def _view(step: Step, run: Run) -> Iterator[str]:
    view = step.view
    if len(view.spacing_mm) != 3 or len(view.window) != 3 or (view.size is not None and len(view.size) != 3):
        yield "view.spacing_mm, view.size and view.window take three numbers each (depth, height, width)."
        return
    if min(view.spacing_mm) <= 0 or min(view.window) <= 0:
        yield "view.spacing_mm and view.window must be positive."
    if view.crop not in CROPS:
        yield f"view.crop is '{view.crop}'; it can be {', '.join(CROPS)}."
    if view.pet not in PET_SCALES:
        yield f"view.pet is '{view.pet}'; it can be {', '.join(PET_SCALES)}."
    if view.score_on not in SCORE_ON:
        yield f"view.score_on is '{view.score_on}'; it can be {', '.join(SCORE_ON)}."
    if not 0 <= view.overlap <= 0.9:
        yield f"view.overlap is {view.overlap:g}; it is a share of a window's side, from 0 to 0.9."
    if strange := [axis for axis in view.mirrors if axis not in AXES or view.mirrors.count(axis) > 1]:
        yield f"view.mirrors has {', '.join(strange)}; it takes each of {', '.join(AXES)} at most once."
    if view.mirrors and step.task is not None and step.task.kind != "segmentation":
        yield "view.mirrors averages answers that are mirrored back, which only a segmentation has; leave it empty."
    for modality, scale in view.intensities.items():
        if modality in (CT, PET) or not is_volume(modality) or scale not in SCALES:
            yield (
                f"view.intensities has {modality}: {scale}; it takes volumes other than CT (view.ct_hu) and PET "
                f"(view.pet), each with {' or '.join(SCALES)}."
            )
    if view.size is not None and prod(view.size) < prod(view.window):
        yield f"view.size {view.size} is smaller than view.window {view.window}."
    if step.task is not None and step.task.kind != "segmentation" and view.size != view.window:
        yield "only segmentation works by windows; make view.size equal to view.window."
    if len(view.ct_hu) != 2 or view.ct_hu[0] >= view.ct_hu[1]:
        yield f"view.ct_hu {view.ct_hu} must be two numbers that rise."


def _order(step: Step, run: Run) -> Iterator[str]:
    names = list(run.steps)
    in_this_run = step.starts_from is None or step.starts_from in names[: names.index(step.name)]
    if not in_this_run and not (run.continues and step.starts_from not in names):
        earlier = names[: names.index(step.name)]
        yield f"it starts from '{step.starts_from}', which is not an earlier step; earlier: {earlier or 'none'}."


def _rounds(step: Step, run: Run) -> Iterator[str]:
    if step.budget:
        yield from _budget(step)
    if step.selection.every < 1:
        yield f"selection.every is {step.selection.every}; it must be 1 or more."


def _budget(step: Step) -> Iterator[str]:
    try:
        budget_of(step.budget)
    except ConfigError as error:
        yield str(error)
    if step.rounds == 0:
        yield f"budget is '{step.budget}', but rounds=0 says that it is never trained; leave one of the two out."
    if step.federation.kind == "newton":
        yield f"budget is '{step.budget}', but federation=newton ends when it has settled; leave the budget out."


def _federation(step: Step, run: Run) -> Iterator[str]:
    spec = step.federation
    yield from option_problems(spec)
    yield from clashes(spec, step.adapter.parts)
    yield from center_problems(spec, step.centers, rounds=step.rounds)
    if getattr(spec, "weighting", "n") not in WEIGHTINGS:
        yield f"federation.weighting is '{spec.weighting}'; it can be {', '.join(WEIGHTINGS)}."
    if not 0 < spec.quorum <= 1:
        yield f"federation.quorum is {spec.quorum}; it is a share in (0, 1]."
    if spec.deadline_s <= 0:
        yield f"federation.deadline_s is {spec.deadline_s}; it must be positive."


def _guards(step: Step, run: Run) -> Iterator[str]:
    guards, spec = step.federation.guards, step.federation
    if guards.norm_factor < 0 or guards.norm_mads < 0 or (guards.norm_cap is not None and guards.norm_cap <= 0):
        yield "federation.guards.norm_factor and norm_mads must be 0 or more and norm_cap positive."
    if 0 < guards.norm_factor < 1:
        yield f"federation.guards.norm_factor is {guards.norm_factor}: below 1 it rejects the median update itself."
    if guards.cases_factor != 0 and guards.cases_factor < 1:
        yield f"federation.guards.cases_factor is {guards.cases_factor}; use 1 or more, or 0 to switch it off."
    if guards.strikes < 0 or spec.at_least < 0:
        yield "federation.guards.strikes and federation.at_least must be 0 or more."
    if guards.validation not in VALIDATIONS:
        yield f"federation.guards.validation is '{guards.validation}'; it can be {', '.join(VALIDATIONS)}."


def _compression(step: Step, run: Run) -> Iterator[str]:
    spec = step.federation.compression
    if spec.kind not in COMPRESSIONS:
        yield f"federation.compression.kind is '{spec.kind}'; it can be {', '.join(COMPRESSIONS)}."
    if spec.group < 1 or not 0 < spec.share <= 1:
        yield "federation.compression.group must be 1 or more and share in (0, 1]."
    if spec.kind == "none":
        return
    if step.federation.kind == "scaffold":
        yield (
            "SCAFFOLD's control variates are gradients, not differences of states, so they are not compressed; set "
            "federation.compression.kind to none, or use feddyn."
        )
    remade = [name for name, part in step.adapter.parts.items() if _is_remade(part)]
    for name in remade:
        yield (
            f"part '{name}' gets factors that are made anew each round, while what rounding owes belongs to old ones; "
            "use rolora, ffa, fedsb or fedit for the part, or no compression."
        )


def _is_remade(part: object) -> bool:
    return isinstance(part, LoraPart) and lora_rule(part) in REMADE


def _personal(step: Step, run: Run) -> Iterator[str]:
    spec = step.federation
    if spec.proximal < 0 or (spec.personal is not None and spec.personal < 0):
        yield "federation.proximal and federation.personal must be 0 or more."
    asked = {method.kind for method in methods_asked(step)}
    if {"ditto", "local"} <= asked:
        yield (
            "federation.personal (method ditto) keeps a whole model at each center, federation.local (method local) "
            "some tensors: use one of them."
        )
    named = [kind for kind in ("scaffold", "feddyn") if spec.kind == kind]
    if named and "proximal" in asked:
        yield (
            f"{named[0]} corrects drift by itself; set federation.proximal to 0 and leave method proximal out, or use "
            "mean with it (FedProx)."
        )


def _training(step: Step, run: Run) -> Iterator[str]:
    training = step.training
    for mode, weight in training.draw.items():
        stray = sorted({*parse_mode(mode)} - {*volumes_of(step.modalities)})
        if stray or weight < 0:
            yield (
                f"training.draw has '{mode}' with weight {weight}; its modes are images among the step's modalities "
                f"{step.modalities}, joined by '+', with weights of 0 or more."
            )
    for name in (name for name in training.views if name not in VIEWS):
        yield f"training.views has '{name}'; it can be {', '.join(VIEWS)}.{suggestion(name, VIEWS)}"
    if training.views and not volumes_of(step.modalities):
        yield f"training.views changes images, and the step looks at {', '.join(step.modalities)} only; leave it empty."
    moved = sorted({"affine", "elastic"} & {*training.views})
    if moved and step.task is not None and step.task.kind == "grounding":
        yield f"training.views has {', '.join(moved)}, which moves images and not the boxes on them; leave it out."
    if training.optimizer not in OPTIMIZERS:
        yield f"training.optimizer is '{training.optimizer}'; it can be {', '.join(OPTIMIZERS)}."
    yield from _moments(step)
    if not 0 <= training.foreground <= 1:
        yield f"training.foreground is {training.foreground:g}; it is a probability, from 0 to 1."
    if training.draw and not any(weight > 0 for weight in training.draw.values()):
        yield "training.draw has no mode of positive weight; give one, or leave the draw empty."
    if training.batch < 1 or training.epochs < 1 or training.learning_rate <= 0:
        yield "training.batch and training.epochs must be 1 or more and training.learning_rate positive."


def _moments(step: Step) -> Iterator[str]:
    """What Adam keeps between rounds must be there, be of the same factors, and travel by a rule that averages."""
    moments, spec = step.training.moments, step.federation
    if moments and moments not in MOMENTS:
        yield f"training.moments is '{moments}'; it can be {', '.join(MOMENTS)}, or empty."
    if moments not in (CENTER, AVERAGED):
        return
    if step.training.optimizer != ADAMW or spec.kind == "newton":
        yield f"training.moments={moments} keeps AdamW's moments, and nothing here has any; leave it empty."
    for name in (name for name, part in step.adapter.parts.items() if _is_remade(part)):
        yield f"part '{name}' gets factors that are made anew each round, which no earlier moments belong to."
    sums = spec.sum_only or spec.secure_aggregation
    if moments == AVERAGED and (spec.kind not in AVERAGING or sums or spec.compression.kind != NONE):
        yield (
            f"training.moments=averaged needs a rule that averages ({', '.join(sorted(AVERAGING))}), without sum_only, "
            "secure sums or compression; use training.moments=center, which sends nothing more."
        )


def _grid(step: Step, run: Run) -> Iterator[str]:
    task = step.task
    if task is None or task.kind != "prognosis":
        return
    if task.grid not in ("equal", "quantiles"):
        yield f"task.grid is '{task.grid}'; it can be equal or quantiles."
    if task.bins < 3 or task.horizon_days <= 0:
        yield f"task.bins is {task.bins} and task.horizon_days {task.horizon_days}; use 3 or more, and a positive time."
    cuts = task.cuts_days
    if cuts and (len(cuts) != task.bins or cuts[0] != 0 or any(b <= a for a, b in pairwise(cuts))):
        yield f"task.cuts_days has {len(cuts)} entries for {task.bins} bins; give one per bin, rising, the first 0."


def _newton(step: Step, run: Run) -> Iterator[str]:
    linear = [part for part in step.adapter.parts.values() if isinstance(part, LinearPart)]
    exact = [part for part in step.adapter.parts.values() if part.kind in EXACT]
    fitted = step.federation.kind == "newton"
    if exact and not fitted and step.rounds > 0:
        yield f"a {exact[0].kind} part is fitted by federation=newton; set federation@steps.NAME.federation=newton."
    if fitted and (len(exact) != 1 or len(step.adapter.parts) > 1):
        yield (
            "federation=newton fits one linear or voxel_linear part and nothing else; set "
            "adapter@steps.NAME.adapter=linear, or =exact_voxels for a segmentation."
        )
    for part in (part for part in exact if isinstance(part, VoxelLinearPart)):
        below = [level for level in part.levels or [] if level < 0] + [sigma for sigma in part.blurs if sigma <= 0]
        if part.voxels < 1 or not 0 < part.inside < 1 or below:
            yield (
                f"the voxel_linear part draws {part.voxels} voxels, {part.inside} of them inside, from levels "
                f"{part.levels} and blurs {part.blurs}; use one voxel or more, a share between 0 and 1, levels from 0 "
                "and blurs above 0."
            )
    if fitted and step.task is not None:
        try:
            objective_name(step)
        except ConfigError as error:
            yield str(error)
    if fitted and min(ridges := [step.federation.penalty, *step.federation.penalties]) <= 0:
        yield f"federation.penalty is {min(ridges):g}; it must be positive, and so must each of federation.penalties."
    if fitted and step.federation.penalties and step.federation.objective == RIDGE:
        yield (
            "objective=ridge is fitted with federation.penalty alone: a center's sums could not be subtracted from a "
            "choice of the others'. Leave federation.penalties empty."
        )
    for harmonizer in (part.harmonize for part in linear if part.harmonize):
        if harmonizer not in HARMONIZERS:
            yield f"harmonize is '{harmonizer}'; it can be {', '.join(HARMONIZERS)}, or empty."
        if step.privacy is not None or getattr(step.federation, "objective", "") == RIDGE:
            yield "features are harmonized by moments, which neither a ridge nor a fit on noised sums asks for."
        if not {*step.modalities} - {RECORD}:
            yield "harmonize is about frozen features, and the step has none: add an image or EHR, or leave it out."
    for name in sorted({name for part in linear for name in part.variables} - set(MODEL_VARIABLES)):
        yield f"'{name}' is no variable that a model can use; known: {', '.join(MODEL_VARIABLES)}."


def _subgroups(step: Step, run: Run) -> Iterator[str]:
    for name in sorted(set(step.subgroups) - set(LEVELS)):
        yield f"'{name}' is no subgroup that scores can be told by; known: {', '.join(sorted(LEVELS))}."
    if len(set(step.subgroups)) < len(step.subgroups):
        yield f"subgroups names one twice: {', '.join(step.subgroups)}."
    if "age" in step.subgroups and not step.age_cuts:
        yield "subgroups names age, and age_cuts has no year between two bands; set age_cuts=[65]."
    if any(low >= high for low, high in pairwise(step.age_cuts)):
        yield f"age_cuts are {step.age_cuts}; they must rise."


STEP_RULES: list[Callable[[Step, Run], Iterator[str]]] = [
    ceiling_problems, _task, _modalities, _parts, _view, _order, _rounds, _federation, _guards, _compression,
    sum_problems, _personal, method_problems, _training, _grid, _newton, masked_problems, rehearsal_problems,
    metric_problems, structure_problems, window_problems, twice_problems, _subgroups,
    stage_order_problems, privacy_problems,
]  # fmt: skip
OF_A_RUN = (_order, stage_order_problems)  # what only a whole run can break
