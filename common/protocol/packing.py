"""Packing: a message's many arrays as one, for the journey through a SuperLink.

Flower stores and fetches every array of a message as an object of its own, each with requests of its own through proxy
and database: an adapter of thirty tensors costs a hundred round trips where one of the same size costs ten. Nothing
else changes: the arrays' bytes are the same before and after, and are checked against the step's declaration there.
"""

from __future__ import annotations

import json
import math

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from common.errors import WireError
from common.protocol.arrays import MAX_ARRAYS, NUMPY
from common.protocol.arrays import header as numpy_header

PACKED = "packed"
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 << 20


def pack(content: RecordDict) -> RecordDict:
    """The content with all its array records in one array of bytes: a header that lists them, then their data."""
    names = sorted(content.array_records)
    arrays = [(name, key, array) for name in names for key, array in content.array_records[name].items()]
    listing = [[name, key, array.dtype, list(array.shape), array.stype, len(array.data)] for name, key, array in arrays]
    header = json.dumps({"records": names, "arrays": listing}).encode()
    size = LENGTH_BYTES + len(header) + sum(len(array.data) for _, _, array in arrays)
    front = [numpy_header(np.dtype(np.uint8), (size,)), len(header).to_bytes(LENGTH_BYTES, "big"), header]
    blob = b"".join([*front, *(array.data for _, _, array in arrays)])  # the one copy that is made
    others = {name: record for name, record in content.items() if name not in content.array_records}
    whole = Array(dtype="uint8", shape=(size,), stype=NUMPY, data=blob)
    return RecordDict({PACKED: ArrayRecord({PACKED: whole}), **others})


def unpack(content: RecordDict) -> RecordDict:
    """The content as it was before `pack`; its arrays' bytes are views into the message. Raises WireError where it is
    not what `pack` makes."""
    record = content.array_records.get(PACKED)
    if record is None or set(record) != {PACKED} or len(content.array_records) != 1:
        raise WireError("A message's arrays are not packed; server and client must run the same release.")
    try:
        blob = _bytes_of(record[PACKED])
        start = LENGTH_BYTES + int.from_bytes(blob[:LENGTH_BYTES], "big")
        if start > MAX_HEADER_BYTES:
            raise ValueError("the header is longer than any")
        header = json.loads(bytes(blob[LENGTH_BYTES:start]))
        records = {str(name): ArrayRecord() for name in header["records"]}
        if len(header["arrays"]) > MAX_ARRAYS:
            raise ValueError("too many arrays")
        for name, key, dtype, shape, stype, length in header["arrays"]:
            if not 0 <= length <= len(blob) - start:
                raise ValueError("an array is longer than the message")
            sizes = tuple(int(n) for n in shape)
            array = records[name][str(key)] = Array(dtype=str(dtype), shape=sizes, stype=str(stype), data=b"")
            array.data = blob[start : start + length]  # type: ignore[assignment]  # whoever decodes this view copies it
            start += length
        if start != len(blob):
            raise ValueError("there is more than the arrays")
    except Exception as error:  # a header from the network can be wrong in any way
        raise WireError("A message's packed arrays cannot be read.") from error
    others = {name: record for name, record in content.items() if name != PACKED}
    return RecordDict({**records, **others})


def _bytes_of(array: Array) -> memoryview:
    """The bytes of a packed array, without copying them. Raises ValueError where it is none."""
    front = numpy_header(np.dtype(np.uint8), tuple(array.shape))
    data = memoryview(array.data)
    if array.dtype != "uint8" or array.stype != NUMPY or data[: len(front)] != front:
        raise ValueError("not bytes")
    if len(data) != len(front) + math.prod(array.shape):
        raise ValueError("not as many bytes as it says")
    return data[len(front) :]
