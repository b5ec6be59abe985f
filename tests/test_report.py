"""The report says what the files of a run say, opens without a network, and survives what is absent."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from plotly.offline import get_plotlyjs

from train.report.breakdown import (
    UNTYPED,
    breakdown,
    breakdown_text,
    by_config_type,
    by_direction,
    by_element,
)
from train.report.charts import MAX_POINTS
from train.report.page import draw, page
from train.report.plots import draw_parity
from train.report.run_directory import energy_zero, read, read_predictions
from train.report.worst import MAX_ATOMS, N_VIEWED, frame_errors, scene, worst, write_worst

FILES = {"learning_curve.png", "parity.png", "report.html"}
ERRORS = {
    "energy_rmse": 1.234,
    "energy_mae": 0.987,
    "energy_rmse_per_structure": 11.11,
    "forces_rmse": 45.67,
    "forces_mae": 33.21,
    "stress_rmse": 0.7654,
    "stress_mae": 0.4321,
}
SUMMARY: dict[str, Any] = {
    "command": "potential-train --train '<b>.xyz'",
    "date": "2025-01-01T12:00:00",
    "version": "0.1.0",
    "seed": 3,
    "preset": "small",
    "parameters": 54321,
    "seconds": 754.2,
    "why": ["Batch of 4 because 12 < 100 frames & no more."],
    "labels": "energy: 12 of 12 frames\nforces: <all>",
    "e0": {"H": -13.6, "O": -2042.0},
}
PLOTLY = get_plotlyjs()
WATER = np.array([8, 1, 1])


class Page(HTMLParser):
    """Attributes of all elements, and the text of the tables row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data


def write_set(file: h5py.File, name: str, n_frames: int, error: float) -> None:
    """Water molecules whose energies are wrong by `error` eV and forces by `error` eV/Å in x."""
    random = np.random.default_rng(n_frames)
    n = 3 * n_frames
    forces, stress = random.normal(size=(n, 3)), random.normal(size=(n_frames, 3, 3))
    energy = -2069.2 - 10.0 + random.normal(size=n_frames)
    group = file.create_group(name)
    group.attrs["source"] = "data/<b>.xyz" if name == "train" else f"data/{name}.xyz"
    for key, values in {
        "n_atoms": np.full(n_frames, 3),
        "frame": np.arange(n_frames) + 100,
        "energy_reference": energy,
        "energy_predicted": energy + error,
        "stress_reference": stress,
        "stress_predicted": stress + 1e-3 * error,
        "atomic_numbers": np.tile(WATER, n_frames),
        "forces_reference": forces,
        "forces_predicted": forces + np.array([error, 0.0, 0.0]),
    }.items():
        group[key] = values


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run with every file of the contract."""
    sizes = {"train": 12, "valid": 4, "hot": 5}
    errors = {
        name: {"frames": n} | {key: value * (1 + index) for key, value in ERRORS.items()}
        for index, (name, n) in enumerate(sizes.items())
    }
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | {"errors": errors}))
    (tmp_path / "config.toml").write_text('[model]\ncutoff = 5.0\nnote = "<i>"\n')
    columns = [f"{name}_{key}_rmse" for name in ("train", "valid") for key in ("energy", "forces", "stress")]
    lines = [
        json.dumps({"epoch": i, "step": 10 * i, "lr": 0.01 / (i + 1)} | dict.fromkeys(columns, 9.0 / (i + 1)))
        for i in range(6)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with h5py.File(tmp_path / "predictions.h5", "w") as file:
        for index, (name, n_frames) in enumerate(sizes.items()):
            write_set(file, name, n_frames, 0.01 * (index + 1))
    return tmp_path


def edit(directory: Path, **changes: Any) -> None:
    path = directory / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def forget(directory: Path, *keys: str) -> None:
    """Set labels to NaN in the predictions and to null in the summary, as for a set without them."""
    with h5py.File(directory / "predictions.h5", "r+") as file:
        for group in file.values():
            for key in keys:
                group[f"{key}_reference"][...] = np.nan
    errors = json.loads((directory / "summary.json").read_text())["errors"]
    for row in errors.values():
        row.update({key: None for key in row if key.split("_")[0] in keys})
    edit(directory, errors=errors)


def drawn(directory: Path) -> str:
    """Draw; the page without plotly's own code, after checking what holds for every run."""
    before = {path.name for path in directory.iterdir()}
    made = draw(directory)
    files = FILES - ({"learning_curve.png"} if "metrics.jsonl" not in before else set())
    assert set(made) == files
    assert {path.name for path in directory.iterdir()} == before | files
    if "learning_curve.png" in files:
        assert made["learning_curve.png"].read_bytes().startswith(b"\x89PNG")
    assert made["parity.png"].read_bytes().startswith(b"\x89PNG")
    text = made["report.html"].read_text(encoding="utf-8")
    assert text.count(PLOTLY) == 1
    text = text.replace(PLOTLY, "")
    elements = Page(text).elements
    places = {values["id"] for _, values in elements if "plot" in (values.get("class") or "").split()}
    assert places == set(charts(text))
    assert "NaN" not in json.dumps(charts(text))
    return text


