"""The cache holds at most so many bytes, drops what was not read for longest, and believes no damaged note."""

import os

import pytest
import torch

from client.center.resident import drop_oldest
from client.data.images import cache as module
from client.data.images.cache import VolumeCache


def entry(value):
    return {"ct": torch.full((1000,), float(value))}  # 4 kB and a header


def key(number):
    return f"{number:02x}" * 32


def test_what_was_not_read_for_longest_is_dropped_first(tmp_path):
    module._HELD.clear()
    cache = VolumeCache(tmp_path, most_bytes=25_000)
    for number in range(5):
        cache.put(key(number), entry(number))
        os.utime(cache._entry(key(number)), (number, number))
    assert cache.get(key(0)) is not None  # read: now it is the youngest
    cache.put(key(5), entry(5))
    cache.put(key(6), entry(6))
    held = [number for number in range(7) if cache._entry(key(number)).exists()]
    assert held == [0, 3, 4, 5, 6] and sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors")) < 25_000
    assert torch.equal(cache.get(key(6))["ct"], entry(6)["ct"])


@pytest.mark.parametrize("note", [b"", b"0" * 64, b"\xff\x00" * 40, b"f" * 81], ids=len)
def test_a_damaged_note_is_made_again(tmp_path, note):
    image = tmp_path / "ct.nii.gz"
    image.write_bytes(b"voxels")
    cache = VolumeCache(tmp_path / "cache")
    known = cache.key({"ct": image}, recipe="a")
    [written] = (tmp_path / "cache" / "digests").iterdir()
    whole = written.read_bytes()
    written.write_bytes(note)
    assert cache.key({"ct": image}, recipe="a") == known and written.read_bytes() == whole


class Cases:
    def __init__(self, nbytes):
        self.nbytes = nbytes


def test_case_sets_in_memory_are_bounded_by_bytes():
    held = {("a",): Cases(40), ("b",): Cases(30), ("c",): Cases(20)}
    drop_oldest(held, room_for=30, most=100)
    assert list(held) == [("b",), ("c",)]
    drop_oldest(held, room_for=500, most=100)
    assert held == {}, "one that is larger than all room stands alone"
