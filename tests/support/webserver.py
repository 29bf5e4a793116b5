"""A web server on this machine that serves a folder and, when told to, fails as object stores do."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WebServer(ThreadingHTTPServer):
    """`trouble(name, number)` is asked before each GET of a file, with how many came for it before; it says what goes
    wrong: "" (nothing), "503", "403", "slow", "hang", "reset", "cut" or "damage". Nobody hears of the size of what is
    `unsized`."""

    daemon_threads = True

    def __init__(self, root: Path):
        self.root, self.gets, self.lock = root, Counter(), threading.Lock()
        self.trouble: Callable[[str, int], str] = lambda name, number: ""
        self.unsized: set[str] = set()
        self.released = threading.Event()  # what hangs goes on
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        pass  # clients that gave up


class Handler(SimpleHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second would wait 40 ms

    def translate_path(self, path: str) -> str:
        self.directory = str(self.server.root)
        return super().translate_path(path)

    def log_message(self, *_) -> None:
        pass

    def send_head(self):
        """What HEAD asks for, too."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().send_head()
        self.begin(200, path, path.stat().st_size)

    def begin(self, status: int, path: Path, length: int) -> None:
        self.send_response(status)
        if path.name not in self.server.unsized:
            self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().do_GET()
        with self.server.lock:
            number = self.server.gets[path.name]
            self.server.gets[path.name] += 1
        trouble = self.server.trouble(path.name, number)
        if trouble.isdigit():
            return self.send_error(int(trouble))
        if trouble == "slow":
            time.sleep(0.05)
        if trouble == "hang":
            self.server.released.wait(60)
        if trouble == "reset":
            self.close_connection = True
            return self.connection.close()
        data = path.read_bytes()
        if asked := self.headers.get("Range"):
            start, end = asked.removeprefix("bytes=").split("-")
            data = data[int(start) : int(end) + 1]
        self.begin(206 if asked else 200, path, len(data))
        if trouble == "damage":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if trouble == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self.wfile.write(data)
