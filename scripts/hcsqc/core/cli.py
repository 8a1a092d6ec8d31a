"""What the command lines of all scripts share: settings as flags, errors as one line, records.

Rules write settings as flags, scripts read them back. Nothing else here knows of command lines.
"""

import argparse
import dataclasses
import errno
import math
import os
import shlex
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hcsqc.core.digest import SCRIPTS
from hcsqc.core.errors import InputError
from hcsqc.core.records import Record

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_ROOM = "make room on its disk, or raise the quota, and run the same command again"
_ALLOW = "give this user permission to read and write there, or choose another place"
# What to do about what the machine refuses.
REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EROFS: "its disk is mounted read-only: choose another place; for caches in your home, "
    "set XDG_CACHE_HOME (docs/start.md)",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
    errno.ENAMETOOLONG: "shorten the names of study, screen, plate or file",
    errno.EIO: "the disk or the network failed: run the same command again, or copy the data away",
    errno.ESTALE: "the network disk was mounted again: run the same command again",
}
Settings = TypeVar("Settings", bound="DataclassInstance")


def parser(about: str, threads: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the flags that every script has."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--record", type=Path, required=True, help="where to write run.json")
    if threads:
        made.add_argument("--threads", type=int, default=1, help="processor cores to use")
    return made


def add_source(to: argparse.ArgumentParser, layouts: Iterable[str]) -> None:
    """Add the flags that say which plate is meant, where its images lie and how they are named."""
    to.add_argument("--screen", required=True)
    to.add_argument("--plate", required=True)
    to.add_argument("--layout", choices=layouts, required=True)
    to.add_argument("--images", required=True, help="folder or URL; may contain {plate}")
    to.add_argument("--channels", nargs="+", required=True)
    to.add_argument("--image-csv", help="image CSV, of layouts bbbc022 and bbbc021")
    to.add_argument(
        "--table", help="file or URL of the table, of layout loaddata; may contain {plate}"
    )
    to.add_argument(
        "--table-prefix",
        help="of layout loaddata: start of the table's paths, which --images replaces",
    )
    to.add_argument(
        "--pattern", help="of layout files: regular expression for a path relative to --images"
    )
    to.add_argument("--project", help="of layout cell_painting_gallery, such as cpg0016-jump")
    to.add_argument("--source", help="of layout cell_painting_gallery, such as source_4 or broad")
    to.add_argument("--batch", help="of layout cell_painting_gallery; absent: found by the plate")
    to.add_argument(
        "--acquisition", type=int, help="of layout ome_zarr: number of the acquisition to read"
    )


def flags(values: Mapping[str, object]) -> str:
    """Return settings as command-line flags: `{"batch_size": 32}` as `--batch-size 32`.

    Sorted, so that keys in another order are no change.
    """
    words = []
    for name, value in sorted(values.items()):
        flag = "--" + name.replace("_", "-")
        if isinstance(value, str) and value.startswith("-"):
            words.append(f"{flag}={value}")  # else it would be taken for a flag
            continue
        words.append(flag)
        words += [str(item) for item in (value if isinstance(value, list) else [value])]
    return shlex.join(words)


def add_settings(to: argparse.ArgumentParser, settings: type, required: bool = True) -> None:
    """Add one flag per field of a settings dataclass; those with a default may be absent."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    for name, kind in typing.get_type_hints(settings).items():
        flag = "--" + name.replace("_", "-")
        needed = required and defaults[name] is dataclasses.MISSING
        default = None if defaults[name] is dataclasses.MISSING else defaults[name]
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            inner = _finite if inner is float else inner
            to.add_argument(flag, type=inner, nargs="*", required=needed, default=default)
        else:
            read = {bool: _boolean, float: _finite}.get(kind, kind)
            to.add_argument(flag, type=read, required=needed, default=default)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: '{text}'") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
    return number


def settings_from(args: argparse.Namespace, settings: type[Settings]) -> Settings:
    """Return the settings that were given by the flags of `add_settings`."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(settings)}
    return settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def run(
    job: Callable[[argparse.Namespace, Record], None],
    args: argparse.Namespace,
    plugin: str | None = None,
) -> None:
    """Run a job and write its record; bad input ends with one line and exit status 1.

    `plugin` is the module that the script imports by its name, as `code_digest` has it.
    """
    with _one_line_errors(), Record(args.record, _script(), vars(args), plugin) as record:
        job(args, record)


def _script() -> str:
    """Return the path, below `scripts/`, of the script that runs."""
    path = Path(sys.argv[0]).resolve()
    if not path.is_relative_to(SCRIPTS):
        raise InputError(
            f"{path} would use the library in {SCRIPTS}, which is not of the same copy of the "
            "project; start it by the run.sh in its own folder of scripts"
        )
    return path.relative_to(SCRIPTS).as_posix()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # of the machine; what else is raised is an error of ours
        if error.errno not in REMEDIES:
            raise
        where = error.filename or "a file of this job"
        reason = os.strerror(error.errno)
        print(f"error: {where}: {reason}; {REMEDIES[error.errno]}", file=sys.stderr)
        sys.exit(1)
