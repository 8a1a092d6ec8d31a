"""The servers of images of tests/screens, for tests that start a study of images at a URL."""

from tests.screens.conftest import faults, s3, s3_backend

__all__ = ["faults", "s3", "s3_backend"]
