"""A scripted transformer and a small destination, real HTTP servers on loopback, and a FakeHost in front of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Final

from msgspec import Struct

from emarsys_cdp.testing import FakeHost, JobState

FEATURES: Final[Mapping[str, Any]] = {
    "routerTransform": {"EMARSYS": True},
    "upgradedToSourceTransformV2": True,
    "supportTransformerProxyV1": True,
    "supportDestTransformCompactedPayloadV1": True,
}
CONFIG: Final = {"apiKey": "k"}
LONGEST: Final = 20.0
ROUTER: Final = "/routerTransform"
PROXY: Final = "/v1/destinations/emarsys/proxy"
PROCESSOR: Final = "/v0/destinations/emarsys"


class Asked(Struct, frozen=True):
    """A request that a small server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body, read."""
        return json.loads(self.body)


class Reply(Struct, frozen=True):
    """What it answers; status 0 closes the connection instead."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


DROP: Final = Reply(0)
Answering = Callable[[Asked], Reply]


class Web:
    """A small HTTP server; *answer* may be another one at any time. Port 0 is any free one."""

    def __init__(self, answer: Answering, port: int = 0) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                web.asked.append(asked)
                reply = web.answer(asked)
                if reply.status:
                    self.send_response_only(reply.status)
                    for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body)

            do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815 - the base class's names

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing when a host has gone away."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """End it; nobody listens on its port then."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def ok(body: object = None) -> Reply:
    """Return a transformer's answer."""
    return Reply(200, json.dumps(body).encode(), {"apiVersion": "2", "Content-Type": "application/json"})


class Script:
    """
    A transformer that answers each track call with a request of its own to the destination.

    *transform* has statuses of single events, one for each time that they come; then it is 200. *replies* are sent
    first, whatever is asked. *merged* events that come together share a request, *several* make a job two requests.
    """

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.features: Reply = ok(FEATURES)
        self.transform: dict[str, list[int]] = {}
        self.replies: list[Reply] = []
        self.merged: set[str] = set()
        self.several: dict[str, list[str]] = {}
        self.proxied: Callable[[Any], Reply] = lambda body: ok({"output": proxy_output(body, 200)})
        self.lock = Lock()

    def answer(self, asked: Asked) -> Reply:
        """Answer one request."""
        if asked.path == "/features":
            return self.features
        with self.lock:
            if self.replies:
                return self.replies.pop(0)
        if asked.path.endswith("/proxy"):
            return self.proxied(asked.json)
        return ok(self.outputs(asked))

    def outputs(self, asked: Asked) -> Any:
        """Return what the inputs of a transform request come to."""
        request = asked.json
        inputs = request if isinstance(request, list) else request["input"]
        shared = {} if isinstance(request, list) else request.get("destinations", {})
        for one in inputs:
            one.setdefault("destination", shared.get(one["metadata"]["destinationId"]))
        if asked.path == PROCESSOR:
            return [self.event(one) for one in inputs]
        together = [one for one in inputs if one["message"].get("event") in self.merged]
        groups = [*([together] if together else []), *[[one] for one in inputs if one not in together]]
        outputs = [self.output(group) for group in groups]
        return outputs if asked.path == "/batch" else {"output": outputs}

    def status(self, event: str) -> int:
        """Return the next status of an event."""
        with self.lock:
            return self.transform[event].pop(0) if self.transform.get(event) else 200

    def output(self, group: Sequence[Any]) -> dict[str, Any]:
        """Return an output for jobs."""
        messages = [one["message"] for one in group]
        output = {"metadata": [one["metadata"] for one in group], "destination": group[0]["destination"]}
        if "event" not in messages[0]:  # /batch: requests that the processor stage has made
            return {**output, "batched": True, "statusCode": 200, "batchedRequest": messages[0]}
        events = [message["event"] for message in messages]
        status = self.status(events[0])
        if status not in (0, 200):
            return {**output, "batched": False, "statusCode": status, "error": f"transform {status}"}
        names = self.several.get(events[0])
        return {
            **output,
            "batched": len(group) > 1,
            "statusCode": status,
            "batchedRequest": [self.request([name]) for name in names] if names else self.request(events),
        }

    def event(self, one: Any) -> dict[str, Any]:
        """Return an output of the processor stage."""
        event = one["message"]["event"]
        status = self.status(event)
        if status != 200:
            return {"metadata": one["metadata"], "statusCode": status, "error": f"transform {status}"}
        return {"metadata": one["metadata"], "statusCode": 200, "output": self.request([event])}

    def request(self, events: Sequence[str]) -> dict[str, Any]:
        """Return a request to the destination."""
        return {
            "version": "1",
            "type": "REST",
            "method": "PUT",
            "endpoint": f"{self.destination}/contact?create=1",
            "endpointPath": "/contact",
            "userId": "",
            "headers": {"Content-Type": "application/json", "X-Test": "t"},
            "params": {},
            "body": {"JSON": {"z": 1.0, "events": list(events)}, "JSON_ARRAY": {}, "XML": {}, "FORM": {}},
            "files": {},
        }


