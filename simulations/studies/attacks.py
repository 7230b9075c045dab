"""study=attacks: every attack against every robust rule, with none, one and two of seven centers attacking.

Rules stand alone (the norm guard is off, so that the rule's own work shows) and once behind the guards; the form checks
(names, shapes, finite values, counts, replays) are always on, so that a broken update costs its own center only,
whatever the rule. Beside them the untrained start and the undefended mean: where the mean keeps its score too, a row
proves nothing. The step's training was set by the undefended mean's validation scores; no rule's options were searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.config.run import Run
from common.tasks import build_task
from simulations.studies.aggregation import METRICS, SHOWN
from simulations.studies.page import Page, Picture, Table
from simulations.studies.trials import Result, Scored, Trial, run_trials, score_row, signed
from simulations.virtual.fault_options import Fault

MEAN, GUARDED, HOSTILE, UNTRAINED = "mean, undefended", "mean behind guards", "profile hostile", "untrained"
KEPT, CLEAN_COST = 0.97, 0.005
KIND = "federation@steps.{step}.federation="
OFF = ("steps.{step}.federation.guards.norm_factor=0", "steps.{step}.federation.guards.strikes=0")
MOST_FAULTY = {"Bulyan": 1}  # of seven; the others' bounds allow two

RULES: dict[str, tuple[str, ...]] = {
    MEAN: OFF,
    GUARDED: (),
    "median": (KIND + "median", *OFF),
    "trimmed mean": (KIND + "trimmed_mean", *OFF),
    "geometric median": (KIND + "geometric_median", *OFF),
    "norm clip": (KIND + "norm_clip", *OFF),
    "centered clip": (KIND + "centered_clip", *OFF),
    "Krum": (KIND + "krum", *OFF),
    "Multi-Krum": (KIND + "multi_krum", *OFF),
    "Bulyan": (KIND + "bulyan", *OFF),
    HOSTILE: (KIND + "hostile",),
}
Rows = dict[tuple[str, str, int], list[Trial]]  # (rule, attack, f): one trial per seed
CLEAN = "none"


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    rows, folder = rows_of(run), Path(run.out) / run.name
    trials = [trial for row in rows.values() for trial in row]
    results = run_trials(trials, run, overrides=overrides, folder=folder, say=say)
    say("resampling patients")
    scored = _scores(run, rows, results)
    return Page(
        title="Attacks on aggregation",
        lead=_lead(run),
        tables=[_clean_table(run, scored), *(_attack_table(run, scored, f) for f in (1, 2))],
        pictures=[_picture(run, scored)],
        notes=_notes(run, scored),
        figures={trial.file: {n: v for n, v in vars(results[trial]).items() if n != "patients"} for trial in trials},
    )


def rows_of(run: Run) -> Rows:
    """Every rule without an attack, and every attack with one and two attackers where the rule's bound allows them."""
    study, step = run.study, run.study.step

    def row(rule: str, attack: str, f: int) -> list[Trial]:
        faults = (Fault(attack, list(study.attackers[:f])),) if f else ()
        given = tuple(override.replace("{step}", step) for override in RULES[rule])
        return [Trial(f"{rule}-{attack}-{f}", step, seed, given, faults) for seed in study.seeds]

    rows: Rows = {(UNTRAINED, CLEAN, 0): [Trial(UNTRAINED, step, seed, trained=False) for seed in study.seeds]}
    for rule in RULES:
        rows[rule, CLEAN, 0] = row(rule, CLEAN, 0)
        for f in range(1, min(2, MOST_FAULTY.get(rule, 2), len(study.attackers)) + 1):
            rows |= {(rule, attack, f): row(rule, attack, f) for attack in study.attacks}
    return rows


def _scores(run: Run, rows: Rows, results: dict[Trial, Result]) -> dict[tuple[str, str, int], Scored]:
    """Clean rules against the undefended mean's clean score; attacked ones against the same rule without attack."""
    step = run.steps[run.study.step]
    metric = METRICS[build_task(step.task).kind]
    found = {}
    for (rule, attack, f), trials in rows.items():
        other = (rule, CLEAN, 0) if f else (MEAN, CLEAN, 0)
        reference = None if (rule, attack, f) == other else [results[trial] for trial in rows[other]]
        own = [results[trial] for trial in trials]
        found[rule, attack, f] = score_row(step, own, reference, metric=metric, draws=run.study.draws)
    return found


def _lead(run: Run) -> str:
    study, step = run.study, run.steps[run.study.step]
    return (
        f"Synthetic phantom cohort (scale {run.data.scale}), seven centers, step {step.name}, {step.rounds} rounds, "
        f"seeds {study.seeds}. Attackers: {study.attackers[0]} (f = 1), {' and '.join(study.attackers[:2])} (f = 2), "
        "in every round; they know every honest update. Scores are of all seven centers' test patients, labels right."
    )


def _metric(run: Run) -> str:
    return SHOWN[METRICS[build_task(run.steps[run.study.step].task).kind]]


