"""Packing: a message's many arrays as one, for the journey through a SuperLink.

Flower stores and fetches every array of a message as an object of its own, each with requests of its own through proxy
and database: an adapter of thirty tensors costs a hundred round trips where one of the same size costs ten. Nothing
else changes: the arrays' bytes are the same before and after, and are checked against the step's declaration there.
"""

from __future__ import annotations

import json

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from common.errors import WireError

PACKED = "packed"
LENGTH_BYTES = 8
MAX_ARRAYS = 100_000


def pack(content: RecordDict) -> RecordDict:
    """The content with all its array records in one array of bytes: a header that lists them, then their data."""
    names = sorted(content.array_records)
    arrays = [(name, key, array) for name in names for key, array in content.array_records[name].items()]
    listing = [[name, key, array.dtype, list(array.shape), array.stype, len(array.data)] for name, key, array in arrays]
    header = json.dumps({"records": names, "arrays": listing}).encode()
    blob = b"".join([len(header).to_bytes(LENGTH_BYTES, "big"), header, *(array.data for _, _, array in arrays)])
    others = {name: record for name, record in content.items() if name not in content.array_records}
    return RecordDict({PACKED: ArrayRecord({PACKED: Array(np.frombuffer(blob, np.uint8))}), **others})


def unpack(content: RecordDict) -> RecordDict:
    """The content as it was before `pack`. Raises WireError where it is not what `pack` makes."""
    record = content.array_records.get(PACKED)
    if record is None or set(record) != {PACKED} or len(content.array_records) != 1:
        raise WireError("A message's arrays are not packed; server and client must run the same release.")
    try:
        blob = record[PACKED].numpy().tobytes()
        start = LENGTH_BYTES + int.from_bytes(blob[:LENGTH_BYTES], "big")
        header = json.loads(blob[LENGTH_BYTES:start])
        records: dict[str, dict[str, Array]] = {str(name): {} for name in header["records"]}
        if len(header["arrays"]) > MAX_ARRAYS:
            raise ValueError("too many arrays")
        for name, key, dtype, shape, stype, length in header["arrays"]:
            if not 0 <= length <= len(blob) - start:
                raise ValueError("an array is longer than the message")
            data = blob[start : start + length]
            records[name][str(key)] = Array(
                dtype=str(dtype), shape=tuple(int(n) for n in shape), stype=str(stype), data=data
            )
            start += length
        if start != len(blob):
            raise ValueError("there is more than the arrays")
    except Exception as error:  # a header from the network can be wrong in any way
        raise WireError("A message's packed arrays cannot be read.") from error
    others = {name: record for name, record in content.items() if name != PACKED}
    return RecordDict({**{name: ArrayRecord(arrays) for name, arrays in records.items()}, **others})
