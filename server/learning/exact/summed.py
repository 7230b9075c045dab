"""SummedAsking: an exact fit's questions answered as secure sums, so that the server holds no center's own sums.

A fit is over the same centers from its first question to its last: two sums that differ by one center are that
center's. So a sum is opened only where everybody who was asked has masked an answer. Who is missing at the first
question is left out of the whole fit; who is missing later stops it, with nothing opened, until the same command is
started again. What one center says cannot be held against what it said before; the screen on the total stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from common.errors import RoundFailed, WireError
from common.exact.bounds import impossible_sums
from common.exact.step import rows_per_case
from common.protocol.masked import SUMS, fit_layout, masked_form, sums_in
from common.protocol.messages import Sums
from common.store.sums import read_sums, write_sums
from server.centers.federation import Exchange, added
from server.learning.exact.questions import Asking, LostCenters, Question
from server.masking.asking import INCOMPLETE, SecureSum

TOGETHER = "all centers together"


class SummedAsking(Asking):
    """One step's questions, each answered by one sum over all of its centers."""

    def standing(self, centers: Sequence[str]) -> list[str]:
        """Without those that a killed run had lost at its first question: nobody answers it over others."""
        events = self.ledger.events("newton_lost", step=self.order.step.name)
        return sorted(set(centers) - {center for event in events for center in event["centers"]})

    def told_by(self, centers: Sequence[str]) -> list[str]:
        return [TOGETHER]

    def ask(self, question: Question, centers: Sequence[str]) -> list[Sums]:
        """The centers' sum.

        Raises:
            LostCenters: somebody did not answer the first question.
            RoundFailed: somebody did not answer a later one, or the sum is none that patients could make.
        """
        path = self.folder.sums(self.order.step.name, question.key, _name(centers))
        found = read_sums(path)
        if found is None:
            found = self._sum(question, sorted(centers))
            write_sums(path, found)
        return [found]

    def _sum(self, question: Question, centers: list[str]) -> Sums:
        order = question.order(self.order)
        layout, summed = fit_layout(order), SecureSum(self.federation, order, centers, most=1.0)
        try:
            masking = summed.begin()
            there = [center for center in summed.context.centers if center not in summed.failed]
            exchange = self.federation.ask(there, replace(order, masking=masking), "query.sums")
            whole = set(masked_form(layout))
            masked = {c: reply.extra for c, reply in exchange.usable.items() if set(reply.extra) == whole}
            lost = {c: summed.failed.get(c) or exchange.failed.get(c, INCOMPLETE) for c in centers if c not in masked}
            if lost:
                self._tell(question, exchange, summed, lost)
                raise self._without(question, lost)
            vectors, _ = summed.finish(masked)
        except WireError as error:
            raise RoundFailed(f"Step '{self.order.step.name}': {error}") from error
        self._tell(question, exchange, summed, {})
        return self._possible(sums_in(layout, vectors[SUMS]), centers)

    def _without(self, question: Question, lost: dict[str, str]) -> Exception:
        """What it means that some did not answer."""
        if question.round == 0 and not question.known:
            return LostCenters(lost)
        reasons = ", ".join(f"{center}: {reason}" for center, reason in sorted(lost.items()))
        return RoundFailed(
            f"Question {question.round} of step '{self.order.step.name}' was not answered by all ({reasons}). A fit "
            "on secure sums is over the same centers from its first question to its last, so nothing was opened; start "
            "the same command once they are back."
        )

    def _tell(self, question: Question, exchange: Exchange, summed: SecureSum, lost: dict[str, str]) -> None:
        whole = replace(exchange, bytes=added(exchange.bytes, summed.bytes))
        self._record(question, whole, lost, secure_sum=[] if lost else summed.context.centers)

    def _possible(self, sums: Sums, centers: Sequence[str]) -> Sums:
        """The total, if patients could make it: of noised sums nothing can be said but that they are no monsters."""
        if self.order.step.privacy is not None:
            return sums
        held = [self.roster.registered(center, "train") for center in centers]
        cases = float("inf") if None in held else float(sum(count or 0 for count in held))
        if wrong := impossible_sums(sums, cases=cases * rows_per_case(self.order.step)):
            raise RoundFailed(
                f"The centers' sums for step '{self.order.step.name}' are none that patients could make ({wrong}), and "
                "no sum says whose it is."
            )
        return sums


def _name(centers: Sequence[str]) -> str:
    """A file name for a sum over these centers."""
    return f"sum-{hashlib.sha256(','.join(sorted(centers)).encode()).hexdigest()[:16]}"
