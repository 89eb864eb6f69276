//! `vm ports`.

use crate::support::{expect, home, run};

#[test]
fn published_ports_are_shown_with_endpoints_and_links() {
    let home = home();
    let none = "no published ports: `banger run -p 8080:80` publishes one\n";
    expect(&run(&home, "ports"), 0, "", none);
    run(&home, "create --name web -p 8080:80 -p 0.0.0.0:9443:443 -p [::1]:2222:22");
    run(&home, "create --name db --no-start -p 5432:5432");
    run(&home, "create --name idle --no-start");
    let web = "\
        web   127.0.0.1:8080  tcp          80  http://127.0.0.1:8080/\n\
        web   0.0.0.0:9443    tcp         443  https://127.0.0.1:9443/\n\
        web   [::1]:2222      tcp          22  -\n";
    let all = format!(
        "NAME  ENDPOINT        PROTOCOL  GUEST  LINK\n\
         db    127.0.0.1:5432  tcp        5432  when it runs; it is stopped\n{web}"
    );
    assert!(all.lines().all(|line| line.len() <= 80), "{all}");
    expect(&run(&home, "vm ports"), 0, &all, "");
    let one = run(&home, "port web");
    let header = "NAME  ENDPOINT        PROTOCOL  GUEST  LINK\n";
    expect(&one, 0, &format!("{header}{web}"), "");
    let endpoints = "127.0.0.1:8080\n0.0.0.0:9443\n[::1]:2222\n";
    expect(&run(&home, "ports -q web"), 0, endpoints, "");
    expect(&run(&home, "ports idle"), 0, "", "idle: no published ports\n");
    let missing = "error: there is no VM `nope`\nhint: `banger vm list` lists all VMs\n";
    expect(&run(&home, "ports nope"), 3, "", missing);
    let both = run(&home, "ports web nope --json");
    assert_eq!(both.code, 1, "{}", both.err);
    let both: serde_json::Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!(both[0]["name"], "web");
    let port = serde_json::json!({
        "endpoint": "127.0.0.1:8080", "protocol": "tcp", "guest_port": 80, "available": true,
        "link": "http://127.0.0.1:8080/",
    });
    assert_eq!(both[0]["ports"][0], port);
    assert_eq!(both[0]["ports"][2]["link"], serde_json::Value::Null);
    assert_eq!(
        (&both[1]["reference"], &both[1]["error"]["code"]),
        (&"nope".into(), &"not_found".into())
    );
    let stopped = home.json(&["ports", "db"]);
    assert_eq!(stopped[0]["ports"][0]["available"], false);
    run(&home, "rm -f web db idle");
    home.finish();
}
