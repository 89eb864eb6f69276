"""Commands in a machine: frames of one type byte, a big-endian length and the payload."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterator, Literal, Mapping, Optional, Sequence, Union
from urllib.parse import quote

from ._client import ApiError, Client, connect

Command = Union[str, Sequence[str]]

_STDIN, _STDIN_END, _SIGNAL = 0, 1, 3
_STDOUT, _STDERR, _CREDIT, _EXIT = 16, 17, 18, 19
_MAX_PAYLOAD = 64 * 1024
_STDIN_WINDOW = 256 * 1024
_MAX_HEAD = 64 * 1024
_TERM, _KILL = 15, 9


@dataclass(frozen=True)
class Chunk:
    """A piece of output."""

    stream: Literal["stdout", "stderr"]
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


@dataclass(frozen=True)
class Result:
    """The end of a command. The exit code of a signal is 128 and its number."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    error: Optional[str] = None

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode(errors="replace")


class CommandFailed(Exception):
    """A command ended with another exit code than 0."""

    def __init__(self, result: Result):
        self.result = result
        said = result.error or result.stderr.strip()[-1000:]
        super().__init__(f"exit code {result.exit_code}" + (f": {said}" if said else ""))


def request(
    command: Command,
    env: Optional[Mapping[str, str]],
    cwd: Optional[str],
    user: Optional[str],
    stdin: bool,
) -> dict[str, Any]:
    argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
    return {
        "argv": argv,
        "env": list((env or {}).items()),
        "cwd": cwd,
        "user": user,
        "stdin": stdin,
    }


class Process:
    """A command that runs. Iterating yields its output as it arrives; leaving the `with` block
    kills it if it still runs."""

    def __init__(self, client: Client, vm: str, body: dict[str, Any]):
        client.start_daemon()
        self._sock = connect(client.socket_path, 60.0)
        self._sending = threading.Lock()
        self._credit = threading.Condition()
        self._window = _STDIN_WINDOW
        self._exit: Optional[dict[str, Any]] = None
        self._ended = False
        self._buffer = b""
        try:
            self._upgrade(vm, json.dumps(body).encode())
        except BaseException:
            self._sock.close()
            raise

    def _upgrade(self, vm: str, body: bytes) -> None:
        head = (
            f"POST /v1/vms/{quote(vm, safe='')}/exec HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: upgrade\r\nUpgrade: banger-exec/1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._sock.sendall(head.encode() + body)
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
            if len(self._buffer) > _MAX_HEAD:
                raise ApiError(500, {"message": "the answer of the daemon is too long"})
        answer, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        lines = answer.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        if status == 101:
            return
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        length = min(int(headers.get("content-length", "0")), 1024 * 1024)
        while len(self._buffer) < length:
            self._receive()
        try:
            problem = json.loads(self._buffer[:length])
        except ValueError:
            problem = {}
        raise ApiError(status, problem)

    def _receive(self) -> None:
        piece = self._sock.recv(_MAX_PAYLOAD)
        if not piece:
            message = "the connection to the machine ended before the command did"
            raise ApiError(500, {"code": "guest_failed", "message": message})
        self._buffer += piece

    def _frame(self) -> tuple[int, bytes]:
        while len(self._buffer) < 5:
            self._receive()
        kind, length = struct.unpack(">BI", self._buffer[:5])
        if length > _MAX_PAYLOAD:
            raise ApiError(500, {"code": "guest_failed", "message": "a frame is too long"})
        while len(self._buffer) < 5 + length:
            self._receive()
        payload, self._buffer = self._buffer[5 : 5 + length], self._buffer[5 + length :]
        return kind, payload

    def _send(self, kind: int, payload: bytes = b"") -> None:
        with self._sending:
            self._sock.settimeout(None)
            self._sock.sendall(struct.pack(">BI", kind, len(payload)) + payload)

    def write(self, data: bytes) -> None:
        """Sends input. Waits while the command does not read; its output must be read meanwhile,
        for example in another thread."""
        while data:
            with self._credit:
                self._credit.wait_for(lambda: self._window > 0 or self._ended)
                if self._ended:
                    raise BrokenPipeError("the command has ended")
                taken = min(self._window, len(data), _MAX_PAYLOAD)
                self._window -= taken
            self._send(_STDIN, data[:taken])
            data = data[taken:]

    def close_stdin(self) -> None:
        """Ends the input."""
        self._send(_STDIN_END)

    def signal(self, number: int = _TERM) -> None:
        """Sends a signal to the process group of the command."""
        self._send(_SIGNAL, bytes([number]))

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.signal(_KILL)

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks(None)

    def _chunks(self, deadline: Optional[float]) -> Iterator[Chunk]:
        while self._exit is None:
            if deadline is None:
                self._sock.settimeout(None)
            else:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the command did not end in time")
                self._sock.settimeout(left)
            try:
                kind, payload = self._frame()
            except socket.timeout:
                raise TimeoutError("the command did not end in time") from None
            if kind == _STDOUT:
                yield Chunk("stdout", payload)
            elif kind == _STDERR:
                yield Chunk("stderr", payload)
            elif kind == _CREDIT:
                with self._credit:
                    self._window += struct.unpack(">I", payload)[0]
                    self._credit.notify_all()
            elif kind == _EXIT:
                self._exit = json.loads(payload)
                self._end()

    def _end(self) -> None:
        with self._credit:
            self._ended = True
            self._credit.notify_all()

    @property
    def exit_code(self) -> Optional[int]:
        """The exit code; none while it runs."""
        if self._exit is None:
            return None
        if self._exit["type"] == "signaled":
            return 128 + int(self._exit["signal"])
        return int(self._exit["code"])

    def wait(self, timeout: Optional[float] = None, limit: int = 64 * 1024 * 1024) -> Result:
        """Reads to the end. Kills the command and raises `TimeoutError` after `timeout` seconds;
        output beyond `limit` bytes of each stream is dropped."""
        kept = {"stdout": bytearray(), "stderr": bytearray()}
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            for chunk in self._chunks(deadline):
                of = kept[chunk.stream]
                of += chunk.data[: max(0, limit - len(of))]
        except TimeoutError:
            self.close()
            raise
        code = self.exit_code
        error = (self._exit or {}).get("message")
        self.close()
        return Result(0 if code is None else code, bytes(kept["stdout"]), bytes(kept["stderr"]), error)

    def close(self) -> None:
        """Ends the connection; kills the command if it still runs."""
        if self._exit is None and not self._ended:
            try:
                self.kill()
            except OSError:
                pass
        self._end()
        self._sock.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()
