"""Pulls a machine's changes of a repository through `banger mcp` with the Python SDK.

usage: workspace.py BANGER REPOSITORY

The machine `app` has the repository in /root/app, and a file `file` in it.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

VM = {"vm": "app"}


async def session_of(arguments, use):
    server = StdioServerParameters(
        command=sys.argv[1], args=["mcp", *arguments], env=dict(os.environ)
    )
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()

            async def call(tool, values, fails=False):
                result = await session.call_tool(tool, {**VM, **values})
                assert result.is_error == fails, (tool, result)
                return result.structured_content

            await use(call)


def listed(changes):
    return {change["path"]: change["effect"] for change in changes}


async def main():
    repository = Path(sys.argv[2])

    async def read_only(call):
        script = "cd app && printf 'from \\033[31mguest\\n' >file && echo new >added"
        # As the user: this server offers no `exec`.
        subprocess.run(
            [sys.argv[1], "exec", "app", "--", "sh", "-c", script], check=True
        )
        status = await call("workspace_status", {})
        changes = listed(status["machine"])
        assert changes == {"file": "modified", "added": "added"}, status
        assert status["repository"] == str(repository), status
        diff = await call("workspace_diff", {})
        assert "+from \\u{1b}[31mguest" in diff["patch"] and not diff["truncated"], diff
        part = await call("workspace_diff", {"max_output_bytes": 20})
        assert part["truncated"] and part["bytes"] == diff["bytes"], part
        error = await call("workspace_pull", {}, fails=True)
        assert "--read-only" in error["error"]["remedy"], error

    async def pulls(call):
        before = (repository / "file").read_bytes()
        (repository / "file").write_text("host\n")
        conflict = (await call("workspace_pull", {}, fails=True))["error"]
        assert conflict["code"] == "wrong_state" and conflict["causes"] == ["file"], conflict
        assert "`branch`" in conflict["remedy"], conflict
        # Nothing is half applied.
        assert (repository / "file").read_text() == "host\n"
        assert not (repository / "added").exists()
        branch = await call("workspace_pull", {"branch": "mcp"})
        assert branch["has_uncommitted"], branch
        shown = subprocess.check_output(["git", "show", "mcp:added"], cwd=repository)
        assert shown == b"new\n"
        (repository / "file").write_bytes(before)
        pulled = await call("workspace_pull", {})
        assert listed(pulled["changed"]) == {"file": "modified", "added": "added"}, pulled
        assert (repository / "file").read_bytes() == b"from \033[31mguest\n"
        assert (repository / "added").read_text() == "new\n"
        status = await call("workspace_status", {})
        assert not (status["machine"] or status["host"] or status["conflicts"]), status

    await session_of(["--read-only"], read_only)
    await session_of([], pulls)
    print("ok")


asyncio.run(main())
