"""Secure sums between real processes, over TLS with the nodes' own keys: equal to the simulation, and Ray's too.

Slow for its polls, not for its work: every phase of a sum is a message.
"""

from __future__ import annotations

import shutil

import pytest
from omegaconf import OmegaConf

from common.config.load import compose_run
from common.store.ledger import Ledger
from simulations.virtual.loopback import Loopback, loopback
from tests.helpers.deployed import SIZES, need_nginx, one_step, roots, start_nodes
from tests.helpers.masked import give_keys
from tests.helpers.small import adapters, federate, write_centers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
RUN_S = 900.0


def secure(name: str) -> list[str]:
    return one_step(name, "federation=secure", "steps.tumour_ct.rounds=1")


def exchange_keys(fed: Loopback) -> None:
    """Each hospital puts the others' public keys, from themselves, into a folder that its center.yaml names."""
    for code in SIZES:
        folder = fed.base / code / "partners"
        folder.mkdir()
        for other in SIZES:
            shutil.copy(fed.base / other / "keys" / f"{other}.pub", folder / f"{other}.pub")
        file = fed.centers[code]
        policy = {"require_secure_aggregation": True}
        changed = OmegaConf.create({"partners": str(folder), "policy": policy})
        file.write_text(OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.load(file), changed)))


def simulated(fed: Loopback, place) -> dict[str, str]:
    """The same run in this process, with keys of its own."""
    files = {}
    for code in SIZES:
        files |= write_centers(place / code, fed.base / f"{code}-data", [code])
    give_keys(files, place / "keys")
    return adapters(federate(compose_run(secure("secure")), place / "run", files))


def test_hospitals_that_require_secure_sums_end_with_the_simulations_adapter(tmp_path):
    need_nginx()
    with loopback(tmp_path / "fed", roots(tmp_path / "fed")) as fed:
        exchange_keys(fed)
        fed.start_server()
        start_nodes(fed, *SIZES)
        fed.start_run(secure("secure"))
        fed.finish_run(within_s=RUN_S)
        ledger = Ledger(fed.run_folder("secure").ledger)
        [event] = ledger.events("round_finished")
        assert event["secure_sum"]["centers"] == 3 and not event["failed"] and event["validation"]["centers"] == {}
        [finished] = ledger.events("step_finished")
        assert {row["center"] for row in finished["scores"]} == {"pooled"}
        assert fed.adapters("secure") == simulated(fed, tmp_path)
