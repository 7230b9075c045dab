"""Options of the studies of prognosis from tables, from images and records, and on the phantom."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.config.view import View
from simulations.survival.options import CoxStudy


@dataclass
class SurvivalTableStudy(CoxStudy):
    """On one table (data.table, data.mapping). Inputs are variables of the schema, or declared columns; none: all."""

    kind: str = "survival_table"
    outcome: str = "rfs"  # one of the mapping's outcomes
    # Further columns of the table, whatever they mean: {stage: [I, II, III]} by its levels, {nodes: []} as a number.
    columns: dict[str, list[str]] = field(default_factory=dict)
    fewest: int = 5  # patients of a center with a level; with fewer it joins "other" there
    split_column: str = ""  # a column that says who tests, once, in the place of the cross-validation; empty: none does
    test_value: str = "test"  # what that column says of those who test; everybody else trains
    all_pairs: bool = False  # C-index also over pairs of patients of different centers, as in one pooled test set


@dataclass
class Sts7PrognosisStudy(CoxStudy):
    """On records and frozen features of a folder with images (data.root). Inputs are records, CT and PET."""

    kind: str = "sts7_prognosis"
    variables: list[str] = field(default_factory=list)  # of the records; empty: all of the schema
    view: View = field(default_factory=View)


@dataclass
class PhantomPrognosisStudy:
    """Prognosis heads on frozen features of the phantom cohort, for every input, loss and way to learn."""

    kind: str = "phantom_prognosis"
    inputs: list[str] = field(default_factory=lambda: ["text", "image", "image+text"])  # what the models see
    losses: list[str] = field(default_factory=lambda: ["deephit", "mtlr", "cox"])  # of the prognosis heads
    folds: int = 5  # of the cross-validation
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])  # each a run of every cell
    rounds: int = 30  # and passes of the arms that are not federated
    batch: int = 16  # cases
    learning_rate: float = 1e-3  # AdamW's
    penalties: list[float] = field(default_factory=lambda: [3.0, 30.0, 300.0])  # of the Newton baseline
    draws: int = 1000  # of the bootstrap over patients
