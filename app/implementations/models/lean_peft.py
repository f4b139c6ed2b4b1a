"""PEFT without bitsandbytes: import its names from here.

PEFT 0.21 imports bitsandbytes wherever that is installed, for a function that nobody here calls: 1.1 s and 50 MB
in every engine and trainer, and on CUDA perhaps a context. So it is hidden from PEFT until QLoRA asks for it.
"""

import sys

if "peft" in sys.modules or "bitsandbytes" in sys.modules:
    import peft
else:
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # Python's way to say: not installed
    try:
        import peft

        peft.import_utils.is_bnb_available()  # both remember the answer
        peft.import_utils.is_bnb_4bit_available()
    finally:
        del sys.modules["bitsandbytes"]

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from peft.utils.other import get_pattern_key

__all__ = [
    "SEQ_CLS_HEAD_NAMES",
    "LoraConfig",
    "LoraLinear",
    "PeftModel",
    "get_pattern_key",
    "get_peft_model",
    "show_bitsandbytes",
]


def show_bitsandbytes() -> None:
    """Let PEFT find it, from the next model on that is adapted: it remembers what it found before."""
    peft.import_utils.is_bnb_available.cache_clear()
    peft.import_utils.is_bnb_4bit_available.cache_clear()
