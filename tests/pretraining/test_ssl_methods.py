import copy
import subprocess
import sys
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.pretraining.methods import METHODS, deepcluster_v2
from hcsqc.pretraining.methods.base import projector
from hcsqc.pretraining.methods.covariance import off_diagonal_squares
from hcsqc.pretraining.methods.deepcluster_v2 import nearest, spherical_kmeans
from hcsqc.pretraining.sololearn import SinkhornKnopp

# Not an import statement: solo imports only after our `sololearn`, and sorting could move it.
KMeans = import_module("solo.utils.kmeans").KMeans

WIDTH, N, CROPS = 12, 16, 48
SETTINGS = {
    "simclr": {"projector_hidden": 20, "projector_output": 8, "temperature": 0.2},
    "barlow_twins": {
        "projector_hidden": 20,
        "projector_output": 8,
        "lambda_off_diagonal": 0.0051,
        "loss_scale": 0.1,
    },
    "vicreg": {
        "projector_hidden": 20,
        "projector_output": 8,
        "invariance_weight": 25.0,
        "variance_weight": 24.0,
        "covariance_weight": 1.5,
    },
    "swav": {
        "projector_hidden": 20,
        "projector_output": 8,
        "temperature": 0.1,
        "prototypes": 6,
        "prototypes_frozen_epochs": 1,
        "prototype_length_trained": True,
        "queue_size": 24,
        "queue_start_epoch": 1,
        "sinkhorn_epsilon": 0.05,
        "sinkhorn_iterations": 3,
    },
    "deepcluster_v2": {
        "projector_hidden": 20,
        "projector_output": 8,
        "temperature": 0.1,
        "prototypes": 6,
        "kmeans_iterations": 4,
    },
    "byol": {
        "projector_hidden": 20,
        "projector_output": 8,
        "predictor_hidden": 10,
        "tau_start": 0.9,
        "tau_end": 1.0,
    },
    "moco_v2_plus": {
        "projector_hidden": 20,
        "projector_output": 8,
        "temperature": 0.2,
        "queue_size": 40,
        "tau_start": 0.9,
        "tau_end": 0.99,
    },
    "simsiam": {"projector_hidden": 20, "projector_output": 8, "predictor_hidden": 4},
    "dino": {
        "projector_hidden": 20,
        "projector_output": 8,
        "prototypes": 6,
        "prototypes_frozen_epochs": 1,
        "student_temperature": 0.1,
        "teacher_temperature_start": 0.04,
        "teacher_temperature": 0.07,
        "teacher_warmup_epochs": 2,
        "centre_momentum": 0.9,
        "gradient_limit": 0.01,
        "tau_start": 0.9,
        "tau_end": 1.0,
    },
}


def make(name, **changes):
    torch.manual_seed(0)
    module = METHODS[name]
    settings = module.Settings(**{**SETTINGS[name], **changes})
    return module.Method(tiny_backbone(), WIDTH, settings, CROPS)


def tiny_backbone():
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten())


def batch(seed=2):
    generator = torch.Generator().manual_seed(seed)
    x1 = torch.randn(N, 3, 8, 8, generator=generator)
    return x1, x1 + 0.3 * torch.randn(N, 3, 8, 8, generator=generator)


def loss_and_gradient(backbone, loss):
    backbone.zero_grad()
    loss.backward()
    return loss.item(), backbone[0].weight.grad.clone()


def ours(backbone, method, epoch=0, rows=None):
    x1, x2 = batch()
    rows = torch.arange(N) if rows is None else rows
    features = method.features(backbone, x1, x2)
    return loss_and_gradient(backbone, method.loss(features, rows, epoch))


def projections(backbone, method):
    return [method.projector(backbone(x)) for x in batch()]


def assert_same(actual, expected):
    assert actual[0] == pytest.approx(expected[0], rel=1e-5)
    assert expected[1].abs().max() > 0
    assert torch.allclose(actual[1], expected[1], rtol=1e-3, atol=1e-5 * expected[1].abs().max())


