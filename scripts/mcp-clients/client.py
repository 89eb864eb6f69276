"""Uses a machine through `banger mcp` with the Python SDK: create, run, files both ways, ports, delete.

usage: client.py BANGER [real]

`real`: the machine has a real guest, whose programs can listen on ports.
"""

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

NAME = "sdk"
# A server of one text, in a language that the images of banger have.
LISTENER = (
    "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => \"0.0.0.0\","
    " LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die $!;"
    " while ($c = $s->accept) { print $c \"served\\n\"; close $c }'"
)


async def use(session, folder, is_real):
    messages = []

    async def progress(_done, _total, message):
        messages.append(message)

    async def call(tool, arguments):
        result = await session.call_tool(tool, arguments, progress_callback=progress)
        if result.is_error:
            raise SystemExit(f"{tool}: {result.structured_content}")
        return result.structured_content

    async def refused(tool, arguments, code):
        result = await session.call_tool(tool, arguments)
        error = result.structured_content["error"] if result.is_error else None
        assert error and error["code"] == code, (tool, result)
        return error

    port = free_port()
    machine = await call("create", {"name": NAME, "publish": [f"{port}:8000"]})
    assert machine["state"] == "running", machine
    assert "boot" in messages, messages
    messages.clear()
    ran = await call("exec", {"vm": NAME, "command": "echo one; echo two >&2; exit 3"})
    assert (ran["exit_code"], ran["stdout"], ran["stderr"]) == (3, "one\n", "two\n"), ran
    # The notification of the last piece may arrive after the result.
    assert "one\n" in messages, messages
    content = "".join(f"line {number}\n" for number in range(1000))
    await call("write_file", {"vm": NAME, "path": "/root/sent", "content": content})
    back = await call("read_file", {"vm": NAME, "path": "sent"})
    assert back["content"] == content
    await files(call, refused, folder)
    await ports(call, port, is_real)
    await refused("exec", {"vm": "nosuch", "command": "true"}, "not_found")
    await refused("workspace_status", {"vm": NAME}, "not_found")
    await call("delete", {"vm": NAME})


async def files(call, refused, folder):
    """Trees of files in both directions, within the folders that the server may use."""
    tree = folder / "tree"
    (tree / "deep").mkdir(parents=True)
    data = os.urandom(3_000_000)
    (tree / "deep/data").write_bytes(data)
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    sent = await call("upload", {"vm": NAME, "host_path": str(tree), "path": "/srv"})
    assert sent["bytes"] == len(data) + 10, sent
    back = {"vm": NAME, "path": "/srv/tree", "host_path": str(folder / "back")}
    got = await call("download", back)
    assert (got["bytes"], got["left_out"]) == (len(data) + 10, 0), got
    assert (folder / "back/deep/data").read_bytes() == data
    assert os.access(folder / "back/run.sh", os.X_OK)
    # Neither out of the folder by a path nor by a link.
    (folder / "link").symlink_to("/etc")
    for path in ("/etc/hostname", str(folder / "link/hostname"), str(folder / "../x")):
        wanted = {"vm": NAME, "host_path": path, "path": "/srv"}
        error = await refused("download", wanted, "bad_request")
        assert "--files" in error["remedy"], error
    absent = {"vm": NAME, "host_path": str(folder / "absent"), "path": "/srv"}
    await refused("upload", absent, "not_found")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


async def ports(call, port, is_real):
    # Where the machine has no address on the host, the port is published at its next start.
    later = await call("publish", {"vm": NAME, "port": f"{free_port()}:9000"})
    assert (len(later["published"]) == 2) == (later["available"] == "now"), later
    if is_real:
        detached = f"setsid {LISTENER} >/dev/null 2>&1 </dev/null &"
        ran = await call("exec", {"vm": NAME, "command": detached})
        assert ran["exit_code"] == 0, ran
    while True:
        shown = await call("ports", {"vm": NAME})
        assert shown["published"][0]["endpoint"] == f"127.0.0.1:{port}", shown
        if not is_real or any(listening["port"] == 8000 for listening in shown["listening"]):
            break
    if is_real:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert connection.makefile().readline() == "served\n"


async def main():
    is_real = "real" in sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        server = StdioServerParameters(
            command=sys.argv[1], args=["mcp", "--files", folder], env=dict(os.environ)
        )
        async with stdio_client(server) as (read, write):
            async with ClientSession(read, write) as session:
                await session.initialize()
                await use(session, Path(folder).resolve(), is_real)
    print("ok")


asyncio.run(main())
