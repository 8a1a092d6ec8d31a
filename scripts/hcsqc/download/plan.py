"""What a download will take, told before its first byte: files, sizes, time, room on the disks."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hcsqc.core.errors import InputError
from hcsqc.core.progress import Progress
from hcsqc.download.archives import PlateArchives, Remote, ScreenArchives, steps
from hcsqc.download.obtain import part_of, read_receipt
from hcsqc.download.sizes import MEGABYTE, duration_in_words, existing_parent, free_bytes, in_words
from hcsqc.download.transfer import NotServed, TransferSettings, open_session, remote_bytes


@dataclass(frozen=True)
class PlanSettings:
    """What is expected of the line and of the archives."""

    delete_archives: bool
    expected_mb_per_s: float  # 10^6 bytes/s
    unpacked_factor: float  # bytes of images per byte of archive


@dataclass(frozen=True)
class FileState:
    """A file's size in bytes (None: the server does not say), and how many of them are here."""

    bytes: int | None
    here: int
    is_here: bool

    @property
    def left(self) -> int:
        """Bytes still to come; 0 where the size is unknown."""
        return 0 if self.is_here or self.bytes is None else self.bytes - self.here


@dataclass(frozen=True)
class Amount:
    """How much some files are, of known size, and how many are of unknown size."""

    files: int
    bytes: int
    here_files: int
    here_bytes: int
    left_files: int
    left_bytes: int
    unknown_files: int
    seconds: float


@dataclass
class Disk:
    """What one disk has to take, in bytes."""

    free: int
    folders: list[str] = field(default_factory=list)
    files: int = 0
    archives: int = 0
    largest_plate: int = 0  # its share of archives
    images: int = 0

    def needed(self, deletes_archives: bool) -> int:
        """Return the room needed at worst: all archives, or only one plate's at a time."""
        archives = self.largest_plate if deletes_archives else self.archives
        return self.files + archives + self.images


def ask(found: Iterable[ScreenArchives], settings: TransferSettings) -> dict[Path, FileState]:
    """Look at what is here and ask the servers for the size of the rest; returned by receipt.

    Raises NotServed naming all files that a server does not have.
    """
    remotes = [step for step in steps(found).values() if isinstance(step, Remote)]
    states, refused = {}, []
    progress = Progress(len(remotes), "files", "asking for sizes")
    with open_session() as session:
        for remote in remotes:
            try:
                states[remote.receipt] = _state(remote, session, settings)
            except NotServed as error:
                refused.append((remote.name, error))
            progress.update()
    progress.close()
    if refused:
        names = ", ".join(name for name, _ in refused)
        raise NotServed(
            f"{len(refused)} of {len(remotes)} files cannot be had: {names}. The first: "
            f"{refused[0][1]}"
        )
    return states


def amount(files: Iterable[FileState], settings: PlanSettings) -> Amount:
    """Return how much some files are and how long the rest of them takes at the expected rate."""
    files = list(files)
    left = sum(file.left for file in files)
    return Amount(
        files=len(files),
        bytes=sum(file.bytes or 0 for file in files),
        here_files=sum(file.is_here for file in files),
        here_bytes=sum(file.here for file in files),
        left_files=sum(not file.is_here for file in files),
        left_bytes=left,
        unknown_files=sum(file.bytes is None for file in files),
        seconds=left / (settings.expected_mb_per_s * MEGABYTE),
    )


def disks(
    found: Iterable[ScreenArchives], states: Mapping[Path, FileState], settings: PlanSettings
) -> list[Disk]:
    """Return what each disk has to take: what is to come, and the images still in archives."""
    by_device: dict[int, Disk] = {}
    of_folder: dict[Path, Disk] = {}
    for source in found:
        device = existing_parent(source.images).stat().st_dev
        disk = by_device.setdefault(device, Disk(free_bytes(source.images)))
        of_folder[source.images] = disk
        disk.folders = list(dict.fromkeys([*disk.folders, str(source.images)]))
    for receipt, step in steps(found).items():
        if isinstance(step, Remote):
            of_folder[receipt.parent.parent].files += states[receipt].left
    for step in steps(found).values():
        if isinstance(step, PlateArchives):
            disk = of_folder[step.images]
            own = [states[remote.receipt] for remote in step.archives]
            left = sum(file.left for file in own)
            disk.files -= left
            disk.archives += left
            disk.largest_plate = max(disk.largest_plate, left)
            if not step.marker.exists():
                packed = sum(file.bytes or 0 for file in own)
                disk.images += round(settings.unpacked_factor * packed)
    return list(by_device.values())


def announcement(
    found: Iterable[ScreenArchives], states: Mapping[Path, FileState], settings: PlanSettings
) -> tuple[list[str], dict]:
    """Return the plan as lines for a person, and as a value for JSON."""
    found = list(found)
    amounts = {
        source.screen: amount((states[remote.receipt] for remote in source.remotes), settings)
        for source in found
    }
    on_disks = disks(found, states, settings)
    lines = [_amount_line(screen, of, settings) for screen, of in amounts.items()]
    if len(found) > 1:
        lines.append(_amount_line("together", amount(states.values(), settings), settings))
    lines += [_disk_line(disk, settings) for disk in on_disks]
    value = {
        "screens": {screen: asdict(of) for screen, of in amounts.items()},
        "disks": [
            {"needed": disk.needed(settings.delete_archives)} | asdict(disk) for disk in on_disks
        ],
        "files": {str(receipt): asdict(state) for receipt, state in states.items()},
    }
    return lines, value


def check_room(on_disks: Iterable[Disk], settings: PlanSettings) -> None:
    """Raise InputError for the first disk that cannot take what is to come."""
    for disk in on_disks:
        needed = disk.needed(settings.delete_archives)
        if needed > disk.free:
            lesser = disk.needed(True)
            saving = f"set download.delete_archives to true ({in_words(lesser)}), "
            raise InputError(
                f"the disk of {', '.join(disk.folders)} has {in_words(disk.free)} free, but about "
                f"{in_words(needed)} are needed; free some, "
                f"{saving if lesser < needed else ''}or list fewer plates"
            )


def _state(remote: Remote, session, settings: TransferSettings) -> FileState:
    if remote.receipt.exists():
        size = read_receipt(remote.receipt)["bytes"]
        return FileState(size, size, True)
    if remote.target.exists():
        size = remote.target.stat().st_size
        return FileState(size, size, True)
    size = remote_bytes(session, remote.url, settings)
    part = part_of(remote.receipt)
    can_go_on = part.version(remote.url) is not None and size is not None and part.bytes <= size
    return FileState(size, part.bytes if can_go_on else 0, False)


def _amount_line(name: str, of: Amount, settings: PlanSettings) -> str:
    unknown = f" and {of.unknown_files} files of unknown size" if of.unknown_files else ""
    here = f"; here: {of.here_files} files, {in_words(of.here_bytes)}" if of.here_bytes else ""
    return (
        f"{name}: {of.files} files, {in_words(of.bytes)}{unknown}{here}; to fetch: "
        f"{of.left_files} files, {in_words(of.left_bytes)}{unknown}, "
        f"{duration_in_words(of.seconds)} at {settings.expected_mb_per_s:g} MB/s"
    )


def _disk_line(disk: Disk, settings: PlanSettings) -> str:
    needed = disk.needed(settings.delete_archives)
    kind = "archives, a plate's at a time" if settings.delete_archives else "archives"
    return (
        f"disk of {', '.join(disk.folders)}: about {in_words(needed)} needed "
        f"({in_words(needed - disk.images)} of {kind}, {in_words(disk.images)} of images), "
        f"{in_words(disk.free)} free"
    )