def test_ssl_simclr_is_nt_xent_with_its_gradient():
    backbone, method = tiny_backbone(), make("simclr")
    z = F.normalize(torch.cat(projections(backbone, method)), dim=1)
    similarity = z @ z.T / 0.2
    loss = 0
    for i in range(2 * N):
        others = torch.cat([similarity[i, :i], similarity[i, i + 1 :]])
        loss = loss + others.logsumexp(0) - similarity[i, (i + N) % (2 * N)]
    assert_same(ours(backbone, method), loss_and_gradient(backbone, loss / (2 * N)))


def test_ssl_barlow_twins_is_the_papers_formula_with_its_gradient():
    backbone, method = tiny_backbone(), make("barlow_twins")
    z1, z2 = ((z - z.mean(0)) / z.std(0, unbiased=False) for z in projections(backbone, method))
    c = z1.T @ z2 / N
    diagonal = ((1 - c.diagonal()) ** 2).sum()
    off_diagonal = (c**2).sum() - (c.diagonal() ** 2).sum()
    expected = loss_and_gradient(backbone, 0.1 * (diagonal + 0.0051 * off_diagonal))
    actual = ours(backbone, method)
    # BatchNorm adds 1e-5 to the variance, the paper nothing.
    assert actual[0] == pytest.approx(expected[0], rel=2e-3)
    assert torch.allclose(actual[1], expected[1], atol=0.02 * expected[1].abs().max())


def test_ssl_vicreg_is_the_papers_formula_with_its_gradient():
    backbone, method = tiny_backbone(), make("vicreg")
    z1, z2 = projections(backbone, method)
    variance = covariance = 0
    for z in (z1, z2):
        variance = variance + F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()
        c = torch.cov(z.T)
        covariance = covariance + (c**2 - torch.diag(c.diagonal() ** 2)).sum() / z.shape[1]
    loss = 25 * ((z1 - z2) ** 2).mean() + 24 * variance + 1.5 * covariance
    assert_same(ours(backbone, method), loss_and_gradient(backbone, loss))


@pytest.mark.parametrize(("count", "width"), [(8, 64), (64, 8), (4096, 32)])
def test_ssl_squares_off_the_diagonal_are_those_of_the_whole_covariance(count, width):
    z1, z2 = torch.randn(2, count, width, generator=torch.Generator().manual_seed(0))
    product = z1.double().T @ z2.double()
    expected = product.square().sum() - product.diagonal().square().sum()
    off_diagonal, diagonal = off_diagonal_squares(z1, z2)
    assert off_diagonal.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(diagonal.double(), product.diagonal(), rtol=1e-4, atol=1e-3)


def sinkhorn(logits, epsilon, iterations):
    """Cuturi's scaling: prototypes get equal shares of the batch, then each crop sums to 1."""
    q = torch.exp((logits - logits.max()).double() / epsilon)
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q.float()


@pytest.mark.parametrize("epoch", [0, 1])
def test_ssl_swav_is_swapped_prediction_with_its_gradient(epoch):
    backbone, method = tiny_backbone(), make("swav")
    method.enqueue(F.normalize(torch.randn(2, 24, 8), dim=2))
    queue = method.queue.clone()
    z = [F.normalize(p) for p in projections(backbone, method)]
    weight = method.prototypes.weight
    codes = []
    for view in range(2):
        vectors = torch.cat([z[view], queue[view]]) if epoch == 1 else z[view]
        codes.append(sinkhorn((vectors @ weight.T).detach(), 0.05, 3)[:N])
    p1, p2 = (F.log_softmax(view @ weight.T / 0.1, dim=1) for view in z)
    loss = -(codes[0] * p2).sum(1).mean() / 2 - (codes[1] * p1).sum(1).mean() / 2
    expected = loss_and_gradient(backbone, loss)
    assert_same(ours(backbone, method, epoch=epoch), expected)


