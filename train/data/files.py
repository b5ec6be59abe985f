"""A data file of any kind ase.io.read knows, npz or HDF5 -> list of Atoms; errors name file, frame and remedy.

extxyz is cut into frames here and each frame is parsed by ASE on its own: ASE alone stops at the first blank
line without a word, ignores surplus columns, and does not say which frame is damaged.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from io import BytesIO, StringIO
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import read_xyz
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat
from ase.io.formats import read as ase_read

from train.data.hdf5 import read_hdf5
from train.data.keys import ASE_UNITS, Said
from train.data.npz import read_npz

DECOMPRESS = {".xz": lzma.decompress, ".gz": gzip.decompress, ".bz2": bz2.decompress}
MAGIC = {b"\xfd7zXZ": ".xz", b"\x1f\x8b": ".gz", b"BZh": ".bz2"}
EXTXYZ, HDF5 = (".xyz", ".extxyz"), (".h5", ".hdf5")
DATABASES = ("db", "json")
PROPERTIES = re.compile(r"""\bProperties\s*=\s*["']?([^\s"']+)""")


def expand(patterns: Sequence[str]) -> list[str]:
    """The files that names and patterns (*, ?, [...], ** for folders below) stand for; those of a pattern sorted.

    Raises:
        ValueError: a pattern that matches no file, or a file that is named twice.
    """
    found: dict[Path, tuple[str, str]] = {}
    for pattern in patterns:
        matches = [pattern]
        if has_magic(pattern) and not Path(pattern).exists():
            matches = sorted(name for name in glob(pattern, recursive=True) if Path(name).is_file())
            if not matches:
                raise ValueError(f"{pattern}: no file matches this pattern; correct it, or name the files")
        for name in matches:
            file = Path(name).resolve()
            if file in found:
                raise ValueError(
                    f"{name}: named twice, by '{found[file][1]}' and by '{pattern}'; name every file once"
                )
            found[file] = (name, pattern)
    return [name for name, _ in found.values()]


def read_structures(path: str | Path) -> tuple[list[Atoms], Said]:
    """Every frame of one file, compressed (.xz, .gz, .bz2) or not, and what the file says about its units.

    Raises:
        ValueError: missing, empty, truncated or damaged file, or a format that cannot be read.
    """
    source = str(path)
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        near = sorted(p.name for p in path.parent.glob(f"{path.name.split('.')[0]}*")) if path.name else []
        hint = f"; {path.parent} holds {', '.join(near[:5])}" if near else ""
        raise ValueError(f"{source}: {what}; give the path of a data file such as train.xyz{hint}")
    data, inner = _unpack(path, source)
    if not data.strip():
        raise ValueError(
            f"{source}: the file is empty; at least one structure is needed; write the file again"
        )
    suffix, said = inner.suffix.lower(), ASE_UNITS
    if suffix == ".npz":
        frames, said = read_npz(data, source)
    elif suffix in HDF5:
        frames, said = read_hdf5(data, source)
    else:
        frames = read_extxyz(data, source) if suffix in EXTXYZ else _read_other(data, path, inner)
    if not frames:
        raise ValueError(f"{source}: no structure found; at least one is needed; write the file again")
    return frames, said


def _unpack(path: Path, source: str) -> tuple[bytes, Path]:
    """The content, decompressed in memory (ASE would decompress again at every seek), and the name within."""
    data = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix in DECOMPRESS:
        try:
            return DECOMPRESS[suffix](data), path.with_suffix("")
        except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
            raise ValueError(
                f"{source}: cannot be decompressed as {suffix} ({error}); the file is truncated or is "
                f"no {suffix} file; copy it again or correct its extension"
            ) from error
    packed = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
    if packed:
        raise ValueError(
            f"{source}: the content is {packed} data but the name does not end in {packed}; "
            f"rename it to {path.name}{packed}"
        )
    return data, path


def read_extxyz(data: bytes, source: str, first: tuple[int, int] = (0, 0)) -> list[Atoms]:
    """The frames of extended XYZ; `first`: number of the first frame and of its line, for errors.

    Raises:
        ValueError: anything that is not valid, with its place.
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
        try:
            frames.append(next(read_xyz(StringIO("\n".join(lines) + "\n"), index=0)))
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
    try:
        n_atoms = int(text)
    except ValueError:
        n_atoms = 0
    if n_atoms < 1:
        why = (
            "the file may not be extended XYZ"
            if index == 0
            else f"the atom count of frame {index - 1} may be wrong"
        )
        raise ValueError(
            f"{source}, frame {index} (line {line}): expected the number of atoms, got "
            f"{text.strip()[:60]!r}; {why}; correct the file or its extension"
        )
    return n_atoms


def _check_columns(comment: str, rows: list[str], where: str) -> None:
    """As many columns as `Properties` announces: ASE drops surplus ones in silence."""
    found = PROPERTIES.search(comment)
    if not found:
        return
    widths = found.group(1).split(":")[2::3]
    if not all(w.isdigit() for w in widths):
        return  # ASE says what is wrong with the Properties entry itself
    expected = sum(map(int, widths))
    for atom, row in enumerate(rows):
        if len(row.split()) != expected:
            raise ValueError(
                f"{where}, atom {atom}: {len(row.split())} columns, but Properties={found.group(1)} "
                f"announces {expected}; the file is damaged or cut here: write it again or remove this frame"
            )


def _check_last_number(rows: list[str], where: str) -> None:
    """A file cut within its very last number still parses; the number of decimals gives it away."""
    decimals = [len(token.partition(".")[2]) for token in (row.split()[-1] for row in rows)]
    if len(rows) > 3 and len(set(decimals[:-1])) == 1 and decimals[-1] < decimals[0] and decimals[0] > 3:
        raise ValueError(
            f"{where}: the file ends inside a number ({rows[-1].split()[-1]!r}, no line end) and is "
            "truncated; copy it again or remove this frame"
        )


def _read_other(data: bytes, path: Path, inner: Path) -> list[Atoms]:
    """Anything else ASE reads, by its name or by the first bytes of its content."""
    source = str(path)
    looks_xyz = data[:40].split(b"\n")[0].strip().isdigit()
    hint = (
        f"its content looks like XYZ: rename it to {inner.stem}.xyz" if looks_xyz else "convert it to extxyz"
    )
    try:
        name = filetype(source)
        form = get_ioformat(name)
        if not form.can_read:
            raise UnknownFileTypeError(f"ASE cannot read {name}")
    except (UnknownFileTypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{source}: unknown extension '{inner.suffix}' ({error}); expected .xyz or .extxyz (also with "
            f".xz, .gz or .bz2) or a format ase.io.read knows; {hint}"
        ) from error
    if inner != path and not form.acceptsfd:
        raise ValueError(f"{source}: {name} files cannot be read while compressed; decompress it first")
    try:
        if name in DATABASES and inner == path:
            return _read_database(source)
        given: object = source
        if inner != path:
            given = BytesIO(data) if form.isbinary else StringIO(data.decode())
        return list(ase_read(given, index=slice(None), format=name, do_not_split_by_at_sign=True))
    except Exception as error:  # any parser of ASE, each with its own kinds of error
        raise ValueError(
            f"{source}: cannot be read as {name} ({type(error).__name__}: {error}); the file is damaged or "
            f"its extension is wrong; {hint}"
        ) from error


def _read_database(source: str) -> list[Atoms]:
    """The rows of an ASE database; its key-value pairs, such as config_type, go to info, where ase.io drops them."""
    from ase.db import connect  # slow to import, and needed only here

    frames = []
    with connect(source, serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            frames.append(atoms)
    return frames
