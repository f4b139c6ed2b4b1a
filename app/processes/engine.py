"""``python -m app.processes.engine --base_model NAME --port N``: the inference server of one model.

Exit status: 0 ended by a signal, 1 the core was lost or the port is taken, 2 usage, 3 the base model is missing.
"""

import argparse
import logging
import sys
from typing import get_args

from app.bootstrap import Settings, SettingsError, load_settings
from app.core.entities.engines import EngineName
from app.core.errors import AppError, Unavailable
from app.implementations.serving.messages import Precision
from app.processes.engine_folders import engine_folders
from app.utils.addresses import is_loopback

USAGE, MODEL_MISSING = 2, 3


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.processes.engine", description=__doc__)
    parser.add_argument("--base_model", required=True, help="a name in config/base_models.yaml")
    parser.add_argument(
        "--version",
        help="serve this folder of models/registry: a whole model, or a label head over the base model",
    )
    parser.add_argument("--port", type=_port, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="beyond loopback, ENGINE_SECRET must be set")
    parser.add_argument("--threads", type=_threads, help="OpenMP threads (default: half of the cores)")
    parser.add_argument("--precision", choices=get_args(Precision), help="default: ENGINE_PRECISION")
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return USAGE
    if settings.engine_secret is None and not is_loopback(arguments.host):
        print(f"--host {arguments.host} is not loopback: set ENGINE_SECRET", file=sys.stderr)
        return USAGE
    return _run(arguments, settings)


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    try:
        name = EngineName(arguments.base_model, arguments.version)
        folder, base_folder = engine_folders(settings, name)
    except Unavailable as error:
        print(error.message, file=sys.stderr)
        return MODEL_MISSING
    except AppError as error:
        print(error.message, file=sys.stderr)
        return USAGE

    from app.implementations.serving.engine import EngineOptions, run_engine

    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return run_engine(
        EngineOptions(
            base_model=str(name),
            folder=folder,
            base_folder=base_folder,
            host=arguments.host,
            port=arguments.port,
            threads=arguments.threads or settings.engine_threads,
            kv_bytes=settings.engine_kv_bytes,
            adapter_bytes=settings.engine_adapter_bytes,
            kernels=settings.instance_dir / "kernels" if settings.engine_kernels == "native" else None,
            precision=arguments.precision or settings.engine_precision,
            secret=settings.engine_secret.get_secret_value() if settings.engine_secret else None,
        )
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("must be between 0 and 65535")
    return port


def _threads(text: str) -> int:
    threads = int(text)
    if threads < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return threads


if __name__ == "__main__":
    sys.exit(main())
