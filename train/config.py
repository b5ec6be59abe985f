"""The settings of a run: plain dataclasses. What each means is said where it stands (`train/option.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from train.linear.settings import Linear
from train.option import check_values, option, suggest
from train.target import Target

PRESETS = ("tiny", "small", "medium", "large")  # what each makes of the dials: potential.model.presets
NETWORK = "equivariant"  # where no other is asked for


@dataclass(frozen=True)
class Data:
    """[data]: which files, and where their labels are."""

    train: tuple[str, ...] = option(
        (), "files with the training frames; may hold patterns such as runs/*.xyz"
    )
    valid: tuple[str, ...] = option((), "files with validation frames; empty: split off the training frames")
    test: tuple[str, ...] = option((), "files to report errors on, one set for each entry")
    isolated_atoms: tuple[str, ...] = option((), "files with isolated atoms, for E0")
    replay: tuple[str, ...] = option(
        (),
        "files with frames that the starting model was trained on, mixed in so that they are not forgotten; where "
        "valid is given, some are kept out as the set replay",
    )
    replay_ratio: float = option(
        10.0, "at most so many of them, chosen at random, for each new frame", bounds="(0, inf)"
    )
    replay_weight: float = option(
        1.0,
        "factor of the squared errors of each of them, where they train; 0.1: ten old frames count as much as one new",
        bounds="(0, inf)",
    )
    valid_fraction: float = option(0.1, "part of the training frames kept for validation", bounds="(0, 0.9]")
    folds: int = option(
        0,
        "instead of valid_fraction: parts for cross-validation, of which `fold` validates",
        bounds="[0, inf)",
    )
    fold: int = option(0, "which of the folds validates, from 0 to folds - 1", bounds="[0, inf)")
    split: str = option(
        "random",
        "random, or blocks: whole stretches of each trajectory (file and config_type) validate",
        choices=("random", "blocks"),
    )
    group_key: str = option("", "entry of info that names groups, which are never torn apart")
    energy_key: str = option("", "name of the energy in the file; empty: find it; none: leave it out")
    forces_key: str = option("", "name of the forces in the file; empty: find it; none: leave it out")
    stress_key: str = option("", "name of the stress in the file; empty: find it; none: leave it out")
    energy_unit: str = option(
        "",
        "unit of energies in the files; empty: as the file says, for ASE's formats eV",
        choices=("", "eV", "meV", "Ha", "Ry", "kcal/mol", "kJ/mol"),
    )
    length_unit: str = option(
        "",
        "unit of lengths in the files; empty: as the file says, for ASE's formats Ang",
        choices=("", "Ang", "Bohr"),
    )
    forces_unit: str = option(
        "", "unit of forces in the files, such as Ha/Bohr; empty: energy_unit / length_unit"
    )
    stress_unit: str = option(
        "", "unit of stress in the files, such as GPa, kbar; empty: energy_unit / length_unit^3"
    )
    allow_missing: bool = option(False, "accept frames without a label that other frames have")

    def __post_init__(self) -> None:
        for name in ("train", "valid", "test", "isolated_atoms", "replay"):  # one name is a list of one
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, (value,) if value else ())


@dataclass(frozen=True)
class Weights:
    """[weights.<config_type>]: factors of that type's squared errors; 0: the label is not used."""

    energy: float = option(1.0, "factor of the squared error of the energy per atom", bounds="[0, inf)")
    forces: float = option(1.0, "factor of the squared errors of the forces", bounds="[0, inf)")
    stress: float = option(1.0, "factor of the squared errors of the virial per atom", bounds="[0, inf)")


