"""The adapters of the shipped curricula, bit by bit: whatever changes one is a commit of its own with old, new and why.

Floating-point kernels differ between processors, so hashes are recorded by torch's CPU capability.
"""

from __future__ import annotations

import pytest
import torch

from common.store.bank import AdapterBank
from simulations.simulate import simulate

ADAPTERS = {  # curriculum -> lineage -> key, seed 1, one thread, torch 2.13.0; first recorded at 51787b9
    "smoke": {
        "tumour_ct": "da9ab7dbcc5f09037c9434170473fae922658b313d24d4822ce9852d6c024746",
        "tumour_ctpet": "0b908962ff496717e821d0f95303eb19ed2ece6c91ef70e54256cf740a78757c",
    },
    "quickstart": {
        "findings": "531f13ad652e77db8be413877cd518233ed809d28b14da881d62ed78af841ca0",
        "relapse": "9532b3aa63699b2f609bf481bfc0aa75caf089db400c7a10ec0442d3e91d9ce0",
        "tumour_ct": "a171912993ddb8ec4a5630f634aa52ab5b8caed1d27d367dab33da76cd75af31",
        "tumour_ctpet": "6332a4cd2137b83e3de74991134c5c581f561290c15b4cff9061cb73e4328e54",
        "hmr_joins": "45c3d9734d24fc74ca4f50b37bd499c8395b1245ab9521c9cbf256b11b0717d5",
    },
}
RECORDED_ON = "AVX2"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("curriculum", ADAPTERS)
def test_the_curriculum_ends_with_the_recorded_adapters(curriculum, tmp_path, monkeypatch):
    here = torch.backends.cpu.get_cpu_capability()
    if here != RECORDED_ON:
        pytest.skip(f"recorded with {RECORDED_ON} kernels, this processor has {here}: another's bits may differ")
    monkeypatch.chdir(tmp_path)
    place = simulate([f"curriculum={curriculum}", "name=recorded"], folder=tmp_path / "run")
    assert AdapterBank(place.bank).heads() == ADAPTERS[curriculum]
