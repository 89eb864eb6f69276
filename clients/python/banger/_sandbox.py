"""A machine with its commands, files and ports."""

from __future__ import annotations

import io
import posixpath
import tarfile
import threading
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterable, Mapping, Optional, Union
from urllib.parse import quote

from ._client import Client
from ._exec import Command, CommandFailed, Process, Result, request


@dataclass(frozen=True)
class Port:
    """A published port."""

    listen: str
    host_port: int
    guest_port: int

    @property
    def address(self) -> tuple[str, int]:
        return (self.listen, self.host_port)


class Sandbox:
    """A machine. Created by the constructor and deleted at the end of the `with` block, by
    `delete`, and never otherwise.

    `image`, `vcpus`, `memory_mib`, `publish` (host port: guest port) and `labels` are those of
    `banger run`; what is left out has the daemon's default.
    """

    def __init__(
        self,
        *,
        name: Optional[str] = None,
        image: Optional[str] = None,
        vcpus: Optional[int] = None,
        memory_mib: Optional[int] = None,
        nat: Optional[bool] = None,
        publish: Optional[Mapping[int, int]] = None,
        labels: Optional[Mapping[str, str]] = None,
        client: Optional[Client] = None,
    ):
        self._client = client or Client()
        ports = [
            {"host_port": host, "guest_port": guest} for host, guest in (publish or {}).items()
        ]
        wanted: dict[str, Any] = {
            "name": name,
            "image": image,
            "vcpus": vcpus,
            "memory_mib": memory_mib,
            "nat": nat,
            "publish": ports or None,
            "labels": dict(labels or {}) or None,
        }
        body = {key: value for key, value in wanted.items() if value is not None}
        # With a key the request can be repeated if its answer is lost.
        key = {"Idempotency-Key": uuid.uuid4().hex}
        try:
            accepted = self._client.call("POST", "/v1/vms", body, headers=key)
        except OSError:
            accepted = self._client.call("POST", "/v1/vms", body, headers=key)
        self.id: str = accepted["vm"]["id"]
        self.name: str = accepted["vm"]["name"]
        try:
            self._client.follow(accepted["operation"])
        except BaseException:
            self._delete_quietly()
            raise
        self.files = Files(self)

    @classmethod
    def connect(cls, vm: str, *, client: Optional[Client] = None) -> "Sandbox":
        """An existing machine, by its name, its id or a prefix of the id."""
        self = cls.__new__(cls)
        self._client = client or Client()
        found = self._client.call("GET", f"/v1/vms/{quote(vm, safe='')}")
        self.id, self.name = found["id"], found["name"]
        self.files = Files(self)
        return self

    @staticmethod
    def list(
        *, label: Optional[str] = None, client: Optional[Client] = None
    ) -> "list[dict[str, Any]]":
        """All machines, or those with this label (`KEY` or `KEY=VALUE`)."""
        query = f"?filter={quote('label=' + label, safe='')}" if label else ""
        found: "list[dict[str, Any]]" = (client or Client()).call("GET", f"/v1/vms{query}")
        return found

    def _path(self, below: str = "") -> str:
        return f"/v1/vms/{self.id}{below}"

    def info(self) -> dict[str, Any]:
        """State, addresses and figures of the machine."""
        found: dict[str, Any] = self._client.call("GET", self._path())
        return found

    def popen(
        self,
        command: Command,
        *,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        user: Optional[str] = None,
        stdin: bool = False,
    ) -> Process:
        """Starts a command; a text is run by `sh -c`, a list is a program with its arguments."""
        return Process(self._client, self.id, request(command, env, cwd, user, stdin))

    def exec(
        self,
        command: Command,
        *,
        input: Union[bytes, str, None] = None,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        user: Optional[str] = None,
        timeout: Optional[float] = None,
        check: bool = False,
    ) -> Result:
        """Runs a command to its end.

        Raises `TimeoutError` after `timeout` seconds, and `CommandFailed` with `check` for an exit
        code other than 0.
        """
        process = self.popen(command, env=env, cwd=cwd, user=user, stdin=input is not None)
        if input is not None:
            data = input.encode() if isinstance(input, str) else input
            threading.Thread(target=_feed, args=(process, data), daemon=True).start()
        result = process.wait(timeout)
        if check and result.exit_code != 0:
            raise CommandFailed(result)
        return result

    def act(self, action: str, **values: Any) -> None:
        """Requests an action, such as `stop`, and waits for its end."""
        accepted = self._client.call("POST", self._path("/actions"), {action: values})
        if accepted.get("operation"):
            self._client.follow(accepted["operation"])

    def start(self) -> None:
        self.act("start")

    def stop(self, grace_s: float = 90) -> None:
        self.act("stop", grace_ms=int(grace_s * 1000))

    def publish(self, guest_port: int, host_port: int) -> Port:
        """Publishes a port of the machine on this host's loopback address.

        QEMU's own network is fixed while the machine runs, and takes it at the next start: publish
        at the creation there.
        """
        forward = {"host_port": host_port, "guest_port": guest_port}
        self.act("set", publish=[forward])
        return Port("127.0.0.1", host_port, guest_port)

    def ports(self) -> "list[Port]":
        """The published ports, while the machine runs."""
        return [Port(**forward) for forward in self.info()["publish"]]

    def delete(self) -> None:
        """Deletes the machine, running or not. One that is gone already is no error."""
        from ._client import ApiError

        try:
            self.act("delete", force=True)
        except ApiError as error:
            if error.code != "not_found":
                raise

    def _delete_quietly(self) -> None:
        try:
            self.delete()
        except Exception:
            pass  # The error of the creation is the one to show.

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        return f"<Sandbox {self.name} {self.id}>"


def _feed(process: Process, data: bytes) -> None:
    try:
        process.write(data)
        process.close_stdin()
    except OSError:
        pass  # The command has ended without reading all of it.


class Files:
    """Files of a machine. A path that is not absolute begins in the home folder of root."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox

    def _archive(self, **query: str) -> str:
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return self._sandbox._path(f"/archive?{pairs}")

    def read(self, path: str) -> bytes:
        """The content of a file."""
        client = self._sandbox._client
        with client.send("GET", self._archive(path=path, link="follow"), timeout=None) as answer:
            with tarfile.open(fileobj=answer, mode="r|") as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is None:
                        raise IsADirectoryError(path)
                    return file.read()
        raise FileNotFoundError(path)

    def read_text(self, path: str) -> str:
        return self.read(path).decode()

    def write(self, path: str, data: Union[bytes, str], mode: int = 0o644) -> None:
        """Writes a file, which appears as a whole. Its folder must exist."""
        content = data.encode() if isinstance(data, str) else data
        folder, name = posixpath.split(path)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        target = self._archive(path=folder or ".", source="file", name=name)
        headers = {"Content-Type": "application/x-tar"}
        self._sandbox._client.call("PUT", target, packed.getvalue(), headers=headers, timeout=None)

    def list(self, path: str) -> Iterable[str]:
        """Names of the entries of a folder."""
        result = self._sandbox.exec(["ls", "-A1", "--", path], check=True)
        return result.stdout.splitlines()
