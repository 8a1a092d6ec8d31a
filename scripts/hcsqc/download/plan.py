"""What a download will take, told before its first byte: files, sizes, time, room on the disks."""

import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import requests

from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress
from hcsqc.download.archives import PlateArchives, Remote
from hcsqc.download.obtain import part_of, read_receipt
from hcsqc.download.sizes import MEGABYTE, existing_parent, in_words
from hcsqc.download.transfer import NotServed, TransferSettings, open_session, remote_bytes

Steps = Mapping[Path, Remote | PlateArchives]


@dataclass(frozen=True)
class PlanSettings:
    """What is expected of the line and of the archives."""

    delete_archives: bool
    expected_mb_per_s: float  # 10^6 bytes/s
    unpacked_factor: float  # bytes of images per byte of archive


@dataclass(frozen=True)
class FileState:
    """A file's size in bytes (None: the server does not say), and how many are still to come."""

    bytes: int | None
    left: int  # 0 where the size is unknown
    is_here: bool


def ask(made: Steps, settings: TransferSettings) -> dict[Path, FileState]:
    """Look at what is here and ask the servers for the size of the rest; returned by receipt.

    Raises NotServed naming all files that a server does not have.
    """
    remotes = [step for step in made.values() if isinstance(step, Remote)]
    states, refused = {}, {}
    progress = Progress(len(remotes), "files", "asking for sizes")
    with open_session(settings) as session:
        for remote in remotes:
            try:
                states[remote.receipt] = _state(remote, session, settings)
            except NotServed as error:
                refused[remote.name] = error
            progress.update()
    progress.close()
    if refused:
        raise NotServed(
            f"{len(refused)} of {len(remotes)} files are not available: {', '.join(refused)}. The "
            f"first: {next(iter(refused.values()))}"
        )
    return states


def announcement(
    made: Steps, states: Mapping[Path, FileState], settings: PlanSettings
) -> tuple[list[str], dict]:
    """Return the plan as lines for a person, and as a value for JSON: sizes in bytes, seconds.

    A file that two screens share is counted for the first.
    """
    of_screen, on_disk = defaultdict(list), defaultdict(dict)
    for path, step in made.items():
        of_screen[step.screen] += [states[path]] if path in states else []
        on_disk[existing_parent(path).stat().st_dev][path] = step
    screens = {screen: _amount(of, settings) for screen, of in of_screen.items()}
    disks = [_disk(of, states, settings) for of in on_disk.values()]
    lines = [_amount_line(screen, of, settings) for screen, of in screens.items()]
    if len(screens) > 1:
        lines.append(_amount_line("together", _amount(states.values(), settings), settings))
    lines += [
        f"disk of {disk['folders']}: about {in_words(disk['needed'])} needed "
        f"({in_words(disk['needed'] - disk['images'])} of archives, {in_words(disk['images'])} of "
        f"images), {in_words(disk['free'])} free"
        for disk in disks
    ]
    return lines, {"screens": screens, "disks": disks}


def check_room(plan: Mapping, settings: PlanSettings) -> None:
    """Raise InputError for the first disk of a plan that cannot take what is to come."""
    saving = "" if settings.delete_archives else "set download.delete_archives to true, "
    for disk in plan["disks"]:
        if disk["needed"] > disk["free"]:
            raise InputError(
                f"the disk of {disk['folders']} has {in_words(disk['free'])} free, but about "
                f"{in_words(disk['needed'])} are needed; free some space, {saving}or list fewer "
                "plates"
            )


def _state(remote: Remote, session: requests.Session, settings: TransferSettings) -> FileState:
    if remote.receipt.exists():
        return FileState(read_receipt(remote.receipt)["bytes"], 0, True)
    if remote.target.exists():
        return FileState(remote.target.stat().st_size, 0, True)
    size = remote_bytes(session, remote.url, settings)
    part = part_of(remote.receipt)
    here = part.bytes if part.version(remote.url) else 0
    return FileState(size, max((size or 0) - here, 0), False)


def _amount(files: Collection[FileState], settings: PlanSettings) -> dict:
    left = sum(file.left for file in files)
    return {
        "files": len(files),
        "bytes": sum(file.bytes or 0 for file in files),
        "left_files": sum(not file.is_here for file in files),
        "left_bytes": left,
        "unknown_files": sum(file.bytes is None for file in files),
        "seconds": left / (settings.expected_mb_per_s * MEGABYTE),
    }


def _amount_line(name: str, of: Mapping, settings: PlanSettings) -> str:
    unknown = f" and {of['unknown_files']} files of unknown size" if of["unknown_files"] else ""
    return (
        f"{name}: {of['files']} files, {in_words(of['bytes'])}{unknown}; to download: "
        f"{of['left_files']} files, {in_words(of['left_bytes'])}{unknown}, "
        f"{timedelta(seconds=round(of['seconds']))} at {settings.expected_mb_per_s:g} MB/s"
    )


def _disk(made: Steps, states: Mapping[Path, FileState], settings: PlanSettings) -> dict:
    """Return what one disk has to take at worst: all archives, or only one plate's at a time."""
    needed, packed, of_plates = 0, 0, [0]
    for path, step in made.items():
        if isinstance(step, Remote):
            needed += states[path].left
        else:
            files = [states[remote.receipt] for remote in step.archives]
            of_plates.append(sum(file.left for file in files))
            packed += 0 if path.exists() else sum(file.bytes or 0 for file in files)
    if settings.delete_archives:
        needed -= sum(of_plates) - max(of_plates)
    images = round(settings.unpacked_factor * packed)
    return {
        "folders": ", ".join(dict.fromkeys(str(path.parent.parent) for path in made)),
        "needed": needed + images,
        "images": images,
        "free": shutil.disk_usage(existing_parent(next(iter(made)))).free,
    }
