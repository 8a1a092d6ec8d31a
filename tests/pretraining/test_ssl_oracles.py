"""Losses and gradients are those of solo-learn's own classes and of lightly's losses.

On random pixels, on crops of a simulated field, and on real ones where they lie on this machine.
"""

import copy
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from hcsqc.core.torchvision_mend import mend_torchvision
from hcsqc.crops.cut import cut_windows, window_inside
from hcsqc.crops.nuclei import NucleusSettings, find_nuclei
from hcsqc.encoders.models import build_backbone, feature_width, imagenet_input
from hcsqc.encoders.views import ViewSettings, two_views
from hcsqc.pretraining.methods import METHODS
from hcsqc.screens.images.read import read_field
from hcsqc.screens.simulate.camera import expose
from hcsqc.screens.simulate.cell_lines import CELL_LINES
from hcsqc.screens.simulate.cells import place_cells
from hcsqc.screens.simulate.model import SimulationSettings
from hcsqc.screens.simulate.paint import paint_field
from hcsqc.screens.simulate.textures import make_textures
from tests.conftest import EXAMPLE

mend_torchvision()
from lightly import loss as lightly  # noqa: E402

CROPS, N, WINDOW_PX = 16, 8, 64
EPOCHS = 3
INPUT = imagenet_input(33, channels=3)  # the least that leaves resnet18 four pixels to average
VIEWS = ViewSettings(0.75, 0.5, 0.5, 0.1, 0.8, 1.2)
SIZES = {"projector_hidden": 32, "projector_output": 12}
# The weights and the epochs of a method differ: one taken for another would show.
SETTINGS = {
    "simclr": SIZES | {"temperature": 0.07},
    "barlow_twins": SIZES | {"lambda_off_diagonal": 0.0051, "loss_scale": 0.025},
    "vicreg": SIZES
    | {"invariance_weight": 25.0, "variance_weight": 24.0, "covariance_weight": 1.5},
    "deepcluster_v2": SIZES | {"temperature": 0.07, "prototypes": 6, "kmeans_iterations": 1},
    "swav": SIZES
    | {
        "temperature": 0.07,
        "prototypes": 6,
        "prototypes_frozen_epochs": 2,
        "prototype_length_trained": True,
        "queue_size": 12,
        "queue_start_epoch": 1,
        "sinkhorn_epsilon": 0.05,
        "sinkhorn_iterations": 3,
    },
    "byol": SIZES | {"predictor_hidden": 20, "tau_start": 0.5, "tau_end": 0.9},
    "moco_v2_plus": SIZES
    | {"temperature": 0.2, "queue_size": CROPS, "tau_start": 0.5, "tau_end": 0.9},
    "simsiam": SIZES | {"predictor_hidden": 20},
    "dino": SIZES
    | {
        "prototypes": 6,
        "prototypes_frozen_epochs": 1,
        "student_temperature": 0.1,
        "teacher_temperature_start": 0.04,
        "teacher_temperature": 0.07,
        "teacher_warmup_epochs": 2,
        "centre_momentum": 0.9,
        "gradient_limit": 0.05,
        "tau_start": 0.5,
        "tau_end": 0.9,
    },
}


def random_crops():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (CROPS, 3, WINDOW_PX, WINDOW_PX), dtype=np.uint8)


def simulated_crops():
    settings = SimulationSettings("u2os", ("B02",), 1, 520, 696, 60, 0.2, 0.0, 0.0, 7)
    line, textures, rng = CELL_LINES["u2os"], make_textures(), np.random.default_rng(7)
    cells = place_cells(settings, line, textures, rng)
    field = expose(paint_field(cells, line, (520, 696), textures, rng), rng)
    return crops_of(field[0], field[[3, 4, 0]])


def real_crops():
    paths = sorted(map(str, (EXAMPLE / "images").glob("*/*_A01_s1_*.tif")))
    dna, actin, mitochondria = read_field(EXAMPLE, paths).planes
    return crops_of(dna, [actin, mitochondria, dna])


def crops_of(dna, planes):
    """Return crops around the nuclei of a field's DNA stain: of three planes as bytes."""
    field = np.stack(planes)
    low, high = np.percentile(field, (0.5, 99.5), axis=(1, 2), keepdims=True)
    pixels = np.uint8(np.clip(255 * (field - low) / (high - low), 0, 255))
    nuclei = find_nuclei(dna, NucleusSettings("fast", 25, 80))
    inside = window_inside(nuclei.x_px, nuclei.y_px, field.shape[1:], WINDOW_PX)
    crops = cut_windows(pixels, nuclei.x_px[inside], nuclei.y_px[inside], WINDOW_PX)
    assert len(crops) >= CROPS
    return crops[:CROPS]


@pytest.fixture(scope="module", params=[random_crops, simulated_crops, real_crops])
def crops(request):
    return request.param()


