"""The audit as one page: every attack without privacy, on secure sums, and at epsilon 20, 8 and 3, with figures and as
JSON."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.privacy.accounting import noise_for
from common.privacy.plan import Plan
from simulations.leakage import exposure, inversion, membership
from simulations.leakage.bounds import counted_bound
from simulations.leakage.canaries import CODES, STAMP, Audited, audit, secret_divisor, tells_neighbors_apart
from simulations.leakage.exposure import CHANCE, Exposed
from simulations.leakage.inversion import Inverted
from simulations.leakage.membership import RATES, Membership
from simulations.leakage.sums import CENTERS
from simulations.studies.page import Page, Picture, Table, write_page

LEVELS = (math.inf, 20.0, 8.0, 3.0)
CLAIMS = (8.0, 3.0)  # of canaries: beyond 8 half the noise can look like an honest claim
NEIGHBORS = 18
CANARY_DELTA = 1e-5  # a larger one would hide what counting can show
COLORS = ("#0072B2", "#E69F00")  # Okabe-Ito


@dataclass(frozen=True)
class Sizes:
    """How much is tried."""

    canaries: int = 512
    draws: int = 60
    models: int = 64
    patients: int = 100
    crops: int = 4
    steps: int = 300
    exposed: int = 8
    rounds: int = exposure.ROUNDS
    levels: Sequence[float] = LEVELS
    claims: Sequence[float] = CLAIMS


def run_audit(
    out: Path, *, seed: int = 0, sizes: Sizes | None = None, say: Callable[[str], None] = print, command: str = ""
) -> Page:
    """Attack everything, write the page into a folder and return it."""
    began, sizes = time.perf_counter(), sizes or Sizes()
    say("canaries: one run for each fault")
    audited = [
        found for claim in sizes.claims for found in audit(_plan(claim, sizes), canaries=sizes.canaries, seed=seed)
    ]
    shown = [(level, is_sum) for level in sizes.levels for is_sum in ((False, True) if math.isinf(level) else (False,))]
    say("membership: shadow heads")
    members = [
        membership.measured(
            level, patients=sizes.patients, models=sizes.models, seed=seed, centers=CENTERS if is_sum else 1
        )
        for level, is_sum in shown
    ]
    say("inversion: crops from gradients")
    inverted = [
        inversion.measured(level, patients=sizes.crops, steps=sizes.steps, seed=seed, centers=CENTERS if is_sum else 1)
        for level, is_sum in shown
    ]
    say("exposure: canary lesions in aggregated adapters")
    exposed = [
        exposure.measured(level, canaries=sizes.exposed, seed=seed, rounds=sizes.rounds, is_sum=is_sum)
        for level, is_sum in shown
    ]
    page = Page(
        title="What leaks, measured",
        lead=(
            "Attacks on what this code releases, run against the code itself: its sampling, clipping, noise and sums. "
            f"Data are synthetic; noise is of a known seed ({STAMP}), so that every number here comes again."
        ),
        tables=[
            _canary_table(audited, sizes.canaries),
            _divisor_table(),
            _membership_table(members),
            _inversion_table(inverted),
            _exposure_table(exposed),
        ],
        pictures=[_picture(audited, members, inverted, exposed)],
        notes=_notes(sizes),
        figures=_figures(audited, members, inverted, exposed),
        command=command,
    )
    page.seconds = time.perf_counter() - began
    write_page(out, page)
    return page


def level_name(epsilon: float, is_sum: bool = False) -> str:
    """As a reader knows it."""
    if is_sum:
        return "secure sum"
    return "no privacy" if math.isinf(epsilon) else f"epsilon {epsilon:g}"


def _plan(claim: float, sizes: Sizes) -> Plan:
    cohort, batch, delta = 72, 18, CANARY_DELTA
    noise = noise_for(claim, delta, rate=batch / cohort, draws=sizes.draws)
    return Plan(cohort, batch, sizes.draws, 1.0, delta, noise)


def _divisor_is_caught(broken: bool) -> bool:
    plan = Plan(cohort=72, batch=8, draws=1, clip=1.0, delta=1 / 720, noise=1.4)
    return tells_neighbors_apart(lambda patients: secret_divisor(plan, patients) if broken else plan, NEIGHBORS)


def _most(canaries: int) -> float:
    took_part = np.arange(canaries) < canaries // 2
    return counted_bound(took_part.astype(float), took_part, CANARY_DELTA)


def _canary_table(audited: Sequence[Audited], canaries: int) -> Table:
    rows: list[list[str | int | float | None]] = [
        [one.code, one.claimed, one.counted, one.normal, "caught" if one.is_caught else "below its claim"]
        for one in audited
    ]
    return Table(
        "Canaries: epsilon at least, from one run", ["Code", "Claimed", "By counting", "By normal scores", "Verdict"],
        rows, f"At delta {CANARY_DELTA:g}; each bound holds with 97.5 %. By counting: Steinke, Nasr and Jagielski "
        f"2023; who always guesses right shows {_most(canaries):.1f}. By normal scores: Andrew et al. 2023.",
    )  # fmt: skip


def _divisor_table() -> Table:
    rows: list[list[str | int | float | None]] = [
        [name, "tells them apart: caught" if _divisor_is_caught(broken) else "the same to the bit"]
        for name, broken in (("as shipped", False), ("divisor from the true number", True))
    ]
    title = f"Neighboring cohorts: {NEIGHBORS} and {NEIGHBORS - 1} patients"
    return Table(title, ["Code", "Scale of the noise"], rows)


def _membership_table(members: Sequence[Membership]) -> Table:
    rows: list[list[str | int | float | None]] = [
        [level_name(one.epsilon, one.is_sum), one.auc, *(_told(one.caught[rate]) for rate in RATES), one.others]
        for one in members
    ]
    columns = ["Heads", "AUC", *(f"Found at {rate:.1%} false alarms" for rate in RATES), "Others"]
    return Table(
        "Membership: who was among a head's patients (LiRA)", columns, rows,
        "0.5 and the rate itself are chance. A rate is measurable where one false alarm among the others makes it.",
    )  # fmt: skip


def _told(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.2%}"


def _inversion_table(inverted: Sequence[Inverted]) -> Table:
    rows: list[list[str | int | float | None]] = [
        [level_name(one.epsilon, one.is_sum), one.psnr, one.nearest_psnr, one.ssim, one.nearest_ssim,
         "yes" if one.is_better else "no"] for one in inverted
    ]  # fmt: skip
    columns = ["Gradient of one patient", "PSNR", "Nearest crop's", "SSIM", "Nearest crop's SSIM", "Shows the patient?"]
    return Table(
        "Inversion: a crop from its gradient", columns, rows,
        "Batch of one, the label known. The nearest crop is that of 200 other patients who are public.",
    )  # fmt: skip


def _exposure_table(exposed: Sequence[Exposed]) -> Table:
    rows: list[list[str | int | float | None]] = [
        [level_name(one.epsilon, one.is_sum), one.bits, one.most, f"{one.first} of {one.canaries}"] for one in exposed
    ]
    return Table(
        "Exposure: a canary lesion in the aggregated adapter of seven centers",
        ["Training", "Bits", "At most", "Remembered best of all"], rows,
        f"{CHANCE} bits on average are chance. Epsilon is the canary's center's, over all rounds.",
    )  # fmt: skip


def _notes(sizes: Sizes) -> list[str]:
    return [
        "An attack that fails proves nothing: a better one may succeed. A bound above a claim proves a fault.",
        f"Secure sum: the coordinator opens sums of {CENTERS} honest centers and no center's own numbers. A head is "
        f"then one of all their patients, a gradient one among {CENTERS}. What is aggregated is the same, so exposure "
        "is that of no privacy; and a sum of one honest center among colluding ones hides nothing.",
        "Canaries measure the noise that a center draws, which is the same under masks; no privacy and a secure sum "
        "claim no epsilon, so there is no claim to refute.",
        f"{sizes.models} heads on 32 synthetic features of {sizes.patients} patients, half of them in each; gradients "
        f"of a linear adapter on frozen convolutions, crops of 8 voxels a side; {sizes.exposed} canaries, a federation "
        "each.",
    ]


def _figures(
    audited: Sequence[Audited], members: Sequence[Membership], inverted: Sequence[Inverted], exposed: Sequence[Exposed]
) -> dict[str, object]:
    """Everything as plain numbers; no privacy is an epsilon of null."""
    return {
        "canaries": [{**asdict(one), "caught": one.is_caught} for one in audited],
        "neighbors": {"as shipped": _divisor_is_caught(False), "secret divisor": _divisor_is_caught(True)},
        "membership": [_plain(asdict(one)) for one in members],
        "inversion": [_plain(asdict(one)) for one in inverted],
        "exposure": [_plain(asdict(one)) for one in exposed],
        "codes": list(CODES),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    if math.isinf(found["epsilon"]):
        found["epsilon"] = None
    if "caught" in found:
        found["caught"] = {f"{rate:g}": value for rate, value in found["caught"].items()}
    return found


def _picture(
    audited: Sequence[Audited], members: Sequence[Membership], inverted: Sequence[Inverted], exposed: Sequence[Exposed]
) -> Picture:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9.6, 6.4), layout="constrained")
    first = [one for one in audited if one.claimed == audited[0].claimed]
    _bars(axes[0, 0], [one.code for one in first], [max(one.counted, one.normal) for one in first],
          line=(first[0].claimed, "claimed"), title="Canaries: epsilon at least")  # fmt: skip
    names = [level_name(one.epsilon, one.is_sum) for one in members]
    _bars(axes[0, 1], names, [one.auc for one in members], line=(0.5, "chance"), title="Membership: AUC")
    _bars(axes[1, 0], names, [one.ssim for one in inverted], line=(inverted[0].nearest_ssim, "nearest other crop"),
          title="Inversion: SSIM")  # fmt: skip
    _bars(axes[1, 1], names, [one.bits for one in exposed], line=(CHANCE, "chance"), title="Exposure: bits")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
    return Picture("Attacks at a glance", "Bars at or below the dashed lines show nothing.", png=drawn.getvalue())


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], *, line: tuple[float, str], title: str) -> None:
    axes.bar(range(len(names)), values, color=COLORS[0], width=0.6)
    for place, value in enumerate(values):
        axes.text(place, max(value, 0.0), f"{value:.2g}", ha="center", va="bottom", fontsize=8)
    axes.axhline(line[0], color=COLORS[1], linestyle="--", linewidth=1.2, label=line[1])
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.margins(y=0.15)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
