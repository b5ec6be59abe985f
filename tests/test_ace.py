"""Linear ACE: its functions span what they should, each once; their design matrix is what a potential predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from torch import Tensor

from potential.graph import from_atoms
from potential.model import Statistics, build
from potential.networks.ace import ACE, ACEConfig, chebyshev
from potential.networks.ace_basis import Factor, basis
from potential.networks.mace import monomials, symmetric_couplings
from potential.physics import predict
from train.linear.design import features


def network(n_species: int = 1, **dials: float) -> ACE:
    with torch.random.fork_rng():
        return ACE(ACEConfig(**dials), n_species, 10.0)  # type: ignore[arg-type]


def rank(values: Tensor) -> int:
    """Independent rows, each taken as a vector of length one."""
    return int(torch.linalg.matrix_rank(values / values.norm(dim=1, keepdim=True), rtol=1e-9))


def values(net: ACE, n: int, seed: int = 0) -> Tensor:
    """All functions of random factors, (n_functions, n)."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(len(net.rows), n, generator=generator, dtype=torch.float64)
    return net.invariants(a).detach()


@pytest.mark.parametrize(("lmax", "order"), [(3, 1), (3, 2), (3, 3), (2, 4), (3, 4)])
def test_spans_the_symmetric_couplings_of_one_density(lmax: int, order: int) -> None:
    """With one element and radial function: all invariant polynomials of the components, from MACE's couplings."""
    net = network(functions=400, correlation=4, lmax=lmax, angular_weight=0.2, order_weight=0.0)
    own = [
        k for k, f in enumerate(net.functions) if len(f.factors) == order and all(x.n == 1 for x in f.factors)
    ]
    couplings = symmetric_couplings(lmax, 0, order)[:, 0]
    assert len(own) == len(couplings)
    density = torch.randn(
        (lmax + 1) ** 2, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    a = torch.zeros(len(net.rows), 200, dtype=torch.float64)
    a[[k for k, row in enumerate(net.rows.tolist()) if row % net.n_radial == 0]] = density
    ours = net.invariants(a)[own]
    products = torch.stack([density[list(m)].prod(0) for m in monomials((lmax + 1) ** 2, order)])
    assert rank(torch.cat([ours, couplings @ products])) == rank(ours) == len(own)


@pytest.mark.parametrize(("n_species", "correlation"), [(1, 4), (2, 4), (3, 3)])
def test_no_function_is_a_sum_of_others(n_species: int, correlation: int) -> None:
    net = network(n_species, functions=300, correlation=correlation)
    assert rank(values(net, 2 * len(net.functions))) == len(net.functions) > 100


def test_a_basis_holds_all_up_to_its_degree() -> None:
    net = network(2, functions=200, correlation=3, angular_weight=1.5, order_weight=1.0)
    most = max(f.degree for f in net.functions)
    for f in net.functions:
        assert f.degree == sum(x.n + 1.5 * x.l for x in f.factors) + len(f.factors) - 1
        assert list(f.factors) == sorted(f.factors)
    pairs = {f.factors for f in net.functions if len(f.factors) == 2}
    singles = [Factor(l, n, z) for l in range(5) for n in range(1, 30) for z in range(2)]
    every = {
        (a, b) for a in singles for b in singles if a <= b and a.l == b.l and a.n + b.n + 3 * a.l + 1 <= most
    }
    assert pairs == every


@pytest.mark.parametrize("n_species", [1, 3, 10])
def test_size_is_adapted_to_the_elements(n_species: int) -> None:
    before = 0
    for most in (100, 300, 1000):
        n = len(basis(ACEConfig(functions=most).size, n_species))
        assert before < n <= max(most, 3 * n_species)
        before = n
    assert n > 500
    assert len(basis(ACEConfig(functions=1).size, n_species)) == n_species  # never nothing


def test_radial_functions_are_chebyshev_polynomials() -> None:
    x = torch.linspace(-1, 1, 20, dtype=torch.float64)
    expected = np.polynomial.chebyshev.chebvander(x.numpy(), 6)
    np.testing.assert_allclose(chebyshev(x, 7).numpy(), expected, atol=1e-14)
    assert chebyshev(x, 1).shape == (20, 1)


@pytest.mark.parametrize("correlation", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["molecule", "crystal", "atom"])
def test_the_design_matrix_is_what_the_potential_predicts(kind: str, correlation: int, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("train.linear.design.EDGES", 50)
    monkeypatch.setattr("train.linear.design.TANGENTS", 100)
    atoms = {
        "molecule": molecule("CH3CH2OH"),
        "crystal": bulk("CO", "zincblende", a=3.6, cubic=True).repeat((1, 1, 2)),
        "atom": molecule("O"),
    }[kind]
    atoms.rattle(0.1, seed=1)
    facts = Statistics(("H", "C", "O"), (-13.0, -1030.0, -2040.0), 1.7, 12.0)
    config = {"network": "ace", "functions": 150, "correlation": correlation, "cutoff": 4.0}
    model = build(config, facts, dtype=torch.float64)
    graph = from_atoms(atoms, 4.0)
    species = model.species_of[graph.atomic_numbers]
    p = predict(model, graph)
    x = features(model.network, (graph.edge_vectors(), species, graph.center, graph.neighbor))
    c = 1.7 * model.network.coefficients.detach().flatten()
    e0 = sum(facts.e0[k] for k in species.tolist())
    torch.testing.assert_close(x.energy @ c + e0, p.energy[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(
        x.forces @ c, p.forces, rtol=0, atol=1e-12 * max(float(p.forces.abs().max()), 1)
    )
    torch.testing.assert_close(
        x.virial @ c, p.virial[0], rtol=0, atol=1e-11 * max(float(p.virial.abs().max()), 1)
    )


def test_densities_of_few_edges_are_moved_at_a_time(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model = build({"network": "ace", "functions": 20, "cutoff": 4.0}, Statistics(("C",), (0.0,), 1.0, 12.0))
    graph = from_atoms(bulk("C", "diamond", cubic=True).repeat(3), 4.0)
    given, seen = model.network.densities, []
    monkeypatch.setattr(model.network, "densities", lambda v: seen.append(v) or given(v))
    features(
        model.network, (graph.edge_vectors().float(), graph.atomic_numbers * 0, graph.center, graph.neighbor)
    )
    moved = [len(v) for v in seen[1:]]
    assert max(moved) == 1024
    assert sum(moved) == len(graph.center)


def test_the_energy_is_linear_in_the_coefficients() -> None:
    config = {"network": "ace", "functions": 100, "cutoff": 4.0}
    model = build(config, Statistics(("H", "C", "O"), (0.0, 0.0, 0.0), 1.0, 12.0), dtype=torch.float64)
    graph = from_atoms(molecule("CH3CH2OH"), 4.0)
    first = predict(model, graph).energy
    with torch.no_grad():
        model.network.coefficients.mul_(-3)
    torch.testing.assert_close(predict(model, graph).energy, -3 * first)
    assert [name for name, _ in model.named_parameters()] == ["network.coefficients"]


def test_fine_tuning_is_refused(tmp_path: Path) -> None:
    from potential.checkpoint import save
    from train.config import Config, Data, Fit
    from train.finetune import read_start

    model = build({"network": "ace", "functions": 50}, Statistics(("H",), (0.0,), 1.0, 12.0))
    save(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="fitted by least squares"):
        read_start(Config(data=Data(train=("a.xyz",)), fit=Fit(start=str(tmp_path / "model.safetensors"))))
