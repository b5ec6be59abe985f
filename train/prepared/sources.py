"""Data files of any kind -> blocks of structures, a bounded number at a time."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import iread

from train.data.extxyz import count, read_extxyz
from train.data.files import EXTXYZ, read_structures
from train.data.keys import ASE_UNITS, PLAIN, Said
from train.prepared.found import labelled_atoms
from train.prepared.read import is_prepared, open_prepared

FRAMES, ATOMS = 2000, 50_000  # a block ends with the frame that reaches one of them
OPEN: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class Block:
    """Consecutive structures of one file: as text of extended XYZ, or as they are."""

    source: str
    first: int  # number of its first frame
    n_frames: int
    line: int = 0  # number of its first line
    text: bytes = b""
    atoms: tuple[Atoms, ...] = ()
    said: Said = ASE_UNITS


def structures(block: Block) -> list[Atoms]:
    """The structures of a block.

    Raises:
        ValueError: text that is no extended XYZ.
    """
    if block.text:
        return read_extxyz(block.text, block.source, (block.first, block.line))
    return list(block.atoms)


def blocks(path: str) -> Iterator[Block]:
    """All blocks of one file, always cut in the same places.

    Extended XYZ, trajectories and prepared sets pass through; everything else is in memory as a whole meanwhile.

    Raises:
        ValueError: as `files.read_structures`.
    """
    file = Path(path)
    inner = Path(file.stem) if file.suffix.lower() in OPEN else file
    if file.is_file() and inner.suffix.lower() in EXTXYZ and _has_content(file):
        yield from _cut_extxyz(file, path)
    elif file.is_file() and is_prepared(path):
        frames = open_prepared(path)
        yield from _cut(path, (labelled_atoms(f, frames.targets) for f in frames), PLAIN)
    elif file.suffix.lower() == ".traj" and file.is_file():
        yield from _cut(path, _trajectory(path), ASE_UNITS)
    else:
        whole, said = read_structures(path)
        yield from _cut(path, whole, said)


def _has_content(file: Path) -> bool:
    """Whether something can be read at all; otherwise `read_structures` says what is wrong."""
    with file.open("rb") as opened:
        head = opened.read(6)
    known = {".xz": b"\xfd7zXZ", ".gz": b"\x1f\x8b", ".bz2": b"BZh"}
    packed = next((suffix for suffix, magic in known.items() if head.startswith(magic)), "")
    return bool(head) and packed == (file.suffix.lower() if file.suffix.lower() in known else "")


def _trajectory(path: str) -> Iterator[Atoms]:
    try:
        yield from iread(path, index=slice(None), format="traj", do_not_split_by_at_sign=True)
    except Exception as error:  # whatever ASE's reader meets in a damaged file
        raise ValueError(
            f"{path}: cannot be read as traj ({type(error).__name__}: {error}); the file is damaged: copy it again"
        ) from error


def _cut(path: str, atoms: Iterable[Atoms], said: Said) -> Iterator[Block]:
    held: list[Atoms] = []
    first = n_atoms = 0
    for one in atoms:
        held.append(one)
        n_atoms += len(one)
        if len(held) >= FRAMES or n_atoms >= ATOMS:
            yield Block(path, first, len(held), atoms=tuple(held), said=said)
            first, n_atoms, held = first + len(held), 0, []
    if held:
        yield Block(path, first, len(held), atoms=tuple(held), said=said)


def _cut_extxyz(file: Path, source: str) -> Iterator[Block]:
    """Frames by their atom counts alone; whoever parses a block checks the rest."""
    opened = OPEN.get(file.suffix.lower(), open)
    held: list[bytes] = []
    first = index = line = begun = n_atoms = 0
    try:
        with opened(file, "rb") as lines:
            for text in lines:
                line += 1
                if not text.strip() or text.lstrip().startswith(b"VEC"):
                    held.append(text)
                    continue
                if index - first >= FRAMES or n_atoms >= ATOMS:
                    yield Block(source, first, index - first, begun, b"".join(held))
                    first, begun, n_atoms, held = index, line - 1, 0, []
                n = count(text.decode("utf-8-sig", errors="replace"), source, index, line)
                held.append(text)
                for _ in range(n + 1):
                    held.append(next(lines, b""))
                    line += 1
                index, n_atoms = index + 1, n_atoms + n
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(
            f"{source}: cannot be decompressed ({error}); the file is truncated or damaged; copy it again"
        ) from error
    if index > first:
        yield Block(source, first, index - first, begun, b"".join(held))
    if not index:
        raise ValueError(f"{source}: no structure found; at least one is needed; write the file again")
