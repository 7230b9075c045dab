"""Arrays on the wire: their bytes, and the form that they must have before a byte of them is decoded.

Flower's header names each array's type, shape and length. A message is compared with what its question declares by that
header alone: what nobody asked for costs neither time nor memory. An array's bytes are those that numpy itself writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from common.errors import WireError
from common.protocol.messages import EXTRA, State
from common.protocol.triangles import traveling_shape
from common.text import one_line

NUMPY = "numpy.ndarray"  # how Flower calls the bytes of numpy.save
MAX_ARRAY_BYTES = 2 << 30
MAX_ARRAYS = 20_000  # in one message
MAX_NAME = 512  # characters of an array's name
NUMBERS = (
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
SUM = "float64"

Kind = tuple[str, tuple[int, ...]]  # type and shape


class Undeclared(WireError):
    """Arrays that the question does not declare."""

    code = "undeclared"


@dataclass(frozen=True)
class Form:
    """What an answer may carry: type and shape of each array, by name; parts may be absent."""

    arrays: Mapping[str, Kind] = field(default_factory=dict)
    sums: Mapping[str, Kind] = field(default_factory=dict)


def form_of(
    state: Mapping[str, Tensor], extra: Mapping[str, Tensor], sums: Mapping[str, tuple[int, ...]] | None = None
) -> Form:
    """The form of tensors (as `common.protocol.compression.form` gives them, or whole) and sums, as they travel."""
    arrays = {name: kind_of(tensor) for name, tensor in state.items()}
    arrays |= {EXTRA + name: kind_of(tensor) for name, tensor in extra.items()}
    return Form(arrays, {name: (SUM, traveling_shape(name, shape)) for name, shape in (sums or {}).items()})


def check_headers(record: Mapping[str, Array], declared: Mapping[str, Kind]) -> None:
    """Compare an undecoded record with what may stand in it.

    Raises:
        Undeclared: another name, type, shape or length; at the first one, however many follow.
        WireError: a type that no number has.
    """
    for name, array in record.items():
        kind = declared.get(name)
        if kind is None:
            raise Undeclared(f"Nobody asked for array '{one_line(name, 80)}', one of {len(record)}.")
        check_number(name, array)
        dtype, shape = kind
        if array.dtype != dtype or tuple(array.shape) != shape:
            found = f"{array.dtype} of shape {one_line(str(tuple(array.shape)), 80)}"
            raise Undeclared(f"Array '{name}' is {found}, declared {dtype} of {shape}.")
        if len(array.data) != encoded_bytes(dtype, shape):
            raise Undeclared(f"Array '{name}' has {len(array.data)} bytes, declared {encoded_bytes(dtype, shape)}.")


def check_kinds(kinds: Mapping[str, Kind], declared: Mapping[str, Kind]) -> None:
    """`check_headers` of arrays that are at hand. Raises Undeclared at the first one that nobody asked for."""
    for name, kind in kinds.items():
        if name not in declared:
            raise Undeclared(f"Nobody asked for array '{one_line(name, 80)}', one of {len(kinds)}.")
        if kind != declared[name]:
            (found, shape), (dtype, wanted) = kind, declared[name]
            raise Undeclared(
                f"Array '{name}' is {found} of shape {one_line(str(shape), 80)}, declared {dtype} of {wanted}."
            )


def check_number(name: str, array: Array) -> None:
    """Raises WireError for an array that is none of plain numbers, by its header."""
    if array.stype != NUMPY or array.dtype not in NUMBERS or len(array.data) > MAX_ARRAY_BYTES:
        raise WireError(
            f"Array '{one_line(name, 80)}' is not a plain numpy array of at most 2 GiB; only numbers of at most 64 "
            "bits travel."
        )


def check_amount(records: Iterable[Mapping[str, object]]) -> None:
    """Raises WireError for more arrays, or longer names, than any message has."""
    for record in records:
        if len(record) > MAX_ARRAYS:
            raise WireError(f"A record of {len(record)} arrays is none; {MAX_ARRAYS} are the most.")
        if any(len(name) > MAX_NAME for name in record):
            raise WireError(f"An array's name is longer than {MAX_NAME} characters.")


def pack_state(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as a record, in name order."""
    return ArrayRecord({name: encoded(numpy_of(state[name])) for name in sorted(state)})


def unpack_state(record: ArrayRecord) -> State:
    """A record as tensors."""
    return {name: torch.from_numpy(checked(name, array)) for name, array in record.items()}


def checked(name: str, array: Array) -> np.ndarray:
    """An array's numbers, its own to change. Raises WireError for anything else than plain numbers."""
    check_number(name, array)
    try:
        decoded = _decoded(array)
    except Exception as error:  # numpy parses the header as Python source: a broken one raises whatever it likes
        raise WireError(f"Array '{one_line(name, 80)}' cannot be decoded.") from error
    if decoded.dtype.name not in NUMBERS or not decoded.dtype.isnative:
        raise WireError(f"Array '{one_line(name, 80)}' holds {decoded.dtype}; only numbers of at most 64 bits travel.")
    return decoded


def encoded(values: np.ndarray) -> Array:
    """``Array(values)`` in C order: the same bytes, with headers made once and the numbers copied once."""
    data = b"".join((header(values.dtype, values.shape), raw(values)))
    return Array(dtype=str(values.dtype), shape=values.shape, stype=NUMPY, data=data)


def encoded_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """How long an array of that form is on the wire."""
    kind = _dtype_of(dtype)
    return len(header(kind, shape)) + math.prod(shape) * kind.itemsize


@lru_cache(maxsize=64)
def _dtype_of(name: str) -> np.dtype:
    return np.dtype(name)


@lru_cache(maxsize=4096)
def header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What numpy writes before an array's numbers."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite, by their sum; where that overflows, one after the other."""
    return not tensor.is_floating_point() or math.isfinite(tensor.sum()) or bool(torch.isfinite(tensor).all())


def _decoded(array: Array) -> np.ndarray:
    """``array.numpy()``; numbers behind the header that numpy writes for them are read without parsing it again."""
    dtype, shape = np.dtype(array.dtype), tuple(array.shape)
    known, data = header(dtype, shape), memoryview(array.data)
    if data[: len(known)] == known and len(data) - len(known) == math.prod(shape) * dtype.itemsize:
        return np.frombuffer(data, dtype, offset=len(known)).reshape(shape).copy()
    return array.numpy()


def raw(values: np.ndarray) -> memoryview:
    """An array's bytes in C order: a view where that is possible."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def numpy_of(tensor: Tensor) -> np.ndarray:
    """A tensor as it travels: the same memory where it lies on the CPU. Raises WireError for bfloat16."""
    if tensor.dtype == torch.bfloat16:
        raise WireError("bfloat16 tensors cannot travel; keep adapter parameters in float32.")
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found


def kind_of(tensor: Tensor) -> Kind:
    """Type and shape of a tensor as a header says them."""
    return _name_of(tensor.dtype), tuple(tensor.shape)


@lru_cache(maxsize=64)
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
