//! The server of an image with opencode, reached by the name of its machine.

use std::fs;

use serde_json::Value;
use tests_vm::package::package;

use crate::support::{finish, home, host, shell, show};

const IMAGE: &str = "test-opencode";
/// The Debian package of the stand-in.
const NAME: &str = "opencode-stand-in";

/// Stands for opencode, which starts for many minutes in a guest that is emulated twice:
/// `crates/banger-host/tests/opencode.rs` runs opencode itself. It asks for the password as
/// opencode does (RFC 7617); `pack` with `u` gives the digits of base64 under other names.
const STAND_IN: &str = r#"#!/usr/bin/perl
use IO::Socket::INET;
"@ARGV" eq "serve --hostname 0.0.0.0 --port 4096" or die "@ARGV";
my $word = substr pack("u63", "opencode:$ENV{OPENCODE_SERVER_PASSWORD}"), 1;
chomp $word;
$word =~ tr|` -_|AA-Za-z0-9+/|;
my $server = IO::Socket::INET->new(Listen => 5, LocalPort => 4096, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    my $status = "401 Unauthorized";
    while (<$client>) {
        $status = "200 OK" if /^authorization: basic (\S+)/i && $1 eq $word;
        last unless /\S/;
    }
    print $client "HTTP/1.1 $status\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    close $client;
}
"#;

#[test]
fn opencode_answers_at_the_name_of_its_machine_with_the_password_only() {
    let before = host();
    let home = home("");
    let folder = tempfile::tempdir().unwrap();
    // apt installs it, in a machine that Firecracker runs.
    let deb = package(folder.path(), NAME, ("/usr/local/bin/opencode", STAND_IN));
    let (empty, none) = (folder.path().join("empty"), folder.path().join("none"));
    fs::create_dir(&empty).unwrap();
    fs::write(&none, "").unwrap();
    let copies = [
        format!("{}:/var/tmp/stand-in.deb", deb.display()),
        // Without sources nothing is fetched, wherever the test runs.
        format!("{}/.:/etc/apt/sources.list.d", empty.display()),
        format!("{}:/etc/apt/sources.list", none.display()),
    ];
    let mut build = vec!["image", "build", IMAGE, "--from", "debian", "--replace"];
    copies.iter().for_each(|copy| build.extend(["--copy", copy]));
    build.extend(["--package", "/var/tmp/stand-in.deb"]);
    home.ok(&build);
    let packages = home.json(&["image", "show", "--packages", IMAGE]);
    let installed = |name: &Value| name.as_str().unwrap() == format!("{NAME} 1.5");
    assert!(packages.as_array().unwrap().iter().any(installed), "{packages:#}");
    home.ok(&["vm", "create", "--name", "dev", "--image", IMAGE]);
    let vm = show(&home, "dev");
    let stages = vm["start"]["stages"].as_array().unwrap();
    assert!(stages.iter().any(|stage| stage["name"] == "wait_opencode"), "{vm:#}");
    assert_eq!(vm["start"]["warnings"].as_array().map_or(0, Vec::len), 0, "{vm:#}");
    let secrets = home.json(&["vm", "show", "dev", "--secrets"])["secrets"].clone();
    let password = secrets["opencode"]["password"].as_str().unwrap();
    let status = |user: &str| {
        let config = if user.is_empty() { String::new() } else { format!("user = {user}") };
        shell(&format!(
            "curl -s -m 20 -o /dev/null -w '%{{http_code}}' -K - http://dev.vm:4096/ <<<'{config}'"
        ))
    };
    assert_eq!(status(""), "401");
    assert_eq!(status("opencode:other"), "401");
    assert_eq!(status(&format!("opencode:{password}")), "200");
    let ports = home.json(&["vm", "ports", "dev"])[0]["ports"].clone();
    let link = |port: &Value| port["link"] == "http://dev.vm:4096/";
    assert!(ports.as_array().unwrap().iter().any(link), "{ports:#}");
    home.ok(&["vm", "delete", "-f", "dev"]);
    home.ok(&["image", "delete", IMAGE]);
    finish(home, &before);
}
