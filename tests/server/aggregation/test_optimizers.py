"""Server optimisers against their recursions, and the server's side of SCAFFOLD and FedDyn on problems with answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.errors import AdapterError
from server.aggregation import Update, aggregate
from tests.server.aggregation.made import draw, generator, setting

ROUNDS, SIZE = 5, 4


def rounds(kind: str, *, dtype=torch.float64, **options) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Means of the centers' steps and the states after each round."""
    g = generator(0)
    state, memory = {"a/w": draw(g, SIZE, dtype=dtype)}, {}
    steps, states = [], [state["a/w"].double().numpy()]
    for _ in range(ROUNDS):
        moves = [draw(g, SIZE, dtype=dtype) for _ in range(3)]
        updates = [Update(f"C{i}", {"a/w": state["a/w"] + move}, 1.0) for i, move in enumerate(moves)]
        steps.append(np.mean([u.state["a/w"].double().numpy() for u in updates], axis=0) - states[-1])
        done = aggregate(updates, state, memory, setting(kind, **options))
        state, memory = done.state, done.memory
        states.append(state["a/w"].double().numpy())
    return steps, states


def test_momentum_on_the_server():
    steps, states = rounds("fedavgm", learning_rate=0.5, momentum=0.8)
    moment = np.zeros(SIZE)
    for step, before, after in zip(steps, states, states[1:], strict=False):
        moment = 0.8 * moment + step
        assert np.allclose(after, before + 0.5 * moment, atol=1e-13)


@pytest.mark.parametrize("kind", ["fedadagrad", "fedadam", "fedyogi"])
def test_adaptive_steps_follow_reddi(kind):
    beta2 = {} if kind == "fedadagrad" else {"beta2": 0.9}
    steps, states = rounds(kind, learning_rate=0.1, beta1=0.8, tau=0.01, **beta2)
    first, second = np.zeros(SIZE), np.full(SIZE, 0.01**2)
    for step, before, after in zip(steps, states, states[1:], strict=False):
        first = 0.8 * first + 0.2 * step
        second = {
            "fedadagrad": second + step**2,
            "fedadam": 0.9 * second + 0.1 * step**2,
            "fedyogi": second - 0.1 * step**2 * np.sign(second - step**2),
        }[kind]
        assert np.allclose(after, before + 0.1 * first / (np.sqrt(second) + 0.01), atol=1e-13)


def test_float32_states_stay_float32_while_moments_are_float64():
    g = generator(1)
    start = {"a/w": draw(g, SIZE, dtype=torch.float32)}
    done = aggregate([Update("A", {"a/w": start["a/w"] + 1}, 1.0)], start, {}, setting("fedadam"))
    assert done.state["a/w"].dtype == torch.float32
    assert {t.dtype for t in done.memory.values()} == {torch.float64}


# Two centers with f_i(x) = a_i / 2 (x - b_i)^2: local steps pull each to its own b_i, so FedAvg ends elsewhere than at
# the minimum of the sum.
CURVES, TARGETS, RATE, LOCAL = np.array([1.0, 4.0]), np.array([0.0, 1.0]), 0.05, 20
BEST = (CURVES * TARGETS).sum() / CURVES.sum()


def one(value: float) -> dict[str, torch.Tensor]:
    return {"a/w": torch.tensor([value], dtype=torch.float64)}


def run_scaffold(rounds: int, present) -> float:
    x, memory, own = 0.0, {}, np.zeros(2)
    for number in range(rounds):
        server = float(memory["control/a/w"]) if memory else 0.0
        updates = []
        for i in present(number):
            y = x
            for _ in range(LOCAL):
                y -= RATE * (CURVES[i] * (y - TARGETS[i]) - own[i] + server)
            new = own[i] - server + (x - y) / (LOCAL * RATE)
            updates.append(Update(f"C{i}", one(y), 1.0, {"control/a/w": one(new - own[i])["a/w"]}))
            own[i] = new
        chosen = setting("scaffold")
        chosen.total_weight = 2.0
        done = aggregate(updates, one(x), memory, chosen)
        x, memory = float(done.state["a/w"]), done.memory
        assert float(memory["control/a/w"]) == pytest.approx(own.mean(), abs=1e-9)
    return x


def run_feddyn(rounds: int, alpha: float) -> float:
    x, memory, own = 0.0, {}, np.zeros(2)
    for _ in range(rounds):
        updates = []
        for i in range(2):
            y = (CURVES[i] * TARGETS[i] + own[i] + alpha * x) / (CURVES[i] + alpha)  # the local minimum, exactly
            own[i] -= alpha * (y - x)
            updates.append(Update(f"C{i}", one(y), 1.0))
        done = aggregate(updates, one(x), memory, setting("feddyn", alpha=alpha))
        x, memory = float(done.state["a/w"]), done.memory
    return x


def run_mean(rounds: int) -> float:
    x = 0.0
    for _ in range(rounds):
        ends = x + (TARGETS - x) * (1 - (1 - RATE * CURVES) ** LOCAL)
        x = float(
            aggregate([Update(f"C{i}", one(y), 1.0) for i, y in enumerate(ends)], one(x), {}, setting()).state["a/w"]
        )
    return x


def test_scaffold_and_feddyn_find_the_common_minimum_that_the_mean_misses():
    assert abs(run_mean(300) - BEST) > 0.05
    assert run_scaffold(300, lambda number: [0, 1]) == pytest.approx(BEST, abs=1e-6)
    assert run_feddyn(300, alpha=1.0) == pytest.approx(BEST, abs=1e-6)


def test_scaffold_keeps_an_absent_centers_say():
    assert run_scaffold(600, lambda number: [0, 1] if number % 3 else [number % 2]) == pytest.approx(BEST, abs=0.02)


def test_scaffold_refuses_an_update_without_its_control():
    with pytest.raises(AdapterError, match="update of C0 has no control for 'a/w', which SCAFFOLD needs"):
        aggregate([Update("C0", one(1.0), 1.0)], one(0.0), {}, setting("scaffold"))