def proxy_output(body: Any, *statuses: int, **metadata: Any) -> dict[str, Any]:
    """Return the proxy's output for the jobs of *body*, with so many statuses of them, or one for all."""
    jobs = body["metadata"]
    pairs = zip(jobs, statuses if len(statuses) > 1 else statuses * len(jobs), strict=False)
    response = [{"statusCode": status, "error": f"e{status}", "metadata": {**job, **metadata}} for job, status in pairs]
    return {"status": 200, "message": "m", "response": response, "destinationResponse": {}}


class Destination:
    """What the destination got: the events of each request. *statuses* has those of events, one for each time."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.statuses: dict[str, list[int]] = {}
        self.hold: dict[str, Event] = {}
        self.lock = Lock()

    def answer(self, asked: Asked) -> Reply:
        """Answer one request."""
        (event, *others) = asked.json["events"]
        if event in self.hold:
            self.hold[event].wait(LONGEST)
        with self.lock:
            self.events += [event, *others]
            status = self.statuses[event].pop(0) if self.statuses.get(event) else 200
        return Reply(status, f"body {status}".encode(), {"Content-Type": "text/plain"})


class World:
    """A transformer, a destination, and the way to a host in front of them."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.destination = Destination()
        self.sink = self.serve(self.destination.answer)
        self.script = Script(self.sink.url)
        self.transformer = self.serve(self.script.answer)

    def serve(self, answer: Answering, port: int = 0) -> Web:
        """Run a small server until the end of the test; a port that was just left may be free only in a moment."""
        end = time.monotonic() + LONGEST
        while True:
            try:
                web = Web(answer, port)
                break
            except OSError:
                assert port
                assert time.monotonic() < end
                time.sleep(0.01)
        self.stack.callback(web.stop)
        return web

    def host(self, destinations: Any = None, **options: Any) -> FakeHost:
        """Start a host that sends by itself, unless it is told otherwise."""
        chosen = {"proxy": False, "batch_timeout": 0.01, **options}
        where = None if "workspace" in options else destinations or {"dest-1": CONFIG}
        return self.stack.enter_context(FakeHost(self.transformer.url, where, **chosen))

    def transforms(self, path: str = ROUTER) -> list[Asked]:
        """Return the requests to one path of the transformer."""
        return [asked for asked in self.transformer.asked if asked.path == path]


def track(event: str, user: str = "u", **parts: Any) -> dict[str, Any]:
    """Return a track call."""
    return {"type": "track", "event": event, "userId": user, **parts}


def states(host: FakeHost) -> dict[str, tuple[JobState, int, int]]:
    """Return state, last status and attempts by event."""
    return {job.call["event"]: (job.state, job.status, job.attempts) for job in host.jobs}


def until(condition: Callable[[], object]) -> None:
    """Wait for something that is about to happen."""
    end = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
