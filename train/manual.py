"""Every setting explained: a commented TOML file (--print-config), a JSON schema for editors, docs/CONFIG.md.

All three are made of what stands beside the fields themselves. `python -m train.manual`, in the directory of the
project, writes the last two (`make docs`).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from potential import __version__
from potential.model import presets, settings
from potential.networks import NETWORKS
from train.config import FLAT, SECTIONS, TUNING, Config, Model, Weights
from train.option import Option, options, parse
from train.target import Target
from train.toml import TABLES

SCHEMA = "config.schema.json"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
WEIGHTS_EXAMPLE, TARGETS_EXAMPLE = "liquid", "dipole"
E0_TITLE = "Energies of isolated atoms, where they are given: a line for each element."
E0 = Option("H", -13.6, "energy of the isolated atom; the others are read or fitted", "eV")


def title(section: Any) -> str:
    """What a section is for: its docstring without the name."""
    text = str(section.__doc__).partition(": ")[2]
    return f"{text[:1].upper()}{text[1:]}"


def model_options(network: str = Model().network) -> list[Option]:
    """[model]: preset, network, and the dials of the network, with what presets make of them."""
    preset, architecture = options(Model)
    found = [preset, replace(architecture, choices=tuple(NETWORKS))]
    for dial in options(NETWORKS[network][0]):
        text = dial.text
        usual, of_dense = (
            {name: values.get(dial.name, dial.default) for name, values in presets(network, dense).items()}
            for dense in (False, True)
        )
        others = {name: value for name, value in usual.items() if value != dial.default}
        unlike = {name: value for name, value in of_dense.items() if value != usual[name]}
        for whose, values in (("preset", others), ("of dense structures", unlike)):
            if values:
                text += f"; {whose} {', '.join(f'{name}: {value}' for name, value in values.items())}"
        if dial.name == "cutoff":
            text += "; not given: from the density of the data"
        found.append(replace(dial, text=text))
    return found


def value_text(name: str, value: Any) -> str:
    """One line of TOML."""
    return tomli_w.dumps({name: list(value) if isinstance(value, tuple) else value}).strip()


def comment(o: Option) -> list[str]:
    """What is said of a setting before its line."""
    facts = "; ".join(part for part in (o.unit, o.allowed) if part)
    return [f"# {line}" for line in textwrap.wrap(f"{o.text} [{facts}]" if facts else o.text, 100)]


def commented(config: Config) -> str:
    """The configuration as a TOML file that explains every setting, and that is read back as the same.

    Raises:
        ValueError: dials that the network does not have.
    """
    settings({k: v for k, v in config.model.items() if k != "preset"})
    parts = {
        **{name: flat_lines(name, getattr(config, name)) for name in FLAT},
        "model": model_lines(config.model),
        "weights": example_lines(f"weights.{WEIGHTS_EXAMPLE}", title(Weights), options(Weights)),
        "e0": example_lines("e0", E0_TITLE, [E0]),
        "targets": example_lines(f"targets.{TARGETS_EXAMPLE}", title(Target), options(Target)),
    }
    given: dict[str, Any] = {
        name: {k: asdict(t) for k, t in getattr(config, name).items()} for name in TABLES
    }
    given["e0"] = dict(config.e0)
    lines = [
        f"#:schema {Path(str(files('train').joinpath(SCHEMA))).as_uri()}",
        f"# Settings of potential-train {__version__}. A line that is left out means its default.",
    ]
    for name in SECTIONS:
        lines += ["", *parts[name]]
        if given.get(name):
            lines += ["", tomli_w.dumps({name: given[name]}).strip()]
    return "\n".join(lines) + "\n"


def flat_lines(name: str, values: Any) -> list[str]:
    """A section; what a starting model would set otherwise is a comment, since writing it would count as given."""
    lines = [f"# {title(type(values))}", f"[{name}]"]
    for o in options(values):
        value = value_text(o.name, getattr(values, o.name))
        follows = name == "fit" and o.name in TUNING and getattr(values, o.name) == o.default
        lines += [*comment(o), f"# {value}" if follows else value]
    return lines


def model_lines(model: Mapping[str, Any]) -> list[str]:
    """[model]: what is given, and the rest as comments, since writing a default would overrule the preset."""
    lines = [f"# {title(Model)}", "[model]"]
    for o in model_options(model.get("network", Model().network)):
        value = value_text(o.name, model.get(o.name, o.default))
        lines += [*comment(o), value if o.name in model else f"# {value}"]
    return lines


def example_lines(section: str, what: str, found: list[Option]) -> list[str]:
    """A section that has no defaults to print, as comments."""
    lines = [f"# {what}", f"# [{section}]"]
    for o in found:
        lines += [*comment(o), f"# {value_text(o.name, o.default)}"]
    return lines


def schema() -> dict[str, Any]:
    """A JSON schema (draft 7) of configuration files."""
    properties = {name: section_schema(title(FLAT[name]), options(FLAT[name])) for name in FLAT}
    dials = {(o.name, str(o)): o for network in NETWORKS for o in model_options(network)}
    properties["model"] = section_schema(title(Model), list(dials.values()))
    for name, (kind, _) in TABLES.items():
        one = section_schema(title(kind), options(kind))
        properties[name] = {"type": "object", "description": title(kind), "additionalProperties": one}
    energy = {"type": "number", "description": f"{E0.text} [{E0.unit}]"}
    properties["e0"] = {"type": "object", "description": E0_TITLE, "additionalProperties": energy}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"Settings of potential-train {__version__}",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: properties[name] for name in SECTIONS},
    }


def section_schema(description: str, found: list[Option]) -> dict[str, Any]:
    """A section; where networks share the name of a dial, it may be as any of them says."""
    several: dict[str, list[dict[str, Any]]] = {}
    for o in found:
        several.setdefault(o.name, []).append(option_schema(o))
    properties = {name: {"anyOf": of} if len(of) > 1 else of[0] for name, of in several.items()}
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": properties,
    }


def option_schema(o: Option) -> dict[str, Any]:
    """The type of a setting, what it may be, its default and meaning."""
    said = {"description": f"{o.text} [{o.unit}]" if o.unit else o.text}
    if isinstance(o.default, tuple):
        item: dict[str, Any] = {"type": "string", **({"enum": list(o.choices)} if o.choices else {})}
        one = {**item, **({"enum": ["", *o.choices]} if o.choices else {})}  # a list of one; "": of none
        return {**said, "default": list(o.default), "anyOf": [one, {"type": "array", "items": item}]}
    found = {**said, "default": o.default, "type": TYPES[type(o.default)]}
    if o.choices:
        found["enum"] = list(o.choices)
    low, high, open_low, open_high = parse(o.bounds)
    if low > float("-inf"):
        found["exclusiveMinimum" if open_low else "minimum"] = low
    if high < float("inf"):
        found["exclusiveMaximum" if open_high else "maximum"] = high
    return found


def document() -> str:
    """docs/CONFIG.md."""
    parts = [
        "# Settings\n",
        "Made by `make docs` from `train/config.py` and the dials of the networks; do not edit it.\n",
        "`potential-train --config settings.toml` reads them from a file, `--set section.key=value` takes one at a "
        "time. `potential-train --print-config > settings.toml` writes a file with every setting, its default and "
        "its meaning; editors that know `#:schema` (Taplo, Even Better TOML, Tombi) complete and check it.\n",
    ]
    sections = {f"[{name}]": (title(FLAT[name]), options(FLAT[name])) for name in FLAT}
    for name in NETWORKS:
        sections[f"[model], network = {name}"] = (title(Model), model_options(name))
    sections["[weights.<config_type>]"] = (title(Weights), options(Weights))
    sections["[e0]"] = (E0_TITLE, [E0])
    sections["[targets.<name>]"] = (title(Target), options(Target))
    for name, (text, found) in sections.items():
        parts += [f"## {name}\n", f"{text}\n", table(found)]
    return "\n".join(parts).rstrip() + "\n"


def table(found: list[Option]) -> str:
    """Settings as Markdown."""
    rows = ["| setting | default | unit | may be | meaning |", "|---|---|---|---|---|"]
    for o in found:
        cells = [
            f"`{o.name}`",
            f"`{value_text('', o.default).partition('= ')[2]}`",
            o.unit,
            o.allowed,
            o.text,
        ]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def write(root: Path) -> None:
    """The schema and docs/CONFIG.md of a checkout."""
    text = json.dumps(schema(), indent=1, ensure_ascii=False)
    (root / "train" / SCHEMA).write_text(text + "\n", encoding="utf-8")
    (root / "docs" / "CONFIG.md").write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    write(Path.cwd())
