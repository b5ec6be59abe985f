"""Settings are explained where they stand: the printed file, the schema and docs/CONFIG.md say what the code does."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potential.model import presets
from potential.model import settings as settings_of
from potential.networks import NETWORKS
from potential.networks.dials import SIZES
from train.cli import configuration, main, parser
from train.config import FLAT, PRESETS, TUNING, Config, Model, Weights, check
from train.data.keys import ENERGY_UNITS, LENGTH_UNITS
from train.manual import SCHEMA, commented, document, model_options, schema
from train.option import Option, inside, options, parse
from train.toml import read_toml, to_toml, tomllib, update

ROOT = Path(__file__).parents[1]
EVERY = [(name, o) for name, section in FLAT.items() for o in options(section)]
EVERY += [("weights", o) for o in options(Weights)]
EVERY += [("model", o) for network in NETWORKS for o in model_options(network)]


def named(case: tuple[str, Option]) -> str:
    return f"{case[0]}.{case[1].name}"


def accepts(section: str, name: str, value: Any) -> bool:
    """Whether a run would take this value."""
    try:
        check(update(Config(), {section: {name: value}}))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("case", EVERY, ids=named)
def test_every_setting_says_what_it_means_and_its_default_is_allowed(case: tuple[str, Option]) -> None:
    o = case[1]
    assert len(o.text) > 5
    assert not o.text.endswith(".")
    assert not o.choices or o.default in ("", *o.choices) or isinstance(o.default, tuple)
    if isinstance(o.default, (int, float)) and not isinstance(o.default, bool):
        assert o.bounds, "numbers say their bounds"
        assert inside(o.default, o.bounds)


def test_printed_file_is_complete_and_reads_back_as_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--print-config"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "c.toml").write_text(text)
    read = read_toml(str(tmp_path / "c.toml"))
    assert update(Config(), read) == Config()
    assert read["fit"]["ema"] == Config().fit.ema
    assert not TUNING.keys() & read["fit"].keys()
    lines = text.splitlines()
    defaults = [*((s, o) for s, o in EVERY if s != "model"), *(("model", o) for o in model_options())]
    for section, o in defaults:
        commented_out = "# " if section in ("model", "weights") or o.name in TUNING else ""
        at = next(k for k, line in enumerate(lines) if line.startswith(f"{commented_out}{o.name} = "))
        said = " ".join(line.removeprefix("# ") for line in lines[max(0, at - 4) : at])
        assert said.endswith(o.text) or f"{o.text} [" in said
        assert not o.unit or f"[{o.unit}" in said
    uncommented = "\n".join(
        line.removeprefix("# ") if re.match(r"# \w+ = ", line) else line for line in lines
    )
    assert tomllib.loads(uncommented)["model"]["channels"] == 64


@pytest.mark.parametrize("network", NETWORKS)
def test_printed_file_explains_the_dials_of_the_network(
    network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--network", network, "--print-config"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["model"] == {"network": network}
    assert f'network = "{network}"' in text.splitlines()
    for o in model_options(network)[2:]:
        assert f"# {o.name} = " in text
    told = {p for o in model_options(network) for p in PRESETS if f" {p}: " in o.text.split("of dense")[0]}
    assert told == {*PRESETS} - {"small"}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_every_preset_and_small_is_its_default(network: str) -> None:
    assert tuple(presets(network)) == PRESETS == SIZES
    assert settings_of({"network": network, **presets(network)["small"]})[1] == NETWORKS[network][0]()
    for dense in (False, True):
        assert tuple(presets(network, dense)) == SIZES
        for dials in presets(network, dense).values():
            settings_of({"network": network, **dials})


def test_a_printed_default_is_not_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of defaults leaves fine-tuning its own learning rate; one that says something else is heard."""
    monkeypatch.setitem(TUNING, "learning_rate", 0.0007)

    def rate(printed: list[str], used: list[str]) -> float:
        assert main([*printed, "--print-config"]) == 0
        (tmp_path / "s.toml").write_text(capsys.readouterr().out)
        return configuration(parser().parse_args(["a.xyz", "--config", str(tmp_path / "s.toml"), *used]))[
            0
        ].fit.learning_rate

    start = ["--from", "model.safetensors"]
    assert rate([], []) == Config().fit.learning_rate
    assert rate([], start) == rate(start, []) == rate(start, start) == 0.0007
    assert rate(["--set", "fit.learning_rate=0.01"], start) == 0.01


def test_printed_file_names_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-config"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("#:schema file:///")
    assert json.loads(Path(first.removeprefix("#:schema file://")).read_text(encoding="utf-8")) == schema()


