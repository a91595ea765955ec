"""Checkpoints: everything comes back, nothing is pickled, damage is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atomvision_hub.engine.checkpoint import Checkpoints
from atomvision_hub.errors import AtomVisionError


def trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 * (seed + 1))
    model(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_state_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    averaged, _ = trained(1)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert not checkpoints.exists()
    state, optimizers = {"model": model, "averaged": averaged}, {"model": optimizer}
    checkpoints.save(3, {"best_score": 0.5}, state, optimizers, {"best": model})
    best = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    checkpoints.save(4, {"best_score": 0.5}, state, optimizers, None)

    other, other_optimizer = trained(2)
    other_averaged, _ = trained(3)
    others = {"model": other, "averaged": other_averaged}
    assert checkpoints.load(others, {"model": other_optimizer}) == (4, {"best_score": 0.5})
    for first, second in ((model, other), (averaged, other_averaged)):
        for name, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[name])
    for (_, one), (_, two) in zip(optimizer.state.items(), other_optimizer.state.items(), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert other_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    checkpoints.load_best({"best": other})
    assert all(torch.equal(other.state_dict()[name], best[name]) for name in best)
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["best-0003.safetensors", "last-0004.safetensors", "state.json"]


def test_damage_is_one_line(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {}, {"model": model}, {"model": optimizer}, {"best": model})
    last = tmp_path / "last-0001.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(AtomVisionError, match=r"last-0001\.safetensors is damaged .*start again"):
        checkpoints.load({"model": model}, {"model": optimizer})
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(AtomVisionError, match=r"state\.json is damaged"):
        checkpoints.load({"model": model}, {"model": optimizer})
