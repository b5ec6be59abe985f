"""Files -> a prepared set: parts, written by several processes and kept if the work is interrupted, then one file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from train.data.dataset import Frame, label
from train.data.files import expand
from train.data.hdf5 import FORMAT
from train.data.keys import Keys
from train.data.labels import LABELS, NONE
from train.data.targets import target_table, usual_names
from train.doctor.label_table import target_as
from train.prepared.found import completed
from train.prepared.schema import ABSENT, BITS, VERSION, digest, encode, shapes
from train.prepared.sources import ATOMS, FRAMES, Block, blocks, structures
from train.target import Target
from train.workers import answering

CHUNK_BYTES = 16_384  # of a dataset; what has to be unpacked for one frame
Part = tuple[dict[str, Any], dict[str, Any]]  # arrays and what is said about them


@dataclass(frozen=True)
class Written:
    """What a prepared set holds."""

    frames: int
    atoms: int
    bytes: int
    labels: tuple[str, ...]  # lines for people


def prepare_files(
    patterns: Sequence[str],
    output: Path,
    keys: Keys,
    workers: int = 0,
    tell: Callable[[str], None] = print,
    cutoff: float = 0.0,
) -> Written:
    """Convert files to one prepared set; what an interrupted call has done is not done again.

    With a `cutoff` (Å) above 0 the edges of every structure are counted.

    Raises:
        ValueError: files that cannot be read, labels under different keys, an output that exists.
    """
    paths = expand(patterns)
    targets = completed(keys.targets, paths, everything=True)
    keys = replace(keys, targets={name: one for name, one in targets.items() if one.key != NONE})
    if output.exists():
        raise ValueError(f"{output} exists; remove it, or give another --output")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no directory {output.parent}; make it first")
    folder = output.with_name(f".{output.name}.parts")
    _begin(folder, paths, (keys, cutoff), output)
    todo = ((number, block) for number, block in enumerate(b for path in paths for b in blocks(path)))
    done = 0
    with answering(partial(_make_part, keys=keys, folder=str(folder), cutoff=cutoff), workers) as answers:
        parts: list[Path] = []
        for n_frames in answers(_unless_there(todo, folder)):
            parts.append(folder / _name(len(parts)))
            done += n_frames
            tell(f"{done} frames")
    said = [_said(part) for part in parts]
    _check_keys(said, keys)
    written = write_parts(output, map(_load, parts), paths, cutoff, keys.targets)
    shutil.rmtree(folder)
    return written


def write_frames(
    output: Path, frames: Iterable[Frame], source: str = "", targets: Mapping[str, Target] | None = None
) -> Written:
    """Frames that are made as they are needed, with these (resolved) targets -> a prepared set, in this process.

    Raises:
        ValueError: no frames, or values that are not finite.
    """

    def parts() -> Iterator[Part]:
        held: list[Frame] = []
        for frame in frames:
            held.append(frame)
            if len(held) == FRAMES:
                yield _part(held, source, 0.0, targets)
                held = []
        if held:
            yield _part(held, source, 0.0, targets)

    return write_parts(output, parts(), [source], targets=targets)


def _part(frames: Sequence[Frame], source: str, cutoff: float, targets: Mapping[str, Target] | None) -> Part:
    arrays, tables = encode(frames, cutoff, targets)
    return arrays, {**tables, "source": source, "sha256": digest(arrays, tables)}


def _name(number: int) -> str:
    return f"part-{number:06d}.npz"


def _begin(folder: Path, paths: Sequence[str], how: tuple[Keys, float], output: Path) -> None:
    """Make the folder of parts, or see that those there are of the same files and settings."""
    files = [(str(Path(p).resolve()), Path(p).stat().st_size, Path(p).stat().st_mtime_ns)
             for p in paths if Path(p).is_file()]  # fmt: skip
    keys, cutoff = how
    content = {
        "files": files,
        "keys": asdict(keys),
        "version": VERSION,
        "cut": [FRAMES, ATOMS],
        "cutoff": cutoff,
    }
    plan = json.dumps(content)
    record = folder / "plan.json"
    if record.exists() and record.read_text(encoding="utf-8") != plan:
        raise ValueError(
            f"{folder} holds parts of an interrupted call with other files or settings, or files that changed since; "
            f"repeat that call, or remove the folder and start anew, or give another --output than {output}"
        )
    folder.mkdir(exist_ok=True)
    partial_record = folder / ".plan.partial"
    partial_record.write_text(plan, encoding="utf-8")
    partial_record.replace(record)


def _unless_there(todo: Iterable[tuple[int, Block]], folder: Path) -> Iterator[tuple[int, Block | int]]:
    """A block whose part is there needs no work but to count its frames."""
    for number, block in todo:
        yield number, block.n_frames if (folder / _name(number)).exists() else block


def _make_part(question: tuple[int, Block | int], keys: Keys, folder: str, cutoff: float) -> int:
    number, block = question
    if isinstance(block, int):
        return block
    frames, found = label(structures(block), block.said, keys, (block.source, block.first), optional=True)
    arrays, said = _part(frames, block.source, cutoff, keys.targets)
    labels = {name: getattr(found, name) for name in LABELS}
    said |= {"first": block.first, "keys": {**labels, **found.targets}}
    told = [f"{name} {target_as(found, name)}" for name, key in found.targets.items() if key]
    said |= {"units": found.units, "notes": [*found.notes, *told]}
    path = Path(folder) / _name(number)
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        np.savez(file, said=np.frombuffer(json.dumps(said).encode(), dtype=np.uint8), **arrays)
    unfinished.replace(path)
    return block.n_frames


def _said(part: Path) -> dict[str, Any]:
    with np.load(part) as content:
        found: dict[str, Any] = json.loads(content["said"].tobytes())
    return found


def _load(part: Path) -> Part:
    with np.load(part) as content:
        arrays = {name: content[name] for name in content.files if name != "said"}
    return arrays, _said(part)


def _check_keys(parts: Sequence[dict[str, Any]], keys: Keys) -> None:
    """One file uses one key for a label, as when it is read as a whole; and there must be something to learn."""
    names: dict[tuple[str, str], tuple[str, int]] = {}
    for part in parts:
        for name, key in part["keys"].items():
            if key is None:
                continue
            first, at = names.setdefault((part["source"], name), (key, part["first"]))
            if key != first:
                raise ValueError(
                    f"{part['source']}: {name} is under '{first}' from frame {at} on but under '{key}' from frame "
                    f"{part['first']} on; one file must use one key: rename them, or choose with {_option(name)}{key}"
                )
    found = {name for _, name in names}
    for name in LABELS:
        asked = getattr(keys, name)
        if asked not in (None, NONE) and name not in found:
            raise ValueError(f"no frame of any file has the {name} key '{asked}'; correct --{name}-key")
    for name, target in keys.targets.items():
        if name not in found:
            wanted = (
                f"'{target.key}'" if target.key else f"a usual name ({', '.join(usual_names(name)[:4])}, ...)"
            )
            raise ValueError(
                f"no frame of any file has the target {name} under {wanted}; give its name with --set "
                f"targets.{name}.key=..., or leave it out"
            )
    if not found & {"energy", "forces", *keys.targets}:
        raise ValueError(
            "neither energy nor forces found in any frame of any file; name them with --energy-key and --forces-key"
        )


def _option(label: str) -> str:
    return f"--{label}-key " if label in LABELS else f"--set targets.{label}.key="


def write_parts(
    output: Path,
    parts: Iterable[Part],
    files: Sequence[str],
    cutoff: float = 0.0,
    targets: Mapping[str, Target] | None = None,
) -> Written:
    """One file of all parts, completely or not at all; `cutoff` is that of their edges, where they are counted, and
    `targets` are those that all of them have.

    Raises:
        ValueError: no frames.
    """
    import h5py

    partial_file = output.with_name(f".{output.name}.partial")
    tables: dict[str, dict[Any, int]] = {"kinds": {}, "element_sets": {}}
    whole, n_frames = sha256(), 0
    lines: dict[str, None] = {}
    with h5py.File(partial_file, "w", libver="latest") as file:
        for name, (dtype, shape) in shapes(targets or {}).items():
            size = np.dtype(dtype).itemsize * int(np.prod(shape))
            file.create_dataset(
                name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(max(64, CHUNK_BYTES // size), *shape),
                compression="gzip", compression_opts=1, shuffle=True, fletcher32=True,
            )  # fmt: skip
        for arrays, said in parts:
            for column, name in (("kind", "kinds"), ("elements", "element_sets")):
                table = tables[name]
                rows = [table.setdefault(tuple(row), len(table)) for row in said[name]]
                arrays[column] = np.array(rows, dtype=np.int32)[arrays[column]]
            arrays["source"][:] = files.index(said["source"])
            for name, values in arrays.items():
                file[name].resize(len(file[name]) + len(values), axis=0)
                if len(values):
                    file[name][-len(values) :] = values
            whole.update(said["sha256"].encode())
            n_frames += len(arrays["n_atoms"])
            if "units" in said:
                lines[f"{said['source']}: {said['units']}"] = None
                lines |= {f"{said['source']}: {note}": None for note in said["notes"]}
        if not n_frames:
            raise ValueError(f"{output}: no frames to write; give at least one")
        n_atoms = len(file["atomic_numbers"])
        _drop_absent(file)
        content = {"files": list(files), **{name: list(table) for name, table in tables.items()}}
        text = json.dumps({**content, "targets": target_table(targets or {})})
        file.create_dataset(
            "tables", data=np.frombuffer(text.encode(), np.uint8), chunks=True, fletcher32=True
        )
        texts = {"format": FORMAT, "energy_unit": "eV", "length_unit": "Ang", "sha256": whole.hexdigest()}
        file.attrs.update({name: np.bytes_(text) for name, text in texts.items()})
        file.attrs.update({"version": VERSION, **({"cutoff": cutoff} if cutoff else {})})
    partial_file.replace(output)
    return Written(n_frames, n_atoms, output.stat().st_size, tuple(lines))


def _drop_absent(file: Any) -> None:
    """Without the datasets that say nothing; HDF5 does not give their (compressed) space back, which is little."""
    bits = {name: file["labels"][()] & bit for name, bit in BITS.items()}
    for name in (*ABSENT, "info"):
        if name == "info":
            empty = not len(file["info"])
        elif name in bits:
            empty = not bits[name].any()
        else:
            chunks = (file[name][k : k + FRAMES] for k in range(0, len(file[name]), FRAMES))
            empty = not any(chunk.any() for chunk in chunks)
        if empty:
            del file[name]