@dataclass(frozen=True)
class Fit:
    """[fit]: how to train. Weights multiply mean squared errors in units of the force RMS."""

    epochs: int = option(
        0, "passes over the training frames; 0: from `minutes`, or chosen from the data", bounds="[0, inf)"
    )
    minutes: float = option(0.0, "time of training by `clock`; 0: from `epochs`", "min", bounds="[0, inf)")
    clock: str = option(
        "wall",
        "what the minutes are: wall time, or CPU time of the process, which other work on the machine does not shorten",
        choices=("wall", "cpu"),
    )
    batch_size: int = option(
        0, "structures per step; 0: from the data, or as batch_atoms and batch_edges allow", bounds="[0, inf)"
    )
    batch_atoms: int = option(
        0, "most atoms per step, structures of similar size together; 0: no limit", "atoms", bounds="[0, inf)"
    )
    batch_edges: int = option(
        0, "most edges (directed pairs within the cutoff) per step; 0: no limit", "edges", bounds="[0, inf)"
    )
    workers: int = option(
        -1,
        "processes that read a prepared set and find its neighbors; -1: one, for a GPU up to 8, where cores are left; "
        "results do not depend on it",
        bounds="[-1, inf)",
    )
    optimizer: str = option(
        "soap",
        "how weights follow from gradients: soap, or by its name one of torch.optim or of pytorch-optimizer",
    )
    optimizer_options: tuple[str, ...] = option(
        (), "more settings of the optimizer, each as name=value, such as momentum=0.9 or betas=[0.9, 0.99]"
    )
    learning_rate: float = option(0.002, "step size after warm-up and before decay", bounds="(0, 1000]")
    weight_decay: float = option(
        0.0, "pull of the weights to zero, times the learning rate, at each step", bounds="[0, 1000]"
    )
    warmup_steps: int = option(
        100,
        "over these the learning rate rises; at most one epoch, so that it does not depend on the length of the run",
        "steps",
        bounds="[0, inf)",
    )
    schedule: str = option(
        "linear",
        "how the learning rate ends: falls over the part `decay` of the run, stays constant, or falls where the "
        "validation error does not",
        choices=("linear", "cosine", "exponential", "constant", "plateau"),
    )
    decay: float = option(
        1.0, "last part of the run, over which the learning rate falls; 1: all of it", bounds="(0, 1]"
    )
    final_rate: float = option(
        0.0, "learning rate at the end of the fall, as part of learning_rate", bounds="[0, 1]"
    )
    plateau_factor: float = option(0.5, "of the learning rate, on each plateau", bounds="(0, 1)")
    plateau_patience: int = option(
        25, "a plateau: no better validation error for more than this", "epochs", bounds="[1, inf)"
    )
    loss: str = option(
        "mse",
        "penalty of an error, for forces of each component: squared, absolute, or linear beyond huber_delta",
        choices=("mse", "mae", "huber"),
    )
    huber_delta: float = option(
        0.01, "error at which huber becomes linear", "force RMS of the data", bounds="(0, inf)"
    )
    energy_weight: float = option(1.0, "of the energy per atom", bounds="[0, inf)")
    forces_weight: float = option(1.0, "of the forces", bounds="[0, inf)")
    stress_weight: float = option(0.1, "of the virial per atom", bounds="[0, inf)")
    denoise_weight: float = option(
        0.0,
        "of the squared error of predicted noise of moved atoms (noisy nodes); 0: none",
        bounds="[0, inf)",
    )
    denoise_sigma: float = option(
        0.05, "standard deviation of the noise of each coordinate", "Å", bounds="(0, 1]"
    )
    stage_two: float = option(
        0.0, "last part of the run with the weights stage_two_...; 0: no second stage", bounds="[0, 1)"
    )
    stage_two_energy_weight: float = option(10.0, "energy_weight of the second stage", bounds="[0, inf)")
    stage_two_forces_weight: float = option(1.0, "forces_weight of the second stage", bounds="[0, inf)")
    stage_two_stress_weight: float = option(0.1, "stress_weight of the second stage", bounds="[0, inf)")
    stage_two_rate: float = option(1.0, "factor of the learning rate in the second stage", bounds="(0, 1000]")
    clip: float = option(10.0, "largest norm of the gradient; a longer one is shortened", bounds="(0, inf)")
    ema: float = option(0.99, "decay of the moving average of the weights", bounds="(0, 1]")
    max_skipped: int = option(
        5,
        "such steps in a row, without a finite loss or gradient, stop the run; fewer are skipped",
        bounds="[1, inf)",
    )
    on_oom: str = option(
        "stop",
        "where a batch does not fit into memory: stop, or shrink: take it in parts",
        choices=("stop", "shrink"),
    )
    patience: int = option(
        200,
        "without a better validation error, then the run ends or stage two begins",
        "epochs",
        bounds="[0, inf)",
    )
    seed: int = option(0, "of weights, split and shuffling", bounds="[0, inf)")
    start: str = option("", "saved potential to start from; empty: random weights")
    refit_e0: str = option(
        "auto",
        "whether E0 of a starting model moves to the new energies; auto: where it is off by more than 0.05 eV/atom",
        choices=("auto", "always", "never"),
    )
    freeze: tuple[str, ...] = option((), "beginnings of the names of weights that stay, such as layers.0")
    lora_rank: int = option(
        0,
        "rank of updates that are trained and added to the weights of a starting model; 0: the weights train",
        bounds="[0, inf)",
    )
    drop_targets: tuple[str, ...] = option(
        (), "targets of a starting model that the new one need not predict; what it predicts otherwise stays"
    )
    device: str = option("cpu", "cpu, cuda, or one of several such as cuda:1")
    dtype: str = option(
        "float32",
        "of the network, from lengths of edges to energies of atoms; edge vectors, E0 and sums over atoms and of "
        "forces and virials are float64 in any case, so mixed is another name of float32",
        choices=("float32", "float64", "mixed"),
    )
    record: bool = option(
        True,
        "a GPU records the kernels of small batches and replays them, which saves launching them one by one",
    )
    tf32: bool = option(False, "training steps on a GPU multiply float32 matrices in TensorFloat-32")


