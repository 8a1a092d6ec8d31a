"""Which labels a draw tests: even over groups, fields and artefacts, as far as the labels allow.

Draws that test other artefacts than each other, or some groups often and others never, differ for
reasons that say nothing of an encoder. So groups take turns, and each draw's artefacts are tested
in the shares that they have among all labels that may test.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hcsqc.core.ids import fields_of
from hcsqc.core.schema import LABELS

# Test groups hold up to so many times the labels that are tested, so that there is a choice.
CHOICE = 2
NORMAL, UNNAMED = "normal", "abnormal"


class TestSets:
    """Chooses the test labels of one draw after the other, those tested least so far first.

    `labels` has crop_id, group, label, may_test and, if they are known, artefact.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, labels: pd.DataFrame):
        own = labels[labels["may_test"]]
        self.rows = np.flatnonzero(labels["may_test"])
        self.targets = own["label"].to_numpy()
        self.names, self.group = np.unique(own["group"].to_numpy(str), return_inverse=True)
        self.field = np.unique(fields_of(own["crop_id"]), return_inverse=True)[1]
        self.kinds, self.kind = np.unique(kinds(own).to_numpy(str), return_inverse=True)
        self.in_group = np.zeros((len(self.names), len(self.kinds)))
        np.add.at(self.in_group, (self.group, self.kind), 1)
        self.of_class = {
            label: np.bincount(self.group[self.targets == label], minlength=len(self.names))
            for label in LABELS
        }
        self.outside = {
            label: labels.loc[labels["label"] == label, "group"].value_counts() for label in LABELS
        }
        self.visits = np.zeros(len(self.names), int)
        self.tested = np.zeros(len(own), int)
        self.owed = np.zeros(len(self.kinds))

    def groups(
        self, counts: Mapping[str, int], kept: Mapping[str, int], rng: np.random.Generator
    ) -> set[str]:
        """Return the test groups of the next draw: those that had the fewest turns.

        They hold `counts` labels of each class, or all that there are, and up to `CHOICE` times as
        many where the other groups keep `kept` labels of each class to train with. Of those with as
        many turns, the one comes first that brings the artefacts nearest to their usual shares.
        """
        shares = self.in_group.sum(axis=0) / max(self.in_group.sum(), 1)
        luck = rng.permutation(len(self.names))
        chosen: list[int] = []
        held = np.zeros(len(self.kinds))
        while len(chosen) < len(self.names):
            left = np.setdiff1d(np.arange(len(self.names)), chosen)
            left = left[self.visits[left] == self.visits[left].min()]
            after = held + self.in_group[left]
            uneven = np.abs(after / after.sum(axis=1, keepdims=True) - shares).sum(axis=1)
            group = left[np.lexsort((luck[left], uneven.round(9) if chosen else luck[left]))[0]]
            if self._hold(chosen, counts) and (
                self._hold(chosen, {name: CHOICE * count for name, count in counts.items()})
                or not self._leave([*chosen, group], kept)
            ):
                break
            chosen.append(int(group))
            held += self.in_group[group]
        self.visits[chosen] += 1
        return set(self.names[chosen].tolist())

    def _hold(self, chosen: list[int], counts: Mapping[str, int]) -> bool:
        return all(self.of_class[label][chosen].sum() >= count for label, count in counts.items())

    def _leave(self, chosen: list[int], kept: Mapping[str, int]) -> bool:
        taken = self.names[chosen]
        return all(
            self.outside[label].sum() - self.outside[label].reindex(taken, fill_value=0).sum()
            >= count
            for label, count in kept.items()
        )

    def crops(
        self, groups: set[str], counts: Mapping[str, int], rng: np.random.Generator
    ) -> np.ndarray:
        """Return the row numbers of the labels to test: `counts` of each class, or all there are.

        Artefacts have their usual shares, over the draws together if they are rare; within them the
        fields with the fewest test labels come first, then the labels tested least so far.
        """
        inside = np.isin(self.names[self.group], list(groups))
        luck = rng.permutation(len(self.rows))
        in_field = np.zeros(self.field.max(initial=0) + 1, int)
        chosen: list[int] = []
        for label, count in counts.items():
            own = self.targets == label
            usual = np.bincount(self.kind[own], minlength=len(self.kinds))
            wanted = count * usual / max(usual.sum(), 1) + np.where(usual, self.owed, 0)
            left = np.flatnonzero(own & inside)
            for _ in range(min(count, len(left))):
                best = np.lexsort(
                    (
                        luck[left],
                        self.tested[left],
                        in_field[self.field[left]],
                        -wanted[self.kind[left]],
                    )
                )[0]
                row = left[best]
                wanted[self.kind[row]] -= 1
                in_field[self.field[row]] += 1
                left = np.delete(left, best)
                chosen.append(int(row))
            # A rare artefact, of which each draw would test less than half a crop, has its turn.
            self.owed[usual > 0] = wanted[usual > 0].clip(-1, 1)
        self.tested[chosen] += 1
        return self.rows[chosen]


def kinds(labels: pd.DataFrame) -> pd.Series:
    """Return what each label is of: `normal`, its artefact, or `abnormal` if that is not known."""
    artefact = labels["artefact"] if "artefact" in labels else pd.Series(None, labels.index)
    named = artefact.astype(object).where(artefact.notna(), UNNAMED)
    return named.where(labels["label"] != NORMAL, NORMAL)


def composition(splits: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return what each draw tests: draw, kind, crops, fields, wells and groups, normal crops first.

    `kind` is that of `kinds`. Kinds that a draw does not test have a row with noughts.
    """
    about = labels[["crop_id"]].assign(
        kind=kinds(labels),
        field=fields_of(labels["crop_id"]),
        well=labels["plate"] + "/" + labels["well"],
    )
    test = splits[splits["part"] == "test"].merge(about, on="crop_id", validate="many_to_one")
    counted = test.groupby(["draw", "kind"]).agg(
        crops=("crop_id", "size"),
        fields=("field", "nunique"),
        wells=("well", "nunique"),
        groups=("group", "nunique"),
    )
    order = [NORMAL, *sorted(set(about["kind"]) - {NORMAL})]
    every = pd.MultiIndex.from_product([sorted(set(splits["draw"])), order], names=["draw", "kind"])
    return counted.reindex(every, fill_value=0).reset_index()


def largest_group(splits: pd.DataFrame) -> tuple[str, float]:
    """Return the group with the most labels of the `splits`, and its share of them."""
    shares = splits.drop_duplicates("crop_id")["group"].value_counts(normalize=True)
    return str(shares.index[0]), float(shares.iloc[0])
