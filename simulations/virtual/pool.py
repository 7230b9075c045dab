"""Work on pieces side by side: fresh processes, each taking the next piece as it is done."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Piece = TypeVar("Piece")


def side_by_side(
    work: Callable[[Piece], None],
    pieces: Sequence[Piece],
    *,
    workers: int,
    finished: Callable[[int, Piece], None] = lambda number, piece: None,
) -> None:
    """Call ``work`` on every piece, in processes that start afresh. The first exception of a piece is raised here.

    Args:
        work: a module's function, or a `functools.partial` of one.
        finished: told of each piece that is done, with how many are.
    """
    if not pieces:
        return
    with ProcessPoolExecutor(min(workers, len(pieces)), multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(work, piece): piece for piece in pieces}
        for number, future in enumerate(as_completed(futures), start=1):
            future.result()
            finished(number, futures[future])
