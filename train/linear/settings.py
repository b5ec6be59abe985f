"""[linear]: how linear models are fitted. Loads without torch."""

from __future__ import annotations

from dataclasses import dataclass

from train.option import option


@dataclass(frozen=True)
class Linear:
    """[linear]: least squares of linear models (network ace). Weights are those of [fit]: try energy_weight=20."""

    ridge: str = option(
        "evidence",
        "how strong the ridge is: by the evidence, by 5-fold cross-validation on blocks of the training frames, or one "
        "for each coefficient by its relevance",
        choices=("evidence", "validation", "relevance"),
    )
    smoothness: float = option(
        2.0, "coefficients may be as large as the inverse of this power of their degree", bounds="[0, 20]"
    )
