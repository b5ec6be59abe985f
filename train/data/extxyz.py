"""Extended XYZ -> list of Atoms: cut into frames here, each frame parsed by ASE once it can be read in one way only.

ASE alone stops at the first blank line without a word, ignores surplus columns, does not say which frame is damaged,
and reads on where a text is damaged: a quote that is not closed and a key without a value swallow the next label, of a
key that stands twice the first value is lost, positions that are named wrongly are zero, and 1_5 is 15.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict, read_xyz

PROPERTIES = re.compile(r"""(?:^|\s)Properties\s*=\s*["']?([^\s"']+)""")
BARE = ("species:S:1:pos:R:3", 4)  # what ASE reads of a frame without Properties
QUOTED = r""""[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]"""
ENTRY = re.compile(rf"""([^\s="'{{\[]+)\s*=\s*({QUOTED}|\S*)""")
VALUELESS = re.compile(r"(\S+)\s*=(?:\s+[^\s=]+\s*=|\s*$)")
LOGICAL = {"T", "F", "True", "False"}


def read_extxyz(data: bytes, source: str, first: tuple[int, int] = (0, 0)) -> list[Atoms]:
    """Every frame; `first`: number of the first one and of its line, for errors.

    Raises:
        ValueError: a truncated or damaged frame, or one that can be read in several ways, with its number.
    """
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}: named as extended XYZ but holds binary data ({error.reason} at byte {error.start}); "
            "correct the extension or convert the file to extxyz"
        ) from error
    frames = []
    for index, lines in _blocks(text, source, first):
        rows = lines[2 : 2 + int(lines[0])]
        try:
            entries = _entries(lines[1].strip(), rows)
            content = StringIO("\n".join(lines) + "\n")
            atoms = next(
                read_xyz(content, index=0, properties_parser=lambda _, entries=entries: dict(entries))
            )
            if atoms.calc is not None and "stress" in atoms.calc.results:
                atoms.calc.results["stress"] = entries["stress"]  # ASE keeps one half of the matrix
            frames.append(atoms)
        except (
            Exception
        ) as error:  # ASE raises whatever its parser meets: KeyError, TypeError, IndexError, ...
            raise ValueError(
                f"{source}, frame {index}: not valid extended XYZ ({type(error).__name__}: {error}); "
                f"comment line: {lines[1][:160]!r}; correct or remove this frame"
            ) from error
    return frames


def _blocks(text: str, source: str, first: tuple[int, int]) -> Iterator[tuple[int, list[str]]]:
    """The lines of each frame: atom count, comment, atoms, VEC lines if any. Blank lines are skipped."""
    lines = text.split("\n")
    at, index = 0, first[0]
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        line = first[1] + at + 1
        n_atoms = count(lines[at], source, index, line)
        end = at + 2 + n_atoms
        rows = [line for line in lines[at + 2 : end] if line.strip()]
        if len(rows) < n_atoms:
            raise ValueError(
                f"{source}, frame {index} (line {line}): truncated, {len(rows)} atoms found but the header "
                f"says {n_atoms}; copy the file again or remove this frame"
            )
        _check_columns(lines[at + 1], rows, f"{source}, frame {index}")
        if end == len(lines):
            _check_last_number(rows, f"{source}, frame {index}")
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):
            end += 1
        yield index, lines[at:end]
        at, index = end, index + 1


def count(text: str, source: str, index: int, line: int) -> int:
    """The number of atoms that begins frame `index`.

    Raises:
        ValueError: anything else.
    """
    text = text.strip()
    n_atoms = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    if n_atoms < 1:
        why = (
            "the file may not be extended XYZ"
            if index == 0
            else f"the atom count of frame {index - 1} may be wrong"
        )
        raise ValueError(
            f"{source}, frame {index} (line {line}): expected the number of atoms, got "
            f"{text[:60]!r}; {why}; correct the file or its extension"
        )
    return n_atoms


