"""Evaluation in chunks of atoms gives what evaluation of the whole gives, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from potential import EquivCalculator, Potential, Statistics, build, collate, from_atoms, predict
from potential.chunks import predict_in_chunks

STATISTICS = Statistics(
    ("H", "C", "O", "Si"), (-13.61, -1029.3, -2041.8, -7000.0), scale=0.3, mean_neighbors=9.0
)
DIALS = {"channels": 6, "message_channels": 4, "vector_channels": 3, "lmax": 2, "cutoff": 3.5}


def model(n_layers: int = 2, hidden_lmax: int = 1) -> Potential:
    dials = {**DIALS, "n_layers": n_layers, "hidden_lmax": hidden_lmax}
    return build(dials, STATISTICS, dtype=torch.float64).requires_grad_(False)


def gas(seed: int, n_atoms: int = 23) -> Atoms:
    """Atoms of all elements in a skewed periodic box, of very different coordination, one without neighbors."""
    rng = np.random.default_rng(seed)
    cell = np.diag([30.0, 7.0, 8.0]) + rng.normal(0, 0.5, (3, 3))
    fractions = rng.uniform(0, 1, (n_atoms, 3)) * [0.4, 1, 1]
    fractions[0, 0] = 0.7
    return Atoms(rng.choice(["H", "C", "O", "Si"], n_atoms), scaled_positions=fractions, cell=cell, pbc=True)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 22),
    n_layers=st.integers(1, 3),
    hidden_lmax=st.integers(0, 2),
)
def test_any_chunks_of_any_network(seed: int, size: int, n_layers: int, hidden_lmax: int) -> None:
    potential = model(n_layers, hidden_lmax)
    graph = from_atoms(gas(seed), potential.cutoff)
    whole, parts = predict(potential, graph), predict_in_chunks(potential, graph, size)
    for name in ("energy", "node_energy", "forces", "virial"):
        one, other = getattr(parts, name), getattr(whole, name)
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert not one.requires_grad
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * float(other.abs().max()))


def test_several_structures() -> None:
    potential = model()
    graph = collate([from_atoms(gas(seed, 5 + seed), potential.cutoff) for seed in range(4)])
    whole, parts = predict(potential, graph), predict_in_chunks(potential, graph, 7)
    torch.testing.assert_close(parts.energy, whole.energy, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.virial, whole.virial, rtol=1e-9, atol=1e-10)


def test_an_atom_alone_has_exactly_its_e0() -> None:
    potential = model()
    atoms = gas(1)
    node_energy = predict_in_chunks(potential, from_atoms(atoms, potential.cutoff), 4).node_energy
    assert node_energy[0] == STATISTICS.e0[STATISTICS.elements.index(atoms.symbols[0])]


def test_the_calculator_takes_large_structures_in_chunks() -> None:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=3)
    results = []
    for chunk in (8, 3):
        atoms.calc = EquivCalculator(model(), chunk=chunk)
        results.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True])
def test_a_wrong_chunk_is_refused(chunk: object) -> None:
    with pytest.raises(ValueError, match=r"chunk is .*number of atoms"):
        EquivCalculator(model(), chunk=chunk)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [4, 100])
def test_a_caller_without_gradients_gets_forces(size: int) -> None:
    potential = model()
    graph = from_atoms(gas(2), potential.cutoff)
    with torch.no_grad():
        forces = predict_in_chunks(potential, graph, size).forces
    torch.testing.assert_close(forces, predict(potential, graph).forces, rtol=1e-9, atol=1e-10)