def test_ssl_swav_assignment_equals_sololearns_sinkhorn():
    method = make("swav")
    logits = torch.randn(N, 6)
    queue = F.normalize(torch.randn(24, 8), dim=1)
    together = torch.cat([logits, queue @ method.prototypes.weight.T]).detach()
    expected = SinkhornKnopp(3, 0.05, 1)(together)[:N]
    actual = method.assign(logits, queue)
    assert torch.allclose(actual, expected, atol=1e-5)
    assert torch.allclose(actual.sum(1), torch.ones(N), atol=1e-5)


def test_ssl_swav_assignment_survives_logits_that_overflow_sololearns():
    logits = 3 + 2 * torch.rand(N, 6, generator=torch.Generator().manual_seed(0))
    assert not SinkhornKnopp(3, 0.05, 1)(logits).isfinite().all()
    shares = make("swav").assign(logits, torch.zeros(0, 8))
    assert torch.allclose(shares, sinkhorn(logits, 0.05, 3), atol=1e-4)


def test_ssl_swav_queue_keeps_the_newest_crops_of_each_view():
    method = make("swav")
    batches = [torch.randn(2, N, 8) for _ in range(3)]
    for z in batches:
        method.enqueue(z)
    assert torch.equal(method.queue, torch.cat([batches[2], batches[1][:, :8]], dim=1))


def test_ssl_swav_queue_enters_at_its_epoch_only():
    backbone = tiny_backbone()
    losses = {}
    for filled in (False, True):
        for epoch in (0, 1):
            method = make("swav")
            if filled:
                method.enqueue(F.normalize(torch.randn(2, 24, 8), dim=2))
            losses[filled, epoch] = ours(backbone, method, epoch=epoch)[0]
    assert losses[False, 0] == losses[True, 0]
    assert losses[False, 1] != losses[True, 1]


def test_ssl_swav_prototypes_are_frozen_in_the_first_epochs_only():
    backbone, method = tiny_backbone(), make("swav")
    ours(backbone, method, epoch=0)
    assert all(p.grad is None for p in method.prototypes.parameters())
    ours(backbone, method, epoch=1)
    assert all(p.grad.abs().max() > 0 for p in method.prototypes.parameters())


def test_ssl_swav_prototypes_of_fixed_length_are_unit_vectors():
    backbone, method = tiny_backbone(), make("swav", prototype_length_trained=False)
    ours(backbone, method, epoch=1)
    torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1.0).step()
    assert torch.allclose(method.prototypes.weight.norm(dim=1), torch.ones(6))


def fill(backbone, method, seed=3):
    """Run an epoch of three batches; return the rows in the order in which they came."""
    order = torch.randperm(CROPS, generator=torch.Generator().manual_seed(seed))
    for rows in order.split(N):
        x1, x2 = batch(int(rows[0]))
        method.loss(method.features(backbone, x1, x2), rows, 0)
    return order


def sololearn_clusters(rows, vectors, prototypes, iterations):
    kmeans = KMeans(1, 0, 2, CROPS, vectors.shape[1], [prototypes], iterations)
    clusters, centroids = kmeans.cluster_memory(rows, torch.stack([vectors, vectors]))
    return clusters[0], centroids[0]


def test_ssl_deepcluster_first_epoch_has_loss_zero_and_zero_gradients():
    backbone, method = tiny_backbone(), make("deepcluster_v2")
    method.start_epoch(0)
    loss, gradient = ours(backbone, method, epoch=0)
    assert loss == 0 and gradient.abs().max() == 0


def test_ssl_deepcluster_clusters_equal_sololearns():
    backbone, method = tiny_backbone(), make("deepcluster_v2")
    method.start_epoch(0)
    order = fill(backbone, method)
    vectors = method.memory.clone()
    torch.manual_seed(7)
    clusters, centroids = sololearn_clusters(order, vectors, 6, 4)
    torch.manual_seed(7)
    method.start_epoch(1)
    assert torch.equal(method.clusters, clusters)
    assert torch.allclose(method.centroids, centroids, atol=1e-6)


