"""Frames in HDF5: our own format, version 1, with targets 5. Labelled frames survive it bit for bit.

The first 512 bytes are a user block, which HDF5 passes over: "equiv-potential frames sha256 ", the checksum of all
bytes after it, zeros. It is looked at first, since the HDF5 library itself can crash on a damaged file. A file without
user block, from another program, has the checksum among its attributes only.

Attributes of the file:
    format         "equiv-potential frames"
    version        1, or 5 where there are targets; a reader refuses any other
    energy_unit    of energies, eV as written here; any of `keys.ENERGY_UNITS` may stand there
    length_unit    of positions and cells, Ang as written here; forces and stress are in the units that follow
    targets        JSON text, {name: {irreps, per, unit}}; absent where there are none
    sha256         of names, types, shapes and content of all datasets, in the order of their names

Datasets, for n_frames structures with n atoms in all, one after the other:
    n_atoms        (n_frames,) int64
    atomic_numbers (n,) int64
    positions      (n, 3) float64
    cell           (n_frames, 3, 3) float64, rows are lattice vectors
    pbc            (n_frames, 3) bool
    energy         (n_frames,) float64; NaN where a frame has none, as in the next two
    forces         (n, 3) float64
    stress         (n_frames, 3, 3) float64, ASE's sign
    info           (n_frames,) JSON text: entries of info that are text, numbers or true and false, config_type
                   included; other names of energy, forces and stress are left out
    targets/<name> (n_frames or, where per is atom, n; dim) float64, NaN where a frame has none
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from ase import Atoms

from train.data.keys import ENERGY_UNITS, LENGTH_UNITS, Said
from train.data.labels import LABELS, usual_names
from train.data.targets import target_table
from train.target import Target

if TYPE_CHECKING:
    from train.data.dataset import Frame

FORMAT, VERSION, WITH_TARGETS = "equiv-potential frames", 1, 5
SIGNATURE = b"\x89HDF\r\n\x1a\n"  # where an HDF5 file begins: at byte 0, 512, 1024, 2048 ...
BLOCK = 512
LABEL_NAMES = {
    name for label in LABELS for name in usual_names(label)
}  # a label that was not read stays away
NAMES = ("n_atoms", "atomic_numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "info")


def write_hdf5(
    path: str | Path, frames: Sequence[Frame], targets: Mapping[str, Target] | None = None
) -> None:
    """Write labelled frames with these (resolved) targets, completely or not at all; their sources are not kept.

    Raises:
        ValueError: no frames, a label that is not finite, since NaN means absent in the file, or targets that are not
            described.
    """
    import h5py

    targets = targets or {}
    if others := sorted({name for frame in frames for name in frame.targets} - targets.keys()):
        raise ValueError(
            f"{path}: has no place for {', '.join(others)}, of which nothing is said; describe them (the targets of "
            "write_hdf5), or read the frames without"
        )
    if not frames:
        raise ValueError(f"{path}: no frames to write; give at least one")
    path = Path(path)
    content = _content(frames) | _of_targets(frames, targets)
    partial = path.with_name(f".{path.name}.partial")
    with h5py.File(partial, "w", userblock_size=BLOCK) as file:
        for name, values in content.items():
            kind = h5py.string_dtype() if values.dtype.kind == "O" else values.dtype
            file.create_dataset(name, data=values, dtype=kind)
        file.attrs.update(
            {
                "format": FORMAT,
                "version": WITH_TARGETS if targets else VERSION,
                **({"targets": json.dumps(target_table(targets))} if targets else {}),
                "energy_unit": "eV",
                "length_unit": "Ang",
                "sha256": _digest(content),
            }
        )
    digest = hashlib.sha256()
    with partial.open("r+b") as raw:
        raw.seek(BLOCK)
        while part := raw.read(1 << 20):
            digest.update(part)
        raw.seek(0)
        raw.write(_block(digest.hexdigest()))
    partial.replace(path)


def _block(checksum: str) -> bytes:
    return f"{FORMAT} sha256 {checksum}".encode().ljust(BLOCK, b"\0")


def _content(frames: Sequence[Frame]) -> dict[str, Any]:
    labels: dict[str, list[Any]] = {"energy": [], "forces": [], "stress": []}
    for frame in frames:
        shapes = {"energy": (), "forces": (len(frame.atoms), 3), "stress": (3, 3)}
        for name, shape in shapes.items():
            value = getattr(frame, name)
            if value is not None and not np.isfinite(value).all():
                raise ValueError(
                    f"{frame.name}: {name} is not finite, and NaN means absent in the file; remove frame or label"
                )
            labels[name].append(
                np.full(shape, np.nan) if value is None else np.asarray(value, dtype=np.float64)
            )
    atoms = [frame.atoms for frame in frames]
    return {
        "n_atoms": np.array([len(a) for a in atoms], dtype=np.int64),
        "atomic_numbers": np.concatenate([a.numbers for a in atoms]).astype(np.int64),
        "positions": np.concatenate([a.positions for a in atoms]),
        "cell": np.array([a.cell.array for a in atoms]),
        "pbc": np.array([a.pbc for a in atoms], dtype=bool),
        "energy": np.array(labels["energy"]),
        "forces": np.concatenate(labels["forces"]),
        "stress": np.array(labels["stress"]),
        "info": np.array([info_text(f) for f in frames], dtype=object),
    }


def _of_targets(frames: Sequence[Frame], targets: Mapping[str, Target]) -> dict[str, Any]:
    for name in targets:
        for frame in frames:
            value = frame.targets[name]
            if not np.isnan(value).all() and not np.isfinite(value).all():
                raise ValueError(
                    f"{frame.name}: {name} is not finite, and NaN means absent; remove frame or label"
                )
    return {f"targets/{name}": np.concatenate([frame.targets[name] for frame in frames]) for name in targets}


def info_text(frame: Frame) -> str:
    """What is kept of a frame's info, as JSON."""
    info = {k: v.item() if isinstance(v, np.generic) else v for k, v in frame.atoms.info.items()}
    kept = {k: v for k, v in info.items() if k not in LABEL_NAMES and isinstance(v, (str, bool, int, float))}
    if frame.config_type is not None:
        kept["config_type"] = frame.config_type
    return json.dumps(kept)