@dataclass(frozen=True)
class Model:
    """[model]: the network. A dial that is not given follows from the preset, the cutoff from the data."""

    preset: str = option("small", "size of the network; not given: from the amount of data", choices=PRESETS)
    network: str = option(NETWORK, "architecture")


@dataclass(frozen=True)
class Log:
    """[log]: where metrics go beside metrics.csv and metrics.jsonl, which are always written."""

    to: tuple[str, ...] = option(
        (), "tools that get them: files in the run directory, and a server", choices=("tensorboard", "wandb")
    )
    project: str = option("equiv-potential", "project of wandb in which the run appears")
    offline: bool = option(False, "wandb: write to the run directory only; `wandb sync` sends it later")

    def __post_init__(self) -> None:
        if isinstance(self.to, str):
            object.__setattr__(self, "to", (self.to,) if self.to else ())


@dataclass(frozen=True)
class Config:
    data: Data = field(default_factory=Data)
    model: Mapping[str, Any] = field(default_factory=dict)  # of Model, and dials of the network
    fit: Fit = field(default_factory=Fit)
    weights: Mapping[str, Weights] = field(default_factory=dict)  # of each config_type that has its own
    e0: Mapping[str, float] = field(default_factory=dict)  # symbol -> eV of the isolated atom, where given
    targets: Mapping[str, Target] = field(default_factory=dict)  # beside the energy, by name
    log: Log = field(default_factory=Log)
    linear: Linear = field(default_factory=Linear)


# Every section, and those of them whose settings are the fields of a dataclass.
SECTIONS = tuple(f.name for f in fields(Config))
# What is chosen otherwise for a run that starts from a saved potential, where it is not given.
TUNING: dict[str, Any] = {"learning_rate": 0.001}
FLAT: dict[str, Any] = {f.name: f.default_factory for f in fields(Config) if is_dataclass(f.default_factory)}


def check(config: Config) -> None:
    """Refuse values that cannot be, or that cannot work together.

    Raises:
        ValueError: naming the setting, what it was and what it may be.
    """
    fit = config.fit
    for name in FLAT:
        check_values(name, getattr(config, name))
    for kind, weights in config.weights.items():
        check_values(f"weights.{kind}", weights)
    for name, target in config.targets.items():
        check_values(f"targets.{name}", target)
    if fit.epochs and fit.minutes:
        raise ValueError(
            f"both epochs = {fit.epochs} and minutes = {fit.minutes} are given; give one, the other follows"
        )
    for stage in ("", "stage_two_")[: 1 + (fit.stage_two > 0)]:
        names = [f"{stage}{label}_weight" for label in ("energy", "forces", "stress")]
        others = any(getattr(target, f"{stage}weight") for target in config.targets.values())
        if not others and not any(getattr(fit, name) for name in names):
            raise ValueError(f"[fit] {', '.join(names)} are all 0: nothing to learn; raise one of them")
    preset = config.model.get("preset", "small")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(
            f"[model] preset is {preset!r}{suggest(str(preset), PRESETS)}; it must be one of {', '.join(PRESETS)}"
        )
