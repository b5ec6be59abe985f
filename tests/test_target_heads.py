"""Targets beside the energy: the laws that each obeys, for every network that has the orders it needs."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from ase import Atoms
from ase.build import make_supercell, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from e3nn import o3

from potential import EquivCalculator, Potential, Statistics, build, collate, from_atoms, load, predict, save
from potential.checkpoint import read, write
from potential.chunks import predict_in_chunks
from potential.model import recast, settings
from potential.networks import NETWORKS
from potential.targets import TargetFacts, tensor_basis

ELEMENTS = ("H", "C", "O")
CUTOFF = 4.0
NONE = ((), (), ())
ALL = (
    TargetFacts("dipole", "1o", "structure", "e*Ang", (0.7,), NONE),
    TargetFacts("polarizability", "tensor", "structure", "Ang^3", (0.5, 0.2), ((0.3,), (1.1,), (0.8,))),
    TargetFacts("charges", "0e", "atom", "e", (0.3,), ((0.4,), (-0.1,), (-0.6,))),
    TargetFacts("gap", "0e", "mean", "eV", (2.0,), ((1.0,), (3.0,), (5.0,))),
    TargetFacts("third", "2x1o+3o", "structure", "", (0.5, 1.5), NONE),
    TargetFacts("gradients", "tensor", "atom", "", (0.5, 0.2), ((0.0,), (0.0,), (1.0,))),
)
SMALL: dict[str, dict[str, Any]] = {
    "painn": {"channels": 8, "n_layers": 2},
    "ace": {"functions": 100},
    "schnet": {"channels": 8, "n_layers": 2},
    "egnn": {"channels": 8, "n_layers": 2},
    "l1net": {"channels": 6, "n_layers": 2},
    "nequip": {"channels": 4, "n_layers": 2},
    "mace": {"channels": 4, "n_layers": 2},
    "allegro": {"channels": 4, "n_layers": 1},
    "equivariant": {"channels": 12, "message_channels": 6, "vector_channels": 6, "lmax": 3},
}
BOUND = {"float64": 1e-9, "float32": 2e-5}


def model(
    network: str = "equivariant",
    dtype: str = "float64",
    targets: tuple[TargetFacts, ...] = ALL,
    has_energy: bool = True,
) -> Potential:
    """The network with all orders that it can give and the targets it can serve."""
    dials = {"network": network, "cutoff": CUTOFF, **SMALL.get(network, {})}
    config_type, highest = NETWORKS[network][0], getattr(settings(dials)[1], "lmax", 3)
    for dial in fields(config_type):
        if dial.name == "lmax_out":
            dials["lmax_out"] = min(3, highest, dial.metadata["range"][1])
    network_type, config = settings(dials)
    offered = network_type(config, 3, 10.0).irreps_out
    served = tuple(
        t
        for t in targets
        if all(offered.count(ir) for _, ir in t.layout)
        or (network in ("schnet", "egnn") and t.irreps in ("1o", "magnitude"))
    )
    facts = Statistics(ELEMENTS, (-13.6, -1029.3, -2041.8), 1.7, 10.0, served, has_energy)
    return build(dials, facts, seed=3, dtype=getattr(torch, dtype)).requires_grad_(False)


def ethanol(seed: int = 0) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=(9, 3))
    return atoms


def crystal(seed: int = 0) -> Atoms:
    atoms = ethanol(seed)
    atoms.set_cell([[6.1, 0.4, 0.2], [0.0, 5.7, -0.5], [0.3, 0.0, 6.6]])
    atoms.pbc = True
    return atoms


def said(potential: Potential, atoms: Atoms) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in predict(potential, from_atoms(atoms, CUTOFF)).targets.items()}


def turned(values: np.ndarray, facts: TargetFacts, q: np.ndarray) -> np.ndarray:
    """What a target becomes when the structure is turned or mirrored by q."""
    if facts.irreps == "tensor":
        return (q @ values.reshape(-1, 3, 3) @ q.T).reshape(-1, 9)
    return values @ representation(facts.layout, q).T


def representation(irreps: o3.Irreps, q: np.ndarray) -> np.ndarray:
    """How components of natural parity go with q: as harmonics of turned points (e3nn's own matrix is of float32)."""
    points = np.random.default_rng(0).normal(size=(60, 3))
    blocks = []
    for mul, ir in irreps:
        here, there = (
            o3.spherical_harmonics(ir.l, torch.from_numpy(x), normalize=True).numpy()
            for x in (points, points @ q.T)
        )
        blocks += [np.linalg.lstsq(here, there, rcond=None)[0].T] * mul
    return scipy.linalg.block_diag(*blocks)


def close(got: np.ndarray, expected: np.ndarray, facts: TargetFacts, dtype: str = "float64") -> None:
    assert got.shape == expected.shape
    size = max(float(np.abs(expected).max()), facts.spread)
    assert np.abs(got - expected).max() <= BOUND[dtype] * size, facts.name


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- laws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("kind", [ethanol, crystal])
def test_turning_and_mirroring(network: str, dtype: str, improper: bool, kind: Any) -> None:
    potential, atoms = model(network, dtype), kind()
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    q = q if (np.linalg.det(q) < 0) == improper else -q
    other = Atoms(atoms.numbers, atoms.positions @ q.T, cell=atoms.cell.array @ q.T, pbc=atoms.pbc)
    one, two = said(potential, atoms), said(potential, other)
    for facts in potential.statistics.targets:
        assert np.abs(one[facts.name]).max() > 1e-3 * facts.spread  # not all zero
        close(two[facts.name], turned(one[facts.name], facts, q), facts, dtype)


def test_every_target_is_served_by_the_flagship() -> None:
    assert model().statistics.targets == ALL


def test_moving_and_renaming_atoms(network: str) -> None:
    potential, atoms = model(network), crystal()
    order = np.random.default_rng(2).permutation(len(atoms))
    moved = atoms[order]
    moved.positions += [1.3, -20.1, 7.7]
    moved.wrap()
    one, two = said(potential, atoms), said(potential, moved)
    for facts in potential.statistics.targets:
        expected = one[facts.name][order] if facts.per == "atom" else one[facts.name]
        close(two[facts.name], expected, facts)


def test_batch_equals_single(network: str) -> None:
    potential, rows = model(network), [ethanol(0), crystal(1), Atoms("O"), ethanol(2)]
    together = predict(potential, collate([from_atoms(a, CUTOFF) for a in rows])).targets
    for facts in potential.statistics.targets:
        expected = np.concatenate([said(potential, a)[facts.name] for a in rows])
        close(together[facts.name].numpy(), expected, facts)


def test_supercell_and_distance(network: str) -> None:
    """A sum grows with the cell, a mean and the values of atoms do not; what is far away adds."""
    potential, atoms = model(network), crystal()
    big = make_supercell(atoms, np.diag([2, 1, 1]))
    far = ethanol(4)
    far.positions += 100.0
    one, two, both = (said(potential, a) for a in (atoms, big, ethanol(3) + far))
    parts = said(potential, ethanol(3)), said(potential, ethanol(4))
    for facts in potential.statistics.targets:
        name = facts.name
        expected = {"structure": 2 * one[name], "mean": one[name], "atom": np.tile(one[name], (2, 1))}
        close(two[name], expected[facts.per], facts)
        if facts.per == "structure":
            close(both[name], parts[0][name] + parts[1][name], facts)


@pytest.mark.parametrize("dtype", BOUND)
def test_isolated_atom_has_its_offset_exactly(network: str, dtype: str) -> None:
    potential = model(network, dtype)
    for k, symbol in enumerate(ELEMENTS):
        for name, value in said(potential, Atoms(symbol)).items():
            facts = next(t for t in potential.statistics.targets if t.name == name)
            own = facts.offset[k]
            expected = np.zeros(facts.dim)
            if facts.irreps == "tensor":
                expected = own[0] * tensor_basis()[0].numpy()
            elif own:
                expected[:] = own
            assert (value[0] == expected).all()
            among = said(potential, ethanol() + Atoms(symbol, [[99.0, 0.0, 0.0]]))[name]
            assert facts.per != "atom" or (among[-1] == expected).all()


def test_two_precisions(network: str) -> None:
    single = model(network, "float32")
    one, two = said(single, ethanol()), said(recast(single, torch.float64), ethanol())
    for facts in single.statistics.targets:
        close(one[facts.name], two[facts.name], facts, "float32")


# --- what stays as it was -----------------------------------------------------------------------------------


def test_scalar_targets_change_nothing_about_the_energy() -> None:
    dials = {"channels": 12, "vector_channels": 4, "cutoff": CUTOFF}
    graph = from_atoms(ethanol(), CUTOFF)
    facts = Statistics(ELEMENTS, (0.0, 0.0, 0.0), 1.0, 10.0)
    plain, more = build(dials, facts), build(dials, replace(facts, targets=(ALL[2],)))
    assert str(plain.network.irreps_out) == "24x0e"
    one, two = predict(plain, graph), predict(more, graph)
    assert torch.equal(one.energy, two.energy)
    assert torch.equal(one.forces, two.forces)
    assert one.targets == {}


def test_chunks() -> None:
    potential = model()
    atoms = make_supercell(crystal(), np.diag([2, 1, 1]))
    graph = from_atoms(atoms, CUTOFF)
    whole, parts = predict(potential, graph), predict_in_chunks(potential, graph, 5)
    torch.testing.assert_close(parts.forces, whole.forces, rtol=1e-10, atol=1e-10)
    for facts in ALL:
        assert not parts.targets[facts.name].requires_grad
        close(parts.targets[facts.name].numpy(), whole.targets[facts.name].numpy(), facts)


# --- algebra ------------------------------------------------------------------------------------------------


def test_tensor_basis() -> None:
    basis = tensor_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(6, dtype=torch.float64))
    symmetric = basis.reshape(6, 3, 3)
    torch.testing.assert_close(symmetric, symmetric.transpose(1, 2))
    torch.testing.assert_close(basis[0], torch.eye(3, dtype=torch.float64).flatten() / 3**0.5)
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned_tensor = q @ (np.arange(6.0) @ basis.numpy()).reshape(3, 3) @ q.T
    components = representation(o3.Irreps("0e+2e"), q) @ np.arange(6.0)
    assert turned_tensor.flatten() == pytest.approx(components @ basis.numpy())


