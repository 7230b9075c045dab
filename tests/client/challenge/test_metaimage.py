"""MetaImage: a file that ITK wrote is read voxel by voxel, and what is written comes back with its geometry."""

from __future__ import annotations

import numpy as np
import pytest

from client.challenge.metaimage import read_mha, write_mha
from common.errors import DataError

BY_ITK = bytes.fromhex(
    "4f626a65637454797065203d20496d6167650a4e44696d73203d20330a42696e61727944617461203d20547275650a42696e"
    "61727944617461427974654f726465724d5342203d2046616c73650a436f6d7072657373656444617461203d20547275650a"
    "436f6d707265737365644461746153697a65203d2034340a5472616e73666f726d4d6174726978203d203020312030202d31"
    "203020302030203020310a4f6666736574203d203130202d32302033300a43656e7465724f66526f746174696f6e203d2030"
    "203020300a416e61746f6d6963616c4f7269656e746174696f6e203d20414c490a456c656d656e7453706163696e67203d20"
    "312e35203220330a44696d53697a65203d2032203320340a456c656d656e7454797065203d204d45545f53484f52540a456c"
    "656d656e744461746146696c65203d204c4f43414c0a785e05c185018040000420ccb76bff4d8d13ee3c79f325a1526bb43a"
    "bd62309acc16abcdee70bafcb8a80a98"
)
"""SimpleITK 2.5.7: arange(24) - 5 as int16 of 2 x 3 x 4, compressed, spacing 1.5, 2, 3, turned by 90 degrees."""


def test_a_file_of_itk_is_read_to_the_voxel(tmp_path):
    (tmp_path / "a.mha").write_bytes(BY_ITK)
    values, affine = read_mha(tmp_path / "a.mha")
    assert values.dtype == np.int16
    assert (values == (np.arange(24) - 5).reshape(4, 3, 2).transpose(2, 1, 0)).all()
    # the first axis points to +y of LPS, the second to -x: in RAS to -y and +x
    assert (affine == [[0, 2, 0, -10], [-1.5, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]).all()


def test_a_mask_comes_back_with_the_geometry_of_its_ct(tmp_path):
    (tmp_path / "a.mha").write_bytes(BY_ITK)
    values, affine = read_mha(tmp_path / "a.mha")
    mask = (values > 3).astype(np.uint8)
    write_mha(tmp_path / "mask.mha", mask, affine)
    again, where = read_mha(tmp_path / "mask.mha")
    assert again.dtype == np.uint8 and (again == mask).all() and (where == affine).all()
    header = (tmp_path / "mask.mha").read_bytes().partition(b"ElementDataFile")[0].decode()
    for line in ("TransformMatrix", "Offset", "ElementSpacing", "DimSize"):
        theirs = BY_ITK.partition(line.encode())[2].split(b"\n")[0].split()[1:]
        [ours] = [found.split()[2:] for found in header.splitlines() if found.startswith(line)]
        assert [float(n) for n in ours] == [float(n) for n in theirs]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((b"CompressedData = True", b"CompressedData = False"), "holds"),
        ((b"= LOCAL", b"= x.raw"), "is not LOCAL"),
        ((b"DimSize = 2 3 4", b"DimSize = 2 3"), "no volume of one value"),
        ((b"ElementSpacing = 1.5 2 3", b"ElementSpacing = 0 2 3"), "no volume"),
        ((b"DimSize = 2 3 4", b"DimSize = 9000 9000 9000"), "says that it holds"),
        ((b"MET_SHORT", b"MET_OTHER"), "KeyError"),
    ],
)
def test_what_is_no_such_volume_is_one_sentence(tmp_path, change, said):
    (tmp_path / "a.mha").write_bytes(BY_ITK.replace(*change))
    with pytest.raises(DataError, match=said):
        read_mha(tmp_path / "a.mha")
