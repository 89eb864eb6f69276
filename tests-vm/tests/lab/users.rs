//! An ordinary user, who needs sudo once.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use banger_testkit::{Home, Options, program};

use crate::jail::check_jail;
use crate::support::{DEFAULTS, Outside, finish, host, id, inside, is_stopped, shell, show, small};

/// The user `dev` with the helper installed; uninstalled when dropped.
pub struct User;

impl User {
    /// File with the name of the point at which the helper aborts.
    const ABORT: &'static str = "/run/banger-root-abort";

    pub fn new() -> Self {
        // Firecracker in a folder that the helper searches.
        shell("install -m 755 /payload/bin/firecracker /payload/bin/jailer /usr/local/bin/");
        let helper = program("banger-root").display().to_string();
        shell(&format!("runuser -u dev -- sudo {helper} install"));
        // The helper for tests takes the place of the installed one: only it has a failpoint.
        let with_failpoint = program("banger-root-test").display().to_string();
        shell(&format!("install -m 755 {with_failpoint} /usr/local/lib/banger-root/banger-root"));
        shell(&format!(
            "mkdir -p /etc/systemd/system/banger-root.service.d
             printf '[Service]\\nEnvironment=BANGER_ROOT_ABORT_ONCE={}\\n' \
               >/etc/systemd/system/banger-root.service.d/abort.conf
             systemctl daemon-reload",
            Self::ABORT
        ));
        Self
    }

    /// Makes the helper that systemd starts abort at a point of a request, once.
    pub fn abort_helper_at(&self, point: &str) {
        std::fs::write(Self::ABORT, point).unwrap();
    }

    /// Whether the helper reached the selected point and aborted.
    pub fn helper_aborted(&self) -> bool {
        !std::path::Path::new(Self::ABORT).exists()
    }

    /// A home of this user's, with kernel and image.
    pub fn home(&self) -> Home {
        self.home_with(small(""))
    }

    /// The same with this configuration.
    pub fn home_with(&self, config: String) -> Home {
        let home = Home::bare(Options { config, run_as: Some("dev".into()), ..Options::default() });
        let path = home.path().display().to_string();
        shell(&format!(
            "cp -a --sparse=always /cache/data /cache/cache {path}/ && chown -R dev:dev {path}"
        ));
        home
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let helper = program("banger-root").display().to_string();
        let script = format!(
            "rm -rf /etc/systemd/system/banger-root.service.d {}; {helper} uninstall; \
             rm -f /usr/local/bin/firecracker /usr/local/bin/jailer",
            Self::ABORT
        );
        let _ = Command::new("bash").args(["-c", &script]).status();
    }
}

