"""A W&B server on this machine, as far as the real client needs one. It keeps what it is sent, for tests to judge.

Its rules are the real one's: a history line has a number, which the client counts and continues when it resumes; a
line that comes again under the number it has is the same line, sent twice for want of an answer.
"""

import contextlib
import gzip
import json
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.tracking.offline_runs import sync_command
from support.command import environment


@dataclass
class Run:
    """What the server knows of one run."""

    lines: dict[int, str] = field(default_factory=dict)  # history, by number
    rewritten: list[tuple[int, str, str]] = field(default_factory=list)  # numbers that came with another content
    summary: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)  # group, job type, display name
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict] = field(default_factory=list)
    attempts: int = 0

    def history(self) -> list[dict]:
        """Rows in the order of their numbers, of which none may be missing."""
        assert sorted(self.lines) == list(range(len(self.lines))), "history lines are missing"
        return [json.loads(self.lines[number]) for number in sorted(self.lines)]

    def column(self, name: str) -> list:
        return [row[name] for row in self.history() if name in row]


class Server:
    """Use as a context manager; `url` is where clients find it. It answers 503 to everything while `down`, and for
    `outage` seconds after somebody asked for /outage."""

    def __init__(self):
        self.runs: dict[str, Run] = defaultdict(Run)
        self.artifacts: dict[str, bytes] = {}  # their files
        self.views: dict[str, dict] = {}  # reports
        self.unknown: list[str] = []  # questions that were not understood
        self.down, self.outage, self.back = False, 2.0, 0.0
        self.denied = False  # whether it answers 401, as to a key that it does not know
        self.refused = 0  # questions
        self.received = b""  # every body, to look for secrets in
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()

    def environment(self) -> dict[str, str]:
        """Makes the client of a process talk to this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "local-" + "0123456789abcdef" * 2 + "01234567"}

    def answer(self, operation: str, variables: dict) -> dict | None:
        """The data of a GraphQL answer; None for an operation that is not known."""
        asked = variables.get("input") or variables
        if operation == "UpsertBucket":
            run = self.runs[variables["name"]]
            inserted, run.attempts = run.attempts == 0, run.attempts + 1
            run.config.update(json.loads(variables.get("config") or "{}"))
            run.about.update({key: value for key, value in variables.items() if value is not None})
            return {"upsertBucket": {"bucket": self._bucket(variables["name"]), "inserted": inserted}}
        if operation == "RunResumeStatus":
            known = variables["name"] in self.runs
            return {"model": {"id": "m", "bucket": self._bucket(variables["name"])} if known else None}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": self._place(asked["run"], name)} for name in asked["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            self.runs[asked["runName"]].artifacts.append(asked)
            return {"createArtifact": {"artifact": {"id": "a", "state": "PENDING", "artifactSequence": _SEQUENCE}}}
        if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            file = {
                "id": "f",
                "name": "manifest",
                "displayName": "manifest",
                "uploadHeaders": [],
                "uploadUrl": self._place("-", "manifest"),
            }
            answer = {"artifactManifest": {"id": "m", "file": file}}
            return {operation[0].lower() + operation[1:]: answer}
        if operation == "CreateArtifactFiles":
            nodes = [
                {
                    "node": {
                        "id": "x",
                        "name": file["name"],
                        "displayName": file["name"],
                        "artifact": {"id": "a"},
                        "uploadUrl": self._place("-", file["name"]),
                        "uploadHeaders": [],
                        "storagePath": file["name"],
                        "uploadMultipartUrls": None,
                    }
                }
                for file in asked["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if operation == "upsertView":
            view = self.views.setdefault(asked["id"] or f"Vmlldzo{len(self.views)}", {})
            view.update({key: value for key, value in asked.items() if value is not None and key != "id"})
            return {
                "upsertView": {"view": self._view(asked["id"] or f"Vmlldzo{len(self.views) - 1}"), "inserted": True}
            }
        if operation == "SpecificReport":
            return {"view": self._view(asked["reportId"])}
        return _FIXED.get(operation)

    def _view(self, id: str) -> dict:
        view = self.views[id]
        project = {"id": "p", "name": view["projectName"], "entityName": view["entityName"]}
        return {**view, "id": id, "project": project, "createdAt": "2026-01-01T00:00:00", "updatedAt": None}

    def _place(self, run: str, name: str) -> str:
        return f"{self.url}/upload/{run}/{name}"

    def _bucket(self, name: str) -> dict:
        run = self.runs[name]
        tail = [run.lines[number] for number in sorted(run.lines)[-1:]]
        # without its telemetry in the answer the client takes a run for one that never started
        told = {"t": run.config.get("_wandb", {}).get("value", {}).get("t", {})} if run.attempts else {}
        project = {"id": "p", "name": "tilespin", "entity": {"id": "e", "name": "me"}}
        return {
            "id": f"id-{name}",
            "name": name,
            "displayName": name,
            "description": None,
            "sweepName": None,
            "project": project,
            "config": json.dumps(run.config),
            "wandbConfig": json.dumps(told),
            "tags": [],
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.lines),
            "historyTail": json.dumps(tail),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
        }

    def stream(self, name: str, posted: dict) -> None:
        """Takes in what a running client posts to its run's file stream."""
        run = self.runs[name]
        for file, part in (posted.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                for number, line in enumerate(part["content"], start=part["offset"]):
                    before = run.lines.setdefault(number, line)
                    if before != line:
                        run.rewritten.append((number, before, line))
                        run.lines[number] = line
            elif file == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        if posted.get("complete"):
            run.exit_code = posted["exitcode"]


_SEQUENCE = {"id": "s", "latestArtifact": None}
_PERSON = {
    "id": "u",
    "entity": "me",
    "username": "me",
    "flags": "{}",
    "email": "me@x",
    "admin": False,
    "teams": {"edges": []},
    "name": "me",
}
_FIXED = {
    "Viewer": {"viewer": _PERSON},
    "ServerInfo": {
        "viewer": _PERSON,
        "serverInfo": {"cliVersionInfo": {"max_cli_version": "99"}, "features": [], "latestLocalVersionInfo": None},
    },
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "RunStoppedStatus": {"project": {"run": {"stopped": False}}},
    "OrganizationCoreWeaveOrganizationID": {"entity": None},
    "GetProjects": {
        "models": {
            "pageInfo": {"endCursor": None, "hasNextPage": False},
            "edges": [
                {
                    "node": {
                        "id": "p",
                        "name": "tilespin",
                        "entityName": "me",
                        "createdAt": "",
                        "isBenchmark": False,
                        "user": None,
                    }
                }
            ],
        }
    },
    "ProjectInternalId": {"project": {"id": "p", "internalId": "1"}},
    "ArtifactType": {"project": {"artifact": None}},
    "CommitArtifact": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}},
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, *_) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _say(self, value, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients of tests are killed
            super().handle()

    def _handle(self) -> None:
        server, body = self.server_state, self._body()
        if self.path == "/outage":
            server.back = time.monotonic() + server.outage
            return self._say({})
        if server.down or time.monotonic() < server.back:
            server.refused += 1
            return self._say({}, 503)
        if server.denied:
            return self._say({"errors": [{"message": "user is not logged in"}]}, 401)
        with server.lock:
            server.received += body
            if self.path.startswith("/upload/"):
                _, _, run, name = self.path.split("/", 3)
                (server.runs[run].files if run in server.runs else server.artifacts)[name] = body
                return self._say({})
            if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                server.stream(found[1], json.loads(body))
                return self._say({"exitcode": None, "limits": {}})
            question = json.loads(body or b"{}") if self.path.startswith("/graphql") else {}
            operation = re.search(r"(?:query|mutation)\s+(\w+)", question.get("query", ""))
            data = server.answer(operation[1], question.get("variables") or {}) if operation else None
            if data is None:
                server.unknown.append(operation[1] if operation else self.path)
            self._say({"data": data or {}})

    do_GET = do_POST = do_PUT = _handle


def sync(server: Server, folder) -> str:
    """Runs the command that users are told, as a shell does -> what it printed."""
    command = sync_command(folder).replace("wandb sync", f"{Path(sys.executable).with_name('wandb')} sync", 1)
    env = environment() | server.environment()
    with TemporaryDirectory() as here:  # where the client leaves logs
        done = subprocess.run(command, shell=True, env=env, cwd=here, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "ERROR" not in done.stderr, done.stderr
    return done.stderr