def test_ssl_deepcluster_is_cross_entropy_with_the_clusters_and_its_gradient():
    backbone, method = tiny_backbone(), make("deepcluster_v2")
    method.start_epoch(0)
    order = fill(backbone, method)
    method.start_epoch(1)
    rows = order[:N]
    z = torch.cat([F.normalize(p) for p in projections(backbone, method)])
    log_shares = F.log_softmax(z @ method.centroids.T / 0.1, dim=1)
    targets = method.clusters[rows].repeat(2)
    loss = -log_shares[torch.arange(2 * N), targets].mean()
    expected = loss_and_gradient(backbone, loss)
    assert_same(ours(backbone, method, epoch=1, rows=rows), expected)


def test_ssl_deepcluster_leaves_out_crops_that_an_epoch_did_not_see():
    backbone, method = tiny_backbone(), make("deepcluster_v2")
    method.start_epoch(0)
    fill(backbone, method)
    method.start_epoch(1)
    for rows in (torch.arange(0, 16), torch.arange(20, 36)):
        x1, x2 = batch(int(rows[0]))
        method.loss(method.features(backbone, x1, x2), rows, 1)
    method.start_epoch(2)
    unseen = torch.cat([torch.arange(16, 20), torch.arange(36, CROPS)])
    assert (method.clusters[unseen] == -1).all()
    assert (method.clusters != -1).sum() == 32
    loss, _ = ours(backbone, method, epoch=2, rows=torch.arange(12, 28))
    assert 0 < loss < float("inf")


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_ssl_kmeans_in_chunks_equals_sololearns(chunk, monkeypatch):
    monkeypatch.setattr(deepcluster_v2, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(9, 16, generator=generator), dim=1)
    noise = 0.4 * torch.randn(500, 16, generator=generator)
    vectors = F.normalize(centres.repeat(56, 1)[:500] + noise, dim=1)
    torch.manual_seed(1)
    rows = torch.arange(500)
    kmeans = KMeans(1, 0, 1, 500, 16, [30], 10)
    expected, expected_centroids = kmeans.cluster_memory(rows, vectors[None])
    torch.manual_seed(1)
    first = vectors[torch.randperm(500)[:30]]
    clusters, centroids = spherical_kmeans(vectors, first, 10)
    assert torch.equal(clusters, expected[0])
    assert torch.allclose(centroids, expected_centroids[0], atol=1e-6)
    assert torch.equal(nearest(vectors, first), (vectors @ first.T).argmax(1))


def test_ssl_kmeans_keeps_the_centroid_of_an_empty_cluster():
    vectors = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1]]), dim=1)
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    clusters, centroids = spherical_kmeans(vectors, first, 3)
    assert clusters.tolist() == [0, 0]
    assert torch.allclose(centroids, first)


def test_ssl_deepcluster_refuses_fewer_crops_than_prototypes():
    with pytest.raises(InputError, match="48 crops are too few for 50 clusters"):
        make("deepcluster_v2", prototypes=50)


@pytest.mark.parametrize("name", METHODS)
def test_ssl_state_dict_carries_all_that_a_method_remembers(name):
    backbone = tiny_backbone()
    first, second = make(name), make(name)
    first.start_epoch(0)
    fill(backbone, first)
    first.start_epoch(1)
    ours(backbone, first, epoch=1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert ours(backbone, first, epoch=1)[0] == ours(backbone, second, epoch=1)[0]
    torch.manual_seed(5)
    first.start_epoch(2)
    torch.manual_seed(5)
    second.start_epoch(2)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize(
    ("batch_norm", "expected"),
    [(False, "Linear ReLU Linear"), (True, "Linear BatchNorm1d ReLU Linear")],
)
def test_ssl_projector_ends_in_a_plain_linear_layer(batch_norm, expected):
    layers = projector([4, 6, 2], batch_norm)
    assert " ".join(type(layer).__name__ for layer in layers) == expected
    assert (layers[0].in_features, layers[-1].out_features) == (4, 2)


def test_ssl_sololearn_imports_without_lightning():
    code = (
        "import sys, hcsqc.pretraining.sololearn; "
        "print([n for n in sys.modules if n in ('pytorch_lightning', 'pl_bolts', 'wandb')])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"