def _clean_table(run: Run, scored: dict[tuple[str, str, int], Scored]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for rule in (UNTRAINED, *RULES):
        own = scored[rule, CLEAN, 0]
        gain = own.difference.value
        within = "" if gain is None else "yes" if gain >= -CLEAN_COST else "no"
        rows.append([rule, own.value, *signed(own.difference), "" if rule == UNTRAINED else within])
    columns = ["Rule", _metric(run), "To the mean", "Interval", f"Costs at most {CLEAN_COST}"]
    return Table("Nobody attacks", columns, rows, "95 % intervals over test patients within centers.")


def _attack_table(run: Run, scored: dict[tuple[str, str, int], Scored], f: int) -> Table:
    """Rules by attacks: the score as a share of the same rule's score without attack."""
    attacks = list(run.study.attacks)
    rows: list[list[str | int | float | None]] = []
    for rule in RULES:
        rows.append([rule, *(_cell(scored, rule, attack, f) for attack in attacks)])
    untrained = scored[UNTRAINED, CLEAN, 0].value
    rows.append([UNTRAINED, *(_share(untrained, scored[MEAN, CLEAN, 0].value) for _ in attacks)])
    proves = ["proves nothing" if _keeps(scored, MEAN, attack, f) else "a test" for attack in attacks]
    rows.append([f"the mean keeps {KEPT:.0%}?", *proves])
    title = f"{f} of 7 attack: share of the rule's own score without attack, and the difference's interval"
    return Table(title,
                 ["Rule", *attacks], rows,
                 f"A column in which the undefended mean keeps {KEPT:.0%} proves nothing about any rule.")  # fmt: skip


def _cell(scored: dict[tuple[str, str, int], Scored], rule: str, attack: str, f: int) -> str:
    own, clean = scored.get((rule, attack, f)), scored[rule, CLEAN, 0]
    if own is None:
        return "refused: too few centers"
    if own.failed:
        return "every round void"
    return f"{_share(own.value, clean.value)} {own.difference.interval_text(signed=True)}".rstrip()


def _share(value: float | None, clean: float | None) -> str:
    return "—" if value is None or not clean else f"{value / clean:.0%}"


def _keeps(scored: dict[tuple[str, str, int], Scored], rule: str, attack: str, f: int) -> bool:
    own, clean = scored.get((rule, attack, f)), scored[rule, CLEAN, 0]
    return bool(own and own.value is not None and clean.value and own.value >= KEPT * clean.value)


def _notes(run: Run, scored: dict[tuple[str, str, int], Scored]) -> list[str]:
    attacks = list(run.study.attacks)
    failed = [a for a in attacks if not _keeps(scored, HOSTILE, a, 2)]
    tests = [a for a in attacks if not _keeps(scored, MEAN, a, 2)]
    cost = scored[HOSTILE, CLEAN, 0].difference.value
    return [
        f"Profile hostile at f = 2 keeps {KEPT:.0%} of its attack-free score under "
        f"{len(attacks) - len(failed)} of {len(attacks)} attacks; not under: {', '.join(failed) or 'none'}. "
        f"Attacks that prove something (the undefended mean fails): {', '.join(tests) or 'none'}.",
        f"Its clean cost against the mean is {-cost:+.3f} (goal: at most {CLEAN_COST})." if cost is not None else
        "Its clean cost is not defined: the hostile profile or the mean has no score.",
        "Updates that are broken in form (nan here; inf, wrong shapes and names, inflated counts, replays and stale "
        "updates in tests) are stopped before any rule: the round is bit for bit the one without that center.",
        "A share may exceed 100 %: an attacked center's data are not missed on every split; the intervals say how far "
        "patients alone could move each difference. One split; the choice of training patients is not covered.",
    ]  # fmt: skip


def _picture(run: Run, scored: dict[tuple[str, str, int], Scored]) -> Picture:
    """Rules by attacks at f = 2, as shares."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    attacks = list(run.study.attacks)
    most = 2 if len(run.study.attackers) > 1 else 1
    figure, axes = plt.subplots(figsize=(1.6 + 1.1 * len(attacks), 0.8 + 0.38 * len(RULES)))
    shares = [[_number(scored, rule, attack, most) for attack in attacks] for rule in RULES]
    axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="RdYlGn", aspect="auto")
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            text = "—" if value != value else f"{100 * value:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(attacks)), attacks)
    axes.set_yticks(range(len(RULES)), list(RULES))
    axes.xaxis.tick_top()
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    plt.close(figure)
    return Picture(
        f"{most} of 7 attack",
        "Percent of the rule's own score without attack; a dash where the rule refuses or every round is void.",
        png=drawn.getvalue(),
    )


def _number(scored: dict[tuple[str, str, int], Scored], rule: str, attack: str, f: int) -> float:
    own, clean = scored.get((rule, attack, f)), scored[rule, CLEAN, 0]
    return own.value / clean.value if own and own.value is not None and clean.value else float("nan")
