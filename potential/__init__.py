"""Equivariant interatomic potentials: everything needed to use a model.

Names are looked up on first use, so that `import potential` does nothing but define.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

_HOME = {
    "Graph": "graph",
    "from_atoms": "graph",
    "collate": "graph",
    "Prediction": "physics",
    "predict": "physics",
    "Statistics": "model",
    "Potential": "model",
    "build": "model",
    "save": "checkpoint",
    "load": "checkpoint",
    "EquivCalculator": "calculator",
    "SnapCalculator": "linear.snap_calculator",
}
__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from potential.calculator import EquivCalculator as EquivCalculator
    from potential.checkpoint import load as load
    from potential.checkpoint import save as save
    from potential.graph import Graph as Graph
    from potential.graph import collate as collate
    from potential.graph import from_atoms as from_atoms
    from potential.linear.snap_calculator import SnapCalculator as SnapCalculator
    from potential.model import Potential as Potential
    from potential.model import Statistics as Statistics
    from potential.model import build as build
    from potential.physics import Prediction as Prediction
    from potential.physics import predict as predict


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'potential' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"potential.{_HOME[name]}"), name)
