"""A Verlet list gives the graph of a new search, bit for bit, whatever happens to the atoms and their cell."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.mixing import SumCalculator
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from hypothesis import given, settings
from hypothesis import strategies as st

from potential import EquivCalculator, Potential, Statistics, build
from potential.graph import Graph, from_atoms
from potential.verlet import VerletList, follow

Rng = np.random.Generator
CONFIG = {
    "channels": 6,
    "message_channels": 3,
    "vector_channels": 2,
    "lmax": 1,
    "hidden_lmax": 1,
    "correlation": 2,
    "cutoff": 3.5,
}
STATISTICS = Statistics(
    ("H", "C", "O", "Si"), (-13.61, -1029.3, -2041.8, -7000.0), scale=0.3, mean_neighbors=9.0
)


def assert_equal(graph: Graph, fresh: Graph) -> None:
    for field in fields(Graph):
        one, other = getattr(graph, field.name), getattr(fresh, field.name)
        assert torch.equal(one, other), f"{field.name}: {one} is not {other}"


class Walk:
    """A structure under way with its Verlet list; every step is held against a new search."""

    def __init__(self, atoms: Atoms, cutoff: float, skin: float):
        self.atoms, self.cutoff, self.skin = atoms, cutoff, skin
        self.known: VerletList | None = None
        self.n_searches = 0
        self.n_edges = 0
        self.step()

    def step(self) -> bool:
        """Whether the old edges served."""
        before = self.atoms.copy()
        fresh, refusal = attempt(lambda: (from_atoms(self.atoms, self.cutoff), self.known))
        result, said = attempt(lambda: follow(self.known, self.atoms, self.cutoff, self.skin))
        assert said == refusal
        assert self.atoms == before
        if fresh is None or result is None:
            return False
        graph, known = result
        assert_equal(graph, fresh[0])
        self.n_edges = len(graph.center)
        served = known is self.known
        self.n_searches += not served
        self.known = known
        return served


Result = tuple[Graph, VerletList | None]


def attempt(make: Callable[[], Result]) -> tuple[Result | None, str]:
    """What comes out, and how it was refused."""
    try:
        return make(), ""
    except ValueError as error:
        return None, str(error)


# --- anything may happen ------------------------------------------------------------------------------------


def periodic(atoms: Atoms) -> np.ndarray:
    """The cell with zeros for the vectors that mean nothing."""
    return np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)


def jiggle(atoms: Atoms, rng: Rng) -> None:
    atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))


def stride(atoms: Atoms, rng: Rng) -> None:
    atoms.positions += rng.normal(scale=0.3, size=(len(atoms), 3))


def drift(atoms: Atoms, rng: Rng) -> None:
    atoms.positions += rng.normal(scale=2.0, size=3)


def wrap(atoms: Atoms, rng: Rng) -> None:
    """What ASE's wrap() does, for any cell."""
    cell = periodic(atoms)
    crossings = np.floor(atoms.positions @ np.linalg.pinv(cell)) if atoms.pbc.any() else np.zeros((1, 3))
    atoms.positions -= crossings @ cell


def hop(atoms: Atoms, rng: Rng) -> None:
    """Single atoms by up to 3 cells."""
    atoms.positions += rng.integers(-3, 4, size=(len(atoms), 3)) @ periodic(atoms)


def strain(atoms: Atoms, rng: Rng) -> None:
    deform(atoms, np.eye(3) + rng.normal(scale=0.01, size=(3, 3)))


def squeeze(atoms: Atoms, rng: Rng) -> None:
    deform(atoms, np.eye(3) * rng.uniform(0.8, 1.2))


def turn(atoms: Atoms, rng: Rng) -> None:
    deform(atoms, np.linalg.qr(rng.normal(size=(3, 3)))[0])


def deform(atoms: Atoms, matrix: np.ndarray) -> None:
    atoms.cell[:] = atoms.cell.array @ matrix
    atoms.positions[:] = atoms.positions @ matrix


def cell_alone(atoms: Atoms, rng: Rng) -> None:
    """The lattice moves and the atoms stay where they are."""
    atoms.cell[:] = atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3)))


