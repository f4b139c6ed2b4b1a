"""A tiny tokenizer for each family of models: its kind, its special tokens and its chat template."""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEMPLATES = Path(__file__).parent / "data" / "templates"
TEXT = """Hello, how can I help you today? Please tell me your order number and I will look into it. Be brief.
The order was shipped on Monday and should arrive within three working days. You can return an item
within thirty days of delivery, and we refund the price to the card that you paid with. What is the
warranty on this product? It is two years from the day of purchase. user assistant system model think
"""
LETTERS = [chr(code) for code in range(33, 127)]


@dataclass(frozen=True)
class Family:
    name: str  # of its template
    spelling: str  # bytes (byte-level BPE), or a SentencePiece tokenizer: prepend, metaspace, bare
    bos: str
    eos: str
    special: tuple[str, ...]
    end: str  # of the assistant's turn
    plain: tuple[str, ...] = ()  # one token each, but text when decoding
    stops: tuple[str, ...] = ()  # that generation_config.json names beside eos
    eats_space: bool = False  # its special tokens take the white space after them
    takes_system: bool = True
    keeps_history: bool = True  # finished turns stay as they were rendered, so that all answers are trained on
    keeps_history_with_system: bool = True


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]")
HEADERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
R1_TOKENS = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
FAMILIES = [
    Family("llama-3", "bytes", HEADERS[0], "<|eot_id|>", HEADERS, "<|eot_id|>", stops=("<|end_of_text|>",)),
    Family("llama-2", "prepend", "<s>", "</s>", ("<s>", "</s>"), "</s>"),
    Family("qwen2.5", "bytes", "<|endoftext|>", "<|im_end|>", CHATML, "<|im_end|>", stops=("<|endoftext|>",)),
    Family(
        *("qwen3", "bytes", "<|endoftext|>", "<|im_end|>", CHATML, "<|im_end|>"),
        plain=("<think>", "</think>"),
        stops=("<|endoftext|>",),
        keeps_history=False,
    ),
    Family(
        *("deepseek-r1-distill", "bytes", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        "<｜end▁of▁sentence｜>",
        plain=R1_TOKENS,
        keeps_history=False,
    ),
    Family("smollm2", "bytes", "<|im_start|>", "<|im_end|>", CHATML, "<|im_end|>"),
    Family("mistral-v0.3", "metaspace", "<s>", "</s>", MISTRAL, "</s>", keeps_history_with_system=False),
    Family("mistral-tekken", "bytes", "<s>", "</s>", MISTRAL, "</s>", keeps_history_with_system=False),
    Family(
        *("gemma-2", "bare", "<bos>", "<eos>", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")),
        "<end_of_turn>",
        stops=("<end_of_turn>",),
        takes_system=False,
    ),
    Family(
        *("phi-3", "prepend", "<s>", "<|endoftext|>"),
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        eats_space=True,
    ),
]


def write_family(family: Family, folder: Path) -> Tokenizer:
    tokenizer = _bytes() if family.spelling == "bytes" else _sentencepiece(family.spelling)
    eats = family.eats_space
    tokenizer.add_special_tokens(
        [AddedToken(text, rstrip=eats and text.startswith("<|"), normalized=False) for text in family.special]
    )
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.plain])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": family.bos,
        "eos_token": family.eos,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    stops = [tokenizer.token_to_id(text) for text in (family.eos, *family.stops)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    template = (TEMPLATES / f"{family.name}.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return tokenizer


def _bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def _sentencepiece(spelling: str) -> Tokenizer:
    """BPE over words that begin with ▁, and bytes for what it does not know."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=LETTERS, show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)  # no merge of a line break and a letter
    trained = json.loads(tokenizer.to_str())["model"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [tuple(pair) for pair in trained["merges"]]
    whole = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    tail = [decoders.ByteFallback(), decoders.Fuse()]
    if spelling == "metaspace":
        whole.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif spelling == "prepend":
        whole.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        whole.normalizer = spaces
    strip = [] if spelling == "bare" else [decoders.Strip(" ", 1, 0)]
    whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), *tail, *strip])
    return whole
