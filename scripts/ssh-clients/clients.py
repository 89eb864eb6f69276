"""Uses a VM through paramiko and Ansible as they are on PyPI.

    clients.py USER_CONFIG BANGER_CONFIG HOST FOLDER

USER_CONFIG is a configuration of ssh with the Include of `banger ssh-config --install`, BANGER_CONFIG the
included file, which paramiko reads itself: it knows no Include. FOLDER is for what Ansible leaves.
"""

import io
import os
import pathlib
import subprocess
import sys

import paramiko

# Listens on a port that it prints, and returns what its first client sends, as the server of an
# editor's remote mode would.
ECHO = r"""perl -MIO::Socket::INET -e '
    $| = 1;
    $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die $@;
    print $server->sockport, "\n";
    $client = $server->accept;
    while (sysread($client, $piece, 65536)) { syswrite($client, $piece) }'"""


def connect(config_path, name):
    config = paramiko.SSHConfig.from_path(config_path).lookup(name)
    client = paramiko.SSHClient()
    client.load_host_keys(config["userknownhostsfile"])
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        name,
        username=config["user"],
        key_filename=config["identityfile"],
        sock=paramiko.ProxyCommand(config["proxycommand"]),
        allow_agent=False,
        look_for_keys=False,
    )
    return client


def files(client):
    data = os.urandom(3_000_000)
    with client.open_sftp() as sftp:
        sftp.mkdir("sftp", 0o750)
        sftp.putfo(io.BytesIO(data), "sftp/new")
        sftp.chmod("sftp/new", 0o640)
        sftp.posix_rename("sftp/new", "sftp/data")
        sftp.symlink("data", "sftp/link")
        assert sorted(sftp.listdir("sftp")) == ["data", "link"]
        assert sftp.stat("sftp/link").st_mode & 0o777 == 0o640
        back = io.BytesIO()
        sftp.getfo("sftp/link", back)
        assert back.getvalue() == data, "other bytes came back"


def forward(client):
    _, stdout, _ = client.exec_command(ECHO)
    port = int(stdout.readline())
    channel = client.get_transport().open_channel("direct-tcpip", ("127.0.0.1", port), ("", 0))
    data = os.urandom(1_000_000)
    back = bytearray()
    for start in range(0, len(data), 20_000):
        channel.sendall(data[start : start + 20_000])
        while len(back) < start + 20_000:
            piece = channel.recv(65536)
            assert piece, "the forwarded connection ended"
            back += piece
    assert back == data, "other bytes came back"
    channel.close()
    assert stdout.channel.recv_exit_status() == 0


def ansible(config, name, folder):
    """A short ControlPath, as Ansible makes it, keeps a connection open in the background."""
    environment = {
        **os.environ,
        "ANSIBLE_HOME": folder,
        "ANSIBLE_LOCAL_TEMP": f"{folder}/local",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/cp",
        "ANSIBLE_SSH_COMMON_ARGS": f"-F '{config}'",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_NOCOLOR": "1",
    }
    program = pathlib.Path(sys.executable).with_name("ansible")
    command = [program, "all", "-i", f"{name},", "-m", "ansible.builtin.ping"]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
    finally:
        for path in pathlib.Path(folder, "cp").glob("*"):
            end = ["ssh", "-F", config, "-o", f"ControlPath={path}", "-O", "exit", name]
            subprocess.run(end, capture_output=True)
    assert run.returncode == 0 and '"ping": "pong"' in run.stdout, run.stdout + run.stderr


def main():
    user_config, banger_config, name, folder = sys.argv[1:]
    with connect(banger_config, name) as client:
        files(client)
        forward(client)
    ansible(user_config, name, folder)


main()
