"""An S3 server that fails for a while when told to: it answers 503, as busy ones do, or nothing."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


class FailingStore:
    """moto's S3 at two doors: drivers and workers come through the one that fails, tests look through the other. Use
    as a context manager."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
        self.app = DomainDispatcherApplication(create_backend_app)
        self.failing_until, self.stalling_until = 0.0, 0.0
        self.refused = 0  # requests that met trouble
        self.doors = [make_server("127.0.0.1", 0, door, threaded=True) for door in (self._answer, self.app)]

    def __enter__(self) -> "FailingStore":
        for door in self.doors:
            threading.Thread(target=door.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.failing_until = self.stalling_until = 0.0
        for door in self.doors:
            door.shutdown()

    def fail(self, seconds: float) -> None:
        self.failing_until = time.monotonic() + seconds

    def stall(self, seconds: float) -> None:
        self.stalling_until = time.monotonic() + seconds

    def environment(self, failing: bool = True) -> dict[str, str]:
        """What makes a program use the store, through the door that fails or the other."""
        port = self.doors[0 if failing else 1].server_port
        return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **dict.fromkeys(KEYS, "us-east-1")}

    def files(self) -> Any:
        """A file system that sees it through the good door."""
        import s3fs

        return s3fs.S3FileSystem(
            key="us-east-1",
            secret="us-east-1",
            use_listings_cache=False,
            skip_instance_cache=True,
            endpoint_url=self.environment(failing=False)["AWS_ENDPOINT_URL"],
        )

    def _answer(self, request: dict, start: Callable) -> Iterable[bytes]:
        now = time.monotonic()
        if now < self.failing_until:
            self.refused += 1
            request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        if now < self.stalling_until:
            self.refused += 1
            time.sleep(self.stalling_until - now)
        return self.app(request, start)
