"""Random pairs of distributions over tokens."""

import torch


def pairs(batch, size, spread=3.0, apart=1.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, size, generator=generator, dtype=torch.float64) * spread
    other = logits + torch.randn(batch, size, generator=generator, dtype=torch.float64) * apart
    return logits.log_softmax(-1).to(dtype), other.log_softmax(-1).to(dtype)


def numbers(*tensors):
    return tuple(item.double().numpy() for item in tensors)
