"""The hierarchical bootstrap: what the errors of a learning curve could have been with other subsets, seeds and test
frames.

Levels. A fit belongs to a subset of the pool (its draw) and has a seed; all fits are tested on the same frames.

* Subsets and seeds: the mean over draws of the curves of single draws moves by random multiples of their deviations,

      noise_k = sum_d g_d (y_dk - y_k) / sqrt(D (D - 1)) * sqrt((D - 1) / chi2),   g_d ~ N(0, 1), chi2 ~ chi^2(D - 1),

  with y_dk the log error of draw d at size k, averaged over its seeds. Drawing D draws with replacement, as usual,
  makes the variance too small by (D - 1)/D and knows no tails: with three draws its 95 % intervals cover far too
  seldom (a test shows it). This form has the right variance, and whatever is linear in the logs has exactly Student's
  t with D - 1 degrees of freedom, for any dependence between sizes (nested subsets) and between models (the same
  subsets). The seeds are in y_dk already: the spread between draws holds theirs too, so resampling them again would
  count them twice.
* Test frames are weighted at random (Bayesian bootstrap, Rubin 1981), the same weights for all fits, with the same two
  corrections for their number.

One draw only: seeds take the place of draws, and what is said holds for that subset only. One fit only: no noise is
known but that of the test frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from train.curve.powerlaw import Array

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Errors:
    """Errors of all fits of all models on one test, of one quantity, frame by frame."""

    model: NDArray[np.str_]  # (n_fits,)
    size: Labels  # (n_fits,)
    draw: Labels  # (n_fits,)
    seed: Labels  # (n_fits,)
    sums: Array  # (n_fits, n_frames): sum of |error|^power over the labels of a frame
    counts: Array  # (n_frames,): its labels
    power: int = 2  # 2: root mean square errors, 1: mean absolute errors

    def log_errors(self, weights: Array | None = None) -> Array:
        """(n, n_fits) under weights (n, n_frames) of the frames; (1, n_fits) where all count the same."""
        w = np.ones((1, len(self.counts))) if weights is None else weights
        logs: Array = np.log((w @ self.sums.T) / (w @ self.counts)[:, None]) / self.power
        return logs


@dataclass(frozen=True)
class Resampled:
    """One model: its mean log errors, and as many of them as could have been."""

    sizes: Array  # (n_sizes,)
    logs: Array  # (n_sizes,) mean over draws of the mean over seeds
    noise: Array  # (n, n_sizes) of subsets and seeds: to be added
    of_frames: Array  # (n, n_sizes) of test frames: to be added
    unit: str  # what is independent: "draws", "seeds" or "" where every size has one fit
    freedom: int  # degrees of freedom of that

    @property
    def all_logs(self) -> Array:
        """(n, n_sizes)."""
        return self.logs + self.noise + self.of_frames

    def at(self, chosen: NDArray[np.bool_]) -> Resampled:
        """The same at some of the sizes."""
        return replace(
            self,
            sizes=self.sizes[chosen],
            logs=self.logs[chosen],
            noise=self.noise[:, chosen],
            of_frames=self.of_frames[:, chosen],
        )


def frame_weights(frames: int, n: int, rng: np.random.Generator) -> tuple[Array, Array | float]:
    """(n, frames) random weights, and (n, 1) factors by which deviations under them are to be stretched."""
    weights = rng.dirichlet(np.ones(frames), size=n)
    # Dirichlet weights: variance / (frames + 1) instead of / (frames - 1)
    tail = np.sqrt((frames + 1) / rng.chisquare(frames - 1, n))[:, None] if frames > 1 else np.nan
    return weights, tail


def resample(errors: Errors, n: int, seed: int = 0) -> dict[str, Resampled]:
    """Each model, with multipliers and frame weights shared, so that differences of models are paired."""
    rng = np.random.default_rng(seed)
    frames = len(errors.counts)
    weights, tail = frame_weights(frames, n, rng)
    here = errors.log_errors()
    moved = (errors.log_errors(weights) - here) * tail
    units = np.unique(np.stack([errors.draw, errors.seed], 1), axis=0)
    shared = Multipliers(
        {int(d): rng.normal(size=n) for d in np.unique(errors.draw)},
        {(int(d), int(s)): rng.normal(size=n) for d, s in units},
        rng.normal(size=(n, len(units) + 1)),
    )
    names = dict.fromkeys(errors.model.tolist())  # in the order of the fits
    return {name: _of_model(errors, errors.model == name, here[0], moved, shared) for name in names}


@dataclass(frozen=True)
class Multipliers:
    """Standard normal numbers (n,) for each draw and each seed of a draw, and more of which a chi-square is made."""

    draws: dict[int, Array]
    seeds: dict[tuple[int, int], Array]
    more: Array  # (n, at least the degrees of freedom)


def _of_model(errors: Errors, own: NDArray[np.bool_], logs: Array, moved: Array, g: Multipliers) -> Resampled:
    sizes = np.unique(errors.size[own])
    draws = np.unique(errors.draw[own])
    if len(draws) > 1:
        unit, keys = "draws", [(own & (errors.draw == d), g.draws[int(d)]) for d in draws]
    else:
        d = int(draws[0])
        unit = "seeds"
        keys = [(own & (errors.seed == s), g.seeds[d, int(s)]) for s in np.unique(errors.seed[own])]
    shape = (len(keys), len(sizes))
    cells, frames = np.full(shape, np.nan), np.full((*shape, len(moved)), np.nan)
    for i, (rows, _) in enumerate(keys):
        for k, size in enumerate(sizes):
            at = rows & (errors.size == size)
            if at.any():
                cells[i, k], frames[i, k] = logs[at].mean(), moved[:, at].mean(1)
    known = np.isfinite(cells).sum(0)
    mean = np.nanmean(cells, 0)
    freedom = int(known.min()) - 1
    of_frames = np.nanmean(frames, 0).T
    if freedom < 1:
        return Resampled(sizes.astype(float), mean, np.full_like(of_frames, np.nan), of_frames, "", 0)
    spread = np.nan_to_num(cells - mean) / np.sqrt(known * (known - 1))
    normal = np.stack([multiplier for _, multiplier in keys], 1) @ spread
    tail = np.sqrt(freedom / (g.more[:, :freedom] ** 2).sum(1))[:, None]
    return Resampled(sizes.astype(float), mean, normal * tail, of_frames, unit, freedom)
