"""Mixed units are told from energies that merely spread."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from train.data.dataset import Frame
from train.doctor.units import mixed_force_units, mixed_units


def ethanol(n: int) -> list[Frame]:
    rng = np.random.default_rng(1)
    atoms = molecule("CH3CH2OH")
    return [
        Frame(atoms, -4200.0 + rng.normal(scale=0.1), rng.normal(size=(9, 3)), None, "e.xyz", k)
        for k in range(n)
    ]


def only(findings) -> str:
    (finding,) = findings
    return finding.text


@pytest.mark.parametrize(
    ("factor", "units"),
    [
        (23.060548, "kcal/mol"),
        (1 / 27.211386, "Ha"),
        (1 / 13.605693, "Ry"),
        (96.485, "kJ/mol"),
        (1000.0, "meV"),
    ],
)
def test_mixed_units(factor, units):
    frames = ethanol(20)
    frames[12:] = [replace(f, energy=f.energy * factor, forces=f.forces * factor) for f in frames[12:]]
    text = only(mixed_units(frames))
    assert "e.xyz, frame 12: energy of 8 frames is" in text
    assert f"{units} and eV: mixed units" in text


def test_mixed_units_where_every_composition_occurs_once():
    e0 = {"H": -13.6, "C": -1027.0, "N": -1484.0, "O": -2038.0}
    names = [
        "H2O",
        "CH4",
        "CO2",
        "NH3",
        "C2H6",
        "H2CO",
        "CH3OH",
        "HCN",
        "C2H2",
        "N2H4",
        "CH3NO2",
        "C6H6",
        "C3H8",
    ]
    frames = []
    for k, name in enumerate(names):
        atoms = molecule(name)
        energy = sum(e0[s] for s in atoms.symbols) - 4.0 * len(atoms)
        frames.append(Frame(atoms, energy, np.zeros((len(atoms), 3)), None, "m.xyz", k))
    assert list(mixed_units(frames)) == []
    frames[9:] = [replace(f, energy=f.energy / 27.211386) for f in frames[9:]]
    assert "m.xyz, frame 9: energy (after a fit over compositions) of 4 frames" in only(mixed_units(frames))


def test_mixed_force_units():
    frames = ethanol(20)
    frames[12:] = [replace(f, forces=f.forces / 51.422) for f in frames[12:]]
    assert list(mixed_units(frames)) == []
    assert "e.xyz, frame 12: from here on the force RMS is 0.0" in only(mixed_force_units(frames))


def test_spread_energies_are_not_mixed_units():
    """Binding energies that run through a unit factor without two tight groups."""
    frames = [replace(f, energy=-40.0 / 1.25**k) for k, f in enumerate(ethanol(24))]
    assert list(mixed_units(frames)) == []


def test_a_few_frames_or_none_say_nothing():
    assert list(mixed_units([])) == []
    assert list(mixed_force_units(ethanol(3))) == []
    assert list(mixed_units([replace(f, energy=None) for f in ethanol(9)])) == []
