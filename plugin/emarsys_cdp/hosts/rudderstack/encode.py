"""From outcomes to an answer that a RudderStack server accepts: every job once, metadata and destination echoed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from emarsys_cdp.hosts.rudderstack.decode import Job
from emarsys_cdp.pipeline import HttpRequest, Outgoing
from emarsys_cdp_hooks import Filtered, Postponed, Refused

DELIVER, FILTERED, REFUSED, RETRY = 200, 298, 400, 500
"""Status codes of a job: send it; done without sending; aborted; sent again later (router only)."""

_encode = msgspec.json.Encoder().encode


def encode(answer: Any) -> bytes:
    """Return the answer's JSON."""
    return _encode(answer)


def rest_request(request: HttpRequest) -> dict[str, Any]:
    """Return a request in the form that the host sends by itself."""
    return {
        "version": "1",
        "type": "REST",
        "method": request.method,
        "endpoint": request.url,
        "endpointPath": f"/{request.path.split('?', 1)[0].strip('/')}",
        "userId": "",
        "headers": request.headers,
        "params": {},
        "body": {"JSON": request.body, "JSON_ARRAY": {}, "XML": {}, "FORM": {}},
        "files": {},
    }


def router_output(outgoing: Outgoing, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the output of jobs that are sent together."""
    requests = [rest_request(request) for request in outgoing.requests]
    output = {
        "batchedRequest": requests[0] if len(requests) == 1 else requests,
        "metadata": [job.raw_metadata for job in jobs],
        "batched": len(jobs) > 1,
        "statusCode": DELIVER,
        "destination": jobs[0].raw_destination,
    }
    return {**output, "error": outgoing.left_out} if outgoing.left_out else output


def passed_output(job: Job) -> dict[str, Any]:
    """Return the output of a job whose message is a request of the processor stage."""
    return {
        "batchedRequest": job.message,
        "metadata": [job.raw_metadata],
        "batched": False,
        "statusCode": DELIVER,
        "destination": job.raw_destination,
    }


def processor_outputs(outgoing: Outgoing, job: Job) -> list[dict[str, Any]]:
    """Return the outputs of one job, one for each of its requests."""
    outputs = [
        {"output": rest_request(request), "metadata": job.raw_metadata, "statusCode": DELIVER}
        for request in outgoing.requests
    ]
    return [{**output, "error": outgoing.left_out} for output in outputs] if outgoing.left_out else outputs


def settled_output(job: Job, decision: Refused | Filtered | Postponed, feature: str) -> dict[str, Any]:
    """Return the output of a job that nothing is sent for."""
    output: dict[str, Any] = {"metadata": [job.raw_metadata], "batched": False, "error": decision.reason}
    if isinstance(decision, Filtered):
        output["statusCode"] = FILTERED
    else:
        output["statusCode"] = RETRY if isinstance(decision, Postponed) else REFUSED
        output["statTags"] = _tags(job, decision, feature)
    if feature == "processor":
        output["metadata"] = output["metadata"][0]
        del output["batched"]
    else:
        output["destination"] = job.raw_destination
    return output


def _tags(job: Job, decision: Refused | Postponed, feature: str) -> dict[str, str]:
    postponed = isinstance(decision, Postponed)
    return {
        "errorCategory": "platform" if postponed else "dataValidation",
        "errorType": "retryable" if postponed else "instrumentation",
        "destType": "EMARSYS",
        "module": "destination",
        "implementation": "emarsys-cdp",
        "feature": feature,
        "destinationId": (job.metadata and job.metadata.destinationId) or "",
        "workspaceId": (job.metadata and job.metadata.workspaceId) or "",
    }
