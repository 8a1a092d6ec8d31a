"""The one exception that a person is meant to read."""


class InputError(Exception):
    """Bad input: the message says what is wrong, where, and what to do about it."""


def in_one_line(error: BaseException) -> str:
    """Return what another library says of an error: its first line, or its kind if it says none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "") or (
        type(error).__name__
    )
