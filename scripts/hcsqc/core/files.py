"""Files that appear whole or not at all, and digests by which damage is noticed."""

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE, S_IRUSR, S_IWUSR

from hcsqc.core.errors import Damaged, InputError

CONTENT_DIGEST = "content_sha256"  # key of JSON that holds the digest of the others


def check_writable(folder: Path) -> None:
    """Raise InputError if this user can make no files in a folder, or cannot make the folder."""
    there = folder if folder.exists() else folder.absolute().parent
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{folder.absolute()}: this user has no permission to write there; start in a folder "
            "of your own (-d), or ask its owner for the permission"
        )


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The file is flushed to disk before the rename, so that a full disk or a crash never
    leaves a half-written file under the final name. Who may read it is what the umask says, also
    where a library writes for its owner alone, as safetensors does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if S_IMODE(temporary.stat().st_mode) == S_IRUSR | S_IWUSR:
            temporary.chmod(_usual_mode(temporary.with_suffix(".mode")))
        see_onto_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _usual_mode(unused: Path) -> int:
    """Return the permissions of a new file here; to ask the umask would set it in all threads."""
    unused.touch()
    try:
        return S_IMODE(unused.stat().st_mode)
    finally:
        unused.unlink()


@contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """Wait until no other process of this machine is in a block with the same lock file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def first_here(lock: Path, doing: str) -> Iterator[None]:
    """Refuse a second process in a block with the same lock file, which dies with the first.

    Raises InputError that names the first and says what it is `doing`. A file system without locks
    refuses nobody.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Open for writing, because network file systems lock no other file.
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"{lock.parent}: {file.read().strip() or 'another process'} is {doing}, perhaps "
                "left behind by a killed Snakemake; wait until it ends, or stop it (if there is "
                f"none, delete {lock}), and start again"
            ) from error
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def see_onto_disk(path: str | Path) -> None:
    """Wait until all that was written to a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(value: object, path: str | Path) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
        )


def write_checked_json(value: Mapping[str, object], path: str | Path) -> None:
    """Write a mapping as `write_json` does, with a digest of it as one key more."""
    as_read = json.loads(json.dumps(value))
    write_json({**value, CONTENT_DIGEST: _content_digest(as_read)}, path)


def read_checked_json(path: str | Path) -> dict:
    """Return the mapping that `write_checked_json` wrote, without its digest.

    One without a digest, of another version or program, is taken as it is. Raises InputError if
    it cannot be read, Damaged if it is not what was written.
    """
    again = "delete it and run again, which remakes it"
    try:
        value = json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except ValueError as error:
        raise Damaged(f"{path}: is damaged ({error}); {again}") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path}: is damaged (it holds no keys); {again}")
    if value.pop(CONTENT_DIGEST, None) not in (None, _content_digest(value)):
        raise Damaged(
            f"{path}: is damaged, or was edited manually (its content does not match its "
            f"{CONTENT_DIGEST}); {again}"
        )
    return value


def _content_digest(value: Mapping[str, object]) -> str:
    """Return the digest of a mapping that was read from JSON."""
    return text_digest(json.dumps(value, sort_keys=True))


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | Path, expected: object, source: str | Path) -> None:
    """Raise Damaged unless a file has the SHA-256 in `source`, InputError if one is missing."""
    if expected is None:
        raise InputError(f"{source}: has no 'sha256'; make {path} again")
    try:
        found = sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if found != expected:
        raise Damaged(
            f"{path}: is damaged, or not the file that {source} describes (its SHA-256 is another "
            "one); delete both and run again, which remakes them, or copy both again"
        )


def text_digest(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
