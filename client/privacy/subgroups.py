"""Scores by subgroup, of which nothing tells of a few: not by itself, and not as a difference to the total or others.

A level is told where the release record finds no combination of answers over a few patients, the largest level first:
where a small one is left out, so is the smallest of the others whose difference to the total would tell it. Within the
told levels the same rule holds for every cell: who has a structure, who had an event, who is of a class. What fails it
is left out (zeros, which add nothing). Bins of a level are dealt like those of the total (`common.tasks.dealing`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.data.case import Case
from client.privacy.combinations import tells_of_few
from client.privacy.record import Question, chosen
from client.privacy.release import told as told_as
from client.privacy.sums import question_of_scores
from common.data.subgroups import members_of, named, sums_told
from common.errors import PolicyRefusal
from common.protocol.messages import Order, Sums
from common.protocol.wire import TEST
from common.tasks import Observation, Task
from common.tasks.cells import CASES, Histogram, Mean, Table, few, guarded

Members = frozenset[int]  # places of patients
Wanted = tuple[tuple, list[Members], list[Members]]  # a cell's name, who of it would be told, who of it is told


def by_subgroup(
    order: Order, task: Task, cases: Sequence[Case], observations: Sequence[Observation], *, vault: Path, minimum: int
) -> Sums:
    """The scores of test cases by the step's subgroups; none for other cases, and where the step names no group.

    Args:
        cases, observations: of everybody over whom the total is told, in one order.
    """
    if order.subset != TEST or not task.by_subgroup or not order.step.subgroups:
        return {}
    groups = members_of(order.step, [case.record for case in cases])
    told = tellable(question_of_scores(order), cases, groups, vault=vault, minimum=minimum)
    return subgroup_sums(task, observations, told, minimum=minimum)


def tellable(
    question: Question, cases: Sequence[Case], groups: Mapping[str, Sequence[int]], *, vault: Path, minimum: int
) -> dict[str, list[int]]:
    """Level -> places of the cases over which it may be told, on record before it is; others have no entry.

    Args:
        cases: over whom the total is told.
        groups: level -> places of its cases.
    """
    found: dict[str, list[int]] = {}
    for level, places in _largest_first(groups):
        if len(places) < max(minimum, 1):
            continue
        try:
            own = chosen(question, [cases[i] for i in places], vault=vault, minimum=minimum, all_or_none=True)
        except PolicyRefusal:
            continue
        kept = {case.patient for case in own.cases}
        found[level] = [place for place in places if cases[place].patient in kept]
    return found


def subgroup_sums(
    task: Task, observations: Sequence[Observation], groups: Mapping[str, Sequence[int]], *, minimum: int
) -> Sums:
    """The sums of each level, under the names by which they travel.

    Args:
        observations: of everybody over whom the total is told.
        groups: what `tellable` found.
    """
    names = sums_told(task.by_subgroup)
    told = Told(task, observations, minimum) if minimum > 1 else None
    found: Sums = {}
    for level, places in _largest_first(groups):
        every = task.sums([observations[place] for place in places])
        sums = {name: np.array(every[name], np.float64) for name in names}
        if told is not None:
            told.guard(sums, frozenset(places))
            sums, _ = guarded(sums, [_cut(rule, names) for rule in told.rules], cases=len(places), minimum=minimum)
        found |= named(level, sums | {CASES: np.array(float(told_as(len(places), minimum)))})
    return found


class Told:
    """What has been told of one state's scores, cell by cell, so that the next level's fit it.

    Args:
        observations: of everybody; their total is told as `common.tasks.cells` says.
    """

    def __init__(self, task: Task, observations: Sequence[Observation], minimum: int):
        self.task, self.minimum = task, minimum
        self.everybody = frozenset(range(len(observations)))
        names = set(sums_told(task.by_subgroup))
        self.rules = [r for r in task.cells if isinstance(r, Histogram | Mean | Table) and _counted(r) & names]
        counts = sorted(set().union(*(_counted(rule) for rule in self.rules)))
        each = [task.sums([observation]) for observation in observations]
        self.each = {name: np.array([sums[name] for sums in each], np.float64) for name in counts}  # (n, ...)
        self.families: dict[tuple, list[Members]] = {}

    def guard(self, sums: Sums, members: Members) -> None:
        """Take out of a level's sums, in place, what would tell of a few; the rest counts as told."""
        failed: set[str] = set()
        for rule in self.rules:
            if isinstance(rule, Mean):
                self._mean(rule, sums, members)
            elif isinstance(rule, Table):
                failed |= self._table(rule, sums, members)
            else:
                self._histogram(rule, sums, members)
        for needs in self.task.by_subgroup.values():
            for name in needs if failed & set(needs) else ():
                sums[name][...] = 0.0

    def _mean(self, rule: Mean, sums: Sums, members: Members) -> None:
        """Entry by entry; where it may be told who is counted, but not who is not, as the mean of all."""
        for entry in range(self.each[rule.count].shape[1]):
            has = self._where(self.each[rule.count][:, entry] > 0)
            inside, outside = [members & has], [members - has]
            kept, rest = (rule.count, entry, "in"), (rule.count, entry, "out")
            is_kept = self._fits(kept, inside, [has])
            share = 1.0 if is_kept else 0.0
            if is_kept and inside[0]:
                self._add(kept, inside, [has])
                if self._fits(rest, outside, [self.everybody - has]):
                    self._add(rest, outside, [self.everybody - has])
                else:
                    share = len(members) / len(inside[0])
            for name in {rule.count, *rule.sums} & set(sums):
                sums[name][entry] *= share
            for name in {*rule.left_out} & set(sums):
                sums[name][entry] *= float(is_kept)

    def _table(self, rule: Table, sums: Sums, members: Members) -> set[str]:
        """Every cell, and who is in none, or nothing; the names of what is left out.

        Of a table whose rows are dealt, the rows are what is told as it is.
        """
        wanted: list[Wanted] = []
        for name in rule.counts:
            each = self.each[name].sum(axis=-1) if rule.dealt else self.each[name]
            wanted += self._parted(name, each.reshape(len(self.everybody), -1), members)
        return set() if self._added(wanted) else {*rule.counts, *rule.alike}

    def _histogram(self, rule: Histogram, sums: Sums, members: Members) -> None:
        """Row by row, who is counted as what and who is not are cells; their bins are dealt afterwards."""
        for row in range(self.each[rule.counts[0]].shape[1]):
            kinds = np.stack([self.each[name][:, row].sum(axis=-1) for name in rule.counts], axis=1)
            if not self._added(self._parted((rule.counts, row), kinds, members)):
                for name in rule.counts:
                    sums[name][row] = 0.0

    def _parted(self, key: Hashable, each: np.ndarray, members: Members) -> list[Wanted]:
        """The members by cell (n, cells), and those in none, each beside everybody of that cell."""
        sets = [self._where(column > 0) for column in each.T]
        sets.append(self.everybody.difference(*sets))
        return [((key, cell), [members & own], [own]) for cell, own in enumerate(sets)]

    def _added(self, wanted: Sequence[Wanted]) -> bool:
        """Whether all of this may be told, which then counts as told."""
        if not all(self._fits(*one) for one in wanted):
            return False
        for one in wanted:
            self._add(*one)
        return True

    def _fits(self, key: tuple, sets: Sequence[Members], total: Sequence[Members]) -> bool:
        """Whether sums over these sets tell of no few, by themselves and with what was told."""
        if any(few(len(one), self.minimum) for one in sets):
            return False
        return not tells_of_few([*self._family(key, total), *sets], self.minimum)

    def _add(self, key: tuple, sets: Sequence[Members], total: Sequence[Members]) -> None:
        self.families[key] = [*self._family(key, total), *sets]

    def _family(self, key: tuple, total: Sequence[Members]) -> list[Members]:
        """What was told of a cell; at first the total, where that is told as it is."""
        return self.families.get(key, [one for one in total if not few(len(one), self.minimum)])

    def _where(self, hits: np.ndarray) -> Members:
        return frozenset(np.flatnonzero(hits).tolist())


def _counted(rule: Histogram | Mean | Table) -> set[str]:
    return {rule.count} if isinstance(rule, Mean) else set(rule.counts)


def _cut(rule: Histogram | Mean | Table, names: Collection[str]) -> Histogram | Mean | Table:
    """The rule over those of its sums that a level has."""
    if isinstance(rule, Mean):
        sums, left_out = (tuple(n for n in own if n in names) for own in (rule.sums, rule.left_out))
        return replace(rule, sums=sums, left_out=left_out)
    return replace(rule, alike=tuple(name for name in rule.alike if name in names))


def _largest_first(groups: Mapping[str, Sequence[int]]) -> list[tuple[str, list[int]]]:
    return [(level, list(places)) for level, places in sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))]
