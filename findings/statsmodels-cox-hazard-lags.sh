#!/usr/bin/env bash
# statsmodels' Cox model leaves out the newest event: its baseline hazard lags by one and its residuals do not sum to
# 0.
#
# PHReg's `baseline_cumulative_hazard` is documented as the Nelson-Aalen estimator. Its value at an event time lacks
# that time's own jump (H just before t), and the last jump is in no value at all; without covariates 4 deaths give 0,
# 1/4, 7/12, 13/12 instead of 1/4, 7/12, 13/12, 25/12. `martingale_residuals` are built on it: observed minus expected
# must sum to zero (as the score equations do), here the expected half is too small for everyone who has an event.
#
# No misuse: plain data without ties, strata or truncation; the coefficients are right. The source speaks of "some
# disagreements with R". No thread was found; lifelines gives the right values for the same data.
# For a federation: predicted survival is too high at every time, and a plot of residuals shows excess deaths at a
# site where there are none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q statsmodels==0.15.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import numpy as np, statsmodels
from statsmodels.duration.hazard_regression import PHReg

print("statsmodels", statsmodels.__version__)
time, dead = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4)
model = PHReg(time, np.array([[1.0], [-1.0], [-1.0], [1.0]]), status=dead)
seen = model.baseline_cumulative_hazard(np.array([0.0]))[0][1]  # coefficient 0: every patient alike
right = np.cumsum(1 / np.array([4.0, 3.0, 2.0, 1.0]))
print("4 deaths, no effect. Nelson-Aalen:", right.round(4), " statsmodels:", np.round(seen, 4))

draw = np.random.default_rng(0)
table = draw.normal(size=(200, 1))
time = draw.exponential(1 / np.exp(0.7 * table[:, 0]))
dead = (draw.random(200) < 0.7).astype(int)
dead[time.argmin()] = 1
fitted = PHReg(time, table, status=dead).fit(disp=0)
risk = np.exp(table @ fitted.params)
hazard = np.array([sum(1 / risk[time >= t].sum() for t in time[dead == 1] if t <= own) for own in time])
print(f"200 patients, {dead.sum()} deaths: sum of martingale residuals by the formula {(dead - hazard * risk).sum():.6f}, "
      f"statsmodels {fitted.martingale_residuals.sum():.2f}")
assert abs((dead - hazard * risk).sum()) < 1e-6
assert np.allclose(seen, right - 1 / np.array([4.0, 3.0, 2.0, 1.0])), "the baseline hazard no longer lags"
assert fitted.martingale_residuals.sum() > 1, "the residuals now sum to zero"
PY
