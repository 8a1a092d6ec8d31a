"""The servers of images serve tables of flags, too."""

from tests.screens.conftest import faults, s3, s3_backend

__all__ = ["faults", "s3", "s3_backend"]
