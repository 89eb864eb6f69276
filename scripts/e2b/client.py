"""Uses sandboxes of `banger serve --e2b` with E2B's SDK, which finds the server in its variables.

usage: client.py [real]   a real machine has more programs than a simulated one
"""

import asyncio
import http.client
import io
import os
import sys
import time
import urllib.parse

from e2b import (
    AsyncSandbox,
    CommandExitException,
    FileNotFoundException,
    FileType,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxNotRunningException,
    SandboxQuery,
    TimeoutException,
)

REAL = "real" in sys.argv[1:]


def fails(kind, call):
    try:
        result = call()
    except kind as error:
        return str(error)
    raise SystemExit(f"no {kind.__name__}, but {result!r}")


def waits(what, holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise SystemExit(f"not in time: {what}")


def commands(sandbox):
    parts = []
    ran = sandbox.commands.run("echo one; echo $GREETING >&2", on_stdout=parts.append)
    assert (ran.stdout, ran.stderr, ran.exit_code) == ("one\n", "hello\n", 0), ran
    assert parts == ["one\n"], parts
    ran = sandbox.commands.run("pwd; echo $A", cwd="/srv", envs={"A": "b c"})
    assert ran.stdout == "/srv\nb c\n", ran
    try:
        sandbox.commands.run("echo out; exit 3")
        raise SystemExit("no error")
    except CommandExitException as error:
        assert (error.exit_code, error.stdout) == (3, "out\n"), error
    assert sandbox.commands.run("seq 100000").stdout.endswith("\n100000\n")
    fails(TimeoutException, lambda: sandbox.commands.run("sleep 600", timeout=1))
    waits("the end of the command", lambda: sandbox.commands.list() == [])
    # A second client, input, and the end of it.
    cat = sandbox.commands.run("cat", background=True, stdin=True)
    assert [process.pid for process in sandbox.commands.list()] == [cat.pid]
    assert sandbox.commands.list()[0].args[-1] == "cat"
    handle = sandbox.commands.connect(cat.pid)
    sandbox.commands.send_stdin(cat.pid, "first\n")
    sandbox.commands.stream_input(cat.pid, ["sec", "ond\n"])
    sandbox.commands.close_stdin(cat.pid)
    assert cat.wait().stdout == "first\nsecond\n"
    assert handle.wait().stdout == "first\nsecond\n"
    fails(NotFoundException, lambda: sandbox.commands.connect(cat.pid))
    # A command goes on without a client, until it is killed.
    sleeping = sandbox.commands.run("sleep 600", background=True)
    sleeping.disconnect()
    assert [process.pid for process in sandbox.commands.list()] == [sleeping.pid]
    assert sandbox.commands.kill(sleeping.pid) is True
    waits("the end of the command", lambda: sandbox.commands.list() == [])
    assert sandbox.commands.kill(sleeping.pid) is False
    fails(SandboxException, lambda: sandbox.commands.run("true", user="nobody-here"))
    killed = sandbox.commands.run("sleep 600", background=True)
    killed.kill()
    fails(CommandExitException, killed.wait)


def terminal(sandbox):
    from e2b import PtySize

    handle = sandbox.pty.create(PtySize(rows=30, cols=100), timeout=60)
    sandbox.pty.resize(handle.pid, PtySize(rows=31, cols=101))
    sandbox.pty.send_stdin(handle.pid, b"stty size; exit\n")
    output = b"".join(piece for _, _, piece in handle if piece)
    assert b"31 101" in output, output


def files(sandbox):
    fs = sandbox.files
    written = fs.write("/srv/new/deep/text", "a = 1\n")
    assert (written.path, written.name) == ("/srv/new/deep/text", "text"), written
    assert fs.read("/srv/new/deep/text") == "a = 1\n"
    data = bytes(range(256)) * 8192
    fs.write("/srv/new/binary", data)
    assert fs.read("/srv/new/binary", format="bytes") == data
    fs.write("/srv/new/stream", io.BytesIO(data))
    assert b"".join(fs.read("/srv/new/stream", format="stream")) == data
    fs.write("/srv/new/zipped", data, gzip=True)
    assert fs.read("/srv/new/zipped", format="bytes") == data
    both = fs.write_files([{"path": "/srv/new/1", "data": "one"}, {"path": "/srv/new/2", "data": "two"}])
    assert [entry.path for entry in both] == ["/srv/new/1", "/srv/new/2"]
    fs.write("in-home", "x")
    assert fs.read("/root/in-home") == "x" == fs.read("in-home")
    names = [entry.name for entry in fs.list("/srv/new")]
    assert names == ["1", "2", "binary", "deep", "stream", "zipped"], names
    deep = fs.list("/srv/new", depth=2)
    assert "/srv/new/deep/text" in [entry.path for entry in deep]
    info = fs.get_info("/srv/new/binary")
    assert (info.type, info.size, info.owner) == (FileType.FILE, len(data), "root"), info
    assert info.permissions == "-rw-r--r--", info
    assert fs.get_info("/srv/new/deep").type == FileType.DIR
    assert fs.exists("/srv/new/1") and not fs.exists("/srv/new/3")
    moved = fs.rename("/srv/new/1", "/srv/other/3")
    assert moved.path == "/srv/other/3" and not fs.exists("/srv/new/1")
    assert fs.make_dir("/srv/made/too") is True and fs.make_dir("/srv/made/too") is False
    fs.remove("/srv/other")
    assert not fs.exists("/srv/other")
    fails(FileNotFoundException, lambda: fs.read("/srv/nothing"))
    fails(FileNotFoundException, lambda: fs.get_info("/srv/nothing"))
    fails(FileNotFoundException, lambda: fs.list("/srv/nothing"))
    fails(SandboxException, lambda: fs.read("/srv"))


def watch(sandbox):
    watcher = sandbox.files.watch_dir("/srv/new", recursive=True)
    sandbox.files.write("/srv/new/deep/watched", "1")
    seen = []

    def arrived():
        seen.extend((event.name, event.type.value) for event in watcher.get_new_events())
        return ("deep/watched", "create") in seen

    waits("an event", arrived)
    sandbox.files.remove("/srv/new/deep/watched")

    def gone():
        seen.extend((event.name, event.type.value) for event in watcher.get_new_events())
        return ("deep/watched", "remove") in seen

    waits("another event", gone)
    watcher.stop()
    fails(SandboxException, lambda: sandbox.files.watch_dir("/srv/new/binary"))


def ask(sandbox, port, token):
    """The status and body of a request to a port, by its name."""
    server = urllib.parse.urlsplit(os.environ["E2B_API_URL"])
    host = sandbox.get_host(port)
    assert host.endswith(f".localhost:{server.port}"), host
    connection = http.client.HTTPConnection(server.hostname, server.port, timeout=60)
    headers = {"Host": host, "e2b-traffic-access-token": token}
    # The port of a simulated guest wants credentials.
    headers["Authorization"] = "Basic b3BlbmNvZGU6c2ltdWxhdGVkLXBhc3N3b3Jk"
    connection.request("GET", "/session", headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def ports(sandbox):
    port = 4096
    if REAL:
        port = 8000
        sandbox.files.write("/srv/www/session", "from the sandbox")
        server = "cd /srv/www && exec perl -MIO::Socket::INET -e '" + PERL + "'"
        sandbox.commands.run(server, background=True, timeout=0)
        waits("the port", lambda: ask(sandbox, port, sandbox.traffic_access_token)[0] == 200)
    status, body = ask(sandbox, port, sandbox.traffic_access_token)
    assert (status, body) == (200, b"from the sandbox" if REAL else b""), (status, body)
    assert ask(sandbox, port, "wrong")[0] == 401
    assert ask(sandbox, 9, sandbox.traffic_access_token)[0] == 502


# A web server for one file, since the image has no other.
PERL = (
    'my $s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die; '
    'while (my $c = $s->accept) { while (<$c>) { last if /^\\r?\\n$/ } '
    'open my $f, "<", "session"; my $t = <$f>; '
    'print $c "HTTP/1.0 200 OK\\r\\nContent-Length: " . length($t) . "\\r\\n\\r\\n$t"; close $c }'
)


def lives():
    sandbox = Sandbox.create(timeout=600, metadata={"team": "a b&c"}, envs={"GREETING": "hello"})
    info = sandbox.get_info()
    assert info.metadata == {"team": "a b&c"} and info.state.value == "running", info
    assert 500 < (info.end_at - info.started_at).total_seconds() < 700, info
    sandbox.set_timeout(3600)
    assert (sandbox.get_info().end_at - info.started_at).total_seconds() > 3000
    listed = Sandbox.list(query=SandboxQuery(metadata={"team": "a b&c"})).next_items()
    assert [one.sandbox_id for one in listed] == [sandbox.sandbox_id], listed
    assert Sandbox.list(query=SandboxQuery(metadata={"team": "b"})).next_items() == []
    again = Sandbox.connect(sandbox.sandbox_id)
    assert again.commands.run("echo $GREETING").stdout == "hello\n"
    assert sandbox.is_running()
    return sandbox


def main():
    sandbox = lives()
    commands(sandbox)
    terminal(sandbox)
    files(sandbox)
    watch(sandbox)
    ports(sandbox)
    message = fails(SandboxException, sandbox.pause)
    assert "longer `timeout`" in message, message
    assert sandbox.kill() is True and sandbox.kill() is False
    assert not sandbox.is_running()
    fails(SandboxNotRunningException, lambda: sandbox.commands.run("true"))
    fails(SandboxException, lambda: Sandbox.connect(sandbox.sandbox_id))
    fails(SandboxException, lambda: Sandbox.create(template="no-such-image"))
    asyncio.run(main_async())
    if not REAL:
        # Its time ends it.
        short = Sandbox.create(timeout=1)
        waits("the end of the sandbox", lambda: not short.is_running())
    print("ok")


async def main_async():
    sandbox = await AsyncSandbox.create(timeout=300)
    events, parts = [], []
    await sandbox.files.write("/srv/async/file", "1")
    assert await sandbox.files.read("/srv/async/file") == "1"
    watcher = await sandbox.files.watch_dir("/srv/async", on_event=lambda event: events.append(event.name))
    handle = await sandbox.commands.run(
        "cat", background=True, stdin=True, on_stdout=lambda text: parts.append(text)
    )
    await sandbox.commands.send_stdin(handle.pid, "in\n")
    await sandbox.commands.close_stdin(handle.pid)
    ran = await handle.wait()
    assert ran.stdout == "in\n" and parts == ["in\n"], (ran, parts)
    await sandbox.files.write("/srv/async/new", "2")
    for _ in range(600):
        if "new" in events:
            break
        await asyncio.sleep(0.05)
    assert "new" in events, events
    await watcher.stop()
    await asyncio.gather(*(sandbox.commands.run(f"echo {number}") for number in range(8)))
    assert await sandbox.kill() is True


main()
# The SDK's HTTP client has threads of its own, in which the interpreter sometimes aborts at its end.
sys.stdout.flush()
os._exit(0)
