"""What the field reads off an arm's matrix, as tables: yardsticks, the five names of a benchmark, centers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.evaluation.course import burden
from server.evaluation.yardsticks import Yardsticks, yardsticks
from simulations.studies.continual.arms import ALONE, FEW, JOINT, TOGETHER, Arrival, at_share
from simulations.studies.continual.matrices import (
    Outcomes,
    Row,
    average,
    before,
    by_arrival,
    cell,
    diagonal,
    of_arm,
)
from simulations.studies.continual.running import WHOLE, Outcome
from simulations.studies.page import Table, Value


def measured(rows: Sequence[Row], *, before: Row, dedicated: Row | None, joint: Row | None = None) -> Yardsticks | None:
    """What a square matrix says; None where a cell that must have a score has none.

    Args:
        dedicated, joint: what an adapter for each arrival, and one of everything, score of each arrival.
    """
    if any(rows[t][j] is None for t in range(len(rows)) for j in range(t + 1)):
        return None
    return yardsticks(rows, before=before, dedicated=_whole(dedicated), joint=_whole(joint))


def _whole(row: Row | None) -> list[float] | None:
    known = [value for value in row or [] if value is not None]
    return known if row and len(known) == len(row) else None


@dataclass(frozen=True)
class Field:
    """Arms of one setting, and how the field measures them: against an adapter for each arrival and one of everything,
    where these arms were run."""

    outcomes: Outcomes
    setting: str
    arrivals: Sequence[Arrival]
    metric: str

    def of(self, arm: str) -> list[Outcome]:
        """What an arm left, seed by seed."""
        return of_arm(self.outcomes, arm, self.setting)

    def row(self, outcome: Outcome, step: str) -> Row:
        """After a step, the score of what each arrival brought."""
        return by_arrival(outcome, step, self.arrivals, self.metric)

    def alone(self) -> list[Row]:
        """Seed by seed, of each arrival what an adapter of its own scores."""
        return [diagonal(outcome, self.arrivals, self.metric) for arm in ALONE for outcome in self.of(arm)]

    def joint(self) -> list[Row]:
        """Seed by seed, of each arrival what the adapter of everything scores."""
        return [self.row(outcome, TOGETHER) for outcome in self.of(JOINT)]

    def measured(self, arm: str) -> list[Yardsticks | None]:
        """An arm on one lineage, seed by seed."""
        alone, joint, found = self.alone(), self.joint(), []
        for number, outcome in enumerate(self.of(arm)):
            square = [self.row(outcome, a.name) for a in self.arrivals]
            start = before(outcome, self.arrivals, self.metric)
            dedicated, together = (rows[number] if rows else None for rows in (alone, joint))
            found.append(measured(square, before=start, dedicated=dedicated, joint=together))
        return found


def on_one_lineage(arms: Sequence[str]) -> list[str]:
    """The arms whose steps go on with one adapter."""
    return [arm for arm in arms if arm not in (JOINT, FEW, *ALONE)]


def _over(found: Sequence[Yardsticks | None], names: Sequence[str], *, scale: float = 100.0) -> list[Value]:
    """Yardsticks by their names, as means over seeds."""
    known = [one for one in found if one is not None]
    return [cell([scale * v for one in known if (v := getattr(one, name)) is not None]) for name in names]


SHOWN = {  # in points
    "acc": "ACC",
    "bwt": "BWT (GEM)",
    "fwt": "FWT (GEM)",
    "forgetting": "forgetting (Chaudhry)",
    "intransigence": "intransigence (dedicated)",
    "intransigence_joint": "intransigence (joint)",
}
SHARES = {"plasticity": "plasticity", "plasticity_joint": "plasticity (joint)"}  # in percent


def yardstick_table(title: str, arms: Sequence[str], field: Field) -> Table:
    """Arms on one lineage, as the field measures it."""
    joint = [average(row) for row in field.joint()]
    rows: list[list[Value]] = []
    for arm in on_one_lineage(arms):
        found = field.measured(arm)
        pairs = zip(found, joint or [None] * len(found), strict=True)
        behind = [100 * (j - one.acc) for one, j in pairs if one is not None and j is not None]
        rows.append([arm, *_over(found, [*SHOWN, *SHARES]), cell(behind)])
    return Table(
        title, ["arm", *SHOWN.values(), *SHARES.values(), "behind joint"], rows,
        "In points; plasticity in percent of an own adapter's score, or of the joint one's. Joint is one adapter of "
        "all that arrived, not of what had arrived by then.",
    )  # fmt: skip


FIVE = ["arm", "stability", "plasticity", "forward generalizability", "parameters", "replay burden"]


def five_table(title: str, arms: Sequence[str], field: Field) -> Table:
    """Arms on one lineage by the names of the newest benchmark of medical segmentation (Wang et al., 2605.06160)."""
    rows: list[list[Value]] = []
    for arm in on_one_lineage(arms):
        shares = _over(field.measured(arm), ["stability", "plasticity", "forward_generalizability"])
        rows.append([arm, *shares, cell(_parameters(field.of(arm)), "%.2f"), cell(_replayed(field.of(arm)))])
    return Table(
        title, FIVE, rows,
        "The five names of Wang et al. (arXiv 2605.06160), in percent, as fedgraft reads them. Stability: what is left "
        "of a score since its own step. Plasticity: of an own adapter's score. Forward generalizability: the mean "
        "score of what has not arrived yet. Parameters: the adapter's numbers of the frozen model's. Replay burden: "
        "cases from memories, of all that were trained on.",
    )  # fmt: skip


def _parameters(outcomes: Sequence[Outcome]) -> list[float]:
    found = []
    for costs in (outcome.costs for outcome in outcomes):
        numbers = [cost["numbers"] for name, cost in costs.items() if name != WHOLE and "numbers" in cost]
        if numbers and costs[WHOLE].get("frozen"):
            found.append(100 * max(numbers) / costs[WHOLE]["frozen"])
    return found


def _replayed(outcomes: Sequence[Outcome]) -> list[float]:
    found = []
    for costs in (outcome.costs for outcome in outcomes):
        parts = [(cost["replayed"], cost["cases"]) for cost in costs.values() if "replayed" in cost]
        share = burden(parts)
        found += [] if share is None else [100 * share]
    return found


def centers_table(title: str, arms: Sequence[str], field: Field) -> Table:
    """The last model at the worst of the centers that arrived, and how many score below an adapter of their own."""
    centers = list(dict.fromkeys(center for arrival in field.arrivals for center in arrival.centers))
    own = {
        center: average([_at(o, arrival.name, center, field.metric) for arm in ALONE for o in field.of(arm)])
        for arrival in field.arrivals
        for center in arrival.centers
    }
    rows: list[list[Value]] = []
    for arm in (arm for arm in arms if arm not in ALONE):
        last = TOGETHER if arm in (JOINT, FEW) else field.arrivals[-1].name
        means = {center: average([_at(o, last, center, field.metric) for o in field.of(arm)]) for center in centers}
        scores = {center: mean for center, mean in means.items() if mean is not None}
        if not scores:
            rows.append([arm, None, None, None, None])
            continue
        worst, spread = min(scores, key=lambda c: scores[c]), max(scores.values()) - min(scores.values())
        held = {center: value for center, value in own.items() if value is not None and center in scores}
        harmed = [center for center, value in held.items() if scores[center] < value]
        said = f"{len(harmed)} of {len(held)}" if held else None
        rows.append([arm, worst, f"{100 * scores[worst]:.1f}", f"{100 * spread:.1f}", said])
    return Table(
        title, ["arm", "worst center", "its score", "best − worst", "centers harmed"], rows,
        "Means over seeds. Harmed: below the dedicated adapter of the same center, by the point estimate.",
    )  # fmt: skip


def _at(outcome: Outcome, step: str, center: str, metric: str) -> float | None:
    return outcome.value(step=step, task=step, metric=metric, center=center)


def shares_table(title: str, arms: Sequence[str], field: Field, shares: Sequence[float]) -> list[Table]:
    """What a step scores at arrivals beyond the first before it, and trained on shares of them; none without shares."""
    if not shares:
        return []
    later = list(enumerate(field.arrivals))[1:]
    rows: list[list[Value]] = []
    for arm in (arm for arm in arms if arm not in (JOINT, FEW)):
        row: list[Value] = [arm]
        outcomes = field.of(arm)
        untrained = [] if arm in ALONE else outcomes
        before_it = [[field.row(o, field.arrivals[p - 1].name)[p] for p, _ in later] for o in untrained]
        tried = [[[_tried_at(o, a, share, field.metric) for _, a in later] for o in outcomes] for share in shares]
        whole = [diagonal(o, field.arrivals, field.metric)[1:] for o in outcomes]
        for found in (before_it, *tried, whole):
            means = [average(values) for values in found]
            row.append(cell([100 * mean for mean in means if mean is not None]))
        rows.append(row)
    return [
        Table(
            title, ["arm", "0 %", *(f"{100 * share:g} %" for share in shares), "100 %"], rows,
            "In percent, mean over arrivals after the first. A share is trained on plainly from where the arm's step "
            "starts; an arm of own adapters starts from the seed.",
        )
    ]  # fmt: skip


def _tried_at(outcome: Outcome, arrival: Arrival, share: float, metric: str) -> float | None:
    name = at_share(arrival, share)
    if arrival.structure is not None:
        return outcome.value(step=name, task=name, metric=f"{metric}_{arrival.structure}", center="pooled")
    return average([_at(outcome, name, center, metric) for center in arrival.centers])
