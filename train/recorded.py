"""Gradients of small batches on a GPU: recorded once for each shape of a batch, and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from potential.model import Potential
from potential.physics import Prediction, pull_back
from potential.recorded import Recording
from potential.table import Shape, Table, fits_a_table, most_neighbors, predict, tabulate
from train.batches import Sample, batch
from train.config import Fit
from train.loss import Targets, differences, penalties, spread, total

LARGEST = 8192  # atoms of a batch; a GPU needs longer for more than for launching its kernels
KEPT = 16  # recordings at a time
KEPT_ATOMS = 4 * LARGEST  # of all of them; each keeps the memory of a step


@dataclass(frozen=True)
class Key:
    """All that a recording depends on beside what it reads."""

    fit: Fit
    shape: Shape
    slopes: bool  # forces or stress are labelled


class Predictor(nn.Module):
    """`predict` as a module, which `torch.func.functional_call` can give other weights."""

    def __init__(self, potential: Potential):
        super().__init__()
        self.potential = potential

    def forward(self, table: Table, forces: bool) -> tuple[Prediction, Tensor]:
        return predict(self.potential, table, create_graph=True, forces=forces)


class Recorded:
    """The gradient of the loss of a batch of one shape."""

    def __init__(self, potential: Potential, weights: Sequence[Tensor], key: Key, parts: Parts):
        self.potential, self.weights, self.key = potential, weights, key
        self.predictor = Predictor(potential)
        names = {id(w): name for name, w in self.predictor.named_parameters()}
        self.names = [names[id(w)] for w in weights]
        self.parts = parts.to(potential.species_of.device)
        self.gradients: Sequence[Tensor] = []
        self.recording = Recording(self._evaluate, potential.species_of.device)

    def __call__(self, parts: Parts) -> list[float]:
        """The loss, and sum of squares and number of labels of energy, forces and stress; gradients in `gradients`."""
        self.parts.copy_(parts)
        numbers: list[float] = self.recording().tolist()
        return numbers

    def _evaluate(self) -> Tensor:
        fit, scale, (table, target) = self.key.fit, self.potential.statistics.scale, self.parts.pair
        # Leaves of its own with the same memory: a weight that is still in some graph, of a validation say, belongs to
        # that graph's stream, for which nothing that is recorded may wait.
        leaves = [w.detach().requires_grad_() for w in self.weights]
        named = dict(zip(self.names, leaves, strict=True))
        prediction, _ = torch.func.functional_call(self.predictor, named, (table, self.key.slopes))
        difference = differences(prediction, table, target)
        loss = total(penalties(difference, fit, scale, spread(self.parts.weights, table)), fit)
        self.gradients = pull_back([loss], leaves)
        sums = [x for d, known in difference.values() for x in (d.detach().square().sum(), known.sum())]
        return torch.stack([x.double() for x in (loss.detach(), *sums)])


@dataclass(frozen=True)
class Parts:
    """A batch as a table, with its labels and what they count."""

    table: Table
    target: Targets
    weights: Tensor  # (n_systems, 3)

    @property
    def pair(self) -> tuple[Table, Targets]:
        return self.table, self.target

    def to(self, device: torch.device) -> Parts:
        """Copies: what a recording reads stays where it is."""
        table, target = self.table.each(lambda x: x.to(device, copy=True)), self.target
        return Parts(
            table, target.each(lambda x: x.to(device, copy=True)), self.weights.to(device, copy=True)
        )

    def copy_(self, other: Parts) -> None:
        """Take the numbers of another batch of this shape over."""
        self.table.copy_(other.table)
        for mine, others in zip(self.target.all().values(), other.target.all().values(), strict=True):
            mine.copy_(others, non_blocking=True)
        self.weights.copy_(other.weights, non_blocking=True)


def padded(one: Sample, species: Tensor, e0: Tensor, shape: Shape) -> Parts:
    """A batch in a table of this shape: nothing is known of the atoms and the structure that fill it."""

    def fill(x: Tensor, n: int, value: float = torch.nan) -> Tensor:
        return torch.cat([x, x.new_full((n - len(x), *x.shape[1:]), value)])

    n, labels = shape.n_systems, one.target
    target = Targets(fill(labels.energy, n), fill(labels.forces, shape.n_atoms), fill(labels.stress, n))
    return Parts(tabulate(one.graph, species, e0, shape), target, fill(one.weights, n, 1.0))


@dataclass
class Recordings:
    """Those of a run, the last used last."""

    known: dict[Key, Recorded] = field(default_factory=dict)
    n_slots: int = 0  # as many as any batch needed so far
    full: bool = False  # there was no memory for one more: nothing is recorded from then on

    @property
    def n_atoms(self) -> int:
        """Of all recordings."""
        return sum(key.shape.n_atoms for key in self.known)

    def give_up(self) -> None:
        """Free their memory."""
        self.known, self.full = {}, True

    def gradient(
        self, potential: Potential, weights: Sequence[Tensor], samples: Sequence[Sample], fit: Fit
    ) -> tuple[float, dict[str, list[float]]]:
        """The loss of a batch and squared errors with their numbers; every weight gets its gradient."""
        whole = batch(samples, "cpu")
        n_atoms = len(whole.graph.positions)
        step = max(8, 2 ** ((n_atoms - 1).bit_length() - 4))  # so that few shapes serve all batches
        n_slots = -(-most_neighbors(whole.graph) // 4) * 4
        if n_slots > self.n_slots:  # none of them serves any more
            self.known, self.n_slots = {}, n_slots
        shape = Shape(-(-n_atoms // step) * step, self.n_slots, len(samples) + 1)
        labels = (whole.target.forces, whole.target.stress)
        key = Key(fit, shape, any(bool(torch.isfinite(x).any()) for x in labels))
        e0 = torch.tensor(potential.statistics.e0, dtype=torch.float64)
        species = potential.species_of.cpu()[whole.graph.atomic_numbers]
        parts = padded(whole, species, e0, shape)
        recorded = self.known.pop(key, None)
        while len(self.known) >= KEPT or (self.known and self.n_atoms + shape.n_atoms > KEPT_ATOMS):
            self.known.pop(next(iter(self.known)))
        self.known[key] = recorded = recorded or Recorded(potential, weights, key, parts)
        value, *sums = recorded(parts)
        for weight, slope in zip(weights, recorded.gradients, strict=True):
            weight.grad = slope  # until the next replay writes there
        return value, {name: sums[2 * k : 2 * k + 2] for k, name in enumerate(("energy", "forces", "stress"))}


def may_record(potential: Potential, samples: Sequence[Sample], fit: Fit) -> bool:
    """A batch on a GPU that is small enough to gain, of a potential and a loss that can be recorded."""
    small = sum(len(s.graph.positions) for s in samples) <= LARGEST
    return (
        fit.record
        and fit.device.startswith("cuda")
        and small
        and fits_a_table(potential)
        and not fit.denoise_weight
    )
