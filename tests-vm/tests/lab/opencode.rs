//! The server of an image with opencode, reached by the name of its machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{finish, home, host, shell, show};

const IMAGE: &str = "test-opencode";

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
    let program = folder.path().join("opencode");
    fs::write(&program, STAND_IN).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = format!("{}:/usr/local/bin/opencode", program.display());
    home.ok(&["image", "build", IMAGE, "--from", "debian", "--copy", &copy, "--replace"]);
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
