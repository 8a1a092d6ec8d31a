"""DeepCluster v2 (Caron et al. 2020, https://arxiv.org/abs/2006.09882), as in solo-learn 1.0.2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcsqc.core.errors import InputError
from hcsqc.pretraining.methods.base import SelfSupervised, projector
from hcsqc.pretraining.sololearn import deepclusterv2_loss_func

CHUNK = 65536  # vectors compared with all centroids at a time: 131 MB with 500 prototypes


@dataclass(frozen=True)
class Settings:
    """Sizes of the projector's layers, temperature of the loss, and the clustering."""

    projector_hidden: int
    projector_output: int
    temperature: float
    prototypes: int
    kmeans_iterations: int


class Method(SelfSupervised):
    """Predict the cluster that a crop was in after the epoch before.

    Clusters come from k-means on the projected first views of an epoch: with one set of
    prototypes solo-learn reads no other. In the first epoch there are none, and the loss is 0.
    """

    def __init__(self, backbone: nn.Module, width: int, settings: Settings, crops: int):
        super().__init__()
        _check_vectors(crops, settings.prototypes)
        self.settings = settings
        sizes = [width, settings.projector_hidden, settings.projector_output]
        self.projector = projector(sizes, batch_norm=True)
        self.register_buffer("memory", torch.zeros(crops, settings.projector_output))
        self.register_buffer("memory_rows", torch.zeros(crops, dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.register_buffer("clusters", torch.full((crops,), -1))  # -1: not clustered
        self.register_buffer(
            "centroids", torch.zeros(settings.prototypes, settings.projector_output)
        )

    def start_epoch(self, epoch: int) -> None:
        """Cluster what the epoch before has left, and make room for this one."""
        n = int(self.filled)
        if epoch > 0:
            _check_vectors(n, self.settings.prototypes)
            vectors = self.memory[:n]
            first = vectors[torch.randperm(n)[: self.settings.prototypes]]
            clusters, centroids = spherical_kmeans(vectors, first, self.settings.kmeans_iterations)
            self.clusters.fill_(-1)
            self.clusters[self.memory_rows[:n]] = clusters
            self.centroids.copy_(centroids)
        self.filled.zero_()

    def loss(self, features: Sequence[Tensor], rows: Tensor, epoch: int) -> Tensor:
        """Return the cross-entropy of both views with the crops' clusters, and remember view 1."""
        z1, z2 = (F.normalize(self.projector(view)) for view in features)
        self.remember(z1.detach(), rows)
        if epoch == 0:
            return 0.0 * (z1.sum() + z2.sum())
        logits = torch.stack([z1 @ self.centroids.T, z2 @ self.centroids.T])
        return deepclusterv2_loss_func(
            logits[None], self.clusters[rows][None], temperature=self.settings.temperature
        )

    def remember(self, z: Tensor, rows: Tensor) -> None:
        """Keep projected features `z` (n x projector_output) of the crops `rows`."""
        slots = self.filled + torch.arange(len(rows), device=rows.device)
        self.memory[slots] = z
        self.memory_rows[slots] = rows
        self.filled += len(rows)


@torch.no_grad()
def spherical_kmeans(vectors: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return the cluster of each vector (n) and the centroids (K x d) after some iterations.

    `vectors` (n x d) and the initial `centroids` are unit vectors. Same result as solo-learn's
    KMeans, which holds n x K dot products at once: 50 GB for the paper's crops and 3000 centroids.
    """
    for _ in range(iterations):
        clusters = nearest(vectors, centroids)
        # Stable, to add the vectors of a cluster in their own order: rounding repeats.
        members = clusters.argsort(stable=True)
        counts = clusters.bincount(minlength=len(centroids)).tolist()
        means = [
            vectors[cluster].sum(dim=0) / len(cluster) if len(cluster) else old
            for cluster, old in zip(members.split(counts), centroids, strict=True)
        ]
        centroids = F.normalize(torch.stack(means), dim=1)
    return nearest(vectors, centroids), centroids


def nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Return for each of n vectors the centroid with the largest dot product (n, int64)."""
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in vectors.split(CHUNK)])


def _check_vectors(n: int, prototypes: int) -> None:
    if n < prototypes:
        raise InputError(
            f"deepcluster_v2: {n} crops are too few for {prototypes} clusters; "
            "lower prototypes or pretrain on more crops"
        )
