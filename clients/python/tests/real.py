"""Creates a machine with a real guest, runs the tests of `test_sandbox` in it, and reads from a port of it.

Run with `BANGER_SOCKET` of a daemon with a real host.
"""

import os
import socket
import sys
import unittest

from banger import Sandbox

# A server of one text, in a language that the images of banger have.
LISTENER = (
    "use IO::Socket::INET; $| = 1;"
    "$s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 8000, Listen => 5) or die $!;"
    "print qq(listening\\n); while ($c = $s->accept) { print $c qq(served\\n); close $c }"
)


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with Sandbox(name="python", publish={port: 8000}) as sandbox:
        assert sandbox.exec("uname -s", check=True).stdout == "Linux\n"
        # Output arrives before the command ends: the server never does.
        with sandbox.popen(["perl", "-e", LISTENER]) as server:
            assert next(iter(server)).text == "listening\n"
            with socket.create_connection(("127.0.0.1", port)) as connection:
                assert connection.makefile().readline() == "served\n"
        # Leaving the block has killed it.
        assert "perl" not in sandbox.exec("cat /proc/[0-9]*/comm").stdout.split()
        os.environ["BANGER_TEST_VM"] = sandbox.name
        from tests import test_sandbox

        suite = unittest.defaultTestLoader.loadTestsFromModule(test_sandbox)
        result = unittest.TextTestRunner().run(suite)
        assert result.testsRun >= 6 and result.wasSuccessful()
    assert Sandbox.list() == []
    print("ok")
    sys.exit(0)


main()
