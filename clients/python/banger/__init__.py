"""Machines of banger: create, run commands, move files, reach ports.

    from banger import Sandbox

    with Sandbox() as sandbox:
        print(sandbox.exec("uname -a").stdout)

The daemon must be on this host; `banger` starts it if it does not run.
"""

from ._client import ApiError, Client
from ._exec import Chunk, CommandFailed, Process, Result
from ._sandbox import Files, Port, Sandbox

__all__ = [
    "ApiError",
    "Chunk",
    "Client",
    "CommandFailed",
    "Files",
    "Port",
    "Process",
    "Result",
    "Sandbox",
]