def _digest(content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(content):
        values = content[name]
        kind = "text" if values.dtype.kind == "O" else str(values.dtype)
        digest.update(f"{name} {kind} {values.shape}".encode())
        text = "\0".join(values).encode() if kind == "text" else np.ascontiguousarray(values).tobytes()
        digest.update(text)
    return digest.hexdigest()


def read_hdf5(data: bytes, source: str) -> tuple[list[Atoms], Said]:
    """Every frame with its labels under their plain names (energy, forces, stress), and the units of the file.

    Raises:
        ValueError: a damaged file, another format or version, or a unit that is not known.
    """
    import h5py

    damaged = (
        "does not match its checksum (sha256); the file is damaged, truncated or was edited: copy it again, or write "
        "it with train.data.hdf5.write_hdf5"
    )
    if not data.startswith(SIGNATURE) and data[:BLOCK] != _block(hashlib.sha256(data[BLOCK:]).hexdigest()):
        raise ValueError(f"{source}: no HDF5 file, or one whose content {damaged}")
    frames = []
    try:
        with h5py.File(BytesIO(data), "r") as file:
            attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in file.attrs.items()}
            names = list(file)
            version = attributes.get("version")
            ours = attributes.get("format") == FORMAT and version in (VERSION, WITH_TARGETS)
            targets = json.loads(attributes["targets"]) if ours and version == WITH_TARGETS else {}
            if ours:
                wanted = [*NAMES, *(f"targets/{name}" for name in targets)]
                content = {
                    name: file[name].asstr()[()] if name == "info" else file[name][()] for name in wanted
                }
        intact = ours and _digest(content) == attributes.get("sha256")
        if intact:
            frames = _frames(content)
            for name, one in targets.items():
                _attach(frames, name, content[f"targets/{name}"], one["per"] == "atom")
    except Exception as error:  # the HDF5 library raises whatever it makes of a damaged file
        raise ValueError(
            f"{source}: cannot be read as HDF5 ({type(error).__name__}: {error}); the file is damaged or truncated: "
            "copy or write it again"
        ) from error
    if not ours:
        _refuse_other(attributes, names, source)
    if not intact:
        raise ValueError(f"{source}: the content {damaged}")
    units = {"energy_unit": ENERGY_UNITS, "length_unit": LENGTH_UNITS}
    for name, table in units.items():
        if str(attributes.get(name)) not in table:
            raise ValueError(
                f"{source}: {name} is {attributes.get(name)!r}; expected one of {', '.join(table)}"
            )
    said = Said(attributes["energy_unit"], attributes["length_unit"], convention=False, plain=bool(targets))
    return frames, said


