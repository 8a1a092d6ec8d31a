"""What BYOL, MoCo v2+, SimSiam and DINO do from step to step: known answers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hcsqc.core.errors import InputError
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.methods.momentum import MomentumMethod
from tests.pretraining.test_pretraining_run import advance, new_run
from tests.pretraining.test_ssl_methods import CROPS, WIDTH, N, batch, make, ours, tiny_backbone
from tests.pretraining.test_ssl_pretraining import run as pretrained
from tests.pretraining.test_ssl_pretraining import state_of

MOMENTUM = [name for name, module in METHODS.items() if issubclass(module.Method, MomentumMethod)]


def one_layer(tau_start, tau_end):
    """Return a trained layer of weight 1 and a method whose momentum copy of it has weight 0."""
    layer = nn.Linear(1, 1, bias=False)
    method = MomentumMethod(layer, nn.Linear(1, 1), tau_start, tau_end)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(method.momentum_backbone.weight)
    return layer, method


def test_ssl_momentum_network_keeps_tau_of_itself_and_tau_rises_by_half_a_cosine():
    for step, tau in ((0, 0.8), (5, 0.9), (10, 1.0)):
        layer, method = one_layer(0.8, 1.0)
        method.after_step(layer, step, 10)
        assert method.momentum_backbone.weight.item() == pytest.approx(1 - tau, abs=1e-6)
    layer, method = one_layer(0.5, 0.9)
    expected = 0.0
    for step in range(4):
        method.after_step(layer, step, 4)
        tau = 0.9 - 0.4 * (1 + math.cos(math.pi * step / 4)) / 2
        expected = tau * expected + (1 - tau)
    assert method.momentum_backbone.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 1, "the trained network does not follow"


@pytest.mark.parametrize(("start", "end"), [(0.9, 0.8), (-0.1, 0.5), (0.5, 1.1)])
def test_ssl_tau_that_falls_or_is_no_share_is_refused(start, end):
    with pytest.raises(InputError, match=f"tau_start is {start} and tau_end {end}; expected 0 <="):
        one_layer(start, end)


@pytest.mark.parametrize("name", MOMENTUM)
def test_ssl_momentum_networks_begin_as_copies_and_are_moved_by_averaging_alone(name):
    run = new_run(name)
    method, online = run.method, run.backbone.state_dict()
    copies = [method.momentum_backbone, method.momentum_projector]
    for key, value in method.momentum_backbone.state_dict().items():
        assert torch.equal(value, online[key]), key
    in_training = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not [p for copy in copies for p in copy.parameters() if id(p) in in_training]
    before = [p.clone() for p in method.momentum_backbone.parameters()]
    advance(run, 1)
    tau = 0.5  # of the first step in the settings of all three
    for old, now, trained in zip(
        before, method.momentum_backbone.parameters(), run.backbone.parameters(), strict=True
    ):
        assert now.grad is None
        torch.testing.assert_close(now, tau * old + (1 - tau) * trained)


def test_ssl_momentum_batchnorm_has_statistics_of_its_own():
    run = new_run("byol")
    advance(run, 2)
    trained, copied = (
        network.state_dict()["conv1.1.running_mean"]
        for network in (run.backbone, run.method.momentum_backbone)
    )
    assert copied.abs().max() > 0 and not torch.equal(trained, copied)
    before = copied.clone()
    run.method.after_step(run.backbone, 0, 9)
    assert torch.equal(copied, before), "they are no average of the trained network's"


def test_ssl_the_encoder_is_the_trained_backbone_and_not_its_momentum_copy(tmp_path):
    run = new_run("dino")
    advance(run, run.total_steps)
    result = pretrained(tmp_path, "dino")
    name = "conv1.0.weight"
    stored = result.backbone.state_dict()[name]
    assert torch.equal(stored, run.backbone.state_dict()[name])
    assert not torch.equal(stored, run.method.momentum_backbone.state_dict()[name])
    assert "method" not in state_of(tmp_path), "no step needs the momentum network any more"


def test_ssl_byol_and_simsiam_predict_the_other_view():
    x1, x2 = batch()
    for name, loss_of in (
        ("byol", lambda cosine: 4 - 2 * sum(cosine)),
        ("simsiam", lambda cosine: -sum(cosine) / 2),
    ):
        backbone, method = tiny_backbone(), make(name)
        z1, z2 = (method.projector(backbone(x)) for x in (x1, x2))
        pairs = ((method.predictor(z1), z2), (method.predictor(z2), z1))
        cosine = [(F.normalize(p) * F.normalize(z)).sum(1).mean() for p, z in pairs]
        # BYOL's momentum network is still a copy of the trained one.
        assert ours(backbone, method)[0] == pytest.approx(loss_of(cosine).item(), rel=1e-5)


def test_ssl_simsiams_predictor_keeps_the_peak_rate():
    for optimizer in ("sgd", "lars"):
        run = new_run("simsiam", optimizer=optimizer, epochs=3)
        advance(run, 8)
        predictor = {id(p) for p in run.method.predictor.parameters()}
        for group in run.optimizer.param_groups:
            constant = {id(p) in predictor for p in group["params"]}
            assert constant == {group["constant_rate"]}
            assert (group["lr"] == run.recipe.settings.peak_rate) == constant.pop()
        groups = [p for group in run.optimizer.param_groups for p in group["params"]]
        trained = [p for p in run.method.parameters() if p.requires_grad]
        assert len(groups) == len(list(run.backbone.parameters())) + len(trained)
        assert 0 < run.learning_rate < run.recipe.settings.peak_rate


def test_ssl_mocos_queue_replaces_the_oldest_and_goes_round():
    method = make("moco_v2_plus")
    first = method.queue.clone()
    assert torch.allclose(first.norm(dim=2), torch.ones(2, 40))
    batches = [torch.randn(2, N, 8) for _ in range(4)]
    for keys in batches[:2]:
        method.enqueue(keys)
    assert torch.equal(method.queue, torch.cat([*batches[:2], first[:, 32:]], dim=1))
    for keys in batches[2:]:
        method.enqueue(keys)
    newest = [batches[2][:, 8:], batches[3], batches[1][:, 8:], batches[2][:, :8]]
    assert torch.equal(method.queue, torch.cat(newest, dim=1))
    assert method.oldest == 24


def test_ssl_mocos_queue_that_is_shorter_than_a_batch_keeps_the_newest():
    method = make("moco_v2_plus", queue_size=5)
    keys = torch.randn(2, N, 8)
    method.enqueue(keys)
    assert torch.equal(method.queue, keys[:, -5:])


def test_ssl_moco_distinguishes_a_crop_from_those_that_came_before_it():
    backbone, method = tiny_backbone(), make("moco_v2_plus")
    queue = method.queue.clone()
    z = [F.normalize(method.projector(backbone(x))) for x in batch()]
    losses = []
    for view, other in ((0, 1), (1, 0)):
        positive = (z[view] * z[other]).sum(1, keepdim=True)
        logits = torch.cat([positive, z[view] @ queue[other].T], dim=1) / 0.2
        losses.append((logits.logsumexp(1) - logits[:, 0]).mean())
    assert ours(backbone, method)[0] == pytest.approx((sum(losses) / 2).item(), rel=1e-5)
    assert torch.allclose(method.queue[:, :N], torch.stack(z), atol=1e-6)


def test_ssl_moco_refuses_a_queue_that_holds_a_crop_itself():
    with pytest.raises(InputError, match="a queue of 49 would hold each of 48 crops.*lower queue"):
        make("moco_v2_plus", queue_size=CROPS + 1)


@pytest.mark.parametrize(("epoch", "temperature"), [(0, 0.04), (1, 0.07), (5, 0.07)])
def test_ssl_dino_predicts_the_teachers_shares_at_the_temperature_of_the_epoch(epoch, temperature):
    backbone, method = tiny_backbone(), make("dino")
    centre = torch.randn(1, 6) / 10
    method.dino_loss.center.copy_(centre)
    logits = [method.projector(backbone(x)) for x in batch()]
    teacher = [F.softmax((view - centre) / temperature, dim=1).detach() for view in logits]
    student = [F.log_softmax(view / 0.1, dim=1) for view in logits]
    loss = (
        -(teacher[0] * student[1]).sum(1).mean() / 2 - (teacher[1] * student[0]).sum(1).mean() / 2
    )
    assert ours(backbone, method, epoch=epoch)[0] == pytest.approx(loss.item(), rel=1e-5)
    moved = 0.9 * centre + 0.1 * torch.cat(logits).mean(0)
    assert torch.allclose(method.dino_loss.center, moved, atol=1e-6)


def test_ssl_dinos_logits_are_cosines():
    head = make("dino").projector
    features = 100 * torch.randn(N, WIDTH)
    expected = F.normalize(head.mlp(features)) @ F.normalize(head.prototypes.weight).T
    assert torch.allclose(head(features), expected, atol=1e-6)
    assert head(features).abs().max() <= 1 + 1e-6


def test_ssl_dino_freezes_its_prototypes_in_the_first_epochs_only():
    run = new_run("dino")
    prototypes = run.method.projector.prototypes
    before = prototypes.weight.clone()
    advance(run, 3)
    assert run.epoch == 1 and torch.equal(prototypes.weight, before)
    advance(run, 1)
    assert not torch.equal(prototypes.weight, before)
    assert torch.allclose(prototypes.weight.norm(dim=1), torch.ones(6))


def test_ssl_dino_shortens_long_gradients_of_the_backbone_and_leaves_short_ones():
    backbone, method = tiny_backbone(), make("dino", gradient_limit=1.0)
    long, short = backbone[0].weight, backbone[0].bias
    long.grad, short.grad = torch.full_like(long, 3.0), torch.full_like(short, 0.01)
    of_head = method.projector.mlp[0].weight
    of_head.grad = torch.full_like(of_head, 3.0)
    method.limit_gradients(backbone, epoch=1)
    assert long.grad.norm() == pytest.approx(1, abs=1e-5)
    assert torch.equal(short.grad, torch.full_like(short, 0.01))
    assert torch.equal(of_head.grad, torch.full_like(of_head, 3.0))
    long.grad = torch.full_like(long, 3.0)
    make("dino", gradient_limit=0.0).limit_gradients(backbone, epoch=1)
    assert torch.equal(long.grad, torch.full_like(long, 3.0)), "0 is no limit"
