"""Reading from a disk that fails now and then, and from folders that one may not list."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from hcsqc.core.schema import write_table
from hcsqc.screens.layouts import Source, index_plate
from tests.conftest import ROOT
from tests.crops.test_crops import CROPPING, NUCLEUS, make_plate, planes
from tests.screens.ngff import write_plate

pytestmark = pytest.mark.long
COMPILER = shutil.which("gcc") or shutil.which("cc")

# Every so many openings of a TIFF fail with an error of that number.
FAILING_OPEN = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
static int opened;
static int fails(const char *path) {
    const char *every = getenv("FAIL_EVERY");
    if (!every || !path || !strstr(path, ".tif")) return 0;
    if (__sync_add_and_fetch(&opened, 1) % atoi(every)) return 0;
    errno = atoi(getenv("FAIL_WITH"));
    return 1;
}
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int); \
        va_end(rest); \
        return fails(path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
"""
CROP = """
import pickle
import hcsqc.core.patience
from hcsqc.core.errors import InputError
from hcsqc.crops.cut import crop_plate
plate, cropping, nucleus, shard = pickle.load(open("plate.pickle", "rb"))
hcsqc.core.patience.WAITS_S = (0.01,) * 4
try:
    _, summary, _ = crop_plate(plate, cropping, nucleus, shard, 2, "test")
except InputError as error:
    raise SystemExit(f"error: {error}")
print(summary["status"].value_counts().to_dict())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return the injector as a shared library."""
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("injector")
    (folder / "fail.c").write_text(FAILING_OPEN)
    command = [COMPILER, "-shared", "-fPIC", "-o", "fail.so", "fail.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "fail.so"


def crop_from_a_bad_disk(folder: Path, library: Path, every: int, number: int, fields: int):
    """Crop a plate while openings fail; return how it ended."""
    plate = make_plate(folder / "images", [planes(site) for site in range(fields)])
    with open(folder / "plate.pickle", "wb") as file:
        pickle.dump((plate, CROPPING, NUCLEUS, folder / "p.parquet"), file)
    faults = {"LD_PRELOAD": str(library), "FAIL_EVERY": str(every), "FAIL_WITH": str(number)}
    return subprocess.run(
        [sys.executable, "-c", CROP],
        cwd=folder,
        env=os.environ | faults,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("number", [116, 5, 110])  # a stale handle, an I/O error, a time-out
def test_a_disk_that_fails_now_and_then_costs_no_field(tmp_path, library, number):
    done = crop_from_a_bad_disk(tmp_path, library, every=7, number=number, fields=24)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'ok': 24}"


@pytest.mark.parametrize("number", [116, 13])
def test_a_disk_that_fails_for_good_fails_the_job_with_one_line(tmp_path, library, number):
    done = crop_from_a_bad_disk(tmp_path, library, every=1, number=number, fields=2)
    assert done.returncode == 1 and not (tmp_path / "p.parquet").exists()
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {tmp_path}/images/s1w1.tif: ")
    assert ("permission denied" if number == 13 else os.strerror(number)) in line
    assert "Traceback" not in done.stderr


# Permissions, which root does not feel unless it gives up the right to pass over them.
SETPRIV = shutil.which("setpriv")
ROOTS_RIGHTS = ["--bounding-set", "-dac_override,-dac_read_search"]
without_rights = pytest.mark.skipif(
    os.getuid() == 0 and SETPRIV is None, reason="root, and there is no setpriv"
)


def refused(code: str, *words: str) -> subprocess.CompletedProcess:
    """Run code in a process that may not read what is forbidden."""
    command = [sys.executable, "-c", code, *words]
    if os.getuid() == 0:
        command = [str(SETPRIV), *ROOTS_RIGHTS, *command]
    return subprocess.run(command, capture_output=True, text=True)


ASK = """
import sys
from pathlib import Path
from hcsqc.core.errors import InputError
from hcsqc.screens.layouts import Source, index_plate, list_plates
layout, images, pattern, plate = sys.argv[1:]
source = Source(layout, Path(images), ("DNA",), pattern=pattern or None)
try:
    print(len(index_plate(source, "own", plate)[0]) if plate else list_plates(source))
except InputError as error:
    raise SystemExit(f"error: {error}")
"""


@without_rights
@pytest.mark.parametrize("shut", ["images", "images/P1", "images/P1/B", "images/P1/C"])
def test_a_folder_that_may_not_be_listed_is_named_and_no_well_vanishes(tmp_path, shut):
    for name in ("P1/B/B02.tif", "P1/C/C03.tif", "P2/B/B02.tif"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    words = ("files", str(tmp_path / "images/{plate}"), r".*(?P<well>[A-H]\d\d)\.tif", "P1")
    assert refused(ASK, *words).stdout == "2\n"
    (tmp_path / shut).chmod(0)
    try:
        done = refused(ASK, *words)
        listed = refused(ASK, *words[:3], "")
    finally:
        (tmp_path / shut).chmod(0o755)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: screen own: {tmp_path}/{shut}")
    assert "permission denied; make it readable for this account" in done.stderr
    assert "Traceback" not in done.stderr + listed.stderr
    if shut == "images":
        assert listed.returncode == 1 and listed.stderr.startswith(f"error: {tmp_path}/{shut}")


@without_rights
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_may_not_be_written_to_is_read(tmp_path, zarr_format):
    pixels = np.stack(planes())
    write_plate(tmp_path / "P1.zarr", {"B/02": [pixels]}, ("DNA", "ER"), zarr_format, axes="cyx")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hcsqc.screens.images.read import read_field\n"
        "from hcsqc.screens.layouts import Source, index_plate\n"
        "source = Source('ome_zarr', Path(sys.argv[1]), ('DNA', 'ER'))\n"
        "row = index_plate(source, 'own', 'P1')[0].iloc[0]\n"
        "field = read_field(source.images, row.image_path, row.image_page)\n"
        "print(*(plane.astype(int).sum() for plane in field.planes))\n"
    )
    below = [tmp_path, *tmp_path.rglob("*")]
    for path in below:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = refused(code, str(tmp_path))
        attempt = refused("import sys\nopen(sys.argv[1] + '/new', 'w')", str(tmp_path))
    finally:
        for path in below:
            path.chmod(0o755)
    assert "Permission denied" in attempt.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(plane.astype(int).sum()) for plane in pixels]


