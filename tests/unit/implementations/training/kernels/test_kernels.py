"""Each kernel against the plain computation of transformers and PEFT: the same numbers, forward and backward."""

from functools import partial
from typing import Any, get_args

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config

from app.core.entities.training_config import KernelName, TrainingConfig
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import trainable
from app.implementations.training.batches import pack
from app.implementations.training.kernels import attention, head_loss
from app.implementations.training.kernels.frozen_product import FrozenProduct, lay_out
from app.implementations.training.kernels.install import install_kernels
from app.implementations.training.objectives.token_losses import token_losses

KERNELS = get_args(KernelName)
LAYER_KERNELS = sorted(set(KERNELS) - {"head"})
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "vocab_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": packed_attention.NAME,
}


def adapted(config_class: Any = LlamaConfig, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A LoRA model whose every part has something to say: B is not zero, biases and norms are not neutral."""
    lora = {name: options.pop(name) for name in list(options) if name in LoraConfig.__dataclass_fields__}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_class(**{**SIZES, **options})).requires_grad_(False)
    model = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": "all-linear", **lora}))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_B", "bias", "norm")):
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3
    for module in model.modules():
        if dtype == torch.float64 and type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(exact_norm, module)
    return model.to(dtype).train()


def exact_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """transformers computes it in float32, whatever the model's precision: no reference for float64."""
    return norm.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)


