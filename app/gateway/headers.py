"""Headers that every answer carries, whatever made it."""

from flask import Flask, Response, request

# The API page's script, style and requests come from here alone; its style has icons as data: URLs.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
POLICY = "default-src 'none'; frame-ancestors 'none'"

ALWAYS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", PERMISSIONS),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


def init_headers(app: Flask) -> None:
    @app.after_request
    def protect(response: Response) -> Response:
        headers = response.headers
        headers.extend(ALWAYS)  # none of them is there yet: to look for each would take longer than the rest
        if request.is_secure:  # a browser ignores it over plain HTTP, as it must
            headers["Strict-Transport-Security"] = "max-age=31536000"
        headers["Content-Security-Policy"] = DOCS_POLICY if request.path == "/docs" else POLICY
        if request.path.startswith(("/api/", "/v1/")):
            headers["Cache-Control"] = "no-store"
        return response