def test_spread_is_that_of_all_components() -> None:
    assert ALL[0].spread == pytest.approx(0.7)
    assert ALL[1].spread == pytest.approx(((0.5**2 + 5 * 0.2**2) / 9) ** 0.5)
    assert ALL[4].spread == pytest.approx(((6 * 0.5**2 + 7 * 1.5**2) / 13) ** 0.5)


@pytest.mark.parametrize(
    ("irreps", "dials", "hint"),
    [
        ("1o", {}, "lmax_out to 1"),
        ("1e", {"lmax_out": 1}, "natural parity"),
        ("3o", {"lmax": 3, "lmax_out": 2}, "to 3"),
    ],
)
def test_orders_that_are_missing(irreps: str, dials: dict[str, int], hint: str) -> None:
    facts = Statistics(("H",), (0.0,), 1.0, 1.0, (TargetFacts("spin", irreps, "atom", "", (1.0,), ((),)),))
    with pytest.raises(ValueError, match=f"'spin' is made of 1x{irreps}.*{hint}"):
        build({"channels": 8, "vector_channels": 4, **dials}, facts)


# --- calculator ---------------------------------------------------------------------------------------------


def test_calculator() -> None:
    atoms = ethanol()
    atoms.calc = EquivCalculator(model())
    expected = said(model(), atoms)
    assert atoms.get_dipole_moment() == pytest.approx(expected["dipole"][0])
    assert atoms.calc.get_dipole_moment(atoms) == pytest.approx(expected["dipole"][0])
    results = atoms.calc.results
    assert results["polarizability"] == pytest.approx(expected["polarizability"].reshape(3, 3))
    assert results["charges"] == pytest.approx(expected["charges"][:, 0])
    assert results["gradients"].shape == (9, 3, 3)
    assert results["gap"] == pytest.approx(expected["gap"].item())
    assert results["third"].shape == (13,)
    assert np.isfinite(atoms.get_potential_energy())


