"""Devices of this machine: what runs on one of them runs on all."""

import torch

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
