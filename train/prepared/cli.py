"""potential-prepare: data files -> one prepared set. Nothing heavy is imported before the arguments are read."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from train.options import LABEL_OPTIONS, add_descriptions, add_labels, described, parse

EPILOG = """An interrupted call is continued by repeating it. The set is read frame by frame, never as a whole:
  potential-prepare 'runs/*.xyz' more.traj --output set.h5 --workers 2
  potential-prepare train.xyz --targets dipole --set targets.dipole.unit=Debye --output set.h5
  potential-train set.h5 --workers 1
  potential-doctor set.h5
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="potential-prepare",
        description="Convert data files of any kind and size to one HDF5 file from which potential-train trains "
        "without holding all frames in memory. Labels are found and units converted here, once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="structures, files or quoted patterns: extxyz, all that ase.io reads, npz, HDF5; also packed",
    )
    p.add_argument("--output", required=True, metavar="FILE", help="the prepared set, such as set.h5")
    p.add_argument(
        "--workers", type=int, default=0, help="processes that parse, besides this one (default: 0)"
    )
    p.add_argument(
        "--cutoff",
        type=float,
        default=0.0,
        metavar="LENGTH",
        help="count the edges within it, in Å, for --batch-edges of a model with this cutoff",
    )
    add_labels(p, gaps=False)
    add_descriptions(p)
    return p


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 an error that was explained, 130 interrupted."""
    args = parse(parser(), arguments)
    begun = time.monotonic()

    def tell(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{text}, {time.monotonic() - begun:.0f} s", end="", file=sys.stderr, flush=True)

    try:
        if not args.output.endswith((".h5", ".hdf5")):
            raise ValueError(f"--output is {args.output}; a prepared set must be named *.h5 or *.hdf5")
        if args.workers < 0:
            raise ValueError(f"--workers is {args.workers}; it cannot be negative")
        if not 0 <= args.cutoff < float("inf"):
            raise ValueError(f"--cutoff is {args.cutoff}; it must be a positive length in Å")
        given = {k: getattr(args, k) for k in LABEL_OPTIONS if getattr(args, k) is not None}
        config = described(args, given)
        from train.data.keys import keys
        from train.prepared.found import completed
        from train.prepared.write import prepare_files

        asked = keys(config.data, completed(config.targets, args.files))
        written = prepare_files(args.files, Path(args.output), asked, args.workers, tell, args.cutoff)
    except ValueError as error:
        print(f"potential-prepare: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"potential-prepare: {error.filename}: {error.strerror}; give another file", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("potential-prepare: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print("\n".join(written.labels))
    seconds = time.monotonic() - begun
    print(
        f"{args.output}: {written.frames} frames, {written.atoms} atoms, {written.bytes / 1e6:.1f} MB "
        f"({written.bytes / written.frames:.0f} bytes a frame) in {seconds:.1f} s"
    )
    return 0
