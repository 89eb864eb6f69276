//! Names of VMs, queried with dig(1): they follow the VMs and need nothing to be right again
//! after a restart.

use std::net::UdpSocket;
use std::process::Command;

use serde_json::Value;

use crate::support::{Daemon, Home};

fn status(daemon: &Daemon) -> Value {
    daemon.get("/v1/daemon").ok()["dns"].clone()
}

/// The code and the records of an answer, in the words of dig.
fn dig(daemon: &Daemon, more: &[&str]) -> (String, Vec<String>) {
    let listen = status(daemon)["listen"].as_str().unwrap().to_owned();
    let port = listen.strip_prefix("127.0.0.1:").unwrap();
    let fixed = ["@127.0.0.1", "-p", port, "+time=10", "+tries=1", "+norec", "+noall"];
    let output = Command::new("dig")
        .args(fixed)
        .args(["+comments", "+answer", "+authority"])
        .args(more)
        .output()
        .expect("dig, of bind9-dnsutils");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains("WARNING"), "{text}");
    let code = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let records = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    let evened = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    (code.to_owned(), records.map(evened).collect())
}

const SOA: &str = "vm. 1 IN SOA vm. nobody.invalid. 1 3600 1200 604800 1";

#[test]
fn names_follow_the_vms() {
    let home = Home::new();
    let mut daemon = home.start();
    daemon.make("web");
    let absent = ("NXDOMAIN".to_owned(), vec![SOA.to_owned()]);
    assert_eq!(dig(&daemon, &["web.vm"]), absent, "not started yet");
    daemon.done("/v1/vms/web/actions", r#"{"start": {}}"#);
    let ip = daemon.get("/v1/vms/web").ok()["ip"].as_str().unwrap().to_owned();
    let there = ("NOERROR".to_owned(), vec![format!("web.vm. 5 IN A {ip}")]);
    let resolves = |daemon: &Daemon| {
        for how in ["+notcp", "+tcp", "+noedns", "+dnssec", "+bufsize=512"] {
            assert_eq!(dig(daemon, &["web.vm", how]), there, "{how}");
        }
    };
    resolves(&daemon);
    assert_eq!(dig(&daemon, &["web.vm", "AAAA"]), ("NOERROR".into(), vec![SOA.into()]));
    assert_eq!(dig(&daemon, &["web.vm", "TYPE65280"]), ("NOERROR".into(), vec![SOA.into()]));
    assert_eq!(dig(&daemon, &["x.web.vm"]), absent);
    assert_eq!(dig(&daemon, &["web.example", "+tcp"]), ("REFUSED".into(), vec![]));
    assert_eq!(dig(&daemon, &["web.vm", "CH", "TXT"]), ("REFUSED".into(), vec![]));
    assert_eq!(dig(&daemon, &["web.vm", "+opcode=4"]), ("NOTIMP".into(), vec![]));
    assert_eq!(dig(&daemon, &["web.vm", "+edns=1", "+noednsneg"]), ("BADVERS".into(), vec![]));
    daemon.kill();
    daemon = home.start();
    resolves(&daemon);
    daemon.stop();
    daemon = home.start();
    resolves(&daemon);
    daemon.done("/v1/vms/web/actions", r#"{"stop": {}}"#);
    assert_eq!(dig(&daemon, &["web.vm"]), absent);
    daemon.done("/v1/vms/web/actions", r#"{"start": {}}"#);
    resolves(&daemon);
    daemon.done("/v1/vms/web/actions", r#"{"kill": {}}"#);
    assert_eq!(dig(&daemon, &["web.vm", "+tcp"]), absent);
    daemon.stop();
}

#[test]
fn a_port_that_is_taken_is_seen_and_does_no_harm() {
    let home = Home::new();
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let daemon = home.start_with(&[("BANGER_DNS_PORT", &port)]);
    daemon.run("web");
    let seen = status(&daemon);
    assert_eq!(seen["listen"], format!("127.0.0.1:{port}"));
    assert!(seen["problem"].as_str().unwrap().contains("in use"), "{seen}");
    let checks = daemon.get("/v1/doctor").ok();
    let find = |code: &str| {
        checks.as_array().unwrap().iter().find(|check| check["code"] == code).unwrap().clone()
    };
    assert_eq!(find("dns.listen")["verdict"], "warning");
    assert!(
        find("dns.listen")["hints"][0]["text"].as_str().unwrap().contains(&format!("port {port}"))
    );
    assert_eq!(find("config.dns_port")["verdict"], "ok");
    let log = std::fs::read_to_string(home.file("state/log/bangerd.log")).unwrap();
    assert!(log.contains("names of VMs are not served"), "{log}");
    daemon.stop();
}
