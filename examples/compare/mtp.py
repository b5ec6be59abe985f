"""A moment tensor potential as a contestant of potential-compare, fitted and evaluated by motep.

A. V. Shapeev, Multiscale Model. Simul. 14, 1153 (2016); motep reads and writes the files of MLIP.
"""

from typing import Any

PACKAGES = ("motep",)


def factory(model: str, engine: str = "cext") -> Any:
    """The ASE calculator of a fitted potential, such as `final.mtp`."""
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp

    return MTP(read_mtp(model), engine=engine)
