"""The API page, Swagger UI from our own files, so that no request leaves the host; and the page of error codes."""

from flask import Blueprint, render_template

from app.gateway.error_codes import CODES, INTRODUCTION, PAGE

blueprint = Blueprint("docs", __name__)


@blueprint.get("/docs")
def docs() -> str:
    return render_template("docs.html")


@blueprint.get(PAGE)
def errors() -> str:
    return render_template("errors.html", codes=CODES, introduction=INTRODUCTION)