#[test]
fn users_need_sudo_once() {
    let clean = host();
    let user = User::new();
    let before = host();
    let home = user.home();
    let _outside = Outside::new();
    let script = "id -u; ip -4 addr; cat /proc/cmdline; wget -qO- http://198.51.100.1/";
    let run = home.run(&["run", "--rm", "--wait", "ready", "--", "sh", "-c", script]);
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
    assert!(run.out.contains("172.16.0.") && run.out.contains("outside"), "{}", run.out);
    assert!(!run.out.contains(" ip="));

    home.ok(&["vm", "create", "--name", "web"]);
    let drivers = show(&home, "web")["drivers"].clone();
    assert_eq!(drivers["vmm"], "firecracker");
    assert_eq!(drivers["storage"], "dm-snapshot");
    check_jail(&home, "web");
    let (vm, boot) = (id(&home, "web"), show(&home, "web")["boot_id"].clone());
    assert!(home.ok(&["vm", "logs", "--console", "web"]).len() < 1 << 20);
    // Root starts the shim; its log is the user's, as the other logs are.
    home.ok(&["vm", "logs", "--shim", "web"]);
    let dev = shell("id -u dev");
    for log in ["shim.log", "console.log", "vmm.log"] {
        let path = format!("/var/lib/banger-root/vms/{vm}/logs/{log}");
        assert_eq!(shell(&format!("stat -c '%u %a' {path}")), format!("{dev} 600"), "{log}");
    }

    // Everything of the user's ends, as at a logout that kills; the next command finds the VM.
    shell("pkill -KILL -u dev; sleep 1; ! pgrep -u dev bangerd");
    assert_eq!(home.state("web"), "running");
    assert_eq!(show(&home, "web")["boot_id"], boot);
    assert_eq!(inside(&home, "web", "echo here"), "here");
    shell("systemctl restart banger-root.socket; systemctl restart banger-root.service || true");
    assert_eq!(inside(&home, "web", "echo here"), "here");
    assert_eq!(show(&home, "web")["boot_id"], boot);
    // All processes of the helper's unit are killed: shims and VMMs are in groups of their own.
    shell(
        "systemctl is-active banger-root.service && \
         systemctl kill --signal=KILL banger-root.service",
    );
    assert_eq!(inside(&home, "web", "echo here"), "here");
    assert_eq!(show(&home, "web")["boot_id"], boot);

    // Another user gets nothing, neither of the helper nor of the VM.
    let refused = shell(
        "useradd -m eve 2>/dev/null || true
         runuser -u eve -- socat -u -T5 UNIX-CONNECT:/run/banger-root.sock -",
    );
    assert!(refused.contains("does not serve the user with uid"), "{refused}");
    let logs = format!("/var/lib/banger-root/vms/{vm}/logs/console.log");
    assert_eq!(std::fs::metadata(&logs).unwrap().permissions().mode() & 0o777, 0o600);
    shell(&format!("! runuser -u eve -- cat {logs} 2>/dev/null"));
    shell("userdel -r eve 2>/dev/null || true");

    // The helper refuses what is not a request, and names of others.
    for line in [
        "garbage",
        "{\"request\":\"shell\"}",
        "{\"request\":\"end\",\"vm\":\"../../../etc\"}",
        "{\"request\":\"make\",\"vm\":\"0123456789ab\",\"path\":\"/etc\"}",
    ] {
        let answer = shell(&format!(
            "echo '{line}' | runuser -u dev -- socat -t5 - UNIX-CONNECT:/run/banger-root.sock"
        ));
        assert!(answer.contains("\"Err\""), "{line}: {answer}");
    }
    home.ok(&["vm", "kill", "web"]);
    is_stopped(&vm);
    home.ok(&["vm", "delete", "web"]);
    drop(_outside);
    finish(home, &before);
    drop(user);
    assert_eq!(host(), clean);
    for path in ["/usr/local/lib/banger-root", "/run/banger-root.sock", "/var/lib/banger-root"] {
        assert!(!std::path::Path::new(path).exists(), "{path}");
    }
}

#[test]
fn users_doctor_names_every_missing_part() {
    let home = Home::bare(Options {
        config: DEFAULTS.into(),
        run_as: Some("dev".into()),
        ..Options::default()
    });
    let missing = || -> Vec<(String, String)> {
        let run = home.run(&["doctor", "--json"]);
        let checks: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let list = checks["checks"].as_array().or(checks.as_array()).unwrap().clone();
        let text = |check: &serde_json::Value, key: &str| {
            check[key].as_str().unwrap_or_default().to_owned()
        };
        list.iter()
            .filter(|check| check["verdict"] == "missing")
            .map(|check| (text(check, "code"), text(check, "hint")))
            .collect()
    };
    let codes = |list: &[(String, String)]| -> Vec<String> {
        list.iter().map(|(code, _)| code.clone()).collect()
    };
    let first = missing();
    assert_eq!(codes(&first), ["root", "program.mmdebstrap", "program.newuidmap"]);
    // Each hint as it is written, by the user.
    let hint = first[0].1.clone();
    assert!(hint.starts_with("sudo "), "{hint}");
    shell(&format!("runuser -u dev -- {hint}"));
    let second = missing();
    assert_eq!(codes(&second), ["program.firecracker", "program.mmdebstrap", "program.newuidmap"]);
    assert!(second[0].1.contains("/usr/local/bin"), "{second:?}");
    shell("install -m 755 /payload/bin/firecracker /payload/bin/jailer /usr/local/bin/");
    assert_eq!(second[1].1, "apt install mmdebstrap");
    assert_eq!(second[2].1, "apt install uidmap");
    shell(
        "apt-get -qq update
         DEBIAN_FRONTEND=noninteractive apt-get -qq -y install mmdebstrap uidmap >/dev/null",
    );
    assert_eq!(missing(), []);
    home.finish();
    drop(User);
}