def written(directory: Path) -> str:
    """The page alone, without plotly's own code."""
    return page(read(directory)).replace(PLOTLY, "")


def charts(text: str) -> dict[str, Any]:
    found = re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_error_table_says_what_the_summary_says(directory: Path) -> None:
    found = Page(written(directory))
    errors = json.loads((directory / "summary.json").read_text())["errors"]
    for name, expected in errors.items():
        row = next(row for row in found.rows if row[0] == name)
        assert [float(cell.replace(",", "")) for cell in row[1:]] == pytest.approx(
            [expected["frames"], *(expected[key] for key in ERRORS)], rel=1e-3
        )


def test_errors_of_the_starting_model_stand_below(directory: Path) -> None:
    assert "Before, with the model" not in written(directory)
    edit(directory, errors_before={"hot": {**ERRORS, "frames": 5, "forces_rmse": 987.6}}, preset=None)
    text = written(directory)
    table = Page(text[text.index("Before, with the model") :])
    assert next(row[5] for row in table.rows if row[0] == "hot") in ("988", "987.6")
    assert "No errors before" not in text
    told = "no errors before on train (holds N): the model that it starts from does not know this"
    for earlier in ({}, {"hot": {**ERRORS, "frames": 5}}):  # also where no set has any
        edit(directory, errors_before=earlier, no_errors_before=told)
        assert f"N{told[1:]}." in written(directory)


def test_headline_quotes_the_test_set(directory: Path) -> None:
    text = written(directory)
    assert "54,321 parameters" in text
    assert "12 frames of &lt;b&gt;.xyz (H, O)" in text
    assert "On the test hot its errors are 3.702 meV/atom in the energy, 137 meV/Å in the forces" in text


def test_page_loads_nothing_and_fits_a_phone(directory: Path) -> None:
    elements = Page(drawn(directory)).elements
    loaded = [values.get(key) or "" for _, values in elements for key in ("src", "href")]
    assert [address for address in loaded if address] == ["data:,"]
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements


def test_everything_read_is_escaped(directory: Path) -> None:
    with h5py.File(directory / "predictions.h5", "r+") as file:
        file.move("hot", "</script><b>")
    edit(directory, why=["<script>alert(1)</script>"], command="<b>", e0={"<b>": 1.0})
    text = drawn(directory)
    assert "<b>" not in text
    assert "<script>alert" not in text
    assert "<i>" not in text
    assert "&lt;all&gt;" in text


@pytest.mark.parametrize("absent", [("stress",), ("forces", "stress"), ("energy", "forces", "stress")])
def test_labels_may_be_absent(directory: Path, absent: tuple[str, ...]) -> None:
    forget(directory, *absent)
    text = drawn(directory)
    for key in ("energy", "forces", "stress"):
        assert (f"{key} RMSE<small>" in text) == (key not in absent)


def test_datasets_may_be_missing(directory: Path) -> None:
    with h5py.File(directory / "predictions.h5", "r+") as file:
        for group in file.values():
            for key in [key for key in group if key.startswith(("forces", "stress"))]:
                del group[key]
    assert "Energy minus sum of E0" in written(directory)


@pytest.mark.parametrize("name", ["metrics.jsonl", "predictions.h5"])
def test_files_may_be_missing(directory: Path, name: str) -> None:
    (directory / name).unlink()
    drawn(directory)


def test_a_summary_may_be_almost_empty(directory: Path) -> None:
    (directory / "summary.json").write_text("{}")
    (directory / "config.toml").unlink()
    assert "Energy minus mean label" in written(directory)


def test_one_validation_at_step_zero_and_a_torn_line(directory: Path) -> None:
    (directory / "metrics.jsonl").write_text(
        '{"step": 0, "lr": 0.0, "valid_energy_rmse": 3.0}\n{"step": 10, "va'
    )
    assert len(read(directory).metrics) == 1
    drawn(directory)


