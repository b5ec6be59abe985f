"""Which functions linear ACE is made of, and in which order they are computed. Plain Python: no atoms, no weights.

A factor is a density of neighbors of one element z, with one radial function n and one order l. A function is a
product of up to four of them, coupled to an invariant: the first two to order L, the rest to the same L, and these with
each other. Every product of factors has as many functions as it has independent invariants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from potential.networks.tensor_product import coupling

SAMPLES, DEPENDENT = 50, 1e-8
HIGHEST = 60.0  # degree


class Factor(NamedTuple):
    """A density of neighbors; n counts from 1."""

    l: int
    n: int
    z: int


class Size(NamedTuple):
    """What bounds a basis; see the dials of ACE."""

    functions: int
    correlation: int
    lmax: int
    angular_weight: float
    order_weight: float


@dataclass(frozen=True)
class Function:
    """A product of factors (sorted) and the order L through which it is coupled."""

    factors: tuple[Factor, ...]
    through: int
    degree: float

    @property
    def sides(self) -> tuple[tuple[Factor, ...], tuple[Factor, ...]]:
        """The first two factors and the rest."""
        return self.factors[:2], self.factors[2:]


@cache
def basis(size: Size, n_species: int) -> tuple[Function, ...]:
    """All functions up to the highest degree at which there are at most `size.functions`; the lowest degree always.

    The degree of a factor is n + angular_weight l; that of a product is their sum, and order_weight for each factor
    beyond the first.
    """
    found: tuple[Function, ...] = ()
    most = 1.0
    while most <= HIGHEST:
        more = tuple(_up_to(size, n_species, most))
        if found and len(more) > size.functions:
            break
        found, most = more, most + 0.5
    return tuple(sorted(found, key=lambda f: (len(f.factors), f.through, f.factors)))


def _up_to(size: Size, n_species: int, most: float) -> Iterator[Function]:
    every = sorted(
        (n + size.angular_weight * l, Factor(l, n, z))
        for l in range(size.lmax + 1)
        for n in range(1, int(most) + 1)
        for z in range(n_species)
    )
    for order in range(1, size.correlation + 1):
        extra = size.order_weight * (order - 1)
        for degree, factors in _products(every, order, most - extra):
            equal = tuple(a == b for a, b in pairwise(factors))
            for through in independent(tuple(f.l for f in factors), equal):
                yield Function(factors, through, degree + extra)


def _products(
    every: Sequence[tuple[float, Factor]], order: int, most: float
) -> Iterator[tuple[float, tuple[Factor, ...]]]:
    """Multisets of so many factors whose degrees sum to at most `most`; `every` is sorted by degree."""

    def grow(
        start: int, degree: float, chosen: tuple[Factor, ...]
    ) -> Iterator[tuple[float, tuple[Factor, ...]]]:
        left = order - len(chosen)
        if not left:
            yield degree, tuple(sorted(chosen))
            return
        for k in range(start, len(every)):
            if degree + left * every[k][0] > most + 1e-9:
                return
            yield from grow(k, degree + every[k][0], (*chosen, every[k][1]))

    return grow(0, 0.0, ())


@cache
def independent(ls: tuple[int, ...], equal: tuple[bool, ...]) -> tuple[int, ...]:
    """The orders L that give independent invariants of one to four factors.

    Args:
        ls: order of each factor, sorted.
        equal: whether each factor but the first is the same as the one before.

    Where factors are equal, several L may give the same polynomial, which is found out on random numbers.
    """
    if sum(ls) % 2:
        return ()
    if len(ls) < 3:
        return (0,) if ls[0] == (ls[1] if len(ls) == 2 else 0) else ()
    if len(ls) == 3:
        return (ls[2],) if ls[2] <= ls[0] + ls[1] else ()
    generator = torch.Generator().manual_seed(0)
    drawn: list[Tensor] = []
    for k, l in enumerate(ls):
        new = torch.randn(SAMPLES, 2 * l + 1, generator=generator, dtype=torch.float64)
        drawn.append(drawn[-1] if k and equal[k - 1] else new)
    kept: list[Tensor] = []
    found: list[int] = []
    for l in range(max(ls[1] - ls[0], ls[3] - ls[2]), min(ls[0] + ls[1], ls[2] + ls[3]) + 1):
        sides = [
            torch.einsum("abc,na,nb->nc", coupling(ls[k], ls[k + 1], l), drawn[k], drawn[k + 1])
            for k in (0, 2)
        ]
        value = (sides[0] * sides[1]).sum(1)
        whole = float(value.norm())
        for other in kept + kept:  # once more against rounding
            value = value - other * (other @ value)
        if float(value.norm()) > DEPENDENT * max(whole, 1.0):
            kept.append(value / value.norm())
            found.append(l)
    return tuple(found)


@dataclass(frozen=True)
class Pairs:
    """Products of two factors of orders l1, l2: positions among the factors of these orders, and the L needed."""

    l1: int
    l2: int
    through: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Functions of one number of factors coupled through one L: positions of their two sides.

    A side of one factor is counted among the factors of order L, one of two among the pairs coupled to L.
    """

    order: int
    through: int
    first: tuple[int, ...]
    second: tuple[int, ...]  # empty for one side


@dataclass(frozen=True)
class Recipe:
    """How to compute the functions of a basis, in the order of the basis."""

    factors: tuple[tuple[Factor, ...], ...]  # of each l
    pairs: tuple[Pairs, ...]
    blocks: tuple[Block, ...]


@cache
def recipe(size: Size, n_species: int) -> Recipe:
    """The recipe of `basis(size, n_species)`."""
    functions = basis(size, n_species)
    used = sorted({factor for f in functions for factor in f.factors})
    factors = tuple(tuple(f for f in used if f.l == l) for l in range(used[-1].l + 1))
    at: dict[tuple[tuple[Factor, ...], int], int] = {}  # a side coupled to L -> its position
    for of_l in factors:
        at |= {((f,), f.l): k for k, f in enumerate(of_l)}
    wanted = {(side, f.through) for f in functions for side in f.sides if len(side) == 2}
    orders = sorted({(side[0].l, side[1].l) for side, _ in wanted})
    counts: dict[int, int] = {}
    pairs = []
    for l1, l2 in orders:
        here = [(side, l) for side, l in wanted if (side[0].l, side[1].l) == (l1, l2)]
        sides, through = sorted({side for side, _ in here}), tuple(sorted({l for _, l in here}))
        for l in through:
            at |= {(side, l): counts.get(l, 0) + k for k, side in enumerate(sides)}
            counts[l] = counts.get(l, 0) + len(sides)
        first, second = (tuple(at[(side[k],), side[k].l] for side in sides) for k in (0, 1))
        pairs.append(Pairs(l1, l2, through, first, second))
    blocks = []
    for order, middle in dict.fromkeys((len(f.factors), f.through) for f in functions):
        some = [f for f in functions if (len(f.factors), f.through) == (order, middle)]
        both = [tuple(at[side, middle] for f in some if (side := f.sides[k])) for k in (0, 1)]
        blocks.append(Block(order, middle, *both))
    return Recipe(factors, tuple(pairs), tuple(blocks))
