"""What the Hugging Face Hub answers about one dataset, as far as its file system asks."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Serves a folder as the dataset owner/name. Use as a context manager.

    Attributes:
        sent: Bytes that were sent of each file.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder, self.sent = folder, Counter()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def entries(self) -> list[dict]:
        found = sorted(self.folder.rglob("*"))
        return [
            {"type": "directory", "path": str(path.relative_to(self.folder)), "oid": "0" * 40}
            if path.is_dir()
            else {
                "type": "file",
                "path": str(path.relative_to(self.folder)),
                "size": path.stat().st_size,
                "oid": f"{path.stat().st_mtime_ns:040x}",
            }
            for path in found
        ]


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        file = self.server.folder / path.partition("/resolve/main/")[2]
        if path.startswith("/api/datasets/owner/name/tree/main"):
            below = path.removeprefix("/api/datasets/owner/name/tree/main").strip("/")
            found = [one for one in self.server.entries() if not below or one["path"].startswith(f"{below}/")]
            self._send(json.dumps(found or {}).encode(), 200 if found else 404)
        elif path in ("/api/datasets/owner/name", "/api/datasets/owner/name/revision/main"):
            self._send(json.dumps({"id": "owner/name", "sha": "1" * 40}).encode())
        elif "/resolve/main/" in path and file.is_file():
            data, wanted = file.read_bytes(), self.headers.get("Range")
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                data = data[int(first) : int(last) + 1 if last else None]
            self.server.sent[file.name] += len(data)
            self._send(data, 206 if wanted else 200)
        else:
            self._send(b"{}", 404)

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = (
            json.loads(asked)["paths"]
            if asked.startswith("{")
            else [unquote(part.partition("=")[2]) for part in asked.split("&") if part.startswith("paths")]
        )
        self._send(json.dumps([one for one in self.server.entries() if one["path"] in paths]).encode())

    def _send(self, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments) -> None:
        pass
