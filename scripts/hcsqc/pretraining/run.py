"""A pretraining run: all that changes from step to step, and the step itself."""

import math
import time
from dataclasses import asdict

import torch
from torch import Tensor

from hcsqc import __version__
from hcsqc.core.devices import choose_device, device_name, precision_on
from hcsqc.core.errors import InputError
from hcsqc.encoders.models import build_backbone, feature_width, imagenet_input
from hcsqc.pretraining.batches import Batch, BatchLoader, CropSource
from hcsqc.pretraining.checkpoints import random_state, set_random_state
from hcsqc.pretraining.methods import METHODS
from hcsqc.pretraining.methods.base import SelfSupervised
from hcsqc.pretraining.optimizers import build_optimizer, learning_rate_at
from hcsqc.pretraining.settings import Recipe


class PretrainingRun:
    """A backbone in training, with all that its next steps depend on.

    `state_dict()` holds what has changed since the run was made. A run of the same recipe and
    crops that loads it goes on as this one does, on a CPU bit for bit.
    """

    def __init__(self, source: CropSource, recipe: Recipe, label: str, device: str = "auto"):
        """Build backbone, method and optimizer; seeds torch's random numbers.

        `label` begins messages; `device` is auto (a GPU if there is one), cpu or cuda. Raises
        InputError if the crops are fewer than a batch, or for a device that is not there.
        """
        self.began = time.monotonic()
        self.seconds_before = 0.0  # of the calls that the run took before this one
        self.source, self.recipe, self.label = source, recipe, label
        settings = recipe.settings
        self.steps_per_epoch = len(source) // settings.batch_size
        if self.steps_per_epoch == 0:
            raise InputError(
                f"{label}: {len(source)} crops are fewer than one batch of {settings.batch_size}; "
                "lower batch_size or pretrain on more crops"
            )
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.device = choose_device(device)
        self.precision = precision_on(self.device, settings.precision)
        self.input_spec = imagenet_input(settings.input_px, source.channels)
        self.loader = BatchLoader(source, recipe, self.input_spec, self.device)
        self._build_networks()
        self.step = 0  # steps taken
        self.curves: list[dict[str, float]] = []
        self.stalled = 0.0  # seconds spent waiting for batches

    def _build_networks(self) -> None:
        settings, source = self.recipe.settings, self.source
        torch.manual_seed(self.recipe.seed)
        self.backbone = build_backbone(settings.architecture, source.channels, settings.input_px)
        width = feature_width(self.backbone, self.input_spec)
        self.method: SelfSupervised = METHODS[settings.method].Method(
            self.backbone, width, self.recipe.method_settings, len(source)
        )
        for network in (self.backbone, self.method):
            network.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(
            settings.optimizer,
            [*self.backbone.parameters(), *self.method.parameters()],
            settings.momentum,
            settings.weight_decay,
            self.method.at_constant_rate,
        )

    def state_dict(self) -> dict[str, object]:
        """Return the state of the run, with references to its tensors, as in PyTorch.

        The states of torch's random numbers, which are the process's, are part of it. When all
        steps are taken, it is without those of method and optimizer, which may be large.
        """
        training = {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}
        return ({} if self.step == self.total_steps else training) | {
            "backbone": self.backbone.state_dict(),
            "random": random_state(self.device),
            "hardware": self.hardware,
            "step": self.step,
            "curves": self.curves,
            "seconds": self.seconds,
            "stalled": self.stalled,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a state; one made on other hardware goes on from there on this."""
        self.backbone.load_state_dict(state["backbone"])
        if state["step"] < self.total_steps:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"], self.device)
        self.step = state["step"]
        self.curves = list(state["curves"])
        self.seconds_before = state["seconds"]
        self.stalled = state["stalled"]

    @property
    def identity(self) -> dict[str, object]:
        """All that decides the course of the run, as plain values."""
        training = asdict(self.recipe.settings)
        del training["checkpoint_minutes"]
        return {
            **training,
            "views": asdict(self.recipe.views),
            "method_settings": asdict(self.recipe.method_settings),
            "seed": self.recipe.seed,
            "crops": len(self.source),
            "channels": self.source.channels,
            "hcsqc": __version__,
        }

    @property
    def hardware(self) -> dict[str, str]:
        """What the run computes on and in: another may round otherwise."""
        return {"device": device_name(self.device), "precision": self.precision}

    @property
    def seconds(self) -> float:
        """How long the run has taken, in all calls."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def epoch(self) -> int:
        """The epoch (from 0) of the next step: so many are done."""
        return self.step // self.steps_per_epoch

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is half done: before the first, between two, after the last."""
        return self.step % self.steps_per_epoch == 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def feature_std(self) -> float:
        """The spread of the features at the curves' last point, NaN before the first."""
        return self.curves[-1]["feature_std"] if self.curves else math.nan

    @property
    def feature_rank(self) -> float:
        """The rank of the features at the curves' last point, NaN before the first."""
        return self.curves[-1]["feature_rank"] if self.curves else math.nan

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Train on a batch; return its loss and the features (n x width) of its first views."""
        self._set_learning_rate()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            seen = self.method.features(self.backbone, batch.view_1, batch.view_2)
        features = [each.float() for each in seen]
        loss = self.method.loss(features, batch.rows, self.epoch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.method.limit_gradients(self.backbone, self.epoch)
        self.optimizer.step()
        self.method.after_step(self.backbone, self.step, self.total_steps)
        self.step += 1
        return loss.detach(), features[0].detach()

    def _set_learning_rate(self) -> None:
        settings = self.recipe.settings
        rate = learning_rate_at(
            self.step,
            self.total_steps,
            settings.warmup_epochs * self.steps_per_epoch,
            settings.peak_rate,
            settings.warmup_start_rate,
            settings.final_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.peak_rate if group["constant_rate"] else rate
