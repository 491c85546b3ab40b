"""The interface as it describes itself: any request that fits it, and many that do not, get a documented answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from fabricate import write_png
from viewer.clients import Serve, predicted

schemathesis = pytest.importorskip("schemathesis")


def test_any_request_gets_a_documented_answer(serve: Serve, tmp_path: Path) -> None:
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    names = (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
    )
    checks = CHECKS.get_by_names(names)
    picture = write_png(tmp_path / "p.png", np.full((12, 12), 128, np.uint8))
    seen: dict[str, set[int]] = {}
    with serve() as client:
        headers = {"host": "127.0.0.1:8765", "authorization": client.headers["authorization"]}
        known = {"id": predicted(client, picture)["id"], "run": "run", "case": "P01", "image": "P01_1"}
        schema = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=headers)
        schema.config.checks.update(included_check_names=list(names))
        operations = [found.ok() for found in schema.get_all_operations()]
        operations.sort(key=lambda found: found.label == "DELETE /api/predictions/{id}")  # the others need it
        assert len(operations) > 15
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(
                max_examples=8,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def each(case: Any) -> None:
                for values in ({}, known):  # as drawn, and so that it meets what is there
                    for name in set(values) & set(case.path_parameters or {}):
                        case.path_parameters[name] = values[name]
                    response = case.call(session=client, base_url=str(client.base_url), headers=headers)
                    seen.setdefault(case.operation.label, set()).add(response.status_code)
                    case.validate_response(response, checks=checks)

            each()
    assert {200, 404} <= seen["GET /api/runs/{run}"]
    assert 422 in seen["POST /api/predictions/{id}/prompt"]
    assert 409 in seen["DELETE /api/predictions/{id}/corrections/last"]
    assert 204 in seen["DELETE /api/predictions/{id}"]
