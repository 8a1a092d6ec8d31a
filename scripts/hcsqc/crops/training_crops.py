"""The crops that may be learned from without labels: none of an evaluation well."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcsqc.core.errors import InputError
from hcsqc.core.files import text_digest
from hcsqc.core.ids import split_field_id
from hcsqc.core.parquet import read_seal
from hcsqc.crops.shards import Shards, read_format
from hcsqc.screens.layouts.base import first_few


@dataclass(frozen=True)
class TrainingCrops:
    """The crops of the pretraining plates, without the evaluation wells, as composites."""

    shards: Shards
    rows: np.ndarray
    chosen: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def channels(self) -> int:
        """Number of channels of the composites."""
        return len(self.chosen)

    @property
    def crop_ids(self) -> list[str]:
        """Names of the crops, in their order."""
        return self.shards.index["crop_id"].iloc[self.rows].tolist()

    @property
    def digest(self) -> str:
        """Digest of the names of the crops, in their order."""
        return text_digest("\n".join(self.crop_ids))

    @property
    def state(self) -> dict[str, object]:
        """What changes when other crops, or others of these names, are to be learned from."""
        return {
            "crops_digest": self.digest,
            "composite": list(self.chosen),
            "shards": [f"{read_format(path)} {_state(path)}" for path in self.shards.paths],
        }

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return composite crops: uint8, n x channels x H x W."""
        return self.shards.read_composite(self.rows[rows], self.chosen)


def training_crops(
    paths: Sequence[Path],
    chosen: Sequence[str],
    without_wells: Sequence[str],
    at_most: int | None = None,
) -> TrainingCrops:
    """Return the crops of these shards that lie in no evaluation well, or a random share of them.

    The same `at_most` crops are drawn each time. Raises InputError if no crop is left.
    """
    shards = Shards(paths)
    well = split_field_id(shards.index["field_id"])["well"]
    rows = np.flatnonzero(~well.isin(without_wells))
    if not len(shards):
        raise InputError(
            f"no crop to train on without labels: {first_few([str(path) for path in paths])} hold "
            "none; list plates with nuclei under pretrain_plates"
        )
    if not len(rows):
        raise InputError(
            "no crop to train on without labels: every crop of the pretraining plates lies in an "
            "evaluation well; list fewer under evaluation_wells or more under pretrain_plates"
        )
    if at_most and at_most < len(rows):
        picked = np.random.default_rng(0).permutation(len(rows))[:at_most]
        rows = rows[np.sort(picked)]
    return TrainingCrops(shards, rows, chosen)


def _state(path: str | Path) -> str:
    seal = read_seal(path)
    if seal:  # copies have other times: on a node's disk, of a bucket
        return seal
    found = Path(path).stat()
    return f"{found.st_size} bytes, {found.st_mtime_ns} ns"
