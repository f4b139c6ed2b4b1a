"""TRL's ``SFTTrainer``, measured, in its own environment: ``python -m benchmarks.run_trl SPEC [--tuned]``.

``--tuned`` is what a user who knows TRL and CPUs would turn on: rows packed without padding, and float32 products
in bf16 (TRL applies the head in float32).
"""

import math
import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.peer_callback import Measuring, adapter_folder
from benchmarks.spec import read_spec, read_token_rows


def main() -> None:
    spec = read_spec()
    settings, tuned = spec.settings, "--tuned" in sys.argv
    torch.set_num_threads(spec.threads)
    rows = read_token_rows(spec)
    batch_size, max_length = settings.batch_size, settings.max_length
    if tuned:
        torch.set_float32_matmul_precision("medium")
        # A pack holds as many tokens as a step of the others has on average: as many steps, and one pack a step.
        lengths = [len(row["input_ids"]) for row in rows]
        max_length = max(*lengths, math.ceil(batch_size * sum(lengths) / len(lengths)))
        batch_size = 1
    measuring = Measuring(spec, "trl")
    trainer = SFTTrainer(
        model=spec.model,
        processing_class=AutoTokenizer.from_pretrained(spec.model),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        args=SFTConfig(
            output_dir=str(adapter_folder(spec)),
            model_init_kwargs={"dtype": "bfloat16"},
            use_cpu=True,
            bf16=True,
            gradient_checkpointing=False,
            per_device_train_batch_size=batch_size,
            num_train_epochs=settings.epochs,
            max_length=max_length,
            packing=tuned,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=0,
            weight_decay=0.0,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        callbacks=[measuring],
    )
    trainer.train()
    trainer.save_model()
    measuring.answer()


if __name__ == "__main__":
    main()
