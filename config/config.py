"""Settings, read once when a process starts.

Weakest first: ``default.yaml`` < the YAML of ``APP_ENV`` < ``.env`` < environment variables. A key that is not
a field below, or whose value has the wrong type, stops the start with the key's name.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as SourceError

CONFIG_DIR = Path(__file__).resolve().parent
ROOT = CONFIG_DIR.parent

DEFAULT_QUEUE = "default"
Port = Annotated[int, Field(ge=0, le=65535)]
HostName = Annotated[str, Field(pattern=r"^\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$")]  # .example.com: all below it
QueueName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
GpuSlot = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*$")]  # as CUDA_VISIBLE_DEVICES


class SettingsError(Exception):
    """The start stops here: one line per faulty key."""


class Settings(BaseSettings):
    """Every field can be set by an environment variable of its name in capitals (``.env.example``)."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_ignore_empty=True, env_file_encoding="utf-8"
    )

    app_env: Literal["development", "production"] = "development"

    host: str = "127.0.0.1"
    port: Port = 5000
    web_workers: int = Field(1, ge=1, le=64)
    web_threads: int = Field(64, ge=1, le=512)  # half of them may stream

    instance_dir: Path = ROOT / "instance"
    data_dir: Path = ROOT / "data"
    models_dir: Path = ROOT / "models"
    results_dir: Path = ROOT / "results"
    base_models_file: Path = CONFIG_DIR / "base_models.yaml"
    train_config_file: Path = CONFIG_DIR / "train_config.yaml"
    logging_file: Path = CONFIG_DIR / "logging.yaml"

    database_url: str | None = Field(None, repr=False)  # None: SQLite in instance_dir
    redis_url: str | None = Field(None, repr=False)  # None: the filesystem broker in instance_dir

    default_base_model: str | None = None  # None: what train_config_file says
    engine_base_model: str = "smollm2-135m-instruct"
    engine_precision: Literal["auto", "bf16", "fp32", "int8", "nf4"] = "auto"
    engine_kv_bytes: int = Field(2 * 1024**3, ge=1024**2)  # keys and values of what it reads and writes
    engine_adapter_bytes: int = Field(1024**3, ge=0)  # adapters in memory, the least recently used out
    engines_bytes: int | None = Field(None, ge=0)  # of engines on demand, in all; None: half of the host's memory
    engine_kernels: Literal["native", "torch"] = "native"  # compiled at its first start, where there is a compiler
    engines: dict[str, str] = Field({}, repr=False)  # base model → URL of an engine that somebody else runs (vLLM)
    engine_secret: SecretStr | None = None  # None: run.py makes one for its own engine
    engine_timeout: float = Field(120, gt=0)  # seconds a generation may take
    model_redirects: dict[str, str] = {}  # under /v1: a name that clients send → the reference that answers to it

    worker_slots: int = Field(1, ge=1, le=64)  # jobs that a worker trains at once, where it has no worker_gpus
    worker_light_slots: int = Field(1, ge=0, le=16)  # and jobs of light kinds: estimates, data processing
    worker_gpus: list[GpuSlot] = []  # a slot each: "0", or "0,1" for jobs of two processes
    queues: list[QueueName] = Field([DEFAULT_QUEUE], min_length=1)  # that a job may name
    worker_queues: list[QueueName] | None = None  # those that this worker serves; None: all
    poll_seconds: float = Field(1.0, gt=0)
    lease_seconds: float = Field(30.0, ge=2)
    max_attempts: int = Field(3, ge=1)  # that may be lost before a job is given up
    drain_seconds: float = Field(6, gt=0)  # for trainers to save and end, when a worker is told to
    project_max_running: int | None = Field(None, ge=1)  # jobs of a project that train at once; None: any number
    project_max_queued: int | None = Field(1000, ge=1)  # and that wait
    trainer: Literal["torch", "double"] = "torch"  # double: a trainer without torch, for tests of jobs
    spare_trainers: bool = True  # a slot without a job has a trainer that waits, its imports done
    cpu_threads: int | None = Field(None, ge=1)  # None: the cores of this host, shared by engine and trainers

    # Of a file of data; beyond, its check says so. max_body_bytes bounds what a client may have read at once.
    data_max_rows: int = Field(5_000_000, ge=1)
    data_max_bytes: int = Field(4 * 1024**3, ge=1024)
    data_max_row_bytes: int = Field(16 * 1024**2, ge=1024)
    data_max_turns: int = Field(1000, ge=2)  # messages of a conversation
    data_max_depth: int = Field(32, ge=4, le=100)  # of lists and objects in a row

    secret_key: SecretStr | None = None  # signs access tokens; None: made at the first start in instance_dir
    old_secret_keys: list[SecretStr] = []  # that still verify while tokens live that they signed
    token_seconds: int = Field(1800, ge=60, le=86_400)
    session_seconds: int = Field(14 * 86_400, ge=60)  # from a log-in on, however often it is refreshed
    admin_password: SecretStr | None = None
    metrics_token: SecretStr | None = None
    rate_limit: str = "600 per minute"  # requests of an API key or a user, every route
    login_rate_limit: str = "10 per minute"  # an address
    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024)
    max_upload_bytes: int = Field(200 * 1024 * 1024, ge=1024)  # of a dataset, over HTTP
    signing_algorithm: Literal["HS256", "RS256", "EdDSA"] = "HS256"  # of access tokens
    signing_key_file: Path | None = None  # a private key in PEM, which RS256 and EdDSA want
    encryption_key: SecretStr | None = None  # of webhooks' secrets in the database; None: as secret_key
    webhook_allowed_networks: list[IPvAnyNetwork] = []  # that webhooks may reach though they are not public
    oidc_issuer: str | None = None  # whose tokens are taken too, of users who are linked to a subject of it
    oidc_audience: str | None = None  # that these tokens must be for
    oidc_project_claim: str = "project"  # which says the project; a token without it is for the user's first
    old_public_key_files: list[Path] = []  # PEM, that still verify while tokens live that their keys signed
    token_rate_limit: str = "1000000 per minute"  # noqa: S105 - of prompts and answers, of an API key or a user
    login_account_rate_limit: str = "5 per minute"  # attempts at one account; one that succeeds forgives them
    project_max_requests: int | None = Field(None, ge=1)  # of a project a minute; None: any number
    project_max_tokens: int | None = Field(None, ge=1)  # and tokens
    project_max_bytes: int | None = Field(None, ge=1)  # of its datasets and published versions
    project_max_versions: int | None = Field(None, ge=1)  # that it has published
    idempotency_seconds: int = Field(86_400, ge=60)  # that the answer to a request with a key is kept
    trusted_hosts: list[HostName] = []  # names of this service in the header Host; none: any
    trusted_proxies: int = Field(0, ge=0, le=10)  # in front, each of which adds to X-Forwarded-For and its like

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("secret_key", "old_secret_keys", "encryption_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | list[SecretStr] | None) -> SecretStr | list[SecretStr] | None:
        # RFC 7518 § 3.2: a key at least as long as HS256's output.
        keys = value if isinstance(value, list) else [value] if value else []
        if any(len(key.get_secret_value().encode()) < 32 for key in keys):
            raise ValueError("must have at least 32 bytes")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        from urllib.parse import urlsplit

        url = urlsplit(value or "https://unset")
        loopback = url.scheme == "http" and url.hostname in ("localhost", "127.0.0.1", "::1")
        if not (loopback or url.scheme == "https") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be a URL, https://…, as the tokens' iss has it")
        return value

    @field_validator("signing_key_file", "old_public_key_files")
    @classmethod
    def _from_the_root(cls, value: Path | list[Path] | None) -> Path | list[Path] | None:
        if isinstance(value, list):
            return [ROOT / path for path in value]
        return None if value is None else ROOT / value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            if value is None or make_url(value).get_backend_name() in ("sqlite", "postgres", "postgresql"):
                return value
        except (ArgumentError, ValueError):  # ValueError: of the port
            pass
        raise ValueError("must be a URL, sqlite:///… or postgresql://…")

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be a URL, redis://… or rediss://…")
        return value

    @field_validator("engines")
    @classmethod
    def _engines(cls, value: dict[str, str]) -> dict[str, str]:
        from urllib.parse import urlsplit

        for name, url in value.items():
            try:
                parts = urlsplit(url)
                is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:  # of the port, or of an IPv6 address
                is_sound = False
            if not is_sound:
                raise ValueError(f"{name}: must be a URL, http://… or https://…")
        return value

    @field_validator("rate_limit", "login_rate_limit", "token_rate_limit", "login_account_rate_limit")
    @classmethod
    def _readable(cls, value: str) -> str:
        from limits import parse_many

        try:
            parse_many(value)
        except ValueError:  # the limiter itself would only log it, and limit nothing
            raise ValueError("must be a rate, like 600 per minute") from None
        return value

    @field_validator(
        *("instance_dir", "data_dir", "models_dir", "results_dir"),
        *("base_models_file", "train_config_file", "logging_file"),
    )
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value if value.is_absolute() else ROOT / value

    @field_validator("base_models_file", "train_config_file", "logging_file")
    @classmethod
    def _there(cls, value: Path) -> Path:
        if not value.is_file():
            raise ValueError("there is no such file")
        return value

    @model_validator(mode="after")
    def _slots_have_threads(self) -> Self:
        most = max(1, self.cores - self.engine_threads)
        if not self.worker_gpus and self.worker_slots > most:
            raise SettingsError(
                f"configuration: worker_slots: {self.worker_slots} trainers, a thread each, and the engine's "
                f"{self.engine_threads} are more than the {self.cores} cores: at most {most}, or set cpu_threads"
            )
        return self

    @model_validator(mode="after")
    def _algorithm_has_its_key(self) -> Self:
        if self.signing_algorithm != "HS256" and self.signing_key_file is None:
            raise SettingsError(f"configuration: signing_key_file: {self.signing_algorithm} wants a private key")
        if self.signing_algorithm == "HS256" and (self.signing_key_file or self.old_public_key_files):
            raise SettingsError(
                "configuration: signing_algorithm: HS256 signs with SECRET_KEY, not with PEM files"
            )
        return self

    @model_validator(mode="after")
    def _issuer_has_its_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise SettingsError("configuration: oidc_audience: goes together with OIDC_ISSUER")
        return self

    @model_validator(mode="after")
    def _queues_are_known(self) -> Self:
        if DEFAULT_QUEUE not in self.queues:
            raise SettingsError(f"configuration: queues: must name {DEFAULT_QUEUE}")
        unknown = sorted(set(self.worker_queues or ()) - set(self.queues))
        if unknown:
            raise SettingsError(f"configuration: worker_queues: not among queues: {', '.join(unknown)}")
        return self

    @property
    def database_uri(self) -> str:
        url = self.database_url or f"sqlite:///{self.instance_dir / 'app.db'}"
        for old in ("postgres://", "postgresql://"):
            if url.startswith(old):
                return "postgresql+psycopg://" + url.removeprefix(old)
        return url

    @property
    def cores(self) -> int:
        if self.cpu_threads:
            return self.cpu_threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def engine_threads(self) -> int:
        """OpenMP threads of one engine; with the trainers' they never add up to more than the cores."""
        return max(1, self.cores // 2)

    @property
    def trainer_threads(self) -> int:
        """OpenMP threads of one trainer that runs beside an engine."""
        return max(1, (self.cores - self.engine_threads - self.light_threads) // len(self.slots))

    @property
    def light_threads(self) -> int:
        """Threads of the light slots, one each, where the engine and a thread for each trainer leave a core."""
        return max(0, min(self.worker_light_slots, self.cores - self.engine_threads - len(self.slots)))

    @property
    def slots(self) -> list[str | None]:
        """Of a worker: the GPUs of each; None: whatever there is."""
        return list(self.worker_gpus) or [None] * self.worker_slots

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        stage = os.environ.get("APP_ENV") or _dotenv_value("APP_ENV") or "development"
        return (
            init_settings,
            env_settings,
            dotenv_settings,
            InitSettingsSource(settings_cls, _yaml_values("default.yaml") | _yaml_values(f"{stage}.yaml")),
        )


def _yaml_values(name: str) -> dict[str, Any]:
    path = CONFIG_DIR / name
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8") as stream:  # PyYAML's errors quote a string, which may be secret
            values = yaml.safe_load(stream)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"configuration: {name}: not YAML: {error}") from None
    if not isinstance(values, dict | None):
        raise SettingsError(f"configuration: {name}: must be a mapping of keys")
    return values or {}


def _dotenv_path() -> Path:
    return Path(os.environ.get("DOTENV_PATH") or ROOT / ".env")


def _dotenv_value(key: str) -> str | None:
    from dotenv import dotenv_values

    path = _dotenv_path()
    return dotenv_values(path).get(key) if path.is_file() else None


def read_settings(**overrides: Any) -> Settings:
    """Read them all. ``SettingsError`` names each faulty key, never its value."""
    try:
        return Settings(_env_file=_dotenv_path(), **overrides)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise SettingsError("configuration: " + "; ".join(lines)) from None
    except UnicodeDecodeError:
        raise SettingsError("configuration: .env: not UTF-8") from None
    except SourceError as error:  # a value that must be JSON; the message names the key alone
        raise SettingsError(f"configuration: {error}") from None