def mirror(atoms: Atoms, rng: Rng) -> None:
    """The same lattice, of the other hand."""
    atoms.cell[rng.integers(3)] *= -1


def relabel(atoms: Atoms, rng: Rng) -> None:
    """The same lattice, with other vectors."""
    a, b = rng.choice(3, size=2, replace=False)
    if atoms.pbc[a] and atoms.pbc[b]:
        atoms.cell[a] += atoms.cell[b]


def open_vectors(atoms: Atoms, rng: Rng) -> None:
    """Lattice vectors of directions that are not periodic: they mean nothing."""
    atoms.cell[~atoms.pbc] = rng.normal(scale=5.0, size=(int((~atoms.pbc).sum()), 3))


def flip(atoms: Atoms, rng: Rng) -> None:
    k = rng.integers(3)
    atoms.pbc[k] = not atoms.pbc[k]


def remove(atoms: Atoms, rng: Rng) -> None:
    if len(atoms) > 1:
        del atoms[int(rng.integers(len(atoms)))]


def add(atoms: Atoms, rng: Rng) -> None:
    atoms.append(rng.choice(["H", "O"]))
    atoms.positions[-1] = atoms.positions[0] + rng.normal(scale=2.0, size=3)


def shuffle(atoms: Atoms, rng: Rng) -> None:
    order = rng.permutation(len(atoms))
    atoms.positions[:], atoms.numbers[:] = atoms.positions[order], atoms.numbers[order]


def transmute(atoms: Atoms, rng: Rng) -> None:
    atoms.numbers[:] = rng.choice([1, 6, 8], size=len(atoms))


def nothing(atoms: Atoms, rng: Rng) -> None:
    pass


# These leave the distances as they are: the list must outlive them.
HARMLESS = (drift, wrap, hop, turn, open_vectors, transmute, nothing)
EVENTS = (
    *HARMLESS,
    jiggle,
    stride,
    strain,
    squeeze,
    cell_alone,
    mirror,
    relabel,
    flip,
    remove,
    add,
    shuffle,
)


@dataclass(frozen=True)
class Dials:
    seed: int
    shape: str
    pbc: tuple[bool, bool, bool]
    left_handed: bool
    bare: bool  # zero vectors in the directions that are not periodic
    n_atoms: int
    cutoff: float
    skin: float


SHAPES = ("cubic", "triclinic", "skewed", "thin")
DIALS = st.builds(
    Dials,
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from(SHAPES),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    left_handed=st.booleans(),
    bare=st.booleans(),
    n_atoms=st.integers(1, 6),
    cutoff=st.floats(1.0, 5.0),
    skin=st.one_of(st.floats(0.01, 2.0), st.just(0.5)),
)


def structure(dials: Dials) -> Atoms:
    rng = np.random.default_rng(dials.seed)
    lengths = rng.uniform(3.0, 6.0, size=3)
    if dials.shape == "thin":
        lengths[rng.integers(3)] = rng.uniform(0.7, 1.5)
    cell = np.diag(lengths)
    if dials.shape == "triclinic":
        cell += rng.uniform(-1.0, 1.0, size=(3, 3))
    if dials.shape == "skewed":
        cell[1, 0], cell[2, :2] = rng.uniform(-15, 15), rng.uniform(-15, 15, size=2)
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if (np.linalg.det(cell) < 0) != dials.left_handed:
        cell[rng.integers(3)] *= -1
    positions = rng.uniform(-1.0, 2.0, size=(dials.n_atoms, 3)) @ cell
    if dials.bare:
        cell[~np.array(dials.pbc)] = 0.0
    return Atoms(rng.choice(["H", "C", "O"], dials.n_atoms), positions, cell=cell, pbc=dials.pbc)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(DIALS, st.lists(st.sampled_from(EVENTS), min_size=1, max_size=8))