def test_one_frame_and_no_tests(directory: Path) -> None:
    with h5py.File(directory / "predictions.h5", "w") as file:
        write_set(file, "train", 1, 0.0)
    edit(directory, errors={"train": {"frames": 1}, "valid": {"frames": 0, "energy_rmse": 1.5}})
    assert "the validation frames also chose the best model" in drawn(directory)


def test_many_points_are_thinned_and_the_page_says_so(directory: Path) -> None:
    with h5py.File(directory / "predictions.h5", "r+") as file:
        write_set(file, "large", 600, 0.02)
    text = written(directory)
    assert f"Forces: of large (5,400) {MAX_POINTS:,} points each are drawn" in text
    assert max(len(trace["x"]) for chart in charts(text).values() for trace in chart["data"]) == MAX_POINTS
    assert text == written(directory)


def test_hover_names_set_frame_atom_and_element(directory: Path) -> None:
    run, text = read(directory), written(directory)
    forces = charts(text)["parity-1"]["data"][2]
    assert forces["hovertemplate"].startswith("hot, frame")
    error, frame, atom, element = forces["customdata"][5 * 3 + 0]
    one = run.sets[2]
    assert (error, frame, atom, element) == (pytest.approx(30.0), one.frame[1], 2, "H")


def test_errors_by_element_and_by_frame(directory: Path) -> None:
    run = read(directory)
    table = by_element(run.sets)["hot"]
    assert list(table) == ["H", "O"]
    assert table["H"] == {
        "atoms": 10,
        "forces_rmse": pytest.approx(30 / np.sqrt(3)),
        "forces_mae": pytest.approx(10),
    }
    assert next(row[:2] for row in Page(written(directory)).rows if row[:1] == ["H"]) == [
        "H",
        "5.774 (3.333)",
    ]
    name, frame, n_atoms, *errors = frame_errors(run.sets[2])[0]
    assert (name, frame, n_atoms) == ("hot", 100, 3)
    assert errors == pytest.approx([10.0, 30.0 / np.sqrt(3.0), 30.0])


def test_energies_are_relative_to_e0(directory: Path) -> None:
    name, zeros = energy_zero(read(directory))
    assert name == "sum of E0"
    assert zeros[0] == pytest.approx((2 * -13.6 - 2042.0) / 3)


@pytest.mark.parametrize(
    ("sources", "isolated", "note"),
    [
        ({"H": "isolated atoms", "O": "isolated atoms"}, True, ""),
        ({"H": "isolated atoms", "O": "least squares"}, False, "it is the mean energy per atom"),
        ({"H": "isolated atoms"}, False, "does not record"),
        ({"H": "isolated atoms", "O": "given"}, False, "as stated in the settings"),
        ({"H": "no energies", "O": "no energies"}, False, "energies have no meaning"),
        (None, False, "does not record"),
    ],
)
def test_e0_says_where_it_comes_from(
    directory: Path, sources: dict[str, str] | None, isolated: bool, note: str
) -> None:
    edit(directory, e0_sources=sources)
    text = drawn(directory)
    assert ("Energies of isolated atoms (E0)" in text) == isolated
    assert ("Reference energy of each element (E0)" in text) != isolated
    assert ("Energy relative to isolated atoms (E0)" in text) == isolated
    assert note in text
    axis = charts(text)["parity-0"]["layout"]["xaxis"]["title"]["text"]
    assert axis == "reference (eV/atom)"
    rows = {row[0]: row[1:] for row in Page(text).rows if row and row[0] in ("H", "O")}
    if sources:
        assert rows["O"][-1] == sources.get("O", "not recorded")


def test_page_says_what_train_means_in_the_learning_curves(directory: Path) -> None:
    assert "running mean over the steps since the validation before" in written(directory)
    (directory / "metrics.jsonl").write_text('{"step": 10, "lr": 0.01, "valid_energy_rmse": 3.0}')
    assert "running mean" not in written(directory)


def test_no_legend_covers_points(directory: Path) -> None:
    """On the page it stands above the plot and below plotly's buttons, in the picture below the axes."""
    for chart in charts(written(directory)).values():
        assert chart["layout"]["margin"]["t"] >= (80 if chart["layout"]["showlegend"] else 36)
        assert chart["layout"]["legend"]["y"] > 1
    figure = draw_parity(read(directory))
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_window_extent().y1 < axes.get_window_extent().y0
        assert legend.get_window_extent().y0 >= 0