def test_calculator_without_energies_has_none() -> None:
    atoms = ethanol()
    atoms.calc = EquivCalculator(model(has_energy=False))
    assert np.isfinite(atoms.get_dipole_moment()).all()
    for ask in (atoms.get_potential_energy, atoms.get_forces):
        with pytest.raises(PropertyNotImplementedError):
            ask()
    assert "energy" in EquivCalculator.implemented_properties


def test_no_energies_are_nan_and_not_zero() -> None:
    p = predict(model(has_energy=False), from_atoms(ethanol(), CUTOFF))
    for value in (p.energy, p.node_energy, p.forces, p.virial):
        assert bool(value.isnan().all())


def test_forces_that_are_not_wanted() -> None:
    p = predict(model(), from_atoms(ethanol(), CUTOFF), forces=False)
    assert bool(p.forces.isnan().all())
    assert bool(p.energy.isfinite().all())


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_energy", [True, False])
def test_saved_and_loaded(tmp_path: Path, has_energy: bool) -> None:
    potential = model(has_energy=has_energy)
    save(potential, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.statistics == potential.statistics
    one, two = said(potential, ethanol()), said(again, ethanol())
    assert all((one[name] == two[name]).all() for name in one)
    header, _ = read(tmp_path / "m.safetensors")
    assert {*header["self_test"]["targets"]} == {t.name for t in ALL}
    assert ("energy" in header["self_test"]) is has_energy


def test_self_test_looks_at_targets(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(model(), path)
    header, tensors = read(path)
    header["self_test"]["targets"]["dipole"][0][1] += 1e-3
    write(path, header, tensors)
    with pytest.raises(ValueError, match=r"dipole differs by 1\.00e-03 e"):
        load(path)


def test_file_of_the_format_before_targets(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    facts = Statistics(ELEMENTS, (0.0, -1.0, -2.0), 1.0, 10.0)
    potential = build({"channels": 8, "vector_channels": 4, "cutoff": CUTOFF}, facts)
    save(potential, path)
    header, tensors = read(path)
    header["format"] = 3
    for key in ("targets", "has_energy"):
        del header["statistics"][key]
    del header["config"]["lmax_out"], header["self_test"]["targets"]
    write(path, header, tensors)
    again = load(path)
    assert again.statistics == facts
    graph = from_atoms(ethanol(), CUTOFF)
    assert torch.equal(predict(again, graph).energy, predict(potential, graph).energy)
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
