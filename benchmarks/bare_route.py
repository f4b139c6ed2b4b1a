"""What a gateway is measured by: one route of plain Flask that asks the same engine, and knows nobody.

``BARE_ENGINE`` is the engine's URL, ``BARE_BODY`` what to send it, as the gateway under measurement would.
"""

import os
from typing import Any

import httpx
from flask import Flask, jsonify

app = Flask(__name__)
http = httpx.Client(limits=httpx.Limits(max_connections=512, max_keepalive_connections=64), trust_env=False)


@app.post("/v1/chat/completions")
def chat() -> Any:
    answer = http.post(
        os.environ["BARE_ENGINE"] + "/v1/completions",
        content=os.environ["BARE_BODY"],
        headers={"Content-Type": "application/json"},
        timeout=120,
    ).json()
    text = answer["choices"][0]["text"]
    return jsonify(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": answer["model"],
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
            ],
            "usage": answer["usage"],
        }
    )
