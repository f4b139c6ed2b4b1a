"""The engine's core, started by its front alone: ``python -m app.processes.engine`` is the command."""

import argparse
import logging
from pathlib import Path

from app.implementations.serving.core_process import run_core


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.processes.engine_core", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="inherited file descriptor")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--base-folder", type=Path, help="below the label head's adapter in --folder")
    parser.add_argument("--precision", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--kv-bytes", type=int, required=True)
    parser.add_argument("--adapter-bytes", type=int, required=True)
    parser.add_argument("--kernels", type=Path, help="where native kernels are kept; without: those of torch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    run_core(
        arguments.socket,
        arguments.folder,
        arguments.base_folder,
        arguments.precision,
        arguments.threads,
        arguments.kv_bytes,
        arguments.adapter_bytes,
        arguments.kernels,
    )


if __name__ == "__main__":
    main()
