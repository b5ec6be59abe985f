"""Structures that two sets of a run share, exactly or nearly: errors on them say nothing about new ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np

from train.columns import prints, spaced
from train.data.dataset import Frame
from train.doctor.inspection import LabelReport
from train.doctor.similar import nearly_across

OLD = "--replay"  # stands for old frames, whichever set they come into
SHOWN = 5  # frame numbers in a warning
COMPARED = 20_000  # frames of each set in which nearly equal ones are looked for
Reports: TypeAlias = dict[
    str, tuple[list[Frame], LabelReport]
]  # by set: what was looked at, and what was found


def shared(sets: dict[str, Sequence[Frame]]) -> list[str]:
    """A warning for any two sets that hold the same structures; later sets are blamed."""
    marks = {name: prints(frames) for name, frames in sets.items()}
    warnings = []
    for one, other in combinations(sets, 2):
        if sets[one] is sets[other]:
            continue
        both = np.flatnonzero(np.isin(marks[other], marks[one]))
        if not len(both):
            continue
        shown = [sets[other][int(k)] for k in both[:SHOWN]]
        first = sets[one][int(np.flatnonzero(marks[one] == marks[other][both[0]])[0])]
        listed = ", ".join(str(f.index) for f in shown) + (", ..." if len(both) > SHOWN else "")
        warnings.append(
            f"WARNING: {len(both)} of {len(sets[other])} {other} structures are also {one} structures: "
            f"{shown[0].source}, frame{'s' * (len(both) > 1)} {listed} (the first is frame {first.index} of "
            f"{first.source}); errors on them say nothing about new structures, remove them from one of the sets"
        )
    return warnings


def nearly_shared(reports: Reports) -> list[str]:
    """The same for structures that are nearly equal, in files of different sets; frames that train both, old and new
    ones, may be. Of a set of more than COMPARED frames as many are compared, evenly spaced, and a sentence says so."""
    rows = {name: spaced(len(looked_at), COMPARED) for name, (looked_at, _) in reports.items()}
    frames = {name: [looked_at[int(k)] for k in rows[name]] for name, (looked_at, _) in reports.items()}
    signatures = {name: report.signature[rows[name]] for name, (_, report) in reports.items()}
    found = nearly_across(frames, signatures, together=("train", OLD))
    cut = [
        f"{len(rows[n])} of {len(one)} {n} frames"
        for n, (one, _) in reports.items()
        if len(rows[n]) < len(one)
    ]
    limited = f"nearly equal structures of different sets were looked for among {', '.join(cut)}, evenly spaced; others"
    told = [f"{limited} may be shared unseen"] if cut and reports.keys() - {"train", OLD} else []
    return [*(f"WARNING: {text}" for text in found), *told]