def make(name, architecture):
    """Return a backbone, in memory as in training, and a method."""
    torch.manual_seed(0)
    backbone = build_backbone(architecture, INPUT.channels).to(memory_format=torch.channels_last)
    settings = METHODS[name].Settings(**SETTINGS[name])
    width = feature_width(backbone, INPUT)
    return backbone, METHODS[name].Method(backbone, width, settings, CROPS)


def assert_same(actual, expected, tolerance):
    """Compare tensors; `tolerance` is a share of their largest number."""
    largest = max(float(tensor.abs().max()) for tensor in expected if tensor is not None)
    assert largest > 0
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * largest)


# Where solo-learn's classes are, and what they call our settings.
THEIR_CLASSES = {
    "simclr": ("simclr", "SimCLR"),
    "barlow_twins": ("barlow_twins", "BarlowTwins"),
    "vicreg": ("vicreg", "VICReg"),
    "deepcluster_v2": ("deepclusterv2", "DeepClusterV2"),
    "swav": ("swav", "SwAV"),
    "byol": ("byol", "BYOL"),
    "moco_v2_plus": ("mocov2plus", "MoCoV2Plus"),
    "simsiam": ("simsiam", "SimSiam"),
    "dino": ("dino", "DINO"),
}
THEIR_NAMES = {
    "projector_hidden": "proj_hidden_dim",
    "projector_output": "proj_output_dim",
    "lambda_off_diagonal": "lamb",
    "loss_scale": "scale_loss",
    "invariance_weight": "sim_loss_weight",
    "variance_weight": "var_loss_weight",
    "covariance_weight": "cov_loss_weight",
    "prototypes": "num_prototypes",
    "kmeans_iterations": "kmeans_iters",
    "prototypes_frozen_epochs": "freeze_prototypes_epochs",
    "queue_start_epoch": "epoch_queue_starts",
    "sinkhorn_epsilon": "sk_epsilon",
    "sinkhorn_iterations": "sk_iters",
    "predictor_hidden": "pred_hidden_dim",
    "tau_start": "base_tau_momentum",
    "tau_end": "final_tau_momentum",
}
THEIR_NAMES_OF_DINO = {
    "prototypes_frozen_epochs": "freeze_last_layer",
    "teacher_temperature_start": "warmup_teacher_temperature",
    "teacher_warmup_epochs": "warmup_teacher_temperature_epochs",
    "gradient_limit": "clip_grad",
}
# Their step adds the loss of a classifier on detached features; with one class that is exactly 0.
BASE = {"encoder": "resnet18", "backbone_args": {}, "batch_size": N, "num_classes": 1}
BASE |= {"num_large_crops": 2, "num_small_crops": 0, "max_epochs": EPOCHS}
BASE |= {"momentum_classifier": False, "use_bn_in_head": False, "norm_last_layer": True}
OF_THE_OPTIMIZER = (
    *("optimizer", "lars", "lr", "weight_decay", "classifier_lr", "scheduler"),
    *("exclude_bias_n_norm", "accumulate_grad_batches", "extra_optimizer_args", "min_lr"),
    *("warmup_start_lr", "warmup_epochs"),
)


class LightningModule(nn.Module):
    """What solo-learn's classes ask of Lightning's, on one process."""

    device, global_rank = "cpu", 0

    def __init__(self):
        super().__init__()
        self.trainer = SimpleNamespace(
            world_size=1,
            train_dataloader=DataLoader(range(CROPS), N),
            global_step=0,
            accumulate_grad_batches=1,
            max_epochs=EPOCHS,
        )

    def log(self, *_, **__):
        """Do nothing."""

    log_dict = on_train_start = on_train_epoch_start = log
    on_after_backward = on_train_batch_end = log


@pytest.fixture
def stand_ins(monkeypatch):
    """Let solo-learn's classes be imported and made, in this test only."""
    methods = ModuleType("solo.methods")  # bare, as in hcsqc.sololearn
    methods.__path__ = [f"{folder}/methods" for folder in sys.modules["solo"].__path__]
    monkeypatch.setitem(sys.modules, "solo.methods", methods)
    lightning = SimpleNamespace(LightningModule=LightningModule)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", lightning)
    for unused in (
        "pl_bolts.optimizers.lr_scheduler",
        "einops",
        "distutils",
        "solo.utils.knn",
        "solo.utils.backbones",
    ):
        monkeypatch.setitem(sys.modules, unused, MagicMock())
    yield
    for name in [name for name in sys.modules if name.startswith("solo.methods.")]:
        del sys.modules[name]


def another(backbone):
    """Return a copy with the name that torchvision gives to the width of its features."""
    copied = copy.deepcopy(backbone)
    copied.inplanes = backbone.num_features
    return copied


