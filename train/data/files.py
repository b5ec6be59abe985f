"""A data file of any kind ase.io.read knows, npz or HDF5 -> list of Atoms; errors name file, frame and remedy."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Sequence
from glob import glob, has_magic
from io import BytesIO, StringIO
from pathlib import Path

from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat
from ase.io.formats import read as ase_read

from train.data.extxyz import read_extxyz
from train.data.hdf5 import read_hdf5
from train.data.keys import ASE_UNITS, Said
from train.data.npz import read_npz

DECOMPRESS = {".xz": lzma.decompress, ".gz": gzip.decompress, ".bz2": bz2.decompress}
MAGIC = {b"\xfd7zXZ": ".xz", b"\x1f\x8b": ".gz", b"BZh": ".bz2"}
EXTXYZ, HDF5 = (".xyz", ".extxyz"), (".h5", ".hdf5")
DATABASES = ("db", "json")


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
