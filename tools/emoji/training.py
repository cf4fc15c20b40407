"""One training loop for every part: resumable, seeded, averaged."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from tools.emoji.config import Schedule

CHECKPOINT_SECONDS = 120
LOG_STEPS = 25


def process_count() -> int:
    """Processes that train together, each on its share of every batch."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_rank() -> int:
    """This process's number; 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Process 0 runs the body by itself; the others wait, and then find its files."""
    if process_rank() > 0:
        distributed.barrier()
    yield
    if process_count() > 1 and process_rank() == 0:
        distributed.barrier()


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the processes."""
    if process_count() == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= process_count()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


class Trainer:
    """Trains `module` on `loss(step)` and keeps an exponential moving average of its weights.

    The loss receives a generator seeded from (schedule.seed, step, process) and must draw
    everything from it: a resumed run then repeats exactly what an uninterrupted one would have
    done. Each process draws `schedule.batch` samples of its own.
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        directory: Path,
        constrain: Callable[[], None] | None = None,
    ) -> None:
        self.module = module
        self.schedule = schedule
        self.directory = directory
        self.constrain = constrain or (lambda: None)
        self.average = copy.deepcopy(module).requires_grad_(False).eval()
        decayed = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": schedule.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98), foreach=True)
        self.step = 0
        self._resume()

    def fit(self, loss: Callable[[torch.Generator], Tensor]) -> nn.Module:
        """Run to `schedule.steps` and return the averaged module."""
        saved = started = time.monotonic()
        first, running = self.step, 0.0
        device = next(self.module.parameters()).device
        while self.step < self.schedule.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.rate(self.step)
            generator = torch.Generator().manual_seed(self._seed())
            with torch.autocast(device.type, torch.bfloat16):
                value = loss(generator)
            value.backward()
            average_gradients(self.module)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.schedule.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.constrain()
            self._update_average()
            self.step += 1
            running += value.item()
            if self.step % LOG_STEPS == 0 and process_rank() == 0:
                samples = (self.step - first) * self.schedule.batch * process_count()
                rate = samples / (time.monotonic() - started)
                done = f"{self.directory.name} step {self.step}/{self.schedule.steps}"
                print(f"{done} loss {running / LOG_STEPS:.4f} {rate:.0f} samples/s", flush=True)
                running = 0.0
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.average

    def _seed(self) -> int:
        """Another one for every step, and for every process."""
        return self.schedule.seed * 1_000_003 + self.step + process_rank() * 1_000_000_007

    def _update_average(self) -> None:
        weight = 1 - min(self.schedule.ema, (self.step + 1) / (self.step + 10))
        source = dict(self.module.named_parameters())
        averaged = dict(self.average.named_parameters())
        torch._foreach_lerp_(
            list(averaged.values()), [source[name].detach() for name in averaged], weight
        )

    def save(self) -> None:
        """Write weights, average and optimizer state; complete or absent."""
        if process_rank() > 0:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for prefix, module in (("module", self.module), ("average", self.average)):
            tensors |= {f"{prefix}.{k}": v.contiguous() for k, v in module.named_parameters()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                tensors[f"optimizer.{index}.{key}"] = state[key].contiguous()
        temporary = self.directory / "checkpoint.tmp"
        save_file(tensors, temporary, metadata={"step": json.dumps(self.step)})
        temporary.rename(self.directory / "checkpoint.safetensors")

    def _resume(self) -> None:
        path = self.directory / "checkpoint.safetensors"
        if not path.exists():
            return
        tensors = load_file(path)
        for prefix, module in (("module", self.module), ("average", self.average)):
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(tensors[f"{prefix}.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step = int(next(iter(state.values()))["step"]) if state else 0