def make_theirs(name, backbone, method):
    """Return solo-learn's module with our settings and weights."""
    names = THEIR_NAMES | (THEIR_NAMES_OF_DINO if name == "dino" else {})
    arguments = {names.get(key, key): value for key, value in SETTINGS[name].items()}
    if name == "deepcluster_v2":
        arguments["num_prototypes"] = [arguments["num_prototypes"]]
    module, class_name = THEIR_CLASSES[name]
    their_class = getattr(import_module(f"solo.methods.{module}"), class_name)
    theirs = their_class(**BASE, **dict.fromkeys(OF_THE_OPTIMIZER, 0), **arguments)
    theirs.encoder.load_state_dict(backbone.state_dict())
    (theirs.head.mlp if name == "dino" else theirs.projector).load_state_dict(
        (method.projector.mlp if name == "dino" else method.projector).state_dict()
    )
    if hasattr(method, "predictor"):
        theirs.predictor.load_state_dict(method.predictor.state_dict())
    if name in ("swav", "dino"):
        prototypes = method.prototypes if name == "swav" else method.projector.prototypes
        length, direction = prototypes.parameters()
        (theirs.prototypes if name == "swav" else theirs.head.last_layer).load_state_dict(
            {"weight_g": length, "weight_v": direction}
        )
    for online, momentum in getattr(theirs, "momentum_pairs", []):
        momentum.load_state_dict(online.state_dict())
    if name == "moco_v2_plus":
        theirs.queue.copy_(method.queue.transpose(1, 2))
    theirs.on_train_start()
    return theirs.to(memory_format=torch.channels_last)


def trained(module):
    """Return the parameters of a module that are trained, but for solo-learn's classifier."""
    weights = module.named_parameters()
    return [w for name, w in weights if w.requires_grad and "classifier" not in name]


def gradients(module):
    """Return the gradients of all that is trained, but for solo-learn's classifier."""
    return [weight.grad for weight in trained(module)]


