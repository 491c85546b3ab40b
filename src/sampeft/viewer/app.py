"""The web application: routes, errors as one JSON sentence each, the page, and the guard before all."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from sampeft import __version__
from sampeft.errors import SampeftError, is_full
from sampeft.viewer import routes_catalogue as catalogue_routes
from sampeft.viewer import routes_predictions as prediction_routes
from sampeft.viewer.access import Access
from sampeft.viewer.docs_page import docs_page
from sampeft.viewer.errors import RequestError
from sampeft.viewer.security import Guard
from sampeft.viewer.service import Service

STATIC = Path(__file__).parent / "static"
_ABOUT = (
    "Predictions, corrections and comparisons on this machine. Every request carries the token of the address that "
    "`sampeft serve` printed, as 'Authorization: Bearer TOKEN'. Research software, not a medical device."
)


def make_app(service: Service, port: int) -> Guard:
    """The application as a server runs it; when that ends, the service is closed. port: that it will be asked at."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="sampeft", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.service = service
    app.include_router(catalogue_routes.router)
    app.include_router(prediction_routes.router)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    app.add_exception_handler(RequestValidationError, _wrong_value)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(SampeftError, _said)
    app.add_exception_handler(OSError, _of_the_disk)
    app.add_exception_handler(Exception, _fault)
    mimetypes.add_type("text/javascript", ".js")  # which some Windows machines know as text/plain, that no browser runs
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
    return Guard(app, hosts, Access(service.settings.token, port), service.settings.max_upload_bytes)


def _answer(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


def _wrong_value(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    sentence = f"{place[:200] or 'the body'}: {str(first['msg'])[:300]}"
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, sentence[0].lower() + sentence[1:] if not place else sentence)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OSError):  # while a form was read
        return _of_the_disk(request, error.__cause__)
    sentence = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        sentence = f"there is nothing at {request.url.path[:200]}"
    answer = _answer(error.status_code, sentence)
    answer.headers.update(error.headers or {})
    return answer


def _said(_: Request, error: Exception) -> JSONResponse:
    return _answer(error.status if isinstance(error, RequestError) else HTTPStatus.UNPROCESSABLE_ENTITY, str(error))


def _of_the_disk(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if not is_full(error):
        raise error
    return _answer(HTTPStatus.INSUFFICIENT_STORAGE, "the disk is full; free some space")


def _fault(_: Request, error: Exception) -> JSONResponse:
    """The guard prints what happened, into the terminal and nowhere else."""
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, "a fault inside sampeft; the terminal of `sampeft serve` tells more"
    )
