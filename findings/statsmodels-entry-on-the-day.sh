#!/usr/bin/env bash
# One patient who enters on the day of another's death is at risk in statsmodels' Cox model and not in its own curve.
#
# Left truncation: a patient counts from entry on. For times in whole days ties of entry and death are common. The
# rule of R, of lifelines and of statsmodels' own SurvfuncRight ("not in the risk set on or before the entry time") is
# entry < t. PHReg of the same package counts entry <= t; the hazard ratios differ, here 0.22 against 0.29 (log).
#
# No misuse: valid entry times, all before the event; the docstring of PHReg says "the entry times, if left truncation occurs".
# For a federation: a registry analyzed at one site with statsmodels and at another with lifelines gives two estimates
# from the same table, and the curve beside the first does not share its risk sets.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q statsmodels==0.15.0 lifelines==0.30.3 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import warnings
warnings.filterwarnings("ignore")
import lifelines, numpy as np, pandas as pd, statsmodels
from lifelines import CoxPHFitter
from scipy.optimize import minimize_scalar
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import SurvfuncRight

time, group = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0.0, 1, 0, 1, 1, 0])
entry, dead = np.array([0.0, 0, 0, 2, 2, 3]), np.ones(6, int)

def estimate(at_risk):  # Cox's partial likelihood, written out
    def minus(beta):
        return -sum(beta * group[i] - np.log(np.exp(beta * group[at_risk(entry, t) & (time >= t)]).sum())
                    for i, t in enumerate(time))
    return minimize_scalar(minus).x

model = PHReg(time, group[:, None], status=dead, entry=entry).fit(disp=0).params[0]
table = pd.DataFrame({"t": time, "e": dead, "x": group, "from": entry})
other = CoxPHFitter().fit(table, "t", "e", entry_col="from").params_["x"]
curve = SurvfuncRight(time, dead, entry=entry)
strict, loose = estimate(lambda start, t: start < t), estimate(lambda start, t: start <= t)
print("statsmodels", statsmodels.__version__, "lifelines", lifelines.__version__)
print(f"log hazard ratio: entry < t {strict:.4f}, entry <= t {loose:.4f}; lifelines {other:.4f}, statsmodels {model:.4f}")
print("at risk in SurvfuncRight at t = 1..6:", curve.n_risk.tolist())
assert abs(other - strict) < 1e-3 and curve.n_risk[1] == 2  # at t = 2: those who enter on day 2 are not counted
assert abs(model - loose) < 1e-3, "PHReg now leaves out who enters at the time of the event"
PY
