"""Which methods a step's federation asks for: a closed list, one name each."""

import pytest

from client.methods import METHODS, methods_of
from client.methods.ditto import Ditto
from client.methods.feddyn import FedDyn
from client.methods.local import Local
from client.methods.proximal import Proximal
from client.methods.scaffold import Scaffold
from client.vault.vault import Vault
from common.config.federation import FedAdamFederation, FedDynFederation, MeanFederation, ScaffoldFederation
from common.config.step import Step

ASKED = {
    "a plain mean": (MeanFederation(), []),
    "an optimizer of the server's": (FedAdamFederation(), []),
    "FedProx": (MeanFederation(proximal=0.1), [Proximal]),
    "SCAFFOLD": (ScaffoldFederation(), [Scaffold]),
    "FedDyn": (FedDynFederation(), [FedDyn]),
    "FedBN": (MeanFederation(local=["*/norm*"]), [Local]),
    "Ditto without a pull": (MeanFederation(personal=0.0), [Ditto]),
    "SCAFFOLD with a personal model": (ScaffoldFederation(personal=0.1), [Scaffold, Ditto]),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_federation_names_its_methods(bench, tmp_path, name):
    spec, expected = ASKED[name]
    assert [
        type(method) for method in methods_of(Step(federation=spec), Vault(tmp_path, bench.order(spec)))
    ] == expected
    assert not list(tmp_path.iterdir())


def test_every_method_is_asked_for_by_some_federation():
    assert len({method for _, methods in ASKED.values() for method in methods}) == len(METHODS)
    assert list(METHODS) == sorted(METHODS)