def test_equal_to_a_new_search_whatever_happens(
    dials: Dials, events: list[Callable[[Atoms, Rng], None]]
) -> None:
    rng = np.random.default_rng(dials.seed)
    walk = Walk(structure(dials), dials.cutoff, dials.skin)
    for event in events:
        event(walk.atoms, rng)
        walk.step()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(DIALS, st.lists(st.sampled_from(HARMLESS), min_size=1, max_size=4))
def test_what_leaves_distances_alone_needs_no_search(
    dials: Dials, events: list[Callable[[Atoms, Rng], None]]
) -> None:
    """Wrapping, drift of the whole, rotation with the cell: one search for all."""
    rng = np.random.default_rng(dials.seed)
    walk = Walk(structure(dials), dials.cutoff, dials.skin)
    for event in events:
        if event is turn and not all(dials.pbc):  # no lattice to tell a rotation from single steps
            continue
        event(walk.atoms, rng)
        assert walk.step() or walk.known is None, event.__name__  # None: atoms in the same place


def test_the_events_do_what_they_say_and_the_list_is_used() -> None:
    """The random test above means something: each event occurs with the list in use, and most are survived."""
    served: Counter[str] = Counter()
    for seed in range(40):
        pbc = (True, seed % 2 == 0, seed % 3 == 0)
        dials = Dials(seed, SHAPES[seed % 4], pbc, seed % 5 == 0, seed % 7 == 0, 4, 3.0, 0.5)
        for event in EVENTS:
            rng = np.random.default_rng(seed)
            walk = Walk(structure(dials), dials.cutoff, dials.skin)
            event(walk.atoms, rng)
            served[event.__name__] += walk.step()
    for event in (drift, wrap, hop, open_vectors, transmute, nothing, jiggle):
        assert served[event.__name__] >= 36, (event.__name__, served)
    for event in (strain, cell_alone, relabel, mirror):
        assert served[event.__name__] >= 10, (event.__name__, served)
    assert served["turn"] >= 7, served  # those that are periodic in all directions
    for event in (stride, remove, add, shuffle):
        assert served[event.__name__] <= 10, (event.__name__, served)


# --- the bound is sharp -------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    excess=st.sampled_from([-1e-6, 1e-6, 1e-3, 0.02, 0.3]),
    strained=st.booleans(),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_the_worst_pair(seed: int, excess: float, strained: bool, share: float) -> None:
    """Two atoms just beyond cutoff + skin come just inside the cutoff, in the direction in which the cell shrinks
    most: exactly the case against which the skin insures. Any slack in the criterion loses the edge."""
    rng = np.random.default_rng(seed)
    cutoff, skin = rng.uniform(1.0, 4.0), rng.uniform(0.1, 1.0)
    deformation, along = np.eye(3), np.linalg.qr(rng.normal(size=(3, 3)))[0][0]
    if strained:
        u, _, v = np.linalg.svd(rng.normal(size=(3, 3)))
        deformation, along = (
            u @ np.diag([1.2, 1.0, 1.0 - rng.uniform(0.0, skin / (cutoff + skin))]) @ v,
            u[:, 2],
        )
    box = np.eye(3) * 30.0
    start = along * (cutoff + skin + 1e-9)
    end = start @ deformation  # if the atoms moved with the cell
    step = np.linalg.norm(end) - cutoff + excess
    direction = end / np.linalg.norm(end)
    atoms = Atoms("CO", [[0, 0, 0], start], cell=box, pbc=True)
    walk = Walk(atoms, cutoff, skin)
    assert walk.n_edges == 0
    deform(atoms, deformation)
    atoms.positions[0] += share * step * direction
    atoms.positions[1] -= (1 - share) * step * direction
    walk.step()  # equal to a new search
    assert walk.n_edges == (2 if excess > 0 else 0)


@pytest.mark.parametrize("excess", [-1e-6, 1e-6])
def test_own_images_when_the_cell_shrinks(excess: float) -> None:
    """No atom moves against another; only the lattice brings the images in."""
    walk = Walk(Atoms("C", cell=[3.5 + 1e-9, 9, 9], pbc=True), cutoff=3.0, skin=0.5)
    walk.atoms.set_cell([3.0 - excess, 9, 9], scale_atoms=True)
    served = walk.step()
    assert walk.n_edges == (2 if excess > 0 else 0)
    assert served == (excess < 0)


