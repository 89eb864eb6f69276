"""Uses a machine through `banger mcp` with the Python SDK: create, run, files, ports, delete.

usage: client.py BANGER [NAME]
"""

import asyncio
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def use(session, name):
    messages = []

    async def progress(_done, _total, message):
        messages.append(message)

    async def call(tool, arguments):
        result = await session.call_tool(tool, arguments, progress_callback=progress)
        if result.is_error:
            raise SystemExit(f"{tool}: {result.structured_content}")
        return result.structured_content

    machine = await call("create", {"name": name})
    assert machine["state"] == "running", machine
    assert "boot" in messages, messages
    messages.clear()
    ran = await call("exec", {"vm": name, "command": "echo one; echo two >&2; exit 3"})
    assert (ran["exit_code"], ran["stdout"], ran["stderr"]) == (3, "one\n", "two\n"), ran
    # The notification of the last piece may arrive after the result.
    assert "one\n" in messages, messages
    content = "".join(f"line {number}\n" for number in range(1000))
    await call("write_file", {"vm": name, "path": "/root/sent", "content": content})
    back = await call("read_file", {"vm": name, "path": "sent"})
    assert back["content"] == content
    ports = await call("ports", {"vm": name})
    assert isinstance(ports["listening"], list), ports
    wrong = await session.call_tool("exec", {"vm": "nosuch", "command": "true"})
    assert wrong.is_error and wrong.structured_content["error"]["code"] == "not_found", wrong
    await call("delete", {"vm": name})


async def main():
    name = sys.argv[2] if len(sys.argv) > 2 else "sdk"
    server = StdioServerParameters(command=sys.argv[1], args=["mcp"], env=dict(os.environ))
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            await use(session, name)
    print("ok")


asyncio.run(main())