MOMENTUM = ("byol", "moco_v2_plus", "dino")
PAPERS = ("simclr", "barlow_twins", "vicreg", "deepcluster_v2", "swav")
# Batches in each epoch: DeepCluster v2 clusters a whole first one, SwAV's settings change in three.
# DINO's in two; the second batch of the others meets a queue and a momentum network that moved.
SCHEDULES = {
    "simclr": [1],
    "barlow_twins": [1],
    "vicreg": [1],
    "deepcluster_v2": [CROPS // N, 1],
    "swav": [1, 1, 1],
    "byol": [2],
    "moco_v2_plus": [2],
    "simsiam": [1],
    "dino": [1, 1],
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", METHODS)
def test_ssl_loss_and_gradients_equal_sololearns_training_step(name, crops, stand_ins, monkeypatch):
    backbone, method = make(name, "resnet18" if name in PAPERS else "test_resnet")
    if name not in PAPERS:  # a small one in both, for the sake of time
        monkeypatch.setattr("torchvision.models.resnet18", lambda: another(backbone))
    theirs = make_theirs(name, backbone, method)
    ours = nn.ModuleList([backbone, method])
    # Against overflow, SwAV takes the largest logit from all before Sinkhorn; MoCo's queue lies
    # otherwise in memory; squares of covariances add up in another order.
    rounded = "swav", "moco_v2_plus", "barlow_twins", "vicreg"
    tolerance = 2e-5 if name in rounded else 0
    rng = np.random.default_rng(1)
    for epoch, batches in enumerate(SCHEDULES[name]):
        theirs.current_epoch = epoch
        torch.manual_seed(epoch)  # both draw the first centroids of DeepCluster v2
        method.start_epoch(epoch)
        torch.manual_seed(epoch)
        theirs.on_train_epoch_start()
        order = torch.from_numpy(rng.permutation(CROPS))
        for batch, rows in enumerate(order.split(N)[:batches]):
            views = two_views(crops[rows], VIEWS, INPUT, rng)
            loss = method.loss(method.features(backbone, *views), rows, epoch)
            seen = [rows, views, torch.zeros_like(rows)]
            their_loss = theirs.training_step(seen, batch)
            if name == "deepcluster_v2" and epoch == 0:
                # There are no clusters yet: theirs is a mean of nothing, ours leaves it out.
                assert loss == 0 and their_loss.isnan()
                continue
            ours.zero_grad()
            theirs.zero_grad()
            loss.backward()
            their_loss.backward()
            method.limit_gradients(backbone, epoch)
            theirs.on_after_backward()
            assert_same([loss.detach()], [their_loss.detach()], tolerance)
            assert_same(gradients(ours), gradients(theirs), tolerance)
            if name in MOMENTUM:
                for module in (ours, theirs):
                    torch.optim.SGD(trained(module), lr=0.1).step()
                method.after_step(backbone, theirs.trainer.global_step, EPOCHS * CROPS // N)
                theirs.trainer.global_step += 1
                theirs.on_train_batch_end(their_loss, seen, batch, 0)
                assert_same(momentum_of(method), theirs_of_momentum(theirs), tolerance)


def momentum_of(method):
    """Return the weights of our momentum networks, and the statistics of their BatchNorm."""
    networks = method.momentum_backbone, method.momentum_projector
    return [value for network in networks for value in network.state_dict().values()]


def theirs_of_momentum(theirs):
    """Return those of solo-learn's."""
    return [
        value for _, network in theirs.momentum_pairs for value in network.state_dict().values()
    ]


def lightly_simclr(method, z1, z2):
    return lightly.NTXentLoss(method.temperature)(z1, z2)


def lightly_barlow_twins(method, z1, z2):
    settings = method.settings
    return settings.loss_scale * lightly.BarlowTwinsLoss(settings.lambda_off_diagonal)(z1, z2)


def lightly_vicreg(method, z1, z2):
    settings = method.settings
    variance_weight = 2 * settings.variance_weight  # lightly takes the views' mean, we the sum
    loss = lightly.VICRegLoss(
        settings.invariance_weight, variance_weight, settings.covariance_weight
    )
    return loss(z1, z2)


def lightly_swav(method, z1, z2):
    settings, prototypes = method.settings, method.prototypes.weight
    loss = lightly.SwaVLoss(
        settings.temperature, settings.sinkhorn_iterations, settings.sinkhorn_epsilon
    )
    logits = [F.normalize(z) @ prototypes.T for z in (z1, z2)]
    return loss(logits, [], [queue @ prototypes.T for queue in method.queue]).squeeze()


def lightly_byol(method, z1, z2, targets):
    """Two losses of 2 - 2 cosine, where lightly has the negative cosine."""
    cosine = lightly.NegativeCosineSimilarity()
    p1, p2 = method.predictor(z1), method.predictor(z2)
    return 4 + 2 * cosine(p1, targets[1]) + 2 * cosine(p2, targets[0])


def lightly_simsiam(method, z1, z2):
    cosine = lightly.NegativeCosineSimilarity()
    p1, p2 = method.predictor(z1), method.predictor(z2)
    return (cosine(p1, z2.detach()) + cosine(p2, z1.detach())) / 2


def lightly_moco_v2_plus(method, z1, z2, targets):
    def loss(query, key, queue):
        of_queue = lightly.NTXentLoss(method.settings.temperature, queue.shape)
        of_queue.memory_bank.bank = queue.clone()
        return of_queue(query, key)

    return (loss(z1, targets[1], method.queue[1]) + loss(z2, targets[0], method.queue[0])) / 2


def lightly_dino(method, z1, z2, targets):
    settings = method.settings
    loss = lightly.DINOLoss(
        settings.prototypes,
        settings.teacher_temperature_start,
        settings.teacher_temperature,
        settings.teacher_warmup_epochs,
        settings.student_temperature,
        settings.centre_momentum,
    )
    loss.center += method.dino_loss.center
    return loss(targets, [z1, z2], epoch=2)


@pytest.mark.parametrize(
    "lightly_loss",
    [
        lightly_simclr,
        lightly_barlow_twins,
        lightly_vicreg,
        lightly_swav,
        lightly_byol,
        lightly_moco_v2_plus,
        lightly_simsiam,
        lightly_dino,
    ],
)
def test_ssl_loss_and_gradients_equal_lightlys(lightly_loss, crops):
    backbone, method = make(lightly_loss.__name__.removeprefix("lightly_"), "test_resnet")
    views = two_views(crops[:N], VIEWS, INPUT, np.random.default_rng(1))
    if lightly_loss is lightly_swav:
        method.enqueue(F.normalize(torch.randn_like(method.queue), dim=2))
    if lightly_loss is lightly_dino:
        method.dino_loss.center.copy_(torch.randn(1, 6) / 10)

    def loss_and_gradients(loss):
        """Return a loss of the views' features, its gradients at conv1 and at the projections."""
        projected = []
        with method.projector.register_forward_hook(lambda *call: projected.append(call[-1])):
            value = loss(method.features(backbone, *views))
        weights = next(backbone.conv1.parameters())
        return [value.detach(), *torch.autograd.grad(value, [weights, *projected])]

    def theirs(features):
        if len(features) == 2:
            return lightly_loss(method, *map(method.projector, features))
        projected, targets = method.projections(features)
        return lightly_loss(method, *projected, targets)

    def ours(features):
        return method.loss(features, torch.arange(N), epoch=2)

    expected = loss_and_gradients(theirs)  # first, because ours puts the batch into a queue
    for actual, wanted in zip(loss_and_gradients(ours), expected, strict=True):
        assert_same([actual], [wanted], tolerance=2e-5)