@pytest.mark.parametrize("n", [2, 5])
def test_it_lasts_until_two_atoms_have_used_up_the_skin(n: int) -> None:
    """2 max |d| <= skin, not less: a list that is renewed too early is only slow, so it needs a test of its own."""
    atoms = Atoms(f"C{n}", np.arange(n)[:, None] * [1.5, 0, 0], cell=[30, 30, 30], pbc=True)
    walk = Walk(atoms, cutoff=3.0, skin=0.5)
    home = atoms.positions.copy()
    for x in (0.1, 0.2, 0.2499, -0.2499):
        atoms.positions[:] = home
        atoms.positions[0, 1] += x
        atoms.positions[1, 1] -= x
        assert walk.step()
    atoms.positions[0, 1] = 0.2502
    atoms.positions[1, 1] = -0.2502
    assert not walk.step()


def test_steps_add_up() -> None:
    """Displacement counts from the last search, not from the last step."""
    atoms = Atoms("CO", [[0, 0, 0], [5, 0, 0]])
    walk = Walk(atoms, cutoff=3.0, skin=0.5)
    for _ in range(300):
        atoms.positions[1, 0] -= 0.01
        walk.step()
    assert walk.n_edges == 2
    assert 5 <= walk.n_searches <= 8


@pytest.mark.parametrize("lattice", ["sc", "fcc", "bcc", "diamond"])
def test_crystal_with_a_shell_at_the_cutoff(lattice: str) -> None:
    """Lengths equal to the cutoff up to rounding: each edge's own vector says on which side it is."""
    seen = set()
    for a in np.linspace(3.5, 5.5, 9):
        atoms = bulk("Si", lattice, a=a, cubic=True) * (2, 2, 2)
        for cutoff in (a, a / np.sqrt(2), a * np.sqrt(3) / 2):
            walk = Walk(atoms.copy(), cutoff, 0.5)
            seen.add(walk.n_edges)
            hop(walk.atoms, np.random.default_rng(0))
            assert walk.step()
            turn(walk.atoms, np.random.default_rng(1))
            assert walk.step()
            seen.add(walk.n_edges)
    assert len(seen) > 5  # rounding decides: shells are there in part


# --- the calculator -----------------------------------------------------------------------------------------


def tiny(dtype: torch.dtype = torch.float64) -> Potential:
    return build(CONFIG, STATISTICS, seed=1, dtype=dtype)


