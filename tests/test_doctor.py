"""The label report: no alarm on sound data, and every impossible label named with frame and remedy."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from train.data.dataset import Found, Frame, read
from train.data.keys import Keys
from train.doctor.inspection import LabelReport, inspect, require_clean

FOUND = Found("calculator", "calculator", None)
FOUND_STRESS = Found("calculator", "calculator", "calculator")


def ethanol(n: int) -> list[Frame]:
    """Frames as from a short simulation; energies of the size of total energies."""
    rng = np.random.default_rng(1)
    frames = []
    for k in range(n):
        atoms = molecule("CH3CH2OH")
        atoms.positions += rng.normal(scale=0.03, size=(9, 3))
        forces = balanced(atoms.positions, rng.normal(size=(9, 3)))
        frames.append(Frame(atoms, -4200.0 + rng.normal(scale=0.1), forces, None, "e.xyz", k))
    return frames


def balanced(positions, forces):
    """The forces without their net force and torque."""
    x = positions - positions.mean(axis=0)
    forces = forces - forces.mean(axis=0)
    inertia = np.sum(x * x) * np.eye(3) - x.T @ x
    return forces - np.cross(np.linalg.solve(inertia, np.cross(x, forces).sum(axis=0)), x)


def silicon(n: int) -> list[Frame]:
    rng = np.random.default_rng(2)
    frames = []
    for k in range(n):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05, rng=rng)
        forces, stress = rng.normal(size=(8, 3)), np.diag(rng.normal(scale=0.01, size=3))
        forces -= forces.mean(axis=0)
        frames.append(Frame(atoms, -43.0 + rng.normal(scale=0.2), forces, stress, "si.xyz", k))
    return frames


def moved(frame: Frame, **changes) -> Frame:
    """The frame with another structure."""
    atoms = frame.atoms.copy()
    for name, value in changes.items():
        setattr(atoms, name, value)
    return replace(frame, atoms=atoms)


def problems(frames, found=FOUND, **options) -> str:
    report = inspect(frames, found, **options)
    assert report.problems
    with pytest.raises(ValueError, match="in the labels"):
        require_clean(report)
    assert "PROBLEM" in report.text
    return "\n".join(report.problems)


def test_sound_data_pass_in_silence():
    for frames, found in ((ethanol(30), FOUND), (silicon(30), FOUND_STRESS)):
        report = inspect(frames, found, cutoff=5.0)
        assert report.problems == ()
        assert report.warnings == ()
        require_clean(report)


def test_the_table():
    text = inspect([*ethanol(20), Frame(Atoms("H"), -13.6, None, None, "h.xyz", 0)], FOUND, Keys()).text
    for line in (
        "e.xyz (20), h.xyz (1)",
        "C 40, H 121, O 20 atoms",
        "min 1, median 9, max 9",
        "FFF 21",
        "isolated atoms    H 1",
        "energy            21/21 under 'calculator', taken as eV",
        "forces            20/21 under 'calculator', taken as eV/Ang",
        "stress            0/21, not found",
        "outliers          0",
        "duplicates        0 with equal labels",
    ):
        assert line in text
    assert "closest distance  0.8" in text
    units = Keys(energy_unit="kcal/mol", length_unit="Bohr")
    assert "taken as kcal/mol/Bohr" in inspect(ethanol(3), FOUND, units).text


def test_a_virial_is_reported_as_what_it_was_read_as():
    units = Keys(energy_unit="Ry", length_unit="Bohr")
    text = inspect(silicon(6), Found("calculator", "calculator", "virial"), units).text
    assert (
        "6/6 under 'virial', taken as Ry, a virial: -stress * volume, positive: the cell wants to expand"
        in text
    )
    text = inspect(silicon(6), Found("calculator", "calculator", "REF_stress"), units).text
    assert "6/6 under 'REF_stress', taken as Ry/Bohr^3, positive: the cell wants to shrink" in text


def test_values_in_the_table():
    forces = np.array([[3.0, 4.0, 0.0], [-3.0, -4.0, 0.0]])
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    text = inspect([Frame(atoms, -32.0, forces, None, "h.xyz", 0)], FOUND).text
    assert "RMS 2.8868, largest 5.000, largest net 0.0000 eV/Å" in text
    assert "-16.0000 to -16.0000 eV" in text
    assert "0.740 Å" in text


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_missing_labels_in_half_the_frames(label):
    frames = ethanol(10)
    frames[5:] = [replace(f, **{label: None}) for f in frames[5:]]
    text = problems(frames)
    assert f"e.xyz, frame 5: no {label} in this and 4 more of 10 frames" in text
    assert "--allow-missing" in text
    allowed = inspect(frames, FOUND, allow_missing=True)
    assert allowed.problems == ()
    assert f"no {label}" in allowed.warnings[0]


def test_explained_gaps():
    isolated = Frame(Atoms("O"), -2038.0, None, None, "e.xyz", 99)
    assert inspect([*ethanol(5), isolated], FOUND).problems == ()
    scan = [replace(f, forces=None) for f in ethanol(5)]  # energies only, everywhere
    assert inspect(scan, Found("calculator", None, None)).problems == ()
    mixed = inspect([*silicon(5), *ethanol(5)], FOUND_STRESS)  # molecules have no stress
    assert mixed.problems == ()
    assert mixed.warnings == ()


def test_partial_stress_is_a_warning():
    frames = silicon(6)
    frames[2] = replace(frames[2], stress=None)
    report = inspect(frames, FOUND_STRESS)
    assert report.problems == ()
    assert "si.xyz, frame 2: no stress in this and 0 more of 6 frames" in report.warnings[0]


def test_nothing_to_fit():
    frames = [replace(f, energy=None, forces=None) for f in ethanol(3)]
    assert "nothing can be fitted" in problems(frames, Found(None, None, None))
    assert inspect(frames, Found(None, None, None), allow_missing=True).problems
    with pytest.raises(ValueError, match="no frames"):
        inspect([], FOUND)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["energy", "forces", "stress", "positions"])
def test_not_finite(what, value):
    frames = silicon(8)
    bad = frames[3]
    if what == "energy":
        frames[3] = replace(bad, energy=value)
    elif what == "positions":
        frames[3] = moved(bad, positions=np.where(np.eye(8, 3) > 0, value, bad.atoms.positions))
    else:
        array = np.array(getattr(bad, what))
        array[0, 0] = value
        frames[3] = replace(bad, **{what: array})
    assert f"si.xyz, frame 3: {what} not finite" in problems(frames, FOUND_STRESS)


@pytest.mark.parametrize(
    "cell", [np.zeros((3, 3)), np.diag([5.4, 5.4, 0.0]), [[5, 0, 0], [0, 5, 0], [5, 5, 0]]]
)
def test_zero_volume(cell):
    frames = silicon(6)
    frames[4] = moved(frames[4], cell=cell)
    assert "si.xyz, frame 4: pbc is [True, True, True] but the cell" in problems(frames, FOUND_STRESS)


@pytest.mark.parametrize("distance", [0.2, 0.01, 0.0])
def test_overlapping_atoms(distance):
    frames = ethanol(6)
    x = frames[1].atoms.positions.copy()
    x[4] = x[2] + [0, 0, distance]
    frames[1] = moved(frames[1], positions=x)
    text = problems(frames)
    assert "e.xyz, frame 1: atoms 2 (O) and 4 (H) overlap" in text
    assert f"{distance:.3f} Å" in text


def test_overlap_with_a_periodic_image():
    frames = silicon(6)
    x = frames[1].atoms.positions.copy()
    x[3] = x[0] + frames[1].atoms.cell.array[0] - [0.1, 0, 0]
    frames[1] = moved(frames[1], positions=x)
    assert "si.xyz, frame 1: atoms 0 (Si) and 3 (Si) overlap, 0.100 Å apart" in problems(frames, FOUND_STRESS)
    thin = Atoms("Si", cell=[5.0, 5.0, 0.04], pbc=True)
    lone = Frame(thin, -5.0, np.zeros((1, 3)), np.zeros((3, 3)), "thin.xyz", 0)
    assert "atoms 0 (Si) and 0 (Si) overlap, 0.040 Å" in problems([lone], FOUND_STRESS)


def test_mixed_units_stop():
    frames = ethanol(20)
    frames[12:] = [replace(f, energy=f.energy * 23.060548) for f in frames[12:]]
    assert "e.xyz, frame 12: energy of 8 frames is" in problems(frames)
    frames[12:] = [replace(f, forces=f.forces / 51.422) for f in ethanol(20)[12:]]
    report = inspect(frames, FOUND)
    assert report.problems == ()
    assert "e.xyz, frame 12: from here on the force RMS is 0.0" in report.warnings[0]


def test_an_energy_of_exactly_zero_is_a_missing_label():
    frames = ethanol(8)
    frames[6] = replace(frames[6], energy=0.0)
    assert "e.xyz, frame 6: the energy is exactly 0 in 1 frames" in problems(frames)


@pytest.mark.parametrize("label", ["forces", "stress"])
def test_labels_of_exactly_zero(label):
    """Many are a problem, a few a warning; a missing label must be absent."""
    zero = {label: np.zeros((8, 3) if label == "forces" else (3, 3))}
    frames = [replace(f, **zero) if f.index % 2 else f for f in silicon(10)]
    text = problems(frames, FOUND_STRESS)
    assert f"si.xyz, frame 1: the {label} " in text
    assert "exactly zero" in text
    assert "in 5 of 10 frames (1, 3, 5, 7, 9); a missing label must be absent, not zero" in text
    assert f"--{label}-key none" in text
    report = inspect([replace(f, **zero) if f.index == 3 else f for f in silicon(10)], FOUND_STRESS)
    assert report.problems == ()
    assert "in 1 of 10 frames (3); look whether they are missing" in report.warnings[0]
    assert problems([replace(f, **zero) for f in silicon(4)], FOUND_STRESS)


def test_forces_of_exactly_zero_in_a_molecule():
    frames = [replace(f, forces=np.zeros((9, 3))) if f.index < 3 else f for f in ethanol(6)]
    assert "e.xyz, frame 0: the forces are exactly zero" in problems(frames)


ORDERED = [bulk("CsCl", "cesiumchloride", a=4.1), bulk("NaCl", "rocksalt", a=5.6, cubic=True)]
CRYSTALS = [
    bulk("Si", cubic=True), bulk("Cu", cubic=True) * 2, bulk("Li", cubic=True), bulk("Mg") * (2, 1, 1), *ORDERED
]  # fmt: skip


@pytest.mark.parametrize("strain", [0.0, 0.1])
def test_forces_vanish_in_perfect_crystals(strain):
    frames = []
    for k, crystal in enumerate(CRYSTALS):
        if strain and "Mg" in crystal.symbols:  # hexagonal: the sublattices move when strained
            continue
        atoms = crystal.copy()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * np.diag([1, -0.5, 0.2])), scale_atoms=True)
        forces, stress = np.zeros((len(atoms), 3)), np.diag([0.01, 0.02, 0.001 * k])
        frames.append(Frame(atoms, -5.0 * len(atoms), forces, stress, "perfect.xyz", k))
    report = inspect(frames, FOUND_STRESS)
    assert report.problems == ()
    assert not [w for w in report.warnings if "zero" in w]


def test_a_vacancy_or_another_element_is_no_perfect_crystal():
    for change in ("vacancy", "element"):
        atoms = bulk("Cu", cubic=True) * 2
        if change == "vacancy":
            del atoms[0]
        else:
            atoms.symbols[0] = "Au"
        frame = Frame(atoms, -100.0, np.zeros((len(atoms), 3)), None, "cu.xyz", 0)
        assert "although not every atom stands in a symmetric place" in problems([frame])


@pytest.mark.parametrize(("unit", "factor"), [("kbar", 1602.1766), ("GPa", 160.21766)])
def test_stress_in_another_unit(unit, factor):
    """Numbers in kbar or GPa taken as eV/Å^3."""
    frames = [replace(f, stress=np.diag([0.05, -0.04, 0.03]) * factor) for f in silicon(6)]
    report = inspect(frames, FOUND_STRESS)
    assert report.problems == ()
    assert len(report.warnings) == 1
    assert "si.xyz, frame 0: the stress, taken as eV/Ang^3, has an RMS of" in report.warnings[0]
    assert f"--set data.stress_unit={unit}" in report.warnings[0]
    assert inspect(silicon(6), FOUND_STRESS).warnings == ()


def test_outliers():
    frames = ethanol(30)
    frames[7] = replace(frames[7], energy=frames[7].energy + 60.0)
    frames[9] = replace(frames[9], forces=frames[9].forces * 30.0)
    report = inspect(frames, FOUND)
    assert report.problems == ()
    assert "outliers          2" in report.text
    assert "e.xyz, frame 7: energy +6.6" in report.warnings[0]
    assert "e.xyz, frame 9: largest force" in report.warnings[0]


def test_duplicates():
    frames = ethanol(6)
    copy = replace(frames[2], index=6)
    other = replace(frames[3], index=7, energy=frames[3].energy + 1.0)
    shifted = moved(replace(frames[4], index=8), positions=frames[4].atoms.positions + 1e-3)
    report = inspect([*frames, copy, other, shifted], FOUND)
    assert "duplicates        1 with equal labels, 1 with different labels" in report.text
    assert "e.xyz, frame 6: the same structure as e.xyz, frame 2;" in report.warnings[0]
    assert "e.xyz, frame 7: the same structure as e.xyz, frame 3 with different labels" in report.warnings[1]


def test_negative_zero_is_zero_for_duplicates():
    a = Atoms("H2", positions=[[0.0, 0, 0], [0, 0, 0.74]])
    b = Atoms("H2", positions=[[-0.0, 0, 0], [0, 0, 0.74]])
    frames = [Frame(x, -32.0, np.zeros((2, 3)), None, "h.xyz", k) for k, x in enumerate((a, b))]
    assert "duplicates        1 with" in inspect(frames, FOUND).text


def test_atoms_beyond_the_cutoff():
    far = Frame(Atoms("H2", positions=[[0, 0, 0], [0, 0, 7.0]]), -27.2, np.zeros((2, 3)), None, "f.xyz", 0)
    assert (
        "f.xyz, frame 0: no two atoms are within the cutoff of 5.0 Å"
        in inspect([far], FOUND, cutoff=5.0).warnings[0]
    )
    assert inspect([far], FOUND, cutoff=8.0).warnings == ()


def test_only_ten_problems_are_shown():
    report = LabelReport("", tuple(f"p{k}" for k in range(25)), ())
    with pytest.raises(ValueError, match=r"25 problems(.|\n)*p9\n  \.\.\. and 15 more"):
        require_clean(report)


def test_from_file_to_report(tmp_path):
    lines = []
    for k, f in enumerate(ethanol(6)):
        rows = [
            f"{s} " + " ".join(f"{v:.8f}" for v in x)
            for s, x in zip(f.atoms.symbols, f.atoms.positions, strict=True)
        ]
        energy = "nan" if k == 4 else f"{f.energy}"
        lines += ["9", f'Properties=species:S:1:pos:R:3 energy={energy} pbc="F F F"', *rows]
    path = tmp_path / "nan.xyz"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"nan\.xyz, frame 4: energy not finite .*remove this frame"):
        require_clean(inspect(*read(path)))