def numbers(model: Any, batch: Any, kernels: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses, and the gradients of a sum that weighs each of them differently."""
    losses = token_losses(model, batch, kernels)
    (losses * torch.linspace(0.5, 1.5, losses.numel(), dtype=losses.dtype)).sum().backward()
    found = {name: parameter.grad for name, parameter in trainable(model).items()}
    return losses.detach(), found


def assert_equal(model: Any, plain: Any, rows: Any, kernels: Any, tolerance: float) -> None:
    losses, gradients = numbers(model, pack(rows), kernels)
    expected, wanted = numbers(plain, pack(rows), ())
    assert losses.numel() == sum(row.supervised for row in rows)
    assert (losses - expected).norm() <= tolerance * expected.norm()
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert (gradient - wanted[name]).norm() <= tolerance * wanted[name].norm(), name


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config])
@pytest.mark.parametrize("kernels", [KERNELS, *((name,) for name in KERNELS)], ids="+".join)
def test_a_step_has_the_numbers_of_the_plain_one(make_rows, config_class, kernels, dtype):
    model, plain = adapted(config_class, dtype), adapted(config_class, dtype)
    used = install_kernels(model, kernels)

    # The LoRA kernel works inside the attention's and the MLP's.
    alone = () if kernels == ("lora",) else kernels
    assert used == sorted(set(alone) - {"head"})
    assert_equal(model, plain, make_rows(5), kernels, TOLERANCE[dtype])


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config])
def test_in_bf16_they_round_no_worse_than_the_plain_step(make_rows, config_class):
    """Both against the same bf16 weights in float32."""
    plain, fused = adapted(config_class, torch.bfloat16), adapted(config_class, torch.bfloat16)
    exact = adapted(config_class, torch.bfloat16).float()
    install_kernels(fused, KERNELS)
    batch = pack(make_rows(12))
    wanted_losses, wanted = numbers(exact, batch, ())

    def error(model: Any, kernels: Any) -> tuple[float, float]:
        losses, gradients = numbers(model, batch, kernels)
        apart = sum((gradient.float() - wanted[name]).square().sum() for name, gradient in gradients.items())
        return float((losses - wanted_losses).norm()), float(apart) ** 0.5

    for mine, theirs in zip(error(fused, KERNELS), error(plain, ()), strict=True):
        assert mine <= 1.5 * theirs


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config])
def test_nothing_is_held_twice(config_class):
    model = adapted(config_class)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    install_kernels(model, KERNELS)

    after = dict(model.named_parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in after.items())
    layer = model.get_base_model().model.layers[0].self_attn
    places = [getattr(layer, name).base_layer.weight.untyped_storage().data_ptr() for name in ("q_proj", "v_proj")]
    assert places[0] == places[1]


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"use_dora": True},
        {"lora_dropout": 0.5},
        {"rank_pattern": {"up_proj": 2}},
        {"use_rslora": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_adapters_have_the_same_numbers(make_rows, options):
    """Fused where the kernel fits, left to PEFT where not; with dropout, both draw from the same state."""
    model, plain = adapted(**options), adapted(**options)
    used = install_kernels(model, KERNELS)
    assert ("lora" in used) == (next(iter(options)) in ("rank_pattern", "use_rslora"))

    for one in (model, plain):
        one.train("lora_dropout" not in options)
    assert_equal(model, plain, make_rows(5), KERNELS, 1e-9)


def test_where_the_first_layers_input_needs_no_gradient_it_gets_none(make_rows):
    model = adapted(num_hidden_layers=1)
    install_kernels(model, KERNELS)
    token_losses(model, pack(make_rows(3)), KERNELS).sum().backward()

    assert model.get_base_model().model.embed_tokens.weight.grad is None


@pytest.mark.parametrize("config_class", [MistralConfig, Gemma2Config], ids=["another family", "soft caps"])
def test_models_that_they_do_not_fit_stay_as_they_are(config_class):
    assert install_kernels(adapted(config_class, torch.float32), KERNELS) == []


def test_a_trained_or_capped_head_is_left_to_the_model(make_rows):
    model = adapted()
    assert head_loss.fits(model.get_base_model())
    model.get_base_model().lm_head.weight.requires_grad_(True)
    assert not head_loss.fits(model.get_base_model())
    assert not head_loss.fits(adapted(Gemma2Config, torch.float32).get_base_model())


def test_a_trained_norm_is_left_to_autograd():
    model = adapted()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad_(True)
    assert install_kernels(model, KERNELS) == ["attention", "lora", "swiglu"]


@pytest.mark.parametrize(("rows_at_once", "block"), [(1, 1), (3, 2), (256, 3), (256, 100)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_heads_chunks_do_not_show(monkeypatch, dtype, rows_at_once, block):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 16, generator=generator, dtype=dtype)
    weight = torch.randn(50, 16, generator=generator, dtype=dtype)
    targets = torch.randint(0, 50, (7,), generator=generator)
    monkeypatch.setattr(head_loss, "ROWS", rows_at_once)
    monkeypatch.setattr(head_loss, "BLOCK_BYTES", block * 50 * dtype.itemsize)

    mine, plain = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    losses = head_loss.frozen_head_loss(mine, weight, targets)
    expected = cross_entropy(plain @ weight.t(), targets, reduction="none")
    factors = torch.arange(1.0, 8.0, dtype=dtype)
    (losses * factors).sum().backward()
    (expected * factors).sum().backward()

    torch.testing.assert_close(losses, expected, rtol=TOLERANCE[dtype], atol=0)
    torch.testing.assert_close(mine.grad, plain.grad, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("longest", [attention.LONGEST, 0], ids=["in blocks", "by PyTorch"])
@pytest.mark.parametrize("lengths", [(1,), (2, 1, 3), (63, 64, 65), (160, 481), (700,)], ids=str)
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2), (3, 1)])
def test_attention_is_within_each_sequence(monkeypatch, lengths, heads, keys, longest):
    monkeypatch.setattr(attention, "LONGEST", longest)
    generator = torch.Generator().manual_seed(0)
    tokens, size = sum(lengths), 8
    states = [torch.randn(n, tokens, size, generator=generator, dtype=torch.float64) for n in (heads, keys, keys)]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    segments = tuple(zip([0, *ends[:-1]], ends, strict=True))
    weight = torch.randn(tokens, heads, size, generator=generator, dtype=torch.float64)

    mine = [one.clone().requires_grad_() for one in states]
    found = attention.packed_attention(*mine, segments, 0.3)
    (found * weight).sum().backward()

    plain = [one.clone().requires_grad_() for one in states]
    key, value = (one.repeat_interleave(heads // keys, 0) for one in plain[1:])
    own = torch.zeros(tokens, tokens, dtype=torch.bool)
    for start, end in segments:
        own[start:end, start:end] = True
    hidden = ~own.tril()
    scores = (plain[0] @ key.transpose(1, 2) * 0.3).masked_fill(hidden, float("-inf"))
    expected = (scores.softmax(-1) @ value).transpose(0, 1)
    (expected * weight).sum().backward()

    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_laid_out_anew_as_far_as_the_budget_goes(dtype):
    """In float32, and where oneDNN has no bf16, they stay as they are; the numbers are the same either way."""
    generator = torch.Generator().manual_seed(0)
    products = [
        FrozenProduct(torch.randn(96, 64, generator=generator).to(dtype), torch.ones(96, dtype=dtype))
        for _ in range(3)
    ]
    x, gradient = (torch.randn(40, size, generator=generator).to(dtype) for size in (64, 96))
    before = [(one.outputs(x), one.gradients(gradient)) for one in products]
    taken = lay_out(products, budget=4 * 96 * 64 * dtype.itemsize + 1)

    can = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert taken == (4 * 96 * 64 * dtype.itemsize if can else 0)
    for product, (outputs, gradients) in zip(products, before, strict=True):
        torch.testing.assert_close(product.outputs(x), outputs)
        torch.testing.assert_close(product.gradients(gradient), gradients)


def test_the_config_names_them():
    assert TrainingConfig().kernel_names == set(KERNELS)
    assert TrainingConfig(kernels="none").kernel_names == set()
    assert TrainingConfig(kernels=["head", "lora"]).kernel_names == {"head", "lora"}
