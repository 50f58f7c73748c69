"""Estimates the memory of a training on one GPU, by part, and chooses what saves memory where it is short.

Weights, gradients and optimizer states are counted exactly. Activations are those that transformers' decoders of
gated MLPs save for the backward pass under bfloat16 autocast, with attention that keeps no matrix of scores (SDPA): the
coefficients are those that `torch.autograd.graph.saved_tensors_hooks` counts, as the tests do; compare Korthikanti et
al., "Reducing Activation Recomputation in Large Transformer Models" (2022), section 4. Imports the standard library
only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 2**30
_RESERVE_GIB = 1.5
"""CUDA's context, the libraries' workspaces, and what the allocator cannot use."""
_SHARE = 0.95
"""Share of the free memory that a training may fill by its estimate."""
_STATES = 16
"""Bytes of a trained weight in float32: weight, gradient, and Adam's two moments."""
_QUANTIZED = 0.516
"""Bytes of a weight in 4 bits, with its share of the scales (Dettmers et al., "QLoRA", 2023, section 3)."""


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a model, and of the adapter on it."""

    parameters: int
    quantizable: int
    """Weights of linear layers other than the output layer: those that 4 bits apply to."""
    adapter: int
    """Weights of the adapter."""
    adapted_inputs: int
    """Input width of the adapted layers, added over all of them."""
    adapted_layers: int
    layers: int
    hidden: int
    intermediate: int
    """Width of the MLP; of experts, of all that a token uses together."""
    queries: int
    """Heads times their width."""
    keys: int
    """Heads of keys times their width."""
    vocabulary: int


@dataclass(frozen=True)
class TrainingSettings:
    """The settings on which memory depends."""

    rows: int
    """Rows of a batch on the device."""
    tokens: int
    """Tokens of the longest row."""
    rank: int
    has_dropout: bool
    use_lora: bool
    has_bf16: bool
    four_bit: bool = False
    checkpointing: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one device, by part."""

    weights: float
    """Weights that are not trained."""
    trained: float
    """Trained weights, with gradients and optimizer states."""
    activations: float
    logits: float
    reserve: float = _RESERVE_GIB * GIB

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return self.weights + self.trained + self.activations + self.logits + self.reserve

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "trained weights and optimizer": self.trained,
            "activations": self.activations,
            "logits": self.logits,
            "reserve": self.reserve,
        }
        return " + ".join(f"{size / GIB:.1f} {name}" for name, size in parts.items())


@dataclass(frozen=True)
class Choice:
    """The settings that were chosen, with their estimate and the reason."""

    settings: TrainingSettings
    estimate: MemoryEstimate
    reason: str
    fits: bool


def estimate_memory(size: ModelSize, settings: TrainingSettings) -> MemoryEstimate:
    """Return the memory of one optimizer step."""
    if settings.use_lora:
        width = 2 if settings.has_bf16 else 4
        quantized = size.quantizable if settings.four_bit else 0
        weights = quantized * _QUANTIZED + (size.parameters - quantized) * width
        # Under autocast each trained weight is also cast once a pass.
        trained = size.adapter * (_STATES + (2 if settings.has_bf16 else 0))
    else:
        weights, trained = 0.0, size.parameters * (_STATES + (2 if settings.has_bf16 else 0))
    tokens = settings.rows * settings.tokens
    scale = 1 if settings.has_bf16 else 2
    layer = _layer_bytes(size, settings) * scale
    # Checkpointing keeps the input of each layer, and all of one layer while it is computed again.
    kept = 2 * size.hidden * scale * size.layers + layer if settings.checkpointing else layer * size.layers
    # bfloat16 logits, their float32 copy and log-softmax, then gradients of both: at most 12 bytes at a time.
    return MemoryEstimate(weights, trained, tokens * kept, tokens * 12 * size.vocabulary)


def _layer_bytes(size: ModelSize, settings: TrainingSettings) -> float:
    """Return the bytes that one layer saves for each token, in bfloat16."""
    attention_and_mlp = 8 * size.intermediate + 4.25 * size.queries + 4 * size.keys
    if not settings.use_lora:
        return 26 * size.hidden + attention_and_mlp
    saved = 20 * size.hidden + attention_and_mlp + 2 * settings.rank * size.adapted_layers / size.layers
    # Each adapter drops inputs by itself: it saves them, and the mask.
    return saved + (4 * size.adapted_inputs / size.layers if settings.has_dropout else 0)


def choose_savings(
    size: ModelSize,
    settings: TrainingSettings,
    available: float,
    *,
    checkpointing: bool | None = None,
    four_bit: bool | None = None,
    can_quantize: bool = False,
) -> Choice:
    """Return the fastest settings that fit into memory: plain, with checkpointing, then also in 4 bits.

    Where none fits, those that need least.

    Args:
        size: The model.
        settings: The settings without savings.
        available: Free bytes of the device.
        checkpointing: True to force it, False to forbid it, None to use it where it is needed.
        four_bit: The same for 4 bits.
        can_quantize: Whether 4 bits may be chosen: an adapter is trained, on a GPU, with bitsandbytes.
    """
    candidates = [
        replace(settings, checkpointing=recomputed, four_bit=quantized)
        for quantized in ([False, True] if four_bit is None and can_quantize else [bool(four_bit)])
        for recomputed in ([False, True] if checkpointing is None else [checkpointing])
    ]
    estimates = [estimate_memory(size, candidate) for candidate in candidates]
    for number, (candidate, estimate) in enumerate(zip(candidates, estimates, strict=True)):
        if estimate.total <= available * _SHARE:
            return Choice(candidate, estimate, _reason(candidate, estimates[0], number), fits=True)
    last = len(candidates) - 1
    return Choice(candidates[last], estimates[last], _reason(candidates[last], estimates[0], last), fits=False)


def _reason(settings: TrainingSettings, plain: MemoryEstimate, number: int) -> str:
    """Return the savings that are used, and why.

    Args:
        settings: The settings that were chosen.
        plain: Estimate of the first settings.
        number: Index of the chosen settings.
    """
    names = [
        name
        for name, is_used in (
            ("gradient checkpointing", settings.checkpointing),
            ("4-bit weights", settings.four_bit),
        )
        if is_used
    ]
    savings = f"with {' and '.join(names)}" if names else "without gradient checkpointing and 4-bit weights"
    return savings if number == 0 else f"{savings}, since {plain.total / GIB:.1f} GiB would be needed otherwise"
