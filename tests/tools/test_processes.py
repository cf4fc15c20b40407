"""Training in two processes."""

from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn

from tools.emoji.config import Schedule
from tools.emoji.training import Trainer, average_gradients, first_alone


def _together(rank: int, folder: Path) -> None:
    """One of two processes: train a single number towards what its own batches say."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    (module.weight.sum() * (rank + 1)).backward()
    average_gradients(module)
    assert module.weight.grad is not None
    gradient = module.weight.grad.clone()
    with first_alone():
        found = (folder / "once").exists()
        (folder / "once").touch()
    seen: list[Tensor] = []

    def loss(generator: torch.Generator) -> Tensor:
        seen.append(torch.randn(1, generator=generator))
        return (module.weight - seen[-1]).square().sum()

    schedule = Schedule(steps=3, batch=1, lr=0.1, warmup=1)
    Trainer(module, schedule, folder / f"run{rank}").fit(loss)
    weight = module.weight.detach()
    torch.save([gradient, torch.tensor(found), torch.cat(seen), weight], folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_processes_share_a_training_and_one_of_them_writes(tmp_path: Path):
    multiprocessing.spawn(_together, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first[0].item() == second[0].item() == 1.5
    assert (first[1].item(), second[1].item()) == (False, True)
    assert not set(first[2].tolist()) & set(second[2].tolist()), "each draws samples of its own"
    assert torch.equal(first[3], second[3])
    assert first[3].item() != 0
    assert (tmp_path / "run0" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run1").exists()
