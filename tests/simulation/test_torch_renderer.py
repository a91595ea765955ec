"""The batched renderer: the NumPy images, and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import nanotube
from ase.cluster import Octahedron

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation import GaussianPSF, JarvisPSF, simulate_stem
from atomvision_hub.simulation.torch import CrystalBatch, StemRenderer


@pytest.fixture
def crystals(mos2: Atoms, graphene: Atoms) -> list[Atoms]:
    """A layer with overlapping atoms, one in a skewed left-handed cell, a wire and a particle."""
    skewed = graphene.copy()
    skewed.set_cell([graphene.cell[1] + 5 * graphene.cell[0], graphene.cell[0], graphene.cell[2]])
    tube = nanotube(5, 0, length=1)
    tube.rotate(90, "y", rotate_cell=True)
    gold = Octahedron("Au", 4)
    gold.pbc = False
    return [mos2, skewed, tube, gold]


@pytest.mark.parametrize("psf", ["gaussian", GaussianPSF([0.3, 0.8], [0.7, 0.3])])
@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batches_equal_single_images(
    crystals: list[Atoms], psf: str | GaussianPSF, join: bool, dtype: torch.dtype
) -> None:
    rotation = torch.tensor([0.0, 33.0, -70.0, 190.0])
    shift = torch.tensor([[0.0, 0.0], [1.5, -0.25], [-3.0, 2.0], [0.5, 30.0]])
    pixel_size = torch.tensor([[0.1, 0.1], [0.13, 0.08], [0.2, 0.2], [0.05, 0.3]])
    batch = CrystalBatch.from_atoms(crystals, join_overlapping=join)
    batch = CrystalBatch(
        batch.positions.to(dtype), batch.numbers, batch.occupancies.to(dtype), batch.translations.to(dtype)
    )
    renderer = StemRenderer((96, 130), psf=psf)
    pose = {"rotation": rotation, "shift": shift, "pixel_size": pixel_size}
    images, masks = renderer(batch, **pose), renderer.mask(batch, **pose)
    assert images.shape == masks.shape == (4, 96, 130)
    assert images.dtype == torch.float32
    for i, atoms in enumerate(crystals):
        frame = simulate_stem(
            atoms,
            shape=(96, 130),
            psf=psf,
            rotation=float(rotation[i]),
            shift=shift[i].tolist(),
            pixel_size=pixel_size[i].double().numpy(),
        )
        assert np.abs(images[i].numpy() - frame.image).max() <= 1e-5 * max(frame.image.max(), 1e-6)
        different = masks[i].numpy() != frame.mask
        assert different.sum() <= (0 if dtype == torch.float64 else 3)


def test_one_crystal_in_many_poses(mos2: Atoms) -> None:
    one = CrystalBatch.from_atoms([mos2], join_overlapping=True)
    assert one.numbers.shape == (1, 2)
    rotation = torch.linspace(0, 360, 9)
    images = StemRenderer((64, 64))(one, rotation=rotation)
    assert images.shape == (9, 64, 64)
    same = StemRenderer((64, 64))(one, rotation=float(rotation[5]))
    torch.testing.assert_close(images[5:6], same)
    expected = simulate_stem(mos2, shape=(64, 64), rotation=float(rotation[5])).image
    np.testing.assert_allclose(same[0].numpy(), expected, atol=1e-5 * expected.max())


def test_gradients_of_everything_continuous(graphene: Atoms) -> None:
    batch = CrystalBatch.from_atoms([graphene])
    inputs = [
        batch.positions + 0.1,
        batch.occupancies.clone(),
        batch.translations.clone(),
        torch.tensor([12.0], dtype=torch.float64),
        torch.tensor([[0.2, -0.1]], dtype=torch.float64),
        torch.tensor([[0.2, 0.25]], dtype=torch.float64),
    ]
    renderer = StemRenderer((12, 10), sigma=0.6)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 10)))

    def loss(*values: torch.Tensor) -> torch.Tensor:
        positions, occupancies, translations, rotation, shift, pixel_size = values
        crystal = CrystalBatch(positions, batch.numbers, occupancies, translations)
        image = renderer(crystal, rotation=rotation, shift=shift, pixel_size=pixel_size)
        return (image[0].double() * weights).sum()

    for value in inputs:
        value.requires_grad_(True)
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    # Central differences; pixels are float32, so steps are not small.
    with torch.no_grad():
        for i, gradient in enumerate(gradients):
            numeric = torch.zeros_like(inputs[i])
            step = 1.0 if i == 3 else 1e-2
            for index in np.ndindex(*inputs[i].shape):
                up, down = [v.clone() for v in inputs], [v.clone() for v in inputs]
                up[i][index] += step / 20
                down[i][index] -= step / 20
                numeric[index] = (loss(*up) - loss(*down)) / (step / 10)
            scale = float(gradient.abs().max())
            assert scale > 0
            torch.testing.assert_close(gradient, numeric, rtol=0, atol=5e-3 * scale)


def test_positions_are_recovered_by_descent() -> None:
    truth = Atoms("CO", positions=[(-0.6, 0.2, 0), (0.7, -0.1, 0)])
    batch = CrystalBatch.from_atoms([truth])
    renderer = StemRenderer((40, 40), sigma=0.4)
    target = renderer(batch)
    positions = (batch.positions + torch.tensor([[0.1, -0.08]])).requires_grad_(True)
    optimiser = torch.optim.Adam([positions], lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        moved = CrystalBatch(positions, batch.numbers, batch.occupancies, batch.translations)
        (renderer(moved) - target).square().mean().backward()
        optimiser.step()
    assert float((positions.detach() - batch.positions).abs().max()) < 5e-3


def test_views_without_atoms() -> None:
    renderer = StemRenderer((8, 8))
    lone = CrystalBatch.from_atoms([Atoms("C")])
    assert not renderer(lone, shift=(100.0, 0.0)).any()
    assert not renderer.mask(lone, shift=(100.0, 0.0)).any()


def test_arguments_that_make_no_sense(graphene: Atoms) -> None:
    batch = CrystalBatch.from_atoms([graphene, graphene])
    with pytest.raises(UsageError, match="sums of Gaussians, not psf jarvis"):
        StemRenderer(psf=JarvisPSF())
    with pytest.raises(UsageError, match="shape must be"):
        StemRenderer((0, 5))
    with pytest.raises(UsageError, match="mask_radius must be positive"):
        StemRenderer(mask_radius=0)
    with pytest.raises(UsageError, match="pixel_size must be positive"):
        StemRenderer()(batch, pixel_size=-1.0)
    with pytest.raises(UsageError, match=r"of one number, or single, not \[2, 3\]"):
        StemRenderer()(batch, rotation=torch.zeros(3))
    with pytest.raises(UsageError, match="at least one crystal"):
        CrystalBatch.from_atoms([])
