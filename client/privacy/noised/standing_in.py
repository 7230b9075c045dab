"""What noise stands in for, and from when on: under a ceiling it is what hides a few, without one minimums hold.

A draw of DP-SGD may be of one patient and noised sums are over everybody, whoever alone has a variable: their noise is
all that hides who is in them. How much an order asks for is the coordinator's word, and so is how often it asks. Only a
ceiling over everything makes that enough. Where a hospital with minimums sets none,

- noised sums are answered up to `UNSAID`, over every step, run and restart together, and so are noised scores;
- a round of DP-SGD must be of as many patients as one without noise.
"""

from __future__ import annotations

from dataclasses import replace

from client.policy.policy import SUMS_WITH_NOISE, UNSAID, Ceiling, Policy, ceiling_of
from client.privacy.dp_sgd import by_patient
from client.training.batches import Cases
from common.config.privacy import DpSgd, NoisedSums, cohort_of, scores_are_noised
from common.errors import PolicyRefusal
from common.privacy.plan import SCORES, draws_of
from common.protocol.messages import TOO_FEW_CASES, Order


def ceiling_for(policy: Policy, order: Order, *, of: str = SUMS_WITH_NOISE) -> Ceiling | None:
    """Within what an order's noise must stay: the hospital's ceiling, or `UNSAID` where noise is all that hides a few.

    Args:
        of: what the noise is on, as the account calls it: sums of an exact fit, or scores.

    Raises ConfigError for a ceiling that is none.
    """
    own = ceiling_of(policy)
    hides = of == SCORES or isinstance(order.step.privacy, NoisedSums)
    return own if own is not None or policy.minimum_cell <= 1 or not hides else replace(UNSAID, of=of)


def ceilings_for(policy: Policy, order: Order) -> list[Ceiling | None]:
    """Within what all that a step will tell must stay before it is begun: its updates or sums, and its scores."""
    kinds = [SUMS_WITH_NOISE, *([SCORES] if scores_are_noised(order.step.privacy) else [])]
    return list(dict.fromkeys(ceiling_for(policy, order, of=of) for of in kinds))


def check_draws(policy: Policy, order: Order, cases: Cases, *, code: str) -> None:
    """Raise PolicyRefusal where, without a ceiling, fewer patients than the minimum are expected in a round's draws.

    With one nothing is compared with how many patients there truly are: the answer would tell it.
    """
    spec = order.step.privacy
    if not isinstance(spec, DpSgd) or policy.minimum_cases <= 1 or ceiling_of(policy) is not None:
        return
    expected = len(by_patient(cases)) * spec.batch * draws_of(order.step, code) / cohort_of(spec, code)
    if expected < policy.minimum_cases:
        raise PolicyRefusal(
            TOO_FEW_CASES,
            f"About {expected:.1f} patients would be drawn in a round of step '{order.step.name}'; without a ceiling "
            f"on epsilon (policy.privacy) it takes policy.minimum_cases, {policy.minimum_cases}.",
        )
