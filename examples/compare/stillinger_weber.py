"""Stillinger and Weber's silicon as a contestant: a classical potential, made for it by hand; through matscipy.

F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985).
"""

from matscipy.calculators.manybody import Manybody
from matscipy.calculators.manybody.explicit_forms.stillinger_weber import (
    Stillinger_Weber_PRB_31_5262_Si,
    StillingerWeber,
)

PACKAGES = ("matscipy",)


def factory() -> Manybody:
    """The ASE calculator."""
    return Manybody(**StillingerWeber(Stillinger_Weber_PRB_31_5262_Si))
