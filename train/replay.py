"""Old frames that come along when a saved potential is trained on new ones, so that they are not forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from potential.model import Potential
from train.config import Config, Weights
from train.data.dataset import Frame
from train.data.weights import KEY, config_weight
from train.prepared.read import Prepared

REPLAY = "replay"  # the set of old frames that neither train nor validate


def mix(sets: dict[str, Sequence[Frame]], old: Sequence[Frame], config: Config) -> str:
    """Old frames join those for training and validation, or a set of their own where validation has given files; says
    how many, and what they count."""
    apart = bool(config.data.valid)
    if any(isinstance(frames, Prepared) for frames in (sets["train"], *([] if apart else [sets["valid"]]))):
        raise ValueError(
            "replay mixes old frames with new ones in memory, but the new ones are a prepared set; give the files it "
            "was made of (old ones may be a prepared set, of which only those that are chosen are read)"
        )
    n_new = len(sets["train"]) + len(sets["valid"]) * (not apart)
    n = min(len(old), max(1, round(config.data.replay_ratio * n_new)))
    order = np.random.default_rng([config.fit.seed, n_new]).permutation(len(old))[:n]
    n_valid = min(max(round(config.data.valid_fraction * n), int(apart)), n - 1)
    if n_valid:
        name = REPLAY if apart else "valid"
        sets[name] = [*sets.get(name, []), *(old[int(i)] for i in sorted(order[:n_valid]))]
    trained = [old[int(i)] for i in sorted(order[n_valid:])]
    told = _counting(sets["train"], trained, config.data.replay_weight)
    sets["train"] = [*sets["train"], *(lighter(f, config.data.replay_weight) for f in trained)]
    text = f"{n} of {len(old)} old frames mixed in with {n_new} new ones, {n_valid} of them "
    if apart:
        return f"{text}kept out as the set {REPLAY}, to see what is forgotten; the given files alone validate{told}"
    return f"{text}for validation{told}"


def lighter(frame: Frame, factor: float) -> Frame:
    """The frame with all its weights multiplied; as it is where the factor is 1."""
    if factor == 1:
        return frame
    atoms = frame.atoms.copy()
    atoms.info[KEY] = factor * config_weight(frame)  # of its targets
    return replace(
        frame, atoms=atoms, weights=Weights(**{k: factor * w for k, w in asdict(frame.weights).items()})
    )


def _counting(new: Sequence[Frame], old: Sequence[Frame], factor: float) -> str:
    if factor == 1:
        return ""
    share = len(new) / (len(new) + factor * len(old))
    return f"; each old one counts {factor:g}, so that new ones are {100 * share:.0f} % of what trains"


def of_old(sets: Mapping[str, Sequence[Frame]]) -> list[str]:
    """The sets that may hold old frames."""
    return [name for name in ("train", "valid", REPLAY) if name in sets]


def require_known(start: Potential, sets: Mapping[str, Sequence[Frame]], replay: Sequence[str]) -> None:
    """Old frames hold elements of the starting model only.

    Raises:
        ValueError: naming a frame that does not.
    """
    if not replay:
        return
    for frame in (f for name in of_old(sets) for f in sets[name] if f.source in replay):
        other = sorted(set(frame.atoms.symbols) - set(start.statistics.elements))
        if other:
            raise ValueError(
                f"{frame.name}: holds {', '.join(other)}, but the model to start from knows "
                f"{', '.join(start.statistics.elements)}; --replay is for frames that it was trained on: give this "
                "file among those to train on"
            )


def moved(frames: Sequence[Frame], sources: Iterable[str], move: Mapping[str, float]) -> Sequence[Frame]:
    """Old frames with the energies they would have at the new E0; frames of other files as they are."""
    old = set(sources)
    if not old:
        return frames
    return [
        replace(f, energy=f.energy + sum(move[s] for s in f.atoms.symbols))
        if f.source in old and f.energy is not None
        else f
        for f in frames
    ]
