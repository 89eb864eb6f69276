"""Run with BANGER_SOCKET of a daemon on the simulated host, or with a real one:
`BANGER_TEST_VM=NAME` uses an existing machine and the commands of a real guest."""

import os
import socket
import time
import unittest

from banger import ApiError, Client, CommandFailed, Sandbox

VM = os.environ.get("BANGER_TEST_VM")


class WithSandbox(unittest.TestCase):
    sandbox: Sandbox

    @classmethod
    def setUpClass(cls) -> None:
        cls.sandbox = Sandbox.connect(VM) if VM else Sandbox(labels={"test": "python"})

    @classmethod
    def tearDownClass(cls) -> None:
        if not VM:
            cls.sandbox.delete()
            cls.sandbox.delete()

    def test_commands(self) -> None:
        result = self.sandbox.exec("echo out; echo err >&2; exit 3")
        self.assertEqual((result.exit_code, result.stdout, result.stderr), (3, "out\n", "err\n"))
        self.assertEqual(self.sandbox.exec(["echo", "a b"]).stdout, "a b\n")
        self.assertEqual(self.sandbox.exec("echo $A", env={"A": "1 2"}).stdout, "1 2\n")
        with self.assertRaises(CommandFailed) as failed:
            self.sandbox.exec("exit 7", check=True)
        self.assertEqual(failed.exception.result.exit_code, 7)
        absent = self.sandbox.exec(["no-such-program"])
        self.assertEqual(absent.exit_code, 127)
        self.assertIn("no-such-program", absent.error or "")

    def test_input_and_streams(self) -> None:
        data = os.urandom(3_000_000)
        self.assertEqual(self.sandbox.exec(["cat"], input=data).stdout_bytes, data)
        with self.sandbox.popen(["cat"], stdin=True) as process:
            chunks = iter(process)
            process.write(b"one\n")
            self.assertEqual(next(chunks).text, "one\n")
            process.write(b"two\n")
            self.assertEqual(next(chunks).data, b"two\n")
            process.close_stdin()
            self.assertEqual(list(chunks), [])
            self.assertEqual(process.exit_code, 0)

    def test_time_limit_and_signal(self) -> None:
        began = time.monotonic()
        with self.assertRaises(TimeoutError):
            self.sandbox.exec(["sleep", "600"], timeout=0.3)
        self.assertLess(time.monotonic() - began, 60)
        process = self.sandbox.popen(["sleep", "600"])
        process.kill()
        self.assertEqual(process.wait(60).exit_code, 137)

    def test_files(self) -> None:
        self.sandbox.files.write("/tmp/python-test", "Grüße\n")
        self.assertEqual(self.sandbox.files.read_text("/tmp/python-test"), "Grüße\n")
        data = os.urandom(500_000)
        self.sandbox.files.write("/tmp/python-bytes", data)
        self.assertEqual(self.sandbox.files.read("/tmp/python-bytes"), data)
        with self.assertRaises(ApiError) as absent:
            self.sandbox.files.read("/tmp/absent-file")
        self.assertEqual(absent.exception.code, "not_found")
        if VM:
            self.assertIn("python-test", self.sandbox.files.list("/tmp"))

    def test_ports(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        published = self.sandbox.publish(80, port)
        self.assertEqual(published.address, ("127.0.0.1", port))
        # QEMU's own network, which the real machine has, takes it at the next start.
        self.assertEqual(published in self.sandbox.ports(), not VM)

    def test_errors(self) -> None:
        with self.assertRaises(ApiError) as unknown:
            Sandbox.connect("no-such-machine")
        self.assertEqual((unknown.exception.code, unknown.exception.status), ("not_found", 404))
        self.assertTrue(unknown.exception.hints)
        with self.assertRaises(ApiError) as bad:
            Sandbox(vcpus=0)
        self.assertEqual(bad.exception.code, "bad_request")
        with self.assertRaises(ApiError) as gone:
            gone_vm = Sandbox.connect(self.sandbox.id)
            gone_vm.id = "000000000000"
            gone_vm.exec("true")
        self.assertEqual(gone.exception.code, "not_found")
        absent = Client("/nonexistent/bangerd.sock", program="/nonexistent/banger")
        with self.assertRaises(ApiError) as unavailable:
            Sandbox(client=absent)
        self.assertEqual(unavailable.exception.code, "daemon_unavailable")


@unittest.skipIf(VM, "a real machine takes long to create")
class Life(unittest.TestCase):
    def test_with(self) -> None:
        with Sandbox(name="python-life", labels={"life": "1"}, vcpus=1) as sandbox:
            found = Sandbox.list(label="life=1")
            self.assertEqual([vm["id"] for vm in found], [sandbox.id])
            sandbox.stop()
            self.assertEqual(sandbox.info()["state"], "stopped")
            sandbox.start()
            self.assertEqual(sandbox.info()["state"], "running")
        self.assertEqual(Sandbox.list(label="life"), [])
        with self.assertRaises(KeyError), Sandbox(name="python-life"):
            raise KeyError
        self.assertEqual([vm for vm in Sandbox.list() if vm["name"] == "python-life"], [])


if __name__ == "__main__":
    unittest.main()
