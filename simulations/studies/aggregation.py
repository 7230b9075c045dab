"""study=aggregation: every aggregation rule on one segmentation and one prognosis step, with what it costs.

Rows differ from the mean by their overrides; data, splits, seeds, start and samples are the same. No option of any rule
was searched; the step's training was set by the mean's validation scores, which may favor the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.config.run import Run
from common.tasks import build_task
from simulations.studies.page import Page, Table
from simulations.studies.trials import Result, Trial, mean_of, run_trials, score_row, signed

MEAN, UNTRAINED = "mean, √n", "untrained"
FEDERATION = "federation@steps.{step}.federation={kind}"
OPTION = "steps.{step}.federation.{option}"
LORA = "steps.{step}.adapter.parts.within.{option}"

RULES: dict[str, tuple[str, ...]] = {
    MEAN: (),
    "mean, n": (OPTION.replace("{option}", "weighting=n"),),
    "mean, uniform": (OPTION.replace("{option}", "weighting=uniform"),),
    "FedProx": (OPTION.replace("{option}", "proximal=0.01"),),
    "FedAvgM": (FEDERATION.replace("{kind}", "fedavgm"),),
    "FedAdam": (FEDERATION.replace("{kind}", "fedadam"),),
    "FedYogi": (FEDERATION.replace("{kind}", "fedyogi"),),
    "FedAdagrad": (FEDERATION.replace("{kind}", "fedadagrad"),),
    "SCAFFOLD": (FEDERATION.replace("{kind}", "scaffold"),),
    "FedDyn": (FEDERATION.replace("{kind}", "feddyn"),),
    "median": (FEDERATION.replace("{kind}", "median"),),
    "trimmed mean": (FEDERATION.replace("{kind}", "trimmed_mean"),),
    "geometric median": (FEDERATION.replace("{kind}", "geometric_median"),),
    "norm clip": (FEDERATION.replace("{kind}", "norm_clip"),),
    "centered clip": (FEDERATION.replace("{kind}", "centered_clip"),),
    "Krum": (FEDERATION.replace("{kind}", "krum"),),
    "Multi-Krum": (FEDERATION.replace("{kind}", "multi_krum"),),
    "Bulyan": (FEDERATION.replace("{kind}", "bulyan"),),
    "mean, fp16": (OPTION.replace("{option}", "compression.kind=fp16"),),
    "mean, int8": (OPTION.replace("{option}", "compression.kind=int8"),),
    "mean, top 10 %": (OPTION.replace("{option}", "compression.kind=topk"),),
    "Ditto": (OPTION.replace("{option}", "personal=0.1"),),
}
NORMS = '["image/1.*","text/1.*","fusion/mlp.1.*"]'
CT_SKIP = '["decoder/ct_skip.*"]'  # the layer nearest to the scanner: this decoder's norms have no parameters
LOCAL_RULES = {  # a part of the step -> its row, where tensors of it stay at each center
    "image": ("FedBN: norms local", (OPTION.replace("{option}", f"local={NORMS}"),)),
    "decoder": ("FedBN: CT skip local", (OPTION.replace("{option}", f"local={CT_SKIP}"),)),
}
LORA_RULES: dict[str, tuple[str, ...]] = {
    "LoRA: " + name: (LORA.replace("{option}", f"rule={name}"),)
    for name in ("fedit", "ffa", "fedsvd", "fedsb", "flora", "fedex", "flexlora")
} | {
    "DoRA: fedit": (LORA.replace("{option}", "dora=true"), LORA.replace("{option}", "rule=fedit")),
    "DoRA: flora": (LORA.replace("{option}", "dora=true"), LORA.replace("{option}", "rule=flora")),
}
METRICS = {"segmentation": "dsc_agg", "prognosis": "c_index", "classification": "auroc"}
SHOWN = {"dsc_agg": "DSCagg", "c_index": "C-index", "auroc": "AUROC"}


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    study = run.study
    rows = {step: rows_of(run, step) for step in study.steps}
    trials = [trial for step in study.steps for row in rows[step].values() for trial in row]
    results = run_trials(trials, run, overrides=overrides, folder=Path(run.out) / run.name, say=say)
    tables = [_table(run, step, rows[step], results, say) for step in study.steps]
    return Page(
        title="Aggregation rules on one segmentation and one prognosis step",
        lead=(
            f"Synthetic phantom cohort (scale {run.data.scale}), seven centers, seeds {study.seeds}, "
            f"{', '.join(f'{run.steps[s].rounds} rounds of {s}' for s in study.steps)}. Every rule with its default "
            "options; the training was set by the mean's validation scores at seed 1, which may favor the mean."
        ),
        tables=tables,
        notes=NOTES,
        figures={trial.file: _figures(results[trial]) for trial in trials},
    )


NOTES = [
    f"Differences are to '{MEAN}' over the same test patients, averaged over seeds; intervals: 95 %, percentile "
    "bootstrap over patients within centers. They do not cover the choice of training patients.",
    "LoRA rows differ in the rule of the LoRA part only; all other rows use its default, rolora.",
    "Server time is the median of a round's screening and aggregation in this process, with whatever else the machine "
    "was doing; 'kept' is what the server stores between rounds beside the state. Peak memory and clean times of the "
    "rules alone: python -m simulations bench aggregation.",
    "FedBN and Ditto are scored at each center with that center's own tensors (FedBN: what its row names; Ditto: the "
    "whole adapter): seven models, of which a center that joins later would get the common part only.",
]


def rows_of(run: Run, step: str) -> dict[str, list[Trial]]:
    """Row -> one trial per seed; LoRA's rules only where the step has a LoRA part called ``within``."""
    parts = run.steps[step].adapter.parts
    local = dict(LOCAL_RULES[part] for part in LOCAL_RULES if part in parts)
    rules = {**RULES, **local, **(LORA_RULES if "within" in parts else {})}
    rows = {name: tuple(o.replace("{step}", step) for o in given) for name, given in rules.items()}
    found = {UNTRAINED: [Trial(UNTRAINED, step, seed, trained=False) for seed in run.study.seeds]}
    return found | {name: [Trial(name, step, seed, given) for seed in run.study.seeds] for name, given in rows.items()}


