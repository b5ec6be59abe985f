"""Optimizers by name: found, given their options, and refused where they cannot be resumed exactly."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from train.cli import main
from train.config import Fit
from train.optimizers import find, make_optimizer, of_torch, parse_options, require_exact
from train.soap import Soap


def made(name: str, *options: str, **settings: Any) -> torch.optim.Optimizer:
    weights = [torch.ones(3, 4, requires_grad=True), torch.ones(2, requires_grad=True)]
    return make_optimizer(weights, Fit(optimizer=name, optimizer_options=options, **settings))


def test_every_optimizer_of_torch_is_exact_or_says_why_not() -> None:
    refused = []
    for name in of_torch():
        try:
            assert made(name).param_groups[0]["lr"] == pytest.approx(Fit().learning_rate)
        except ValueError as error:
            refused.append((name, str(error)))
    assert [name for name, _ in refused] == ["muon"]  # wants matrices only
    assert "2D" in refused[0][1]


def test_names_options_and_settings_reach_the_optimizer() -> None:
    group = made("SGD", "momentum=0.9", "nesterov=true", learning_rate=0.1, weight_decay=0.01).param_groups[0]
    assert (group["momentum"], group["nesterov"], group["lr"], group["weight_decay"]) == (
        0.9,
        True,
        0.1,
        0.01,
    )
    soap = made("soap", "betas=[0.9, 0.8]", "every=5")
    assert isinstance(soap, Soap)
    assert (soap.defaults["betas"], soap.defaults["every"]) == ((0.9, 0.8), 5)
    assert type(made("adamw")) is torch.optim.AdamW
    assert parse_options(["a = 1", "b='x'"]) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("adamv",), "did you mean 'adam"),
        (("sgd", "momentun=0.9"), "did you mean 'momentum'"),
        (("sgd", "momentum"), "expected name=value"),
        (("sgd", "momentum=big"), "expected name=value"),
        (("sgd", "lr=0.1"), "set fit.learning_rate instead"),
        (("sgd", "momentum=-1"), "momentum"),
        (("soap", "evry=5"), "did you mean 'every'"),
        (("schedulefreeadamw",), "fit.ema"),
        (("lbfgs",), "needs gradients only"),
        (("sophiah",), "needs gradients only|cannot be used"),
    ],
)
def test_what_cannot_be_is_explained(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(*arguments)


def test_optimizers_of_the_extra() -> None:
    lion = made("Lion", "betas=[0.9, 0.99]", weight_decay=0.1)
    assert type(lion).__name__ == "Lion"
    assert lion.param_groups[0]["betas"] == (0.9, 0.99)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'equiv-potential\[optimizers\]'"):
        find("lion")
    assert find("adam") is torch.optim.Adam


class Forgetful(torch.optim.SGD):
    """Keeps a number outside its state."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        self.param_groups[0]["lr"] = 0.01 / self.count
        return super().step(closure)


def test_an_optimizer_that_forgets_is_refused() -> None:
    with pytest.raises(ValueError, match="does not go on exactly"):
        require_exact(Forgetful, Fit(optimizer="forgetful"), {})


def test_a_wrong_optimizer_is_refused_before_any_file_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["there-is-no-such-file.xyz", "--set", "fit.optimizer=sdg"]) == 1
    assert capsys.readouterr().err.startswith(
        "potential-train: [fit] optimizer is 'sdg'; did you mean 'sgd'?"
    )