@without_rights
def test_refresh_says_of_nothing_that_it_is_gone_because_it_may_not_be_read(tmp_path):
    """And the index stays as it is."""
    images = tmp_path / "images/P1"
    for well in ("B02", "C03"):
        (images / well).mkdir(parents=True)
        tifffile.imwrite(images / well / f"{well}.tif", planes()[0])
    pattern = r".*(?P<well>[A-H]\d\d)\.tif"
    source = Source("files", images.parent / "{plate}", ("DNA",), pattern=pattern)
    fields, _ = index_plate(source, "own", "P1")
    study = tmp_path / "study"
    study.mkdir()
    write_table(fields, study / "fields.parquet", "fields")
    before = (study / "fields.parquet").read_bytes()
    code = (
        "import runpy, sys\nsys.argv[0] = sys.argv[1]\ndel sys.argv[1]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    flags = ["--screen", "own", "--plate", "P1", "--layout", "files", "--channels", "DNA"]
    flags += ["--images", str(source.images), "--pattern", pattern, "--plate-images", str(images)]
    flags += [
        word
        for name in ("fields", "summary", "receipt", "record")
        for word in (f"--{name}", str(study / f"{name}.parquet"))
    ]
    (images / "C03").chmod(0)
    try:
        done = refused(code, str(ROOT / "scripts/screens/refresh_plate.py"), *flags)
    finally:
        (images / "C03").chmod(0o755)
    assert done.returncode == 1 and "gone" not in done.stdout + done.stderr
    assert f"{images}/C03: permission denied" in done.stderr
    assert (study / "fields.parquet").read_bytes() == before


@without_rights
def test_a_folder_where_snakemake_may_not_write_is_named_in_one_line(tmp_path):
    """Snakemake itself would show a traceback when it makes its lock."""
    tmp_path.chmod(0o555)
    code = "import sys\nfrom snakemake.cli import main\nmain(sys.argv[1:])"
    words = ["-n", "-s", str(ROOT / "Snakefile"), "-d", str(tmp_path)]
    try:
        done = refused(code, *words, "--configfile", str(ROOT / "tests/tiny/study.yaml"))
    finally:
        tmp_path.chmod(0o755)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    assert f"{tmp_path}/.snakemake: this user has no permission to write there; start in" in said
