"""Routes that take files have a limit of their own, and what they receive goes to the disk as it comes."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import current_app, request

View = Callable[..., Any]


def takes_upload(view: View) -> View:
    """It stands above the decorators that read the body, and below those that say who may send one."""

    @wraps(view)
    def with_room(*args: Any, **kwargs: Any) -> Any:
        if request.mimetype == "multipart/form-data":  # what is no file is read into memory
            request.max_content_length = current_app.config["MAX_UPLOAD_BYTES"]
        return view(*args, **kwargs)

    return with_room
