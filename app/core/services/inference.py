"""Answers from base models and published versions."""

from dataclasses import dataclass

from app.core.entities.identity import Principal
from app.core.entities.inference import Adapter, GenerationRequest, Prediction
from app.core.entities.models import ModelVersion, Reference, not_generative
from app.core.errors import Invalid, NotFound, Unavailable
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer
from app.core.interfaces.operations import EngineClient
from app.core.interfaces.storage import ModelVersionRepository


@dataclass(frozen=True, slots=True)
class _Target:
    """Who answers: a base model, or an adapter over it, with the template that it was trained with."""

    name: str
    base_model: str
    tokenizer: ChatTokenizer
    adapter: Adapter | None = None


class InferenceService:
    """Finds the version behind a reference, renders with its own template, and asks the engine of its base."""

    def __init__(
        self,
        versions: ModelVersionRepository,
        bases: BaseModelStore,
        artifacts: ArtifactStore,
        engines: EngineClient,
    ) -> None:
        self._versions = versions
        self._bases = bases
        self._artifacts = artifacts
        self._engines = engines

    def predict(
        self, principal: Principal, text: str, max_length: int, temperature: float, model: str | None = None
    ) -> Prediction:
        """One user message, at most ``max_length`` new tokens. Without ``model``, the first resident base answers.

        Raises ``NotFound`` for a model that the caller's project does not have, ``Invalid`` (not_generative) for
        one with a label head and (not_servable) for one that no engine attaches, ``Unavailable`` and what
        ``EngineClient`` raises.
        """
        target = self._target(principal.project_id, model) if model else self._first_resident()
        generation = self._engines.generate(
            GenerationRequest(
                base_model=target.base_model,
                prompt_ids=target.tokenizer.encode_prompt([{"role": "user", "content": text}]),
                max_tokens=max_length,
                temperature=temperature,
                stop_token_ids=target.tokenizer.stop_token_ids,
                adapter=target.adapter,
                sharing=principal.project_id,
            )
        )
        reasoning, answer = target.tokenizer.split_reasoning(generation.text)
        return Prediction(
            text=answer,
            reasoning=reasoning,
            model=target.name,
            finish_reason=generation.finish_reason,
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=generation.completion_tokens,
        )

    def _first_resident(self) -> _Target:
        resident = self._engines.resident()
        if not resident:
            raise Unavailable("no engine answers: no base model is resident", code="base_not_resident")
        return self._base(resident[0])

    def _base(self, name: str) -> _Target:
        tokenizer = self._bases.tokenizer(name)
        if not tokenizer.generates:
            raise not_generative(name)
        return _Target(name, name, tokenizer)

    def _target(self, project_id: str, model: str) -> _Target:
        """A published version comes before a base model of the same name."""
        reference = Reference.parse(model)
        version = self._versions.find(project_id, reference.name, reference.number)
        if version is not None:
            return self._version(version)
        if reference.number is None and any(spec.name == reference.name for spec in self._bases.specs()):
            return self._base(reference.name)
        raise NotFound(f"there is no model {model!r} in this project", code="model_not_found")

    def _version(self, version: ModelVersion) -> _Target:
        if not version.generates:
            raise not_generative(version.reference)
        if version.is_whole_model:
            raise Invalid(
                f"{version.reference} is a whole model (adaptation: full), and engines attach adapters to a base: "
                "to serve it, add it to config/base_models.yaml (source: folder, location: "
                f"models/registry/{version.artifacts}) and start an engine for it; or train with adaptation: lora",
                code="not_servable",
            )
        tokenizer = self._artifacts.tokenizer(version)
        adapter = Adapter(name=version.id, folder=str(self._artifacts.folder(version)))
        return _Target(version.reference, version.base_model, tokenizer, adapter)
