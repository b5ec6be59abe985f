"""Training that starts from a saved potential: its network, new elements, E0 for the new data, frozen parts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potential import Potential, build
from potential.checkpoint import check_device, load
from potential.model import configuration, presets, recast, settings
from potential.networks import LINEAR
from train.batches import Sample
from train.columns import EACH, representatives, spaced, symbols, take
from train.config import Config, Fit
from train.data.dataset import Frame
from train.data.files import expand
from train.loss import targets
from train.lowrank import LowRank
from train.new_targets import carried, raised, with_targets
from train.option import suggest
from train.parallel import Ranks, shared_errors
from train.plan import elements
from train.refit import SIGNIFICANT, NewData, refit_e0, remainders, rms
from train.replay import moved, of_old, require_known
from train.sets import Sets
from train.statistics import E0Fit
from train.target_facts import require_energies, with_more

MODEL = "model.safetensors"  # in the directory of a run


def read_start(config: Config) -> Potential | None:
    """The potential to start from, on the device and in the precision of the run; None where none is given.

    Raises:
        ValueError: no such file, a damaged one, or not a potential; settings that need one.
    """
    fit = config.fit
    if not fit.start and (fit.freeze or fit.lora_rank or fit.drop_targets or config.data.replay):
        raise ValueError(
            "freeze, lora_rank, drop_targets and replay need a model to start from; give one with --from "
            "model.safetensors"
        )
    if config.data.replay_weight != 1 and not config.data.replay:
        raise ValueError(
            f"replay_weight is {config.data.replay_weight}, but no old frames are replayed; give them with --replay"
        )
    if not fit.start:
        return None
    if fit.lora_rank and fit.denoise_weight:
        raise ValueError("lora_rank and denoise_weight do not go together; give one of them")
    if Path(fit.start).is_dir():
        raise ValueError(
            f"{fit.start} is a directory; give the model in it: --from {Path(fit.start) / MODEL}"
        )
    check_device(fit.device)
    dtype = torch.float64 if fit.dtype == "float64" else torch.float32
    start = load(fit.start)
    if configuration(start)["network"] in LINEAR:
        raise ValueError(
            f"{fit.start} is a linear model, fitted by least squares: fit a new one to old and new frames together, it "
            "takes no longer"
        )
    return recast(start, dtype).to(fit.device)


def adopt(config: Config, start: Potential) -> tuple[dict[str, Any], list[str]]:
    """The network's settings are those of the starting model, but for orders that targets need.

    Raises:
        ValueError: other ones are given, or targets of the model are forgotten.
    """
    given, path = config.model, config.fit.start
    own, why = raised(configuration(start), start, config)
    known = [pair for dense in (False, True) for pair in presets(own["network"], dense).items()]
    preset = next((p for p, dials in known if dials.items() <= own.items()), None)
    settings({**own, **{k: v for k, v in given.items() if k != "preset"}})  # did-you-mean
    for key, value in given.items():
        has = preset or "none" if key == "preset" else own[key]
        if value != has:
            raise ValueError(
                f"[model] {key} is {value!r}, but the model to start from ({path}) has {has!r}; leave it out, its "
                "network stays as it is"
            )
    elements = ", ".join(start.statistics.elements)
    return {**({"preset": preset} if preset else {}), **own}, [f"starts from {path} ({elements})", *why]


def begin(start: Potential, sets: Sets, config: Config) -> tuple[Potential, E0Fit, Sets]:
    """The potential made ready for the new data; and the sets, where replayed energies move along with E0."""
    replay, train = expand(config.data.replay), sets.frames["train"]
    require_energies(start, config, train)
    some = take(train, representatives(train))
    new = [f for f in [*some, *sets.isolated] if f.source not in replay]
    require_known(start, sets.frames, replay)
    wide = extended(copy.deepcopy(start), elements(new), sets.alone)
    wide = with_targets(wide, some, config, sets.alone)
    e0 = refit_e0(wide, NewData(new, sets.isolated_given, config.e0), start.statistics.elements, config.fit)
    move = {s: e0.e0[s] - e for s, e in zip(start.statistics.elements, start.statistics.e0, strict=True)}
    moved_sets = {name: moved(sets.frames[name], replay, move) for name in of_old(sets.frames)}
    told = replace(e0, text=" ".join([e0.text, *_old_tests(start, sets, move)]))
    return with_e0(wide, e0.e0), told, replace(sets, frames={**sets.frames, **moved_sets})


def _old_tests(start: Potential, sets: Sets, move: Mapping[str, float]) -> list[str]:
    """A sentence on each test set whose energies are those of the old method."""
    told = []
    e0 = dict(zip(start.statistics.elements, start.statistics.e0, strict=True))
    for name in sets.frames.keys() - set(of_old(sets.frames)):
        some = take(sets.frames[name], spaced(len(sets.frames[name]), EACH))
        known = [f for f in some if f.energy is not None and move.keys() >= set(f.atoms.symbols)]
        left = [(f.energy or 0.0, sum(move[s] for s in f.atoms.symbols), len(f.atoms))
                for f in remainders(start, known, e0)]  # fmt: skip
        off, size = rms([(e - m) / n for e, m, n in left]), rms([m / n for _, m, n in left])
        if size > SIGNIFICANT and rms([e / n for e, _, n in left]) < off / 2:
            told.append(
                f"WARNING: energies of {name} agree with the E0 of the starting model, not with the new one, "
                f"{size:.3g} eV/atom away: they come from the old method, and errors of energies on {name} "
                "include this difference; give test frames of the new method."
            )
    return sorted(told)


def extended(start: Potential, symbols: Iterable[str], isolated: Sequence[Frame] = ()) -> Potential:
    """The same potential with more elements, which begin as the mean of the known ones and with E0 = 0; targets of
    their `isolated` atoms are what it gives them alone.

    Weights that belong to elements have an axis that grows with their number, the element running fastest in it.
    """
    facts = start.statistics
    new = [s for s in symbols if s not in facts.elements]
    if not new:
        return start
    targets = tuple(with_more(target, new, isolated) for target in facts.targets)
    e0 = (*facts.e0, *(0.0 for _ in new))
    more = replace(facts, elements=(*facts.elements, *new), e0=e0, targets=targets)
    wide = build(configuration(start), more, dtype=start.dtype)
    old = dict(start.named_parameters())
    with torch.no_grad():
        for name, w in wide.named_parameters():
            w.copy_(widened(old[name].detach().cpu(), w.shape, len(facts.elements)))
    return wide.to(next(start.parameters()).device)


def widened(weight: Tensor, shape: Sequence[int], n: int) -> Tensor:
    """A weight of n elements for more of them: each new one gets the mean."""
    for axis, size in enumerate(shape):
        if weight.shape[axis] != size:
            per_element = weight.reshape(*weight.shape[:axis], -1, n, *weight.shape[axis + 1 :])
            n_new = size // per_element.shape[axis] - n
            mean = per_element.mean(axis + 1, keepdim=True)
            weight = torch.cat([per_element, *[mean] * n_new], axis + 1).flatten(axis, axis + 1)
    return weight


def with_e0(potential: Potential, e0: Mapping[str, float]) -> Potential:
    """The same network with other energies of the isolated atoms."""
    facts = potential.statistics
    potential.statistics = replace(facts, e0=tuple(e0[s] for s in facts.elements))
    return potential


def with_energies(samples: Sequence[Sample], frames: Sequence[Frame]) -> list[Sample]:
    """Samples with the energies that these frames have, for instance before they moved."""
    return [
        replace(s, target=replace(s.target, energy=targets(f).energy))
        for s, f in zip(samples, frames, strict=True)
    ]


def trainable(potential: Potential, fit: Fit, before: Potential | None = None) -> tuple[Potential, list[str]]:
    """The potential with its frozen weights and low-rank updates, and what was done in words. Weights that it does not
    have from the one `before` train themselves.

    Raises:
        ValueError: a name in fit.freeze that no weight begins with, or new ones only.
    """
    fresh = {n for n, _ in potential.named_parameters()} - set(carried(before or potential, potential))
    names = {name.removeprefix("network."): w for name, w in potential.named_parameters()}
    new = {name.removeprefix("network.") for name in fresh}
    frozen: list[str] = []
    for prefix in fit.freeze:
        word = prefix.removeprefix("network.").rstrip(".")
        hit = [name for name in names if f"{name}.".startswith(f"{word}.")]
        if not hit:
            parts = {
                ".".join(name.split(".")[:k]) for name in names for k in range(1, 1 + name.count(".") + 1)
            }
            raise ValueError(
                f"[fit] freeze: no weight is called {prefix!r}{suggest(word, sorted(parts))}; the weights are "
                f"{', '.join(names)}"
            )
        if not set(hit) - new:
            raise ValueError(f"[fit] freeze: {prefix!r} names nothing but new weights, which have to train")
        frozen += (name for name in hit if name not in new)
    if len(set(frozen)) == len(names):
        raise ValueError("[fit] freeze leaves no weight to train; freeze less")
    for name in frozen:
        names[name].requires_grad_(False)
    why = [f"frozen: {', '.join(fit.freeze)}"] if frozen else []
    if fit.lora_rank:
        potential = LowRank(potential, fit.lora_rank, fit.seed, fresh)
        if not potential.names:
            raise ValueError(
                f"[fit] lora_rank is {fit.lora_rank}: no matrix has more numbers than two factors of that rank; "
                "give a smaller one, or 0 to train the weights themselves"
            )
        n = sum(w.numel() for w in potential.parameters() if w.requires_grad)
        why.append(f"low-rank updates of rank {fit.lora_rank}: {n:,} numbers train")
    return potential, why


def errors_before(
    start: Potential,
    frames: Mapping[str, Sequence[Frame]],
    samples: Mapping[str, Sequence[Sample]],
    ranks: Ranks,
) -> tuple[dict[str, dict[str, float | int | None]], str]:
    """Errors of the starting model on each set whose elements it knows; and why others have none."""
    known, device = set(start.statistics.elements), str(next(start.parameters()).device)
    new = {name: sorted(symbols(of_set) - known) for name, of_set in frames.items()}
    table = {name: shared_errors(ranks, start, samples[name], device) for name in new if not new[name]}
    told = ", ".join(f"{name} (holds {', '.join(other)})" for name, other in new.items() if other)
    return table, f"no errors before on {told}: the model that it starts from does not know this" * bool(told)
