"""What a validation value is made of."""

import numpy as np

from common.tasks import build_task
from server.learning.validation import value_of
from tests.helpers.small import small_run


def test_a_loss_is_a_mean_per_case_and_metrics_ignore_it():
    task = build_task(small_run(steps=["tumour_ct"]).steps["tumour_ct"].task)
    sums = dict(task.sums([])) | {"fit.loss": np.array(6.0), "fit.cases": np.array(4.0)}
    sums["intersection"], sums["volumes"] = np.array([1.0, 3.0]), np.array([4.0, 6.0])
    assert value_of(task, sums, "loss") == 1.5
    assert value_of(task, sums, "dsc_agg") == (0.5 + 1.0) / 2
    assert value_of(task, {"fit.loss": np.array(0.0), "fit.cases": np.array(0.0)}, "loss") is None
