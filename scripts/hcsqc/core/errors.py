"""The one exception that a person is meant to read."""


class InputError(Exception):
    """Bad input: the message says what is wrong, where, and what to do about it."""


class Damaged(InputError):
    """A file that is no longer what was written."""
