"""The function that a GPU records gives what `predict` gives, whatever happens to the structure that it follows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from potential import Potential, Statistics, build, from_atoms, predict
from potential.recorded import Recorder, Recording
from potential.table import fits_a_table
from potential.targets import TargetFacts
from train.lowrank import LowRank

CONFIG = {"channels": 6, "message_channels": 4, "vector_channels": 3, "cutoff": 3.5}
STATISTICS = Statistics(
    ("H", "C", "O", "Si"), (-13.6, -1029.3, -2041.8, -7000.0), scale=0.3, mean_neighbors=9.0
)
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]  # on a CPU it runs, on a GPU it is recorded


def model(device: str, **dials: object) -> Potential:
    potential = build({**CONFIG, **dials}, STATISTICS, dtype=torch.float64)
    return potential.requires_grad_(False).to(device)


def assert_follows(recorder: Recorder, atoms: Atoms) -> None:
    """What is said of the structure is what a fresh graph says."""
    potential, got = recorder.potential, recorder.predict(atoms)
    graph = from_atoms(atoms, potential.cutoff).to(potential.species_of.device)
    expected = predict(potential, graph)
    for name in ("energy", "node_energy", "forces", "virial"):
        one, other = getattr(got, name), getattr(expected, name).cpu()
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-10)


def crystal() -> Atoms:
    atoms = bulk("C", "diamond", a=3.6, cubic=True) * (2, 1, 1)
    atoms.symbols[[1, 6]] = "O"
    atoms.rattle(0.05, seed=4)
    return atoms


@pytest.mark.parametrize("device", DEVICES)
def test_a_walk(device: str) -> None:
    """Steps, wrapping, strain, other elements, a rebuilt list: one recording serves until there is no room."""
    recorder, atoms, rng = Recorder(model(device), skin=0.5), crystal(), np.random.default_rng(0)
    assert_follows(recorder, atoms)
    first = recorder.recording
    for k in range(12):
        atoms.positions += rng.normal(0, 0.03, (len(atoms), 3)) + 0.4
        if k % 3 == 0:
            atoms.wrap()
        if k == 5:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.003, (3, 3))), scale_atoms=True)
        if k == 7:
            atoms.symbols[2] = "Si"
        assert_follows(recorder, atoms)
    assert 1 <= recorder.n_searches < 12
    assert recorder.recording is first
    atoms.set_cell(0.8 * atoms.cell.array, scale_atoms=True)
    assert_follows(recorder, atoms)
    assert recorder.recording is not first


@pytest.mark.parametrize("device", DEVICES)
def test_another_structure(device: str) -> None:
    recorder = Recorder(model(device), skin=0.5)
    for atoms in (molecule("CH3COOH"), crystal(), molecule("H2O"), Atoms("H"), molecule("CH4")):
        assert_follows(recorder, atoms)


@pytest.mark.parametrize("device", DEVICES)
def test_an_atom_with_neighbors_in_the_skin_alone_has_its_e0(device: str) -> None:
    recorder, atoms = Recorder(model(device), skin=0.5), Atoms("HO", [[0, 0, 0], [3.7, 0, 0]])
    assert recorder.predict(atoms).node_energy.tolist() == [-13.6, -2041.8]
    atoms.positions[1, 0] = 3.45
    assert recorder.predict(atoms).node_energy.tolist() != [-13.6, -2041.8]
    assert recorder.n_searches == 1
    assert_follows(recorder, atoms)


@pytest.mark.parametrize("device", DEVICES)
def test_mistakes_are_refused_and_forgotten(device: str) -> None:
    recorder, atoms = Recorder(model(device), skin=9.0), molecule("CH3COOH")
    recorder.predict(atoms)
    good = atoms.copy()
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(ValueError, match="atom 0"):
        recorder.predict(atoms)
    atoms = good.copy()
    atoms.symbols[0] = "Xe"
    with pytest.raises(ValueError, match="Xe"):
        recorder.predict(atoms)
    atoms = good.copy()
    atoms.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        recorder.predict(atoms)
    assert_follows(recorder, good)
    assert recorder.n_searches == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_records_for_itself(device: str) -> None:
    recorder = Recorder(model(device), skin=0.5)
    assert_follows(recorder, crystal())
    other = copy.deepcopy(recorder)
    assert other.recording is None
    assert_follows(other, molecule("CH3COOH"))
    assert_follows(recorder, crystal())
    assert recorder.n_searches == 1


def test_no_memory_for_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is told, at every call until there is some."""
    recorder, real = Recorder(model("cpu"), skin=0.5), Recording.__init__
    monkeypatch.setattr(Recording, "__init__", out_of_memory)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            recorder.predict(crystal())
    monkeypatch.setattr(Recording, "__init__", real)
    assert_follows(recorder, crystal())


def out_of_memory(_: Recording, function: Callable[[], torch.Tensor], __: torch.device) -> None:
    for _ in range(2):
        function()
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_can_be_recorded() -> None:
    dipole = TargetFacts("dipole", "1o", "structure", "e Ang", (1.0,), ((),) * 4)
    both = Statistics(STATISTICS.elements, STATISTICS.e0, 0.3, 9.0, targets=(dipole,))
    assert fits_a_table(model("cpu"))
    assert not fits_a_table(LowRank(model("cpu"), 2, 0))  # its updates are not in the network's own weights
    assert not fits_a_table(build({"network": "painn", "cutoff": 3.5}, STATISTICS))
    assert not fits_a_table(build({**CONFIG, "lmax_out": 1}, both))
