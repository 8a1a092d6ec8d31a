"""What a killed crop job leaves behind, and how the next one goes on from it.

A folder beside the shard holds the shard as far as it is written (without its footer), the tables
of the fields that are done, and a journal that says how far both can be trusted. Only what the
journal names counts, and the shard is on the disk before the journal says so. Of what is damaged
nothing is taken up.
"""

import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from hcsqc.core.errors import InputError
from hcsqc.core.files import first_here, read_checked_json, see_onto_disk, write_checked_json
from hcsqc.core.schema import TABLES, read_table, write_table
from hcsqc.crops.shards import ShardFormat, ShardWriter, crop_digests, digest_of_group


class PartialPlate:
    """The crops of a plate while they are being cut.

    `identity` is a digest of all that decides what the crops are; what was left under another one
    is thrown away. A shard has the areas of nuclei in the pixels of its crops, of which `factor`
    lie along one pixel of the source. `unchanged` says of rows of `summary` whether their images
    are still those that were read; from the first checkpoint on where they are not, all is done
    again.
    """

    def __init__(
        self,
        shard: Path,
        shard_format: ShardFormat,
        identity: str,
        factor: float = 1.0,
        unchanged: Callable[[pd.DataFrame], bool] = lambda summary: True,
    ):
        """Take up what an earlier job has left, if it fits."""
        self.shard, self.format, self.identity = shard, shard_format, identity
        self._unchanged = unchanged
        self._areas = factor**2
        self.folder = shard.with_name(f".{shard.name}.partial")
        self._nuclei = _no_nuclei()
        self._summaries: list[dict] = []
        lock = self.folder / "lock"
        self._held = ExitStack()
        self._held.enter_context(first_here(lock, f"cropping this plate ({shard.stem})"))
        journal = self._read_journal()
        if journal is None:
            for path in set(self.folder.iterdir()) - {lock}:
                path.unlink()
        self.fields = journal["fields"] if journal else 0
        self._parts = journal["parts"] if journal else 0
        self._session = journal["session"] + 1 if journal else 0
        self._writer = ShardWriter(self._file(self._session), shard_format)
        # Waiting for the disk is left to a thread of its own.
        self._saver = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        if journal:
            self._copy(self._file(journal["session"]), journal["groups"])
            write_checked_json(self._journal(), self._journal_path)
            self._file(journal["session"]).unlink()

    @property
    def crops(self) -> int:
        """Crops that are written."""
        return sum(count for _, count, _ in self._writer.groups)

    def add(self, summary: dict, nuclei: dict[str, list], crops: np.ndarray | None) -> None:
        """Add a field: its row of `summary`, its columns of `nuclei`, and the crops it keeps."""
        self._summaries.append(summary)
        for name, values in nuclei.items():
            self._nuclei[name] += values
        if summary["kept"]:
            if crops is None:
                raise ValueError(
                    f"{summary['field_id']}: the table lists crops, but there are none"
                )
            kept = nuclei["kept"]
            columns = {name: list(compress(values, kept)) for name, values in nuclei.items()}
            areas = [round(area * self._areas) for area in columns["area_px"]]
            self._writer.add(columns | {"nucleus_area_px": areas}, crops)

    def checkpoint(self) -> None:
        """Begin to save the fields so far; those saved need not be cropped again."""
        if not self._summaries:
            return
        self._saved()
        self._writer.end_group()
        tables = {"nuclei": pd.DataFrame(self._nuclei), "summary": pd.DataFrame(self._summaries)}
        paths = [self._part(name, self._parts) for name in tables]
        self.fields += len(self._summaries)
        self._parts += 1
        self._nuclei, self._summaries = _no_nuclei(), []
        self._saving = self._saver.submit(self._save, tables, paths, self._journal())

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the plate's `nuclei` and `summary` tables up to the last checkpoint."""
        self._saved()
        nuclei, summary = (
            pd.concat(
                [
                    pd.DataFrame(columns=TABLES[name].columns.names),
                    *(read_table(self._part(name, n), name) for n in range(self._parts)),
                ],
                ignore_index=True,
            ).astype({"kept": bool} if name == "nuclei" else {})
            for name in ("nuclei", "summary")
        )
        return nuclei, summary

    def finish(self) -> None:
        """Put the shard in its place and remove the rest."""
        self._saved()
        self._writer.close()
        see_onto_disk(self._file(self._session))
        self._saver.shutdown()
        os.replace(self._file(self._session), self.shard)
        shutil.rmtree(self.folder)
        self._held.close()

    def discard(self) -> None:
        """Remove everything: the plate cannot be cropped."""
        self._saver.shutdown()
        self._writer.abandon()
        shutil.rmtree(self.folder)
        self._held.close()

    def stop(self) -> None:
        """Leave the folder as it is, for the next job."""
        self._saver.shutdown()
        self._writer.abandon()
        self._held.close()

    def _file(self, session: int) -> Path:
        return self.folder / f"{session}.parquet"

    def _part(self, table: str, number: int) -> Path:
        return self.folder / f"{table}{number:05d}.parquet"

    def _save(self, tables: dict[str, pd.DataFrame], paths: list[Path], journal: dict) -> None:
        see_onto_disk(self._file(self._session))
        for path, (name, rows) in zip(paths, tables.items(), strict=True):
            write_table(rows, path, name)
        write_checked_json(journal, self._journal_path)

    def _saved(self) -> None:
        """Wait until the last checkpoint is on the disk; raise what went wrong."""
        if self._saving:
            self._saving.result()

    @property
    def _journal_path(self) -> Path:
        return self.folder / "journal.json"

    def _journal(self) -> dict:
        return {
            "identity": self.identity,
            "fields": self.fields,
            "parts": self._parts,
            "session": self._session,
            "groups": list(self._writer.groups),
        }

    def _read_journal(self) -> dict | None:
        """Return the journal if what it names can be taken up, and say so if that is damaged."""
        if not self._journal_path.exists():
            return None
        try:
            journal = read_checked_json(self._journal_path)
            if journal["identity"] != self.identity:
                return None
            for name in ("nuclei", "summary"):
                for number in range(journal["parts"]):
                    read_table(self._part(name, number), name)
            self._check_pixels(self._file(journal["session"]), journal["groups"])
        except (InputError, OSError, KeyError, ValueError) as error:
            print(
                f"WARNING {self.shard}: the work of an earlier job cannot be used ({error}); "
                "crops the plate from its beginning",
                file=sys.stderr,
                flush=True,
            )
            return None
        return self._up_to_a_change(journal)

    def _up_to_a_change(self, journal: dict) -> dict | None:
        """Return the journal up to the checkpoint before the first image that was replaced."""
        kept: list[pd.DataFrame] = []
        for number in range(journal["parts"]):
            summary = read_table(self._part("summary", number), "summary")
            if not self._unchanged(summary):
                break
            kept.append(summary)
        else:
            return journal
        fields, crops = sum(map(len, kept)), sum(int(part["kept"].sum()) for part in kept)
        print(
            f"{self.shard.stem}: images of the fields from number {fields + 1} on changed since "
            "they were cropped; they are cropped again",
            flush=True,
        )
        # A checkpoint ends a row group.
        written = np.cumsum([0, *(count for _, count, _ in journal["groups"])]).tolist()
        groups = journal["groups"][: written.index(crops)]
        return journal | {"fields": fields, "parts": len(kept), "groups": groups} if kept else None

    def _check_pixels(self, path: Path, groups: list) -> None:
        """Raise InputError unless the pixels of all groups are in the file as they were written."""
        content = np.memmap(path, np.uint8, "r") if groups else np.empty(0, np.uint8)
        for begin, count, digest in groups:
            pixels = content[begin : begin + count * self.format.row_bytes]
            if len(pixels) == count * self.format.row_bytes:
                crops = pixels.reshape(count, self.format.row_bytes)
                if digest_of_group(crop_digests(crops)) == digest:
                    continue
            raise InputError(f"{path}: is damaged, its pixels do not match their digest")

    def _copy(self, earlier: Path, groups: list) -> None:
        """Write the crops of an earlier session again, in the same row groups."""
        nuclei, _ = self.tables()
        kept = nuclei[nuclei["kept"]]
        areas = [round(area * self._areas) for area in kept["area_px"]]
        kept = kept.assign(nucleus_area_px=areas)
        content = np.memmap(earlier, np.uint8, "r") if groups else np.empty(0, np.uint8)
        done = 0
        for begin, count, _ in groups:
            pixels = content[begin : begin + count * self.format.row_bytes]
            self._writer.add(
                kept.iloc[done : done + count],
                pixels.view(self.format.dtype).reshape(count, *self.format.shape),
            )
            done += count
            self._writer.end_group()
        self._writer.flush()


def _no_nuclei() -> dict[str, list]:
    return {name: [] for name in TABLES["nuclei"].columns.names}
