"""Answers from base models and published versions."""

from app.core.entities.identity import Principal
from app.core.entities.inference import GenerationRequest, Prediction
from app.core.errors import Unavailable
from app.core.interfaces.operations import EngineClient, UsageLog
from app.core.services.targets import Target, Targets
from app.core.services.usage import metered


class InferenceService:
    """Renders with the template of who is to answer, and asks the engine of its base model."""

    def __init__(self, targets: Targets, engines: EngineClient, usage: UsageLog) -> None:
        self._targets = targets
        self._engines = engines
        self._usage = usage

    def predict(
        self, principal: Principal, text: str, max_length: int, temperature: float, model: str | None = None
    ) -> Prediction:
        """One user message, at most ``max_length`` new tokens. Without ``model``, the first resident base answers.

        Raises ``NotFound`` for a model that the caller's project does not have, ``Invalid`` (not_generative) for
        one with a label head and (not_servable) for one that no engine attaches, ``Unavailable`` and what
        ``EngineClient`` raises.
        """
        target = self._targets.find(principal.project_id, model) if model else self._first_resident()
        request = GenerationRequest(
            base_model=target.base_model,
            prompt_ids=target.tokenizer.encode_prompt([{"role": "user", "content": text}]),
            max_tokens=max_length,
            temperature=temperature,
            stop_token_ids=target.tokenizer.stop_token_ids,
            adapter=target.adapter,
            sharing=principal.project_id,
        )
        with metered(self._usage, principal, target) as meter:
            meter.prompt_tokens = len(request.prompt_ids)
            generation = self._engines.generate(request)
            meter.completion_tokens = generation.completion_tokens
            meter.finish_reason = generation.finish_reason
        reasoning, answer = target.tokenizer.split_reasoning(generation.text)
        return Prediction(
            text=answer,
            reasoning=reasoning,
            model=target.name,
            finish_reason=generation.finish_reason,
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=generation.completion_tokens,
        )

    def _first_resident(self) -> Target:
        resident = self._engines.resident()
        if not resident:
            raise Unavailable("no engine answers: no base model is resident", code="base_not_resident")
        return self._targets.base(resident[0])
