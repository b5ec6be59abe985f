"""The physical checks by name: what each needs, what it tells, when to worry. Only data and text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Check:
    """A check: its title, what it needs, the values it gives (label and unit), and when these are worrying."""

    title: str
    about: str
    values: dict[str, tuple[str, str]]
    crystal: bool = False  # needs a relaxed crystal
    # value -> limit, sentence
    limits: dict[str, tuple[float, str]] = field(default_factory=dict)
    # value -> another and its floor, up to which the first is no worry: a percentage of next to nothing
    floors: dict[str, tuple[str, float]] = field(default_factory=dict)


CHECKS = {
    "symmetry": Check(
        "Symmetry",
        "Up to three test frames turned, mirrored, moved, renumbered, repeated; the largest deviations. Energy and "
        "forces must follow exactly; what is left is rounding, unless the potential only learned the symmetry.",
        {
            "rotation_energy": ("rotation, energy", "meV/atom"),
            "rotation_forces": ("rotation, forces", "meV/Å"),
            "mirror_energy": ("mirror, energy", "meV/atom"),
            "mirror_forces": ("mirror, forces", "meV/Å"),
            "translation_energy": ("translation, energy", "meV/atom"),
            "translation_forces": ("translation, forces", "meV/Å"),
            "permutation_energy": ("permutation, energy", "meV/atom"),
            "permutation_forces": ("permutation, forces", "meV/Å"),
            "repetition_energy": ("2x1x1 cell, energy", "meV/atom"),
            "net_force": ("net force", "meV/Å"),
            "net_torque": ("net torque", "meV"),
        },
        limits={
            "rotation_energy": (0.1, "the energy changes when the structure is turned"),
            "rotation_forces": (1.0, "forces do not turn with the structure"),
            "mirror_energy": (0.1, "mirror images have different energies"),
            "mirror_forces": (1.0, "forces of mirror images differ"),
            "translation_energy": (0.1, "the energy changes when the structure is moved as a whole"),
            "translation_forces": (1.0, "forces change when the structure is moved as a whole"),
            "permutation_energy": (0.1, "the energy depends on the order of the atoms"),
            "permutation_forces": (1.0, "forces depend on the order of the atoms"),
            "repetition_energy": (0.1, "a cell and the same cell repeated have different energies per atom"),
            "net_force": (1.0, "forces do not add up to zero: dynamics accelerates the whole"),
            "net_torque": (1.0, "forces have a net torque: dynamics starts to spin"),
        },
    ),
    "conservation": Check(
        "Forces and energy",
        "The same frames: slope of the energy by five points along random directions against the forces; the "
        "antisymmetric part of the Jacobian of the forces; energy against work along a path. Forces that are no "
        "slope of an energy do not conserve it, however small their errors.",
        {
            "slope_error": ("slope − force, RMS", "meV/Å"),
            "slope_percent": ("of the RMS force", "%"),
            "curl_percent": ("curl", "%"),
            "path_step": ("largest unexplained step", "meV"),
            "path_step_error": ("error of its quadrature", "meV"),
        },
        limits={
            "slope_percent": (0.2, "forces are not the slope of the energy"),
            "curl_percent": (0.2, "forces have a curl: no energy has such a slope, and none is conserved"),
            "path_step": (1.0, "the energy jumps along a path, or forces miss part of its slope"),
        },
        floors={"slope_percent": ("slope_error", 1.0)},
    ),
    "dynamics": Check(
        "Energy in dynamics",
        "A short run at constant energy (NVE) from the relaxed crystal or the test frame nearest to rest: drift with "
        "its standard error, and RMS about it. Short: it finds what is wrong at once, not what goes wrong after "
        "nanoseconds.",
        {
            "drift": ("drift", "meV/atom/ps"),
            "drift_error": ("its standard error", "meV/atom/ps"),
            "fluctuation": ("fluctuation", "meV/atom"),
            "temperature": ("mean temperature", "K"),
            "time": ("length", "ps"),
            "atoms": ("atoms", ""),
        },
        limits={"drift": (0.1, "the total energy drifts in dynamics")},
    ),
    "dimers": Check(
        "Two atoms",
        "Each pair of elements alone, from half the sum of the covalent radii to four times that. A potential that "
        "lets atoms attract each other where they are near can collapse in dynamics. The curves themselves are far "
        "from what most potentials are made for.",
        {"pairs": ("pairs", ""), "holes": ("with a hole", "")},
        limits={"holes": (0.5, "pairs of atoms attract each other at short distance")},
    ),
    "eos": Check(
        "Equation of state",
        "The relaxed crystal at 13 volumes within 6 %, atoms relaxed at each; Birch-Murnaghan. Needs a crystal.",
        {
            "a0": ("a0", "Å"),
            "V0": ("V0", "Å³/atom"),
            "B0": ("B0", "GPa"),
            "B0_shape": ("B at fixed shape", "GPa"),
            "B0_prime": ("B0′", ""),
            "E0": ("E0", "eV/atom"),
            "misfit": ("misfit", "meV/atom"),
        },
        crystal=True,
        limits={"misfit": (1.0, "energy against volume is no smooth curve")},
    ),
    "elastic": Check(
        "Elastic constants",
        "Stress of the relaxed crystal under ±0.4 % of each strain, atoms relaxed; the 6x6 matrix made symmetric, "
        "and its means if it has the form of a cubic crystal. The diagonal is compared with second differences of "
        "the energy. Needs a crystal and the stress.",
        {
            "C11": ("C11", "GPa"),
            "C12": ("C12", "GPa"),
            "C44": ("C44", "GPa"),
            "bulk_modulus": ("B (Voigt, equal strains)", "GPa"),
            "bulk_reuss": ("B (Reuss, under pressure)", "GPa"),
            "energy_check": ("against energies", "%"),
            "asymmetry": ("asymmetry", "%"),
            "smallest_eigenvalue": ("smallest eigenvalue", "GPa"),
        },
        crystal=True,
        limits={
            "energy_check": (
                2.0,
                "the stress is not the slope of the energy, or strains are not in the linear range",
            ),
            "asymmetry": (
                2.0,
                "elastic constants are not symmetric: the stress is not the slope of an energy",
            ),
        },
    ),
    "phonons": Check(
        "Phonons",
        "Forces of displaced atoms (0.01 Å) in a supercell, through phonopy; modes on a mesh. Needs a crystal and "
        "the extra phonons. Without dipole corrections: polar crystals lack the splitting of their optical modes.",
        {
            "highest": ("highest", "THz"),
            "lowest": ("lowest", "THz"),
            "imaginary": ("imaginary modes", "%"),
            "acoustic": ("acoustic at Γ", "THz"),
            "supercell": ("atoms in the supercell", ""),
            "displacements": ("displacements", ""),
        },
        crystal=True,
        limits={
            "imaginary": (
                0.05,
                "the crystal has imaginary modes: it is no minimum, or the supercell is too small",
            )
        },
    ),
    "vacancy": Check(
        "Vacancy",
        "An atom taken out of a supercell of fixed size, the others relaxed after a random push of 0.01 Å; the lowest "
        "of the sites that symmetry tells apart. Needs a crystal of one element. Of one size of cell: images of the "
        "vacancy still see each other.",
        {
            "vacancy": ("formation energy", "eV"),
            "unrelaxed": ("unrelaxed", "eV"),
            "moved": ("largest displacement", "Å"),
            "atoms": ("atoms in the supercell", ""),
        },
        crystal=True,
    ),
}
# value -> sentence, where it is negative
NEGATIVE = {
    "smallest_eigenvalue": "the crystal is mechanically unstable",
    "vacancy": "the crystal gains energy by losing atoms",
    "B0": "the crystal is softer than nothing",
    "B0_shape": "the crystal is softer than nothing",
}
SURE = 3.0  # standard errors; a drift within is none


def function_of(name: str) -> Callable[..., dict[str, Any]]:
    """The check itself: train/compare/physics/NAME.py holds a function NAME(calculator, subject)."""
    function: Callable[..., dict[str, Any]] = getattr(import_module(f"train.compare.physics.{name}"), name)
    return function


def worries(name: str, result: dict[str, Any]) -> list[str]:
    """What the values of a check should make a user worry about; nothing where there are none."""
    values, found = result.get("values", {}), []
    for key, (limit, sentence) in CHECKS[name].limits.items():
        value = values.get(key, 0.0)
        noise = SURE * values.get(f"{key}_error", 0.0)
        other, floor = CHECKS[name].floors.get(key, ("", 0.0))
        if abs(values.get(other, float("inf"))) <= floor:
            continue
        if not abs(value) <= max(limit, noise):
            label, unit = CHECKS[name].values[key]
            what = result.get("named", {}).get(key, f"{label} {value:.3g} {unit}".rstrip())
            found.append(f"{sentence} ({what})")
    return found + [sentence for key, sentence in NEGATIVE.items() if values.get(key, 0.0) < 0]
