"""Fuzzes the HTTP API of the simulated daemon, as openapi/banger.json describes it, with schemathesis.

Starts `bangerd-sim` in a home of its own and a relay from a loopback TCP port to its socket, and
runs schemathesis against the relay. It fails if schemathesis does, if the daemon ends, and if the
daemon's log contains an error.

    fuzz.py BANGERD_SIM [SEED]

One seed makes one sequence of requests; ids, which are random, differ between runs.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "openapi" / "banger.json"
# Largest head of a request or an answer, in bytes.
MAX_HEAD = 256 * 1024
# A stream of events or of a log ends this many seconds after its head.
STREAM_S = 0.3
STREAMS = re.compile(
    rb"^content-type: *(text/event-stream|application/octet-stream|application/x-ndjson)",
    re.IGNORECASE | re.MULTILINE,
)
KEEP_ALIVE = re.compile(rb"^connection: *keep-alive\r\n", re.IGNORECASE | re.MULTILINE)
# A request that has no complete answer after this many seconds is a failure.
REQUEST_S = 10
# Requests of one operation and phase.
EXAMPLES = 20
# A run with fewer requests has not tested the API.
MIN_REQUESTS = 1000
# Limit of the whole run.
RUN_S = 300


class Relay(socketserver.ThreadingTCPServer):
    """One request on each connection, as HTTP/1.0: a body ends where its connection does, so a
    stream can be ended without an error."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, socket):
        super().__init__(("127.0.0.1", 0), Exchange)
        self.socket_path = socket
        self.port = self.server_address[1]
        self.requests = 0
        self.server_errors = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # The client left, or the daemon did: schemathesis reports it.


class Exchange(socketserver.BaseRequestHandler):
    """A request and its answer."""

    def handle(self):
        head, body = read_head(self.request)
        self.server.requests += 1
        line, rest = head.split(b"\r\n", 1)
        line = line.replace(b" HTTP/1.1", b" HTTP/1.0")
        rest = KEEP_ALIVE.sub(b"Connection: close\r\n", rest)
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(self.server.socket_path)
            arguments = (self.request, daemon, line + b"\r\n" + rest + body)
            threading.Thread(target=copy, args=arguments, daemon=True).start()
            answer, body = read_head(daemon)
            if answer.split(b" ", 2)[1] >= b"500":
                self.server.server_errors.append(line.decode("latin-1"))
            if STREAMS.search(answer):
                daemon.settimeout(STREAM_S)
            copy(daemon, self.request, answer + body)
            # The request's body may still be on its way: that must not reset the connection.
            self.request.shutdown(socket.SHUT_WR)


def read_head(source):
    """The head of a message, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = source.recv(65536)
        if not piece or len(data) > MAX_HEAD:
            raise OSError("no head")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    return head + b"\r\n\r\n", body


def copy(source, target, data):
    """Sends `data` and then all that `source` sends, until one of them ends."""
    with contextlib.suppress(OSError):
        while data:
            target.sendall(data)
            data = source.recv(65536)


def start_daemon(program, home):
    env = {name: value for name, value in os.environ.items() if not name.startswith("BANGER")}
    env |= {"BANGER_HOME": str(home), "BANGER_DNS_PORT": "0"}
    daemon = subprocess.Popen([program], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    line = daemon.stdout.readline()
    if line != b"ready\n":
        sys.exit(f"fuzz: {program} is not ready: {line!r}")
    return daemon


def fuzz(relay, seed, work):
    command = [
        # Not the installed script, which has the folder's path of its installation.
        sys.executable, "-m", "schemathesis.cli",
        "--config-file", HERE / "schemathesis.toml", "run", DOCUMENT,
        "--url", f"http://127.0.0.1:{relay.port}", "--seed", seed, "--workers", "1",
        "--max-examples", str(EXAMPLES), "--request-timeout", str(REQUEST_S),
        "--generation-database", "none", "--continue-on-failure", "--no-color",
    ]
    env = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    return subprocess.run(list(map(str, command)), cwd=work, env=env, timeout=RUN_S).returncode


def errors(log):
    """Lines of the daemon's log that a request must not cause."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return [line for line in lines if line.get("level") == "ERROR" or "panic" in str(line)]


def main():
    program, seed = sys.argv[1], (sys.argv[2:] + ["1"])[0]
    with tempfile.TemporaryDirectory(prefix="bgr-fuzz-") as folder:
        home = pathlib.Path(folder)
        daemon = start_daemon(program, home)
        relay = Relay(str(home / "run/bangerd.sock"))
        try:
            status = fuzz(relay, seed, folder)
            ended = daemon.poll()
        finally:
            daemon.send_signal(signal.SIGTERM)
        problems = [f"the daemon ended with {ended}"] if ended is not None else []
        if daemon.wait(30) != 0:
            problems.append(f"the daemon ended with {daemon.returncode}")
        problems += map(str, errors(home / "state/log/bangerd.log"))
        problems += [f"answered with a server error: {line}" for line in relay.server_errors]
    if relay.requests < MIN_REQUESTS:
        problems.append(f"fewer than {MIN_REQUESTS} requests were sent")
    for problem in problems:
        print(f"fuzz: {problem}")
    print(f"fuzz: {relay.requests} requests, seed {seed}")
    sys.exit(1 if problems or status else 0)


main()
