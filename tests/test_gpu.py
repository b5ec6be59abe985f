"""What holds on a CPU holds on a GPU: predictions, dynamics, trainings. Skipped where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from potential import EquivCalculator, Statistics, build, from_atoms, load, predict
from potential.networks import NETWORKS
from train.cli import main
from train.precision import tf32

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "data/acac/train_300K.xyz.xz")
DIALS = ("channels=8", "message_channels=8", "vector_channels=4", "cutoff=4.0")
SMALL = [word for dial in DIALS for word in ("--set", f"model.{dial}")]
FACTS = Statistics(("H", "C", "O", "Si"), (-13.6, -1029.3, -2041.8, -7000.0), scale=0.3, mean_neighbors=20.0)


def silicon(n: int = 2) -> Atoms:
    atoms = bulk("Si", cubic=True) * (n, n, n)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_say_the_same(network: str) -> None:
    potential = build({"network": network, "cutoff": 4.0}, FACTS, dtype=torch.float64).requires_grad_(False)
    graph = from_atoms(silicon(), 4.0)
    one = predict(potential, graph)
    other = predict(potential.to("cuda"), graph.to("cuda"))
    for name in ("node_energy", "forces", "virial"):
        expected = getattr(one, name)
        torch.testing.assert_close(
            getattr(other, name).cpu(), expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max())
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 3e-5)])
@pytest.mark.parametrize("chunk", [100, None])
def test_dynamics_take_the_same_way(dtype: str, tolerance: float, chunk: int | None) -> None:
    """In chunks, or recorded."""
    potential = build({"channels": 16, "message_channels": 8, "vector_channels": 4, "cutoff": 4.0}, FACTS)
    ends = []
    for device in ("cpu", "cuda"):
        atoms = silicon(3)
        atoms.calc = EquivCalculator(potential, device, dtype, skin=0.5, chunk=chunk)
        VelocityVerlet(atoms, units.fs).run(20)
        assert atoms.calc.n_searches < 20
        ends.append((atoms.positions.copy(), atoms.get_potential_energy() / len(atoms), atoms.get_stress()))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_a_recording_is_what_small_structures_get() -> None:
    calc = EquivCalculator(build({"cutoff": 4.0}, FACTS), "cuda", skin=0.5)
    atoms = silicon()
    atoms.calc = calc
    atoms.get_forces()
    assert calc._recorder is not None
    assert calc._recorder.recording is not None
    assert calc._recorder.recording.kernels is not None


def test_a_training_goes_on_and_its_model_serves_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better than it began; resumed; float32 whatever `tf32` is, since a GPU's switch is put back."""
    monkeypatch.chdir(tmp_path)
    common = [TRAIN, "--device", "cuda", "--output", "run", *SMALL, "--set", "fit.tf32=true"]
    assert main([*common, "--epochs", "3"]) == 0
    assert main(["--resume", "--output", "run", "--epochs", "5"]) == 0
    lines = [json.loads(text) for text in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["epoch"] == 5
    assert lines[-1]["valid_forces_rmse"] < 0.5 * lines[0]["train_forces_rmse"]
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"
    summary = json.loads(Path("run/summary.json").read_text())
    assert "NVIDIA" in summary["resources"]["machine"]
    assert load("run/model.safetensors").species_of.device.type == "cpu"


def test_what_does_not_fit_is_taken_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(600 * 2**20 / total)
    try:
        large = [TRAIN, "--device", "cuda", "--epochs", "1", "--preset", "small"]
        large += ["--set", "fit.batch_size=400"]
        assert main([*large, "--output", "stop"]) == 1
        said = capfd.readouterr()
        assert "fit.batch_size=" in said.out + said.err
        assert main([*large, "--output", "shrink", "--on-oom", "shrink"]) == 0
        assert "structures at a time" in capfd.readouterr().out
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_tf32_is_less_precise_and_is_put_back() -> None:
    x = torch.randn(256, 256, device="cuda")
    exact = x.double() @ x.double()

    def error() -> float:
        return float((x @ x - exact).norm() / exact.norm())

    before = error()
    with tf32(True):
        assert 1e-5 < error() < 1e-2
    assert before == error() < 1e-6


def test_one_process_of_torchrun_uses_nccl(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    command = "import sys; from train.cli import main; sys.exit(main())"
    script = tmp_path / "train_here.py"
    script.write_text(command)
    options = [TRAIN, "--device", "cuda", "--epochs", "1", "--output", str(tmp_path / "run"), *SMALL]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [*words, str(script), *options], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run/model.safetensors").exists()
