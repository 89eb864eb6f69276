//! What the host's user hands over to guests, seen in a real guest.

#![expect(clippy::unwrap_used, reason = "only tests use it, and a test may panic")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use banger_testkit::{Home, Options};

/// A user of the host: the home folder with a git identity, a login of opencode and a folder for
/// `[[file_sync]]`, and options for an installation of that user.
///
/// # Panics
/// A file cannot be written.
pub fn user() -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    set_name(folder.path(), "Ann; of the host");
    fs::create_dir_all(at(".local/share/opencode")).unwrap();
    fs::write(at(".local/share/opencode/auth.json"), r#"{"x":"login-7"}"#).unwrap();
    fs::create_dir_all(at("tool/sub")).unwrap();
    fs::write(at("tool/sub/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("tool/sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/etc/shadow", at("tool/link")).unwrap();
    let config = "[[file_sync]]\nhost = \"~/tool\"\nguest = \"/root/.config/tool\"\n\
                  [[file_sync]]\nhost = \"~/none\"\nguest = \"/root/none\"\n";
    let env =
        [("HOME", folder.path().to_str().unwrap()), ("XDG_CONFIG_HOME", ""), ("XDG_DATA_HOME", "")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    (folder, Options { config: config.into(), env, ..Options::default() })
}

/// Sets the name of that user's git identity.
///
/// # Panics
/// The file cannot be written.
pub fn set_name(home: &Path, name: &str) {
    let content = format!("[user]\n\tname = \"{name}\"\n\temail = ann@host.example\n");
    fs::write(home.join(".gitconfig"), content).unwrap();
}

/// Runs a real ssh-agent(1) of this host with a new key beside commands in a VM.
///
/// # Panics
/// The keys in the guest are others, or a session leaves its socket.
pub fn check_ssh_agent(home: &Home, user: &Path, vm: &str) {
    let (socket, key) = (user.join("agent.sock"), user.join("key"));
    let socket = socket.to_str().unwrap();
    let mut agent = Command::new("ssh-agent").args(["-D", "-a", socket]).spawn().unwrap();
    home.wait("the ssh agent", || Path::new(socket).exists());
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).env("SSH_AUTH_SOCK", socket).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    run("ssh-add", &["-q", key.to_str().unwrap()]);
    let keys = run("ssh-add", &["-l"]);
    let exec = |args: &[&str], script: &str| {
        let args = [&["exec", "--ssh-agent"], args, &[vm, "--", "sh", "-c", script]].concat();
        let output = home.command(&args).env("SSH_AUTH_SOCK", socket).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
        shown
    };
    assert_eq!(exec(&[], "ssh-add -l"), keys);
    // Several at once, and another user of the guest cannot use the socket of root.
    let script = "for n in 1 2 3; do ssh-add -l & done; wait; \
                  setpriv --reuid nobody --regid nogroup --clear-groups ssh-add -l 2>&1 && exit 1; \
                  test -S $SSH_AUTH_SOCK";
    let shown = exec(&[], script);
    assert!(shown.starts_with(&keys.repeat(3)) && !shown[3 * keys.len()..].contains(&keys));
    assert_eq!(exec(&["-u", "nobody"], "ssh-add -l"), keys);
    let left = "test -z \"$(ls -A /run/banger-forward)\" && echo none";
    home.wait("the sockets of ended sessions to go", || {
        home.run(&["exec", vm, "--", "sh", "-c", left]).out == "none\n"
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// Checks a running VM of that user, and what its next start makes of changes.
///
/// # Panics
/// Something else is in the guest.
pub fn check(home: &Home, user: &Path, vm: &str) {
    let sh = |script: &str| home.ok(&["exec", vm, "--", "sh", "-c", script]);
    let login = "/root/.local/share/opencode/auth.json";
    assert_eq!(
        sh(&format!("stat -c '%a %U' {login}; cat {login}")),
        "600 root\n{\"x\":\"login-7\"}"
    );
    assert_eq!(
        sh("cd /root/.config/tool; find . ! -type d | sort; stat -c %a sub/run"),
        "./sub/run\n755\n"
    );
    let committed = "cd $(mktemp -d) && git init -q . && git commit -q --allow-empty -m x && \
                     git log --format='%an %ae'";
    assert_eq!(sh(committed), "Ann; of the host ann@host.example\n");
    let shown = home.ok(&["vm", "show", vm]);
    for line in [
        "from host   git identity copied to /root/.gitconfig",
        "from host   opencode login copied to /root/.local/share/opencode/auth.json",
        "from host   file copied to /root/.config/tool without one symbolic link",
        "from host   file not copied to /root/none: ",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    // Values of the user stay, the identity is the host's again; a file that is gone stays.
    sh("git config --global user.name Mine && git config --global user.signingKey K && \
        git config --global core.editor vi && echo mine >/root/none");
    set_name(user, "Bob");
    fs::remove_file(user.join(".local/share/opencode/auth.json")).unwrap();
    let restarted = home.run(&["vm", "restart", vm]);
    assert_eq!(restarted.code, 0, "{}", restarted.err);
    assert!(restarted.err.contains("does not exist; the guest keeps"), "{}", restarted.err);
    let get = "git config --global --get-regexp '^(user|core)'";
    assert_eq!(
        sh(get),
        "user.name Bob\nuser.email ann@host.example\nuser.signingkey K\ncore.editor vi\n"
    );
    assert_eq!(sh(&format!("cat {login} /root/none")), "{\"x\":\"login-7\"}mine\n");
    // Nothing of it is written on the host.
    for folder in ["state", "config"] {
        let found = Command::new("grep")
            .args(["-rlE", "login-7|Ann; of|Bob"])
            .arg(home.path().join(folder))
            .output()
            .unwrap();
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        // The guest's own disk has it.
        let files = found.lines().filter(|path| !path.ends_with(".ext4"));
        assert_eq!(files.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
