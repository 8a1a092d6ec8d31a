"""The one exception that a person is meant to read."""

import re

_ADVICE = re.compile("weights_only|allow_pickle|safe_globals|trust_remote_code")


class InputError(Exception):
    """Bad input: the message says what is wrong, where, and what to do about it."""


def in_one_line(error: BaseException) -> str:
    """Return what another library says of an error: its first line, or its kind if it says none.

    Its advice to switch a protection off is not passed on.
    """
    if _ADVICE.search(str(error)):
        return "it holds code, or is damaged"
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return said or type(error).__name__


class Damaged(InputError):
    """A file that is no longer what was written."""