class Compared(Calculator):  # type: ignore[misc]
    """Two calculators, one with a skin and one that searches at every step; refuses any difference."""

    implemented_properties = EquivCalculator.implemented_properties

    def __init__(self, skin: float, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.listed = EquivCalculator(tiny(dtype), skin=skin)
        self.searched = EquivCalculator(tiny(dtype))
        self.n_calls = 0

    def calculate(self, atoms: Atoms, properties: list[str], system_changes: list[str]) -> None:
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        for calc in (self.listed, self.searched):
            calc.calculate(atoms, properties)
        assert self.listed.results.keys() == self.searched.results.keys()
        for name, value in self.searched.results.items():
            assert np.array_equal(self.listed.results[name], value), name
        self.results = dict(self.listed.results)


def silicon(n: int = 1) -> Atoms:
    atoms = bulk("Si", cubic=True) * (n, n, n)
    atoms.symbols[::3] = "C"
    atoms.rattle(0.05, seed=1)
    return atoms


def slab() -> Atoms:
    atoms = silicon()
    atoms.pbc = (True, True, False)
    return atoms


def thin() -> Atoms:
    """Sheared, left-handed, thinner than the cutoff."""
    atoms = bulk("Si")
    atoms.rattle(0.05, seed=2)
    atoms.cell[:] = atoms.cell.array[[1, 0, 2]]
    atoms.cell[2] += 2 * atoms.cell[0]
    return atoms


def acid() -> Atoms:
    return molecule("CH3COOH")


SYSTEMS = (silicon, slab, thin, acid)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", SYSTEMS)
def test_dynamics_with_wrapping(make: Callable[[], Atoms], dtype: torch.dtype) -> None:
    """Every energy, force and stress of 150 hot steps in every bit, with atoms wrapped at random times."""
    atoms, rng = make(), np.random.default_rng(5)
    atoms.calc = Compared(0.5, dtype)
    atoms.set_velocities(rng.normal(scale=0.02, size=(len(atoms), 3)))
    crossed = 0
    with VelocityVerlet(atoms, timestep=1.0 * units.fs) as run:
        for _ in range(150):
            run.run(1)
            if rng.random() < 0.2:
                before = atoms.positions.copy()
                (hop if rng.random() < 0.3 else wrap)(atoms, rng)
                crossed += not np.allclose(before, atoms.positions)
    calc = atoms.calc
    assert calc.searched.n_searches == calc.n_calls >= 150
    assert 2 <= calc.listed.n_searches < calc.n_calls / 3
    assert crossed >= 10 or not atoms.pbc.any()


@pytest.mark.parametrize("make", [silicon, thin])
def test_dynamics_with_a_changing_cell(make: Callable[[], Atoms]) -> None:
    """As a barostat does: every step scales and shears cell and atoms a little, by 4 % to and fro."""
    atoms, rng = make(), np.random.default_rng(6)
    atoms.calc = Compared(0.2)
    atoms.set_velocities(rng.normal(scale=0.01, size=(len(atoms), 3)))
    trend = rng.normal(size=(3, 3))
    with VelocityVerlet(atoms, timestep=1.0 * units.fs) as run:
        for k in range(100):
            run.run(1)
            change = 0.004 * np.cos(k / 10) * trend / np.linalg.norm(trend, 2)
            deform(atoms, np.eye(3) + change + rng.normal(scale=1e-4, size=(3, 3)))
            if k % 7 == 0:
                wrap(atoms, rng)
    assert 2 <= atoms.calc.listed.n_searches < atoms.calc.n_calls / 3


def test_relaxation_of_the_cell() -> None:
    atoms = silicon()
    atoms.calc = Compared(0.5)
    cell = atoms.cell.array.copy()
    with FIRE(FrechetCellFilter(atoms), logfile=None, maxstep=0.02) as run:
        run.run(fmax=0.0, steps=30)
    assert not np.allclose(atoms.cell.array, cell, atol=1e-3)
    assert atoms.calc.listed.n_searches < atoms.calc.n_calls / 2


def test_changing_numbers_of_atoms() -> None:
    """Grand canonical: insert, delete, exchange; between them single steps."""
    atoms, rng = silicon(), np.random.default_rng(7)
    atoms.calc = Compared(0.5)
    counts = set()
    for _ in range(80):
        event = (add, remove, shuffle, transmute, jiggle, jiggle, jiggle, wrap)[rng.integers(8)]
        event(atoms, rng)
        try:
            atoms.get_forces()
        except ValueError as error:
            assert " apart" in str(error)  # noqa: PT017 - the insertion hit an atom
        counts.add(len(atoms))
    assert len(counts) > 3
    assert atoms.calc.listed.n_searches < atoms.calc.n_calls


def test_two_structures_in_turn_with_a_sum_of_calculators() -> None:
    """One calculator that is asked about two structures of equal size, then of different size."""
    one, two = silicon(), silicon()
    two.positions += np.random.default_rng(8).normal(scale=0.3, size=two.positions.shape)
    compared = [Compared(0.5), Compared(1.0)]
    total = SumCalculator(compared)
    for atoms in (one, two, one, two[:5], one, thin(), one):
        forces = total.get_property("forces", atoms)
        alone = EquivCalculator(tiny()).get_property("forces", atoms)
        np.testing.assert_allclose(forces, 2 * alone, rtol=0, atol=1e-12)
    assert compared[0].listed.n_searches == 7


def test_calculators_do_not_share_their_lists() -> None:
    calc = EquivCalculator(tiny(), skin=0.5)
    one, two = silicon(), acid()
    one.calc, two.calc = calc, copy.deepcopy(calc)
    expected = [EquivCalculator(tiny()).get_forces(a) for a in (one, two)]
    for _ in range(2):
        one.positions += 1e-9
        two.positions += 1e-9
        one.get_forces()
        two.get_forces()
    assert calc.n_searches == two.calc.n_searches == 1
    np.testing.assert_allclose(one.get_forces(), expected[0], atol=1e-9)
    np.testing.assert_allclose(two.get_forces(), expected[1], atol=1e-9)


def test_results_do_not_depend_on_the_past() -> None:
    """A run that is resumed goes on in the same bits although its list is younger."""
    atoms, rng = silicon(), np.random.default_rng(9)
    old = EquivCalculator(tiny(torch.float32), skin=1.0)
    for _ in range(10):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        forces = old.get_forces(atoms)
        assert np.array_equal(EquivCalculator(tiny(torch.float32), skin=0.3).get_forces(atoms), forces)
    assert old.n_searches == 1


def test_a_skin_that_changes_on_the_way() -> None:
    """The list knows how far it reaches."""
    atoms, rng = silicon(), np.random.default_rng(10)
    calc = EquivCalculator(tiny(), skin=0.1)
    for skin in (0.1, 2.0, 0.3, 0.0, 1.0):
        calc.skin = skin
        for _ in range(10):
            atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
            assert np.array_equal(calc.get_forces(atoms), EquivCalculator(tiny()).get_forces(atoms))


# --- refusals -----------------------------------------------------------------------------------------------


def test_refusals_are_those_of_a_search_and_the_list_survives_them() -> None:
    atoms = silicon()
    calc = EquivCalculator(tiny(), skin=0.5)
    expected = calc.get_forces(atoms).copy()
    broken = []
    for k in range(5):
        broken.append(atoms.copy())
        if k == 0:
            broken[k].positions[2, 1] = np.nan
        if k == 1:
            broken[k].cell[1, 1] = np.inf
        if k == 2:
            broken[k].cell[1] = 0
        if k == 3:
            broken[k].symbols[4] = "Au"
        if k == 4:
            broken[k] = Atoms()
    for bad in broken:
        _, said = attempt(lambda bad=bad: calc.calculate(bad))  # type: ignore[misc]
        _, searched = attempt(lambda bad=bad: EquivCalculator(tiny()).calculate(bad))  # type: ignore[misc]
        assert said == searched != ""
        assert calc.results == {}
    atoms.positions += 0.0
    assert np.array_equal(calc.get_forces(atoms), expected)
    assert calc.n_searches == 1


def test_atoms_that_meet_within_the_skin_are_refused() -> None:
    """The list is still valid when they do."""
    atoms = Atoms("HCO", [[0, 0, 0], [2, 0, 0], [2, 0, 0.3]])
    calc = EquivCalculator(tiny(), skin=1.0)
    calc.get_forces(atoms)
    atoms.positions[2, 2] = 0.01
    with pytest.raises(ValueError, match=r"atom 1 \(C\) and atom 2 \(O\) are 0\.0100 Å apart"):
        calc.get_forces(atoms)


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf, -np.inf, "0.5", None, True, [0.5]])
def test_skin_that_is_no_length(skin: object) -> None:
    with pytest.raises(ValueError, match=r"skin is .* Å"):
        EquivCalculator(tiny(), skin=skin)  # type: ignore[arg-type]


@pytest.mark.parametrize("skin", [0, 1, 0.5, np.float32(0.5), np.float64(0.5)])
def test_skin_that_is_one(skin: float) -> None:
    atoms = silicon()
    assert np.array_equal(
        EquivCalculator(tiny(), skin=skin).get_forces(atoms), EquivCalculator(tiny()).get_forces(atoms)
    )


def test_without_a_skin_nothing_is_kept() -> None:
    calc = EquivCalculator(tiny())
    atoms = silicon()
    for k in range(3):
        atoms.positions += 1e-6
        calc.get_forces(atoms)
        assert calc.n_searches == k + 1