def test_mistakes_are_explained(directory: Path) -> None:
    with h5py.File(directory / "predictions.h5", "r+") as file:
        del file["hot/energy_reference"]
        file["hot/energy_reference"] = np.zeros(2)
    with pytest.raises(ValueError, match="'energy_reference' of set 'hot' has 2 rows, expected 5"):
        draw(directory)
    (directory / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"holds no summary\.json"):
        draw(directory)


def test_a_bad_line_of_the_metrics_is_named(directory: Path) -> None:
    (directory / "metrics.jsonl").write_text('{"step"\n{"step": 1}\n')
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl"):
        draw(directory)


def test_drawing_needs_neither_torch_nor_pyplot(directory: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from train.report.page import draw; draw(Path(sys.argv[1])); "
    )
    code += "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True, cwd=root)


def set_types(directory: Path, **kinds: list[str]) -> None:
    """Config types of the frames of each set."""
    with h5py.File(directory / "predictions.h5", "r+") as file:
        for name, found in kinds.items():
            file[f"{name}/config_type"] = found


def scenes(text: str) -> list[dict[str, Any]]:
    found = re.search(r'id="scenes">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return list(json.loads(found[1]))


def water(_: str, row: int) -> Atoms:
    return Atoms("OHH", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], info={"row": row})


def test_errors_by_config_type(directory: Path) -> None:
    """The first frame of `hot` is wrong by another 2 eV: that shows in its own type and in no other."""
    assert by_config_type(read(directory).sets) == {}
    assert "By config type" not in written(directory)
    set_types(directory, hot=["md", "md", "a<b", "", ""], valid=["md"] * 4)
    with h5py.File(directory / "predictions.h5", "r+") as file:
        file["hot/energy_predicted"][2] += 0.3
    tables = by_config_type(read(directory).sets)
    assert set(tables) == {"valid", "hot"}
    assert {kind: row["frames"] for kind, row in tables["hot"].items()} == {UNTYPED: 2, "a<b": 1, "md": 2}
    assert [tables["hot"][kind]["energy_rmse"] for kind in ("a<b", "md")] == pytest.approx([110.0, 10.0])
    assert tables["hot"]["md"]["forces_mae"] == pytest.approx(10.0)
    assert tables["hot"]["md"]["stress_rmse"] == pytest.approx(0.03)
    text = drawn(directory)
    assert ["a<b", "hot", "1", "110", "110"] in [row[:5] for row in Page(text).rows]
    bars = next(c for c in charts(text).values() if c["data"][0].get("orientation") == "h")
    assert bars["data"][1]["text"] == ["md", "a&lt;b", UNTYPED]
    assert bars["layout"]["yaxis"]["ticktext"] == ["md", "a&lt;b", UNTYPED]


def test_breakdown_is_printed_where_there_is_something_to_tell_apart(directory: Path) -> None:
    set_types(directory, hot=["md"] * 5)
    sets = read(directory).sets
    said = breakdown_text(breakdown(sets))
    assert [line.split() for line in said.splitlines()][:2] == [
        ["set", "element", "atoms", "F", "RMSE", "meV/Å", "F", "MAE", "meV/Å"],
        ["train", "H", "24", "5.77", "3.33"],
    ]
    assert "config type" not in said
    alone = [one.only(np.arange(len(one.n_atoms)) < 0) for one in sets]
    assert breakdown_text(breakdown(alone)) == ""


def test_direction_of_the_forces(directory: Path) -> None:
    """Forces along x, wrong by 0.1 eV/Å along y: the angle is known."""
    with h5py.File(directory / "predictions.h5", "r+") as file:
        file["hot/forces_reference"][...] = [1.0, 0.0, 0.0]
        file["hot/forces_predicted"][...] = [1.0, 0.1, 0.0]
        file["hot/forces_reference"][0] = [0.01, 0.0, 0.0]  # too short to have a direction
        file["hot/forces_predicted"][1] = [-1.0, 0.0, 0.0]
    row = by_direction(read(directory).sets)["hot"]["all"]
    assert row["atoms"] == 14
    assert row["cosine"] == pytest.approx((13 / np.hypot(1, 0.1) - 1) / 14)
    assert (row["5"], row["10"], row["30"]) == (0.0, pytest.approx(13 / 14), pytest.approx(13 / 14))