def _check_columns(comment: str, rows: list[str], where: str) -> None:
    """As many columns as `Properties` announces: ASE drops surplus ones in silence."""
    found = PROPERTIES.search(comment)
    names, expected = BARE
    if found:
        names, widths = found.group(1), found.group(1).split(":")[2::3]
        if not all(w.isdigit() for w in widths):
            return  # ASE says what is wrong with the Properties entry itself
        expected = sum(map(int, widths))
    for atom, row in enumerate(rows):
        if len(row.split()) != expected:
            said = f"Properties={names} announces" if found else "without Properties there should be"
            raise ValueError(
                f"{where}, atom {atom}: {len(row.split())} columns, but {said} {expected}; the file is damaged or "
                "cut here: write it again or remove this frame"
            )


def _check_last_number(rows: list[str], where: str) -> None:
    """A file cut within its very last number still parses; the number of decimals gives it away.

    It is compared with those above it, or, where an atom has numbers of one format, with those before it.
    """
    column = [row.split()[-1] for row in rows]
    for tokens in (column, rows[-1].split()[1:]):
        decimals = [len(token.partition(".")[2]) for token in tokens]
        if len(tokens) > 3 and len(set(decimals[:-1])) == 1 and 3 < decimals[0] > decimals[-1]:
            raise ValueError(
                f"{where}: the file ends inside a number ({column[-1]!r}, no line end) and is "
                "truncated; copy it again or remove this frame"
            )


def _entries(comment: str, rows: Sequence[str]) -> dict[str, Any]:
    """The entries of a comment line as ASE understands them.

    Raises:
        ValueError: a comment line, or columns, that leave open what is meant.
    """
    plain = re.sub(r"\\.", "_", comment)  # escaped characters
    rest = re.sub(QUOTED, "\0", plain)
    if opened := re.search(r"""["'{\[].{,30}""", rest):
        raise ValueError(f"what opens at {opened.group()!r} is not closed")
    if re.search(r"\0[^\s=]|[^\s=]\0", rest):
        raise ValueError("no blank beside a quote or bracket")
    if empty := VALUELESS.search(rest):
        raise ValueError(f"no value after '{empty.group(1)}='")
    texts: dict[str, str] = {}
    for key, text in ENTRY.findall(plain):
        if texts.setdefault(key, text) != text:
            raise ValueError(f"'{key}' stands twice, as {texts[key]} and as {text}")
    entries: dict[str, Any] = key_val_str_to_dict(comment) if comment else {}
    for key, text in texts.items():
        if np.asarray(entries.get(key, "")).dtype.kind in "iuf" and "_JSON" not in text and not _plain(text):
            raise ValueError(f"'{key}' is {text}, which is no number")
    pbc = np.asarray(entries.get("pbc", True))
    if pbc.dtype.kind not in "bi" or pbc.size not in (1, 3) or not np.isin(pbc, (0, 1)).all():
        raise ValueError(f"pbc is {texts.get('pbc')}; expected T or F, three times")
    _check_properties(str(entries.get("Properties", BARE[0])), rows)
    return entries


def _plain(text: str) -> bool:
    """Python reads 1_5 as 15, and digits of every script."""
    return text.isascii() and "_" not in text


def _check_properties(properties: str, rows: Sequence[str]) -> None:
    fields = properties.split(":")
    names = [REV_PROPERTY_NAME_MAP.get(name, name) for name in fields[::3]]
    if len(fields) % 3 or len(set(names)) < len(names):
        raise ValueError(
            f"Properties={properties}; expected NAME:TYPE:COLUMNS, again and again, each name once"
        )
    kinds = dict(zip(names, zip(fields[1::3], fields[2::3], strict=True), strict=True))
    if kinds.get("positions") not in (("R", "3"), ("I", "3")) or not {"symbols", "numbers"} & kinds.keys():
        raise ValueError(f"Properties={properties} without pos:R:3, or without species:S:1 and Z:I:1")
    types = [kind for kind, width in kinds.values() for _ in range(int(width))]
    if "L" not in types and _plain("".join(rows)):
        return
    for row in rows:
        for token, kind in zip(row.split(), types, strict=True):
            if (kind == "L" and token not in LOGICAL) or (kind in "RI" and not _plain(token)):
                raise ValueError(f"{token!r} stands in a column of type {kind}")