def _attach(frames: Sequence[Atoms], name: str, values: Any, of_atoms: bool) -> None:
    """The rows of a target to the frames that have it."""
    ends = np.cumsum([len(atoms) if of_atoms else 1 for atoms in frames])
    if values.ndim != 2 or len(values) != ends[-1]:
        raise ValueError(f"{name} has shape {values.shape}, expected ({ends[-1]}, n)")
    for atoms, rows in zip(frames, np.split(values, ends[:-1]), strict=True):
        if not np.isnan(rows).all():
            atoms.info[name] = rows if of_atoms else rows[0]


def _refuse_other(attributes: Mapping[str, Any], names: Sequence[str], source: str) -> NoReturn:
    if attributes.get("format") != FORMAT:
        raise ValueError(
            f"{source}: an HDF5 file of another kind (attribute format is {attributes.get('format')!r}, expected "
            f"{FORMAT!r}; it holds {', '.join(names[:8]) or 'nothing'}); convert it, for example to extxyz"
        )
    raise ValueError(
        f"{source}: version {attributes.get('version')} of the format, this program reads versions {VERSION} and "
        f"{WITH_TARGETS}, and 3 and 4 of potential-prepare; read it with the program that wrote it, or write or "
        "prepare it again"
    )


def _frames(content: Mapping[str, Any]) -> list[Atoms]:
    n_frames, n = len(content["n_atoms"]), content["n_atoms"].sum()
    shapes: dict[str, tuple[int, ...]] = {"n_atoms": (n_frames,), "energy": (n_frames,), "info": (n_frames,)}
    shapes |= {"cell": (n_frames, 3, 3), "stress": (n_frames, 3, 3), "pbc": (n_frames, 3)}
    shapes |= {"atomic_numbers": (n,), "positions": (n, 3), "forces": (n, 3)}
    for name, shape in shapes.items():
        if content[name].shape != shape:
            raise ValueError(f"{name} has shape {content[name].shape}, expected {shape}")
    ends = np.cumsum(content["n_atoms"])
    frames = []
    for k, end in enumerate(ends):
        of_atoms = slice(end - content["n_atoms"][k], end)
        atoms = Atoms(
            content["atomic_numbers"][of_atoms],
            content["positions"][of_atoms],
            cell=content["cell"][k],
            pbc=content["pbc"][k],
            info=json.loads(content["info"][k]),
        )
        labels = {
            "energy": content["energy"][k],
            "stress": content["stress"][k],
            "forces": content["forces"][of_atoms],
        }
        for name, value in labels.items():
            if not np.isnan(value).all():
                (atoms.arrays if name == "forces" else atoms.info)[name] = value
        frames.append(atoms)
    return frames
