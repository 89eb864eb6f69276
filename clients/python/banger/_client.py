"""HTTP over the daemon's Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Union
from urllib.parse import quote

_TIMEOUT_S = 60.0


class ApiError(Exception):
    """An error of the daemon: `code` is stable, `hints` are advice in words."""

    def __init__(self, status: int, problem: Mapping[str, Any]):
        self.status = status
        self.code: str = problem.get("code", "internal")
        self.message: str = problem.get("message") or f"the daemon answered {status}"
        self.causes: list[str] = list(problem.get("causes", []))
        self.hints: list[str] = [hint.get("text", "") for hint in problem.get("hints", [])]
        self.operation: Optional[str] = problem.get("operation")
        super().__init__(": ".join([self.message, *self.causes]))


def default_socket() -> Path:
    """The socket of this user's daemon, as the command line finds it."""
    explicit = os.environ.get("BANGER_SOCKET")
    if explicit:
        return Path(explicit)
    state_dir = os.environ.get("BANGER_STATE_DIR")
    home = os.environ.get("BANGER_HOME")
    if state_dir:
        run = Path(state_dir, "run")
    elif home:
        run = Path(home, "run")
    else:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if os.path.isabs(runtime) and os.geteuid() != 0:
            run = Path(runtime, "banger")
        else:
            state = os.environ.get("XDG_STATE_HOME", "")
            base = Path(state) if os.path.isabs(state) else Path.home() / ".local/state"
            run = base / "banger/run"
    return run / "bangerd.sock"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: Optional[float]):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, self.timeout)


def connect(path: Path, timeout: Optional[float]) -> socket.socket:
    """A connection to a Unix socket, also to one whose path is longer than 107 bytes."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except BaseException:
        sock.close()
        raise
    return sock


class Client:
    """The daemon's API. Each call has a connection of its own, so threads may share a client."""

    def __init__(self, socket_path: Union[str, Path, None] = None, program: str = "banger"):
        self.socket_path = Path(socket_path) if socket_path else default_socket()
        self._program = program

    def start_daemon(self) -> None:
        """Starts the daemon if none answers.

        Raises `ApiError` if the command line is not installed or cannot start it.
        """
        try:
            connect(self.socket_path, _TIMEOUT_S).close()
            return
        except OSError:
            pass
        try:
            subprocess.run(
                [self._program, "daemon", "start"],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError as error:
            message = f"no daemon answers, and `{self._program}` is not installed"
            raise ApiError(503, {"code": "daemon_unavailable", "message": message}) from error
        except subprocess.CalledProcessError as error:
            message = error.stderr.strip() or "the daemon cannot be started"
            raise ApiError(503, {"code": "daemon_unavailable", "message": message}) from error

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = _TIMEOUT_S,
    ) -> http.client.HTTPResponse:
        """Sends a request; `body` is JSON, or bytes with a `Content-Type` in the headers.

        Raises `ApiError` for an answer that is an error, and `OSError` without an answer.
        """
        self.start_daemon()
        all_headers = {"Connection": "close", **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            all_headers.setdefault("Content-Type", "application/json")
        connection = _Connection(self.socket_path, timeout)
        try:
            connection.request(method, path, body, all_headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _error(answer)
        except BaseException:
            connection.close()
            raise
        return answer

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Sends a request and returns the JSON of its answer."""
        with self.send(method, path, body, **options) as answer:
            return json.load(answer)

    def events(self, path: str, timeout: Optional[float] = None) -> Iterator[dict[str, Any]]:
        """The events of a stream such as `/v1/events`, as they arrive."""
        with self.send("GET", path, timeout=timeout) as answer:
            for line in answer:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def follow(self, operation: str) -> dict[str, Any]:
        """Waits for the end of an operation and returns its last event.

        Raises `ApiError` if it failed.
        """
        for event in self.events(f"/v1/operations/{quote(operation)}/events"):
            if event["event"] == "failed":
                raise ApiError(500, event["error"])
            if event["event"] == "succeeded":
                return event
        problem = {"code": "interrupted", "message": f"the events of {operation} ended early"}
        raise ApiError(503, {**problem, "operation": operation})


def _error(answer: http.client.HTTPResponse) -> ApiError:
    try:
        problem = json.loads(answer.read(1024 * 1024))
    except ValueError:
        problem = {}
    return ApiError(answer.status, problem if isinstance(problem, dict) else {})
