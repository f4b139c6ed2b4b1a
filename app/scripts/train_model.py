"""Train in the foreground: ``python -m app.scripts.train_model --help``, the training command by another name."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # python app/scripts/train_model.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.model.training_service import main

if __name__ == "__main__":
    sys.exit(main())