def test_cumulative_errors_end_at_all_of_them(directory: Path) -> None:
    found = {k: c for k, c in charts(written(directory)).items() if k.startswith("cumulative")}
    assert len(found) == 3
    for chart in found.values():
        assert [line["name"] for line in chart["data"]] == ["train", "valid", "hot"]
        for line in chart["data"]:
            assert line["y"][-1] == 100.0
            assert line["y"] == sorted(line["y"])
            assert line["x"] == sorted(line["x"])
    assert found["cumulative-0"]["data"][2]["x"] == pytest.approx(
        [10.0] * len(found["cumulative-0"]["data"][2]["x"])
    )


def test_worst_frames_can_be_seen(directory: Path) -> None:
    with h5py.File(directory / "predictions.h5", "r+") as file:
        file["hot/forces_predicted"][6:9] += 1.0  # of its third frame
        file["valid/energy_predicted"][1] += 5.0
        file["train/forces_reference"][:3] = np.nan
    sets = read(directory).sets
    places = worst(sets)
    assert places["By forces"][0] == (2, 2)
    assert places["By energy"][0] == (1, 1)
    assert scenes(written(directory)) == []
    assert 'id="view"' not in written(directory)
    write_worst(directory / "worst.xyz", sets, water)
    run = read(directory)
    assert (run.worst[0].info["set"], run.worst[0].info["frame"]) == ("hot", 102)
    assert N_VIEWED <= len(run.worst) <= 2 * N_VIEWED
    text = drawn(directory)
    found = scenes(text)
    assert len(found) == len(run.worst)
    assert found[0]["label"].startswith("hot, frame 102: force RMSE ")
    names = [trace.get("name") for trace in found[0]["data"]]
    assert names[-4:] == ["H", "O", "reference force", "predicted force"]
    assert "force error 1," in found[0]["data"][names.index("O")]["text"][0]
    ends = [found[0]["data"][names.index(f"{kind} force")] for kind in ("reference", "predicted")]
    start, tip = (np.array([ends[1][axis][k] for axis in "xyz"]) for k in (3, 4))  # of the first hydrogen
    assert start == pytest.approx([0.76, 0.59, 0])
    forces = run.worst[0].arrays["forces_predicted"]
    longest = max(np.abs(run.worst[0].arrays[f"forces_{kind}"]).max() for kind in ("reference", "predicted"))
    assert (tip - start) * longest / 1.6 == pytest.approx(forces[1], abs=2e-3)


def test_frames_without_labels_and_damaged_files_of_worst_frames(directory: Path) -> None:
    forget(directory, "energy", "forces")
    write_worst(directory / "worst.xyz", read_predictions(directory / "predictions.h5"), water)
    assert scenes(drawn(directory)) == []
    (directory / "worst.xyz").write_text("1\nset=a frame=1\nH 0 0 0\n")
    with pytest.raises(ValueError, match=r"worst\.xyz cannot be read"):
        draw(directory)


def test_only_the_surroundings_of_the_worst_atom_of_a_large_frame_are_drawn() -> None:
    n = 400
    atoms = Atoms(f"Si{n}", np.arange(3 * n).reshape(n, 3), cell=np.eye(3) * 1200, pbc=True)
    atoms.info = {"set": "a", "frame": 1, "energy_reference": np.nan, "energy_predicted": 1.0}
    atoms.set_array("forces_reference", np.zeros((n, 3)))
    atoms.set_array("forces_predicted", np.eye(n)[n - 1][:, None] * np.ones(3))
    drawn_scene = scene(atoms)
    balls = next(trace for trace in drawn_scene["data"] if trace.get("name") == "Si")
    assert len(balls["x"]) == MAX_ATOMS
    assert balls["text"][-1].startswith(f"Si, atom {n - 1}<br>force error 1,732")
    assert drawn_scene["label"].endswith(f"{MAX_ATOMS} of {n} atoms, about the worst")
    assert "energy" not in drawn_scene["label"]


def test_resources_are_told(directory: Path) -> None:
    took = {"steps": 1200, "steps_per_second": 12.5, "atoms_per_second": 3000.0, "peak_memory_mib": 512.0}
    edit(directory, resources=took, sessions=[{"versions": {"torch": "2.13.0"}, "commit": "abc"}])
    text = written(directory)
    for said in ("1,200", "12.5 steps/s · 3,000 atoms/s", "0.5 GiB", "torch 2.13.0", "12 min 34 s"):
        assert said in text
