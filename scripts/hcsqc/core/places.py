"""Plates, wells, sites and channels as others write them: the one parser of all readers.

`A1`, `a01`, ` A01` and `A001` are well A01. 42, 42.0 and `42` are plate 42, but 0042 is another:
zeros at the start are part of a name, and `why_other` says where a spreadsheet took them away.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Literal, get_args

from hcsqc.core.errors import InputError

# Of a plate with 3456 wells, the largest in use: rows A to AV.
_ROWS, _COLUMNS = 48, 72
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NULL = ("NAType", "NaTType")  # of pandas, which is too heavy for those that read a config
_LARGEST = 2**31 - 1  # of the type in which tables keep sites
# What a channel may show; encoders ask for channels by these roles.
Role = Literal[
    "DNA", "ER", "RNA", "AGP", "Mito", "actin", "tubulin", "Golgi", "membrane", "protein",
    "brightfield", "APC", "FITC", "PE", "other",
]  # fmt: skip
ROLES: tuple[str, ...] = get_args(Role)
# JUMP's tables name channels OrigDNA, OrigER and so on.
_ROLE_PREFIX = "orig"
# What stands for a role that a screen lacks: another role, or black pixels. No channel has
# BLACK's name, because none begins with a hyphen.
ZERO, BLACK = "zero", "-"


def as_text(value: object) -> str:
    """Return a value of a table as a name: 1001.0 is 1001, null is empty, spaces around go."""
    if value is None or type(value).__name__ in _NULL:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if number != number:
            return ""
        return str(int(number)) if number.is_integer() else str(value)
    return str(value).strip()


def parse_plate(value: object) -> str:
    """Return a plate's name; whole numbers are without decimals, `42.0` is 42. Empty for null."""
    text = as_text(value)
    whole = re.fullmatch(r"([0-9]+)\.0*", text)
    return whole[1] if whole else text


def match_plate(value: object, known: Collection[str]) -> str | None:
    """Return which of the known plates a value names, None if none."""
    text = as_text(value)
    return next((name for name in (text, parse_plate(text)) if name and name in known), None)


def parse_well(value: object) -> str | None:
    """Return `a1`, `A01` or `A001` as `A01`; None if it names no well."""
    match = re.fullmatch(r"([A-Za-z]{1,2})([0-9]+)", as_text(value))
    return well_name(match[1], match[2]) if match else None


def well_name(row: str, column: str) -> str | None:
    """Return a well as `A01`, from a row of letters or of a number and a column.

    None if no plate has such a well.
    """
    number = int(row) if row.isdecimal() else _row_number(row.upper())
    if not (1 <= number <= _ROWS and column.isdecimal() and 1 <= int(column) <= _COLUMNS):
        return None
    letters = ("" if number <= 26 else "A") + _LETTERS[(number - 1) % 26]
    return f"{letters}{int(column):02d}"


def _row_number(letters: str) -> int:
    if len(letters) == 1 and letters in _LETTERS:
        return _LETTERS.index(letters) + 1
    if len(letters) == 2 and letters[0] == "A" and letters[1] in _LETTERS:
        return 26 + _LETTERS.index(letters[1]) + 1
    return 0


def whole_number(value: object) -> int | None:
    """Return `1`, `01` or `1.0`, as of a site or a page, as a number; None if it is no such one."""
    match = re.fullmatch(r"([0-9]{1,10})(\.0*)?", as_text(value))
    return int(match[1]) if match and int(match[1]) <= _LARGEST else None


def why_other(given: Iterable[str], known: Iterable[str]) -> str:
    """Return why a given plate may not be a known one, as `; ...`; empty if nothing shows."""
    names = list(known)
    for text in given:
        for name in names:
            reason = _difference(text, name)
            if reason:
                return f"; {reason}"
    return ""


def _difference(text: str, name: str) -> str:
    if text == name or not text:
        return ""
    if re.fullmatch(r"[0-9](\.[0-9]+)?[eE]\+?[0-9]+", text):
        return f"'{text}' is a number that a spreadsheet program shortened: keep plates as text"
    whole = parse_plate(text)
    if whole.isdecimal() and name.isdecimal() and int(whole) == int(name):
        short, long = sorted((whole, name), key=len)
        return (
            f"'{short}' is '{long}' without its leading zeros, which spreadsheet programs "
            "remove: keep plates as text"
        )
    if text.casefold() == name.casefold():
        return f"'{text}' and '{name}' differ in capital letters"
    return ""


def role_by_name(channel: str) -> str:
    """Return what a channel shows whose name says so, as DNA and OrigDNA do, else `other`."""
    roles = {role.lower(): role for role in ROLES}
    return roles.get(channel.lower().removeprefix(_ROLE_PREFIX), "other")


def by_role(
    roles: Iterable[str], missing: Mapping[str, str], shown: Mapping[str, str], where: str
) -> list[str]:
    """Return the channel that shows each role, in the order of the roles.

    `shown` is what each channel of a screen shows. `missing` says what stands for a role that it
    lacks: another role, or `ZERO`, whose channel is `BLACK`.
    Raises InputError, which begins with `where`, if no channel or more than one shows a role.
    """
    found = []
    for role in roles:
        shows = [name for name, seen in shown.items() if seen == role]
        instead = missing.get(role) if not shows else None
        if instead == ZERO:
            shows = [BLACK]
        elif instead:
            shows = [name for name, seen in shown.items() if seen == instead]
        if len(shows) != 1:
            problem = f"{' and '.join(shows)} show" if shows else "no channel shows"
            told = ", ".join(f"{name} ({seen})" for name, seen in shown.items())
            raise InputError(
                f"{where}: {problem} {instead or role}; its channels are {told}; correct "
                "channel_roles of the screen, or say in missing_roles of the encoder what stands "
                f"for {role}"
            )
        found += shows
    return found
