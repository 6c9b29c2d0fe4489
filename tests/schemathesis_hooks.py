"""Hooks for schemathesis: which well-formed requests may be refused.

The OpenAPI document cannot say which tags, keys and cursors are valid at the moment. So three
refusals of well-formed requests are right, and no others:

- 412 for a precondition that was made up or is no longer true;
- 422 for an `Idempotency-Key` that was used before, with another payload;
- 400 for a cursor that the service did not make for this list.
"""

import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.specs.openapi.checks import positive_data_acceptance


@schemathesis.check
def acceptance_but_for_three_refusals(
    ctx: CheckContext, response: Response, case: Case
) -> bool | None:
    """schemathesis's own check, which is disabled under its own name."""
    return None if refused_rightly(response) else positive_data_acceptance(ctx, response, case)


def refused_rightly(response: Response) -> bool:
    if response.status_code not in (400, 412, 422):
        return False
    problem = response.json()
    match problem["code"]:
        case "precondition_failed":
            return bool({"If-Match", "If-None-Match"} & {*response.request.headers})
        case "idempotency_key_reused":
            return "Idempotency-Key" in response.request.headers
        case "invalid_cursor":
            return [error["field"] for error in problem["errors"]] == ["cursor"]
    return False
