"""A decoder-only language model written out by hand: Llama's architecture, under Llama's names.

Tokens become vectors; each layer lets every position look back at the earlier ones (attention) and then works on
it alone (SwiGLU), adding what it finds to the vector; a last product with the embeddings scores the next token
(Touvron et al. 2023, arXiv:2302.13971).

As the names of the parameters and the config are Llama's, what is saved here opens as transformers'
``LlamaForCausalLM``, and so with the trainer, with PEFT and with the engine; and what they save opens here.

Sizes in the comments: B sequences, T new tokens, S tokens in all, E states (hidden_size), H heads of D = E / H,
K key-value heads, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import silu

from app.core.errors import Invalid

_STANDARD_DEVIATION = 0.02  # of fresh weights, as GPT-2's and Llama's
# Keys of a Llama config.json with the only value that this model computes.
_FIXED: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
}


def _wide(hidden_size: int) -> int:
    """8/3 of it, up to a multiple of 32: SwiGLU's three matrices then weigh what two of 4 × would."""
    return -(-hidden_size // 12) * 32


class TinyLLMConfig(BaseModel):
    """The sizes of a model. Fewer ``kv_heads`` than ``heads``: groups of heads share keys and values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int = Field(512, ge=1)
    layers: int = Field(6, ge=1)
    heads: int = Field(8, ge=1)
    kv_heads: int = Field(default_factory=lambda known: known["heads"], ge=1)
    intermediate_size: int = Field(default_factory=lambda known: _wide(known["hidden_size"]), ge=1)
    vocab_size: int = Field(4096, ge=1)
    context: int = Field(1024, ge=1)  # tokens that the model can look back at
    rope_theta: float = Field(10_000.0, gt=0)
    norm_eps: float = Field(1e-5, gt=0)
    tied: bool = True  # the head's matrix is the embeddings'

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be a multiple of 2 × heads: positions turn pairs of states")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        return self

    def as_llama(self) -> dict[str, Any]:
        """Under the names of transformers' LlamaConfig."""
        return {
            **_FIXED,
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied,
            "initializer_range": _STANDARD_DEVIATION,
            "dtype": "float32",
        }

    @classmethod
    def of_llama(cls, raw: Mapping[str, Any]) -> Self:
        """From a config.json that transformers wrote. ``Invalid`` for what this model does not compute."""
        rope = raw.get("rope_parameters") or {}
        heads = raw.get("num_attention_heads")
        other = [key for key, value in _FIXED.items() if raw.get(key, value) != value]
        other += ["rope_parameters"] if rope.get("rope_type", "default") != "default" else []
        other += ["head_dim"] if heads and raw.get("head_dim") not in (None, raw["hidden_size"] // heads) else []
        if other:
            raise Invalid(f"not a plain Llama model: config.json differs in {', '.join(other)}", code="not_llama")
        return cls(
            hidden_size=raw["hidden_size"],
            layers=raw["num_hidden_layers"],
            heads=raw["num_attention_heads"],
            kv_heads=raw["num_key_value_heads"],
            intermediate_size=raw["intermediate_size"],
            vocab_size=raw["vocab_size"],
            context=raw["max_position_embeddings"],
            rope_theta=rope.get("rope_theta")
            or raw.get("rope_theta", 10_000.0),  # the latter before transformers 5
            norm_eps=raw["rms_norm_eps"],
            tied=raw["tie_word_embeddings"],
        )


class KVCache:
    """Keys and values of the tokens read so far, by layer: a new token need compute only its own.

    ``room`` is how many tokens it can hold.
    """

    def __init__(self, config: TinyLLMConfig, room: int, batch: int = 1) -> None:
        shape = (config.layers, batch, config.kv_heads, room, config.head_size)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)
        self.length = 0

    def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep those of T new tokens (B, K, T, D); the answer are all of them (B, K, S, D)."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class RMSNorm(nn.Module):
    """States to a mean square of one, each then by its own weight (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def rotary_tables(config: TinyLLMConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine (context, D/2) of the angles by which each position turns each pair of states.

    The first pair turns by one radian a token, the last by about 1 / rope_theta: near and far are told apart at
    once (Su et al. 2021, arXiv:2104.09864).
    """
    pairs = torch.arange(0, config.head_size, 2) / config.head_size
    speeds = config.rope_theta**-pairs
    angles = torch.outer(torch.arange(config.context), speeds)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turn each pair of states of x (B, heads, T, D); a pair is one of the first half and one of the second.

    The product of a query and a key so turned depends on how far apart they stand, not on where.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Attention(nn.Module):
    """Causal attention; groups of heads may share keys and values (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, config: TinyLLMConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads = layer, config.heads, config.kv_heads
        self.head_size = config.head_size
        shared = config.kv_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, shared, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, shared, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, cache: KVCache | None
    ) -> torch.Tensor:
        """x (B, T, E) → (B, T, E). Tables are those of the T positions."""
        batch, new, _ = x.shape
        query = rotate(self._split(self.q_proj(x), self.heads), cosine, sine)
        key = rotate(self._split(self.k_proj(x), self.kv_heads), cosine, sine)
        value = self._split(self.v_proj(x), self.kv_heads)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        # (B, K, H/K, T, D): the heads of a group beside each other, over the one key and value that they share.
        grouped = query.view(batch, self.kv_heads, -1, new, self.head_size)
        scores = grouped @ key.unsqueeze(2).transpose(-1, -2) / self.head_size**0.5
        total = key.shape[2]
        visible = torch.ones(new, total, dtype=torch.bool).tril(total - new)
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        mixed = weights @ value.unsqueeze(2)
        out: torch.Tensor = self.o_proj(mixed.flatten(1, 2).transpose(1, 2).flatten(2))
        return out

    def _split(self, x: torch.Tensor, heads: int) -> torch.Tensor:
        """(B, T, heads · D) → (B, heads, T, D)."""
        return x.view(*x.shape[:2], heads, self.head_size).transpose(1, 2)


class SwiGLU(nn.Module):
    """Two wide products, one opening gates for the other, and one back (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: TinyLLMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, config: TinyLLMConfig, place: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config, place)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(
        self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, cache: KVCache | None
    ) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, cache)
        out: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    def __init__(self, config: TinyLLMConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, place) for place in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class TinyLLM(nn.Module):
    """Float32, on the CPU. Fresh weights are drawn from torch's generator: seed it first."""

    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, config: TinyLLMConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_STANDARD_DEVIATION)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        for name, table in zip(("cosine", "sine"), rotary_tables(config), strict=True):
            self.register_buffer(name, table, persistent=False)

    def forward(self, ids: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        """ids (B, T) → logits (B, T, V). With a cache, ids follow what is in it, and join it.

        ``ValueError`` beyond the context.
        """
        start = cache.length if cache is not None else 0
        end = start + ids.shape[1]
        if end > self.config.context:
            raise ValueError(f"{end} tokens are more than the model's context of {self.config.context}")
        cosine, sine = self.cosine[start:end], self.sine[start:end]
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cosine, sine, cache)
        if cache is not None:
            cache.length = end
        logits: torch.Tensor = self.lm_head(self.model.norm(x))
        return logits

    def save(self, folder: Path, **special_tokens: int | None) -> None:
        """config.json, generation_config.json and model.safetensors; ``special_tokens``: eos_token_id …"""
        weights = {name: weight.contiguous() for name, weight in self.state_dict().items()}
        if self.config.tied:
            del weights["lm_head.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        for name, content in (
            ("config.json", self.config.as_llama() | special_tokens),
            ("generation_config.json", special_tokens),
        ):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A folder that this class, transformers or the trainer wrote. ``Invalid`` if it holds no plain Llama."""
        model = cls(TinyLLMConfig.of_llama(json.loads((folder / "config.json").read_text("utf-8"))))
        weights: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= load_file(file)
        if model.config.tied:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        model.load_state_dict(weights)
        return model


@torch.inference_mode()
def generate(
    model: TinyLLM,
    prompt: Sequence[int],
    choose: Callable[[torch.Tensor], int],
    *,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    use_cache: bool = True,
) -> Iterator[int]:
    """The tokens after ``prompt`` as they are made, up to a stop (which is not among them) or the context's end.

    ``choose`` picks one by its logits (V). Without the cache all tokens are read anew for each: the same answer,
    slower and slower.
    """
    ids = list(prompt)
    end = min(len(ids) + max_tokens, model.config.context)
    cache = KVCache(model.config, end) if use_cache else None
    unread = prompt
    while len(ids) < end:
        logits = model(torch.tensor([unread if use_cache else ids]), cache)
        token = choose(logits[0, -1])
        if token in stop_ids:
            return
        yield token
        ids.append(token)
        unread = [token]