def test_printed_file_holds_what_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "a.xyz",
        "--preset",
        "tiny",
        "--epochs",
        "7",
        "--set",
        "e0.Si=-5",
        "--set",
        "weights.a b.forces=2",
    ]
    assert main([*given, "--print-config"]) == 0
    read = update(Config(), tomllib.loads(capsys.readouterr().out))
    assert (read.data.train, read.model, read.fit.epochs) == (("a.xyz",), {"preset": "tiny"}, 7)
    assert (read.e0, read.weights) == ({"Si": -5.0}, {"a b": Weights(forces=2.0)})
    assert main(["--set", "model.channel=8", "--print-config"]) == 1
    assert "did you mean 'channels'" in capsys.readouterr().err


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
numbers = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    data = FLAT["data"](train=tuple(draw(st.lists(names, max_size=3))), group_key=draw(st.text(max_size=5)))
    fit = replace(FLAT["fit"](), energy_weight=draw(numbers), seed=draw(st.integers(0, 2**62)))
    weights = draw(st.dictionaries(names, st.builds(Weights, numbers, numbers, numbers), max_size=2))
    e0 = draw(st.dictionaries(st.sampled_from(["H", "Si", "U"]), st.floats(-1e6, 1e6), max_size=2))
    model = draw(
        st.fixed_dictionaries({}, optional={"channels": st.integers(16, 64), "cutoff": st.floats(1, 9)})
    )
    return Config(data, model, fit, weights, e0)


@given(configurations())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_configuration_reads_back_and_fits_the_schema(config: Config) -> None:
    for text in (commented(config), to_toml(config)):
        read = tomllib.loads(text)
        assert update(Config(), read) == config
        jsonschema.validate(read, schema())


def test_schema_is_valid_and_shipped() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    shipped = json.loads((ROOT / "train" / SCHEMA).read_text(encoding="utf-8"))
    assert shipped == schema(), "run `make docs`"


def test_documentation_is_what_the_settings_say() -> None:
    assert (ROOT / "docs/CONFIG.md").read_text(encoding="utf-8") == document(), "run `make docs`"
    for _, o in EVERY:
        assert f"| `{o.name}` |" in document()


def test_writing_the_documentation_changes_nothing(tmp_path: Path) -> None:
    """Twice the same, whatever the order of hashes: otherwise the test above would come and go."""
    for folder in ("train", "docs"):
        (tmp_path / folder).mkdir()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from train.manual import write; from pathlib import Path"
    subprocess.run([sys.executable, "-c", f"{code}; write(Path({str(tmp_path)!r}))"], check=True)
    for name in (f"train/{SCHEMA}", "docs/CONFIG.md"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize("case", [c for c in EVERY if c[0] in FLAT], ids=named)
def test_schema_allows_what_a_run_takes(case: tuple[str, Option]) -> None:
    """Values at, and beside, every end and choice, and values of other types."""
    section, o = case
    low, high, _, _ = parse(o.bounds)
    values: list[Any] = [*o.choices, "nonsense", 1, 0, -1, 0.5, -0.5, True, [], ["a"], [1], "", {}]
    for end in (low, high):
        if math.isfinite(end):
            values += [end, end - 0.01, end + 0.01, int(end), int(end) - 1, int(end) + 1]
    validator = jsonschema.Draft7Validator(schema())
    for value in values:
        said = accepts(section, o.name, value)
        if said and section == "fit" and o.name in ("energy_weight", "forces_weight"):
            continue  # both 0 is a rule of two settings
        whole = isinstance(value, float) and value.is_integer()  # JSON knows no difference between 1.0 and 1
        if not (whole and isinstance(o.default, int)):
            assert validator.is_valid({section: {o.name: value}}) == said, value


def test_unknown_names_are_in_no_schema() -> None:
    validator = jsonschema.Draft7Validator(schema())
    for read in (
        {"fti": {}},
        {"fit": {"batchsize": 4}},
        {"model": {"cuttoff": 4.0}},
        {"weights": {"a": {"f": 1}}},
    ):
        assert not validator.is_valid(read)
    assert validator.is_valid({"model": {"preset": "tiny", "cutoff": 4}, "weights": {"a": {"forces": 1}}})


def test_units_are_those_that_can_be_read() -> None:
    choices = {o.name: o.choices for o in options(FLAT["data"])}
    assert choices["energy_unit"] == ("", *ENERGY_UNITS)
    assert choices["length_unit"] == ("", *LENGTH_UNITS)


def test_bounds_are_intervals() -> None:
    assert [inside(x, "(0, 1]") for x in (0.0, 0.5, 1.0, 1.1, math.nan)] == [False, True, True, False, False]
    assert not inside(math.inf, "")
    with pytest.raises(ValueError, match="expected an interval"):
        parse("0..1")


def test_networks_describe_their_dials() -> None:
    assert [o.name for o in model_options()][:3] == ["preset", "network", "channels"]
    assert {o.name for o in options(Model)} == {"preset", "network"}
    cutoff = next(o for o in model_options() if o.name == "cutoff")
    assert (cutoff.unit, cutoff.allowed) == ("Å", "from 0.1 to 100")
