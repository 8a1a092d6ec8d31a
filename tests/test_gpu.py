"""On a GPU the same comes out as on a CPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from hcsqc.crops.shards import ShardFormat, Shards, ShardWriter
from hcsqc.encoders.models import InputSpec, imagenet_input
from hcsqc.encoders.store import random_encoder
from hcsqc.encoders.views import normalise, two_views
from hcsqc.features.extract import FeatureBatches
from hcsqc.pretraining.loop import pretrain
from hcsqc.pretraining.methods import METHODS
from hcsqc.probes.finetune import FinetuneSettings, finetune, finetuned_scores
from tests.pretraining.test_ssl_pretraining import VIEWS, Cells, Killed, recipe_of, state_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

CHANNELS = ("w1", "w2", "w3")
EPOCHS_OF_SGD = FinetuneSettings(
    epochs=4, batch_size=8, learning_rate=0.01, momentum=0.9, weight_decay=0.0, milestones=(3,),
    gamma=0.1, batchnorm="train", least_steps=0,
)  # fmt: skip


def run(folder, method, device, source=None):
    return pretrain(source or Cells(), recipe_of(method), folder, method, device)


def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_views_are_those_of_the_cpu_to_within_rounding():
    crops, spec = Cells(64, 48).crops, imagenet_input(32, 3)
    on_cpu = two_views(crops, VIEWS, spec, np.random.default_rng(1))
    on_gpu = two_views(crops, VIEWS, spec, np.random.default_rng(1), "cuda")
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other.is_cuda and other.dtype == one.dtype and other.shape == one.shape
        grey_levels = (one - other.cpu()).abs() * 255 * torch.tensor(spec.std)[:, None, None]
        assert grey_levels.max() < 1


@pytest.mark.parametrize("method", METHODS)
def test_a_method_begins_as_on_the_cpu_and_goes_on(method, tmp_path):
    losses = {}
    for device in ("cpu", "cuda"):
        curves = run(tmp_path / device, method, device).curves
        losses[device] = [point["loss"] for point in curves]
        assert np.isfinite(losses[device]).all() and len(curves) == 6
        assert all(point["memory_gb"] > 0 for point in curves)
    # Views are not rounded to grey levels there; later steps of batches so small go far apart.
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_from_its_checkpoint(method, tmp_path):
    whole = run(tmp_path / "whole", method, "cuda").curves
    with pytest.raises(Killed):
        run(tmp_path / "cut", method, "cuda", Cells(kill_at_read=4))
    source = Cells()
    went_on = run(tmp_path / "cut", method, "cuda", source)
    assert len(source.reads) < 6
    assert [point["step"] for point in went_on.curves] == [point["step"] for point in whole]
    losses = [[point["loss"] for point in curves] for curves in (went_on.curves, whole)]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert "cuda" in state_of(tmp_path / "cut")["random"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_are_those_of_the_cpu(precision, tmp_path, monkeypatch):
    crops = Cells(40, 48).crops
    writer = ShardWriter(tmp_path / "p.parquet", ShardFormat(CHANNELS, 48, "uint8", {}))
    names = [f"sim/p/B02/s1/x{i:04d}y0001" for i in range(len(crops))]
    numbers = dict.fromkeys(("x_px", "y_px", "nucleus_area_px"), np.arange(len(crops)))
    writer.add({"crop_id": names, "field_id": names, **numbers}, crops)
    writer.close()
    encoder = random_encoder("resnet18", 64, 3, seed=0)
    shards, rows = Shards([tmp_path / "p.parquet"]), np.arange(len(crops))

    def features(precision):
        batches = FeatureBatches(encoder, shards, CHANNELS, rows, 16, precision, "test")
        return np.concatenate([found for _, found, _ in batches])

    on_gpu = features(precision)
    without_gpu(monkeypatch)
    on_cpu = features("float32")
    lengths = np.linalg.norm(on_gpu, axis=1) * np.linalg.norm(on_cpu, axis=1)
    cosine = (on_gpu * on_cpu).sum(axis=1) / lengths
    assert cosine.min() > (0.9999 if precision == "float32" else 0.999)


def test_finetuning_tells_bright_crops_from_dark_ones_as_on_the_cpu(monkeypatch):
    rng = np.random.default_rng(0)
    targets = np.arange(32) % 2
    crops = rng.integers(0, 80, (32, 3, 32, 32)) + 120 * targets[:, None, None, None]
    encoder = random_encoder("test_resnet", 32, 3, seed=0)

    def scores():
        network = finetune(
            encoder, crops.astype(np.uint8), targets, EPOCHS_OF_SGD, (0, 0), lambda *_: None
        )
        return finetuned_scores(network, encoder, crops.astype(np.uint8), 8)

    on_gpu = scores()
    without_gpu(monkeypatch)
    on_cpu = scores()
    assert ((on_gpu > 0.5) == targets).all()
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.05)


@pytest.mark.parametrize("how", ["per_image_zscore", "per_image_minmax"])
def test_crops_normalised_per_image_are_those_of_the_cpu(how):
    crops = Cells(16, 48).crops
    crops[0, 0] = 77  # constant
    spec = InputSpec(32, (0.0,) * 3, (1.0,) * 3, normalisation=how)
    on_cpu, on_gpu = normalise(crops, spec), normalise(crops, spec, "cuda")
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-4)
    assert not on_gpu[0, 0].any()