def _table(
    run: Run, step: str, rows: dict[str, list[Trial]], results: dict[Trial, Result], say: Callable[[str], None]
) -> Table:
    say(f"resampling patients of {step}")
    spec = run.steps[step]
    metric = METRICS[build_task(spec.task).kind]
    reference = [results[trial] for trial in rows[MEAN]]
    shown: list[list[str | int | float | None]] = []
    for name, trials in rows.items():
        own = [results[trial] for trial in trials]
        scored = score_row(spec, own, None if name == MEAN else reference, metric=metric, draws=run.study.draws)
        kept = max((result.kept_bytes for result in own), default=0) / 1e3
        value = scored.value if not scored.failed else "no round counted"
        up, down, server = (mean_of(own, field) for field in ("up", "down", "server_ms"))
        shown.append(
            [
                name,
                value,
                *signed(scored.difference),
                _kilo(up),
                _kilo(down),
                _digits(server),
                _digits(kept if up else None),
            ]
        )
    columns = [
        "Rule", SHOWN[metric], "Difference", "Interval", "kB up", "kB down", "Server ms", "kB kept",
    ]  # fmt: skip
    note = f"kB of a round and center, training and validation, {len(reference[0].patients)} test patients."
    return Table(f"{step}: {len(rows)} rows, {spec.rounds} rounds", columns, shown, note)


def _kilo(value: float | None) -> str:
    return "" if value is None else f"{value / 1e3:.0f}"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _figures(result: Result) -> dict[str, object]:
    return {name: value for name, value in vars(result).items() if name != "patients"}
