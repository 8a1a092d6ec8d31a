"""What a job's log says to the person who waits for it."""

import time

import pytest

from hcsqc.core.progress import Progress
from hcsqc.terminal.job_logs import error_in, last_line_in, progress_in, warnings_in


@pytest.fixture
def log(tmp_path):
    def write(text: str) -> list[str]:
        (tmp_path / "job.log").write_text(text)
        return [str(tmp_path / "job.log")]

    return write


def test_warnings_are_those_that_jobs_print_each_once(log):
    lines = [
        "warning: BBBC022, plate 1: out of focus",
        "simclr: WARNING collapsed after epoch 2",
        "WARNING live curves end here",
        "warning: BBBC022, plate 1: out of focus",
        "site-packages/torch/x.py:3: UserWarning: nobody can help it",
        "no warning here",
    ]
    assert warnings_in(log("\n".join(lines))) == [
        "BBBC022, plate 1: out of focus",
        "collapsed after epoch 2",
        "live curves end here",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "crops 1:  3%|\nerror: a.tif: no such file; copy it\nthe end\n",
            "a.tif: no such file; copy it",
        ),
        ("crop_plate.py: error: unrecognized arguments: --x", "unrecognized arguments: --x"),
        ('  File "x.py"\nValueError: no\n', "ValueError: no"),
        (
            "torch.OutOfMemoryError: CUDA out of memory\n",
            "torch.OutOfMemoryError: CUDA out of memory",
        ),
        ("error: 9 fields:\n" + "  bad\n" * 9 + "ends\n", "9 fields:" + "\n  bad" * 5),
        ("begins\nends\n", None),
        ("", None),
    ],
)
def test_the_error_is_our_line_or_the_last_of_a_traceback(log, text, error):
    assert error_in(log(text), since=0.0) == error


def test_without_an_error_the_last_line_tells_unless_it_is_progress(log):
    assert last_line_in(log("begins\nSegmentation fault\n\n"), 0.0) == "Segmentation fault"
    assert last_line_in(log("x:  50%|###  | 5/10 [00:03<00:04, 2 crops/s]\n"), 0.0) is None


def test_progress_is_read_as_jobs_write_it(log, capsys):
    progress = Progress(200, "crops", "crops 20585", every_s=0.0)
    progress.began -= 10
    progress.update(50, loss=0.5)
    said = progress_in(log("begins\n" + capsys.readouterr().err), since=0.0)
    assert said == "25 %, 00:30 left, 5.00 crops/s, loss 0.5"
    progress.update(150)
    assert progress_in(log(capsys.readouterr().err), since=0.0) is None, "what follows is unknown"


def test_a_log_of_an_earlier_run_or_none_says_nothing(log, tmp_path):
    later = time.time() + 60
    assert error_in(log("error: x: no\n"), later) is None
    assert progress_in(log("x:  50%|###  | 5/10 [00:03<00:04, 2 crops/s]"), later) is None
    gone = [str(tmp_path / "gone.log")]
    assert (error_in(gone, 0.0), progress_in(gone, 0.0), warnings_in(gone)) == (None, None, [])


def test_a_long_log_is_read_from_its_end(log):
    text = "warning: at the start\n" + "µ" * 3_000_000 + "\nwarning: at the end\n"
    assert warnings_in(log(text)) == ["at the end"]
