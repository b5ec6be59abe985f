"""Who takes part in a learning curve: names -> how they are fitted and with which settings. Only data.

A contestant is named by a network of `potential.networks`, by a variant of the table below, or by a fitter that is no
network; dials follow after colons: `painn`, `equivariant-L0`, `schnet:n_layers=4:fit.learning_rate=0.002`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from potential.networks import LINEAR, NETWORKS
from train.option import suggest
from train.toml import parse_assignment

NETWORK = "network"  # the fitter of NETWORKS: potential-train ...
LINEAR_MODEL = "linear"  # ... and of those of them that are linear: least squares

# name -> settings of potential-train, beyond what was given to all
VARIANTS: dict[str, dict[str, Any]] = {
    "equivariant-L0": {"model.network": "equivariant", "model.hidden_lmax": 0},
    "equivariant-L1": {"model.network": "equivariant", "model.hidden_lmax": 1},
    "equivariant-L2": {"model.network": "equivariant", "model.hidden_lmax": 2},
    "equivariant-L3": {"model.network": "equivariant", "model.hidden_lmax": 3},
    "equivariant-1": {"model.network": "equivariant", "model.correlation": 1},
    "equivariant-2": {"model.network": "equivariant", "model.correlation": 2},
    "equivariant-3": {"model.network": "equivariant", "model.correlation": 3},
    "qsnap": {"model.quadratic": True},
}
# name of what is no network -> its function in fitters.FITTERS
OTHERS = {"baseline": "baseline", "snap": "snap", "qsnap": "snap"}


@dataclass(frozen=True)
class Contestant:
    """One model of a study: who fits it, with which settings ("section.key" -> value)."""

    name: str
    fitter: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def sections(self) -> dict[str, dict[str, Any]]:
        """The settings as `train.toml.update` takes them."""
        out: dict[str, dict[str, Any]] = {}
        for key, value in self.settings.items():
            section, _, name = key.partition(".")
            out.setdefault(section, {})[name] = value
        return out


def contestant(text: str) -> Contestant:
    """What a name with dials means.

    >>> contestant("equivariant-L0:channels=8").settings
    {'model.network': 'equivariant', 'model.hidden_lmax': 0, 'model.channels': 8}

    Raises:
        ValueError: an unknown name, with the nearest known one, or a dial that is not name=value.
    """
    name, *dials = text.split(":")
    known = list(dict.fromkeys([*NETWORKS, *VARIANTS, *OTHERS]))
    if name not in known:
        raise ValueError(f"there is no model {name!r}{suggest(name, known)}; there are {', '.join(known)}")
    settings = dict(VARIANTS.get(name, {} if name in OTHERS else {"model.network": name}))
    for dial in dials:
        key, equals, _ = dial.partition("=")
        if not equals or not key:
            raise ValueError(f"{text}: expected {name}:dial=value, for example {name}:cutoff=5.0")
        section, dial_name, value = parse_assignment(dial if "." in key else f"model.{dial}")
        if section not in ("model", "fit", "linear"):
            raise ValueError(
                f"{text}: a model has settings of [model], [fit] and [linear], not of [{section}]"
            )
        settings[f"{section}.{dial_name}"] = value
    fitter = LINEAR_MODEL if settings.get("model.network") in LINEAR else NETWORK
    return Contestant(text, OTHERS.get(name, fitter), settings)


def contestants(texts: Sequence[str]) -> list[Contestant]:
    """All of `a,b,c`, in any number of words.

    Raises:
        ValueError: none, one named twice, and as `contestant`.
    """
    names = [name for text in texts for name in text.split(",") if name]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ValueError(
            f"{twice[0]} is named twice; once is enough" if twice else "no model is named; give one"
        )
    return [contestant(name) for name in names]


def require_able(models: Sequence[Contestant], targets: Mapping[str, Any]) -> None:
    """Refuse models that learn energies, forces and stress only where other targets are compared.

    Raises:
        ValueError: naming them.
    """
    unable = [model.name for model in models if model.fitter != NETWORK]
    if targets and unable:
        raise ValueError(
            f"{', '.join(unable)}: cannot learn {', '.join(targets)}, only energies, forces and stress; leave "
            f"{'it' if len(unable) == 1 else 'them'} out of --models, or compare without --targets"
        )
