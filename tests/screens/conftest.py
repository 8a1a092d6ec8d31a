"""Servers of images for tests."""

import os

import pytest

from hcsqc.core import patience
from hcsqc.screens.images import local_copies, remote
from hcsqc.screens.images.remote import folder_at
from hcsqc.screens.layouts import base
from tests.screens.image_server import BUCKET, Faults, s3_app, serving, upload


def forget_all():
    """Forget what a job would: connections, listings and downloads."""
    for known in (
        remote._store,
        remote._listing,
        remote._downloads,
        local_copies._copies,
        base._downloaded,
    ):
        known.cache_clear()


@pytest.fixture
def faults(monkeypatch):
    """What goes wrong at the servers of a test."""
    forget_all()
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "HCSQC_IMAGE_COPIES")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(patience, "WAITS_S", (0.0, 0.0))
    yield Faults()
    forget_all()


@pytest.fixture(scope="module")
def s3_backend():
    return s3_app()


@pytest.fixture
def s3(faults, s3_backend, monkeypatch):
    """A function that puts a folder into the bucket and returns its URL."""
    with serving(faults.wrap(s3_backend)) as server, serving(s3_backend) as behind:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        monkeypatch.setenv("AWS_REGION", "us-east-1")

        def put(folder, prefix, bucket=BUCKET):
            upload(behind, folder, prefix, bucket)
            return folder_at(f"s3://{bucket}/{prefix}")

        yield put
