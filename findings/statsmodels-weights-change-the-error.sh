#!/usr/bin/env bash
# statsmodels' Kaplan-Meier curve with frequency weights has the standard error of something else.
#
# SurvfuncRight(time, status, freq_weights=w) gives the right curve, and in `surv_prob_se` the standard error of the
# cumulative hazard (Tsiatis), not multiplied by the survival; without weights it is Greenwood's for the survival
# itself. Weights of 1 therefore change the standard error, and at low survival it is above 1, for a probability.
# Repeating the rows, which is what a frequency weight means, gives Greenwood's value again.
#
# No misuse: whole-number weights, the documented purpose; `summary()` and the confidence bands show the same numbers.
# No thread was found.
# For a federation: counted tables (event times with how many) are what sites may share; bands from them are several
# times too wide late in follow-up.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q statsmodels==0.15.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import numpy as np, statsmodels
from statsmodels.duration.survfunc import SurvfuncRight

print("statsmodels", statsmodels.__version__)
time, dead, count = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1, 1, 1, 1, 0]), np.array([3, 2, 3, 2, 1])
weighted = SurvfuncRight(time, dead, freq_weights=count)
repeated = SurvfuncRight(np.repeat(time, count), np.repeat(dead, count))
ones = SurvfuncRight(np.repeat(time, count), np.repeat(dead, count), freq_weights=np.ones(count.sum()))
print("survival                    ", weighted.surv_prob.round(3), repeated.surv_prob.round(3))
print("standard error, rows repeated", repeated.surv_prob_se.round(3))
print("standard error, freq_weights ", weighted.surv_prob_se.round(3))
print("standard error, weights of 1 ", ones.surv_prob_se.round(3))
at_risk, deaths = np.array([11, 8, 6, 3]), np.array([3, 2, 3, 2])
greenwood = repeated.surv_prob * np.sqrt(np.cumsum(deaths / (at_risk * (at_risk - deaths))))
assert np.allclose(weighted.surv_prob, repeated.surv_prob) and np.allclose(repeated.surv_prob_se, greenwood)
assert np.allclose(weighted.surv_prob_se, np.sqrt(np.cumsum(deaths / at_risk**2))), "weights now give another error"
assert weighted.surv_prob_se[-1] > 3 * repeated.surv_prob_se[-1]
PY
