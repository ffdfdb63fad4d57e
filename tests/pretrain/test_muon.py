from __future__ import annotations

import torch

from pipeline.pretrain.muon import Muon, orthogonal


def test_matrices_become_nearly_orthogonal() -> None:
    torch.manual_seed(0)
    for rows, columns in ((32, 32), (16, 64), (64, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(3, rows, columns)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_it_steps_as_torchs_own_does_but_for_the_rounding_of_bfloat16() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(size)) for size in ((24, 48), (48, 24), (24, 24))]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in ours]
    before = [weight.detach().clone() for weight in ours]
    optimizers = Muon(ours, 0.02, 0.95, 0.01), torch.optim.Muon(theirs, 0.02, 0.01, 0.95)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert (one - other).norm() < 0.03 * (one - start).norm()


def test_a_weight_without_a_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    Muon([weight], 0.1, weight_decay=0.5).step()
    assert torch.equal(weight, torch.ones(4, 4))
