//! Addresses, names, ways out and ways that must not be, with real guests.

use banger_testkit::Home;

use crate::support::{Outside, finish, home, host, inside, shell, show, whole};

/// How long a guest waits for what it must not get: a dropped packet is never answered.
const DROPPED_S: u32 = 10;
/// How long it waits for what it gets, however busy the host is.
const ANSWERED_S: u32 = 60;

/// The addresses, each with a port, from which a guest gets a line in time; it tries all at once.
fn reached<'a>(home: &Home, vm: &str, addresses: &[(&'a str, u16)], seconds: u32) -> Vec<&'a str> {
    let tries = addresses.iter().enumerate().map(|(index, (address, port))| {
        format!(
            "(timeout {seconds} bash -c 'exec 3<>/dev/tcp/{address}/{port} && \
              head -c1 <&3 >/dev/null' 2>/dev/null && echo {index}) & "
        )
    });
    let said = inside(home, vm, &(tries.collect::<String>() + "wait"));
    said.lines().map(|index| addresses[index.parse::<usize>().unwrap()].0).collect()
}

#[test]
fn network_reachability_of_a_guest() {
    let before = host();
    let home = whole("");
    let outside = Outside::new();
    outside.answer_names();
    home.ok(&["vm", "create", "--name", "one", "-p", "18000:8000"]);
    home.ok(&["vm", "create", "--name", "two", "--nat", "off"]);
    let address = |vm: &str| show(&home, vm)["ip"].as_str().unwrap().to_owned();
    let (one, two) = (address("one"), address("two"));

    // Names and the way from the host to a guest.
    assert!(shell("resolvectl query one.vm").contains(&one));
    assert!(shell("resolvectl query two.vm").contains(&two));
    assert!(shell("resolvectl query none.vm 2>&1 || true").contains("not found"));
    // It reads the request, else its end is a reset, which may overtake the answer.
    let serve = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nfrom one\\n' >/root/a; \
                 setsid -f perl -MIO::Socket::INET -e \
                   '$s=IO::Socket::INET->new(Listen=>5,LocalPort=>8000,ReuseAddr=>1); \
                    while($c=$s->accept){while(<$c>){last unless /\\S/} \
                      open F,\"/root/a\";print $c <F>;close $c}' \
                   >/dev/null 2>&1 </dev/null";
    inside(&home, "one", serve);
    let get = |url: &str| shell(&format!("curl -s --max-time 30 http://{url}/ || true"));
    home.wait_long("the guest's server", || get("one.vm:8000") == "from one");
    // A published port is reachable from the host only.
    assert_eq!(get("127.0.0.1:18000"), "from one");
    assert_eq!(get(&format!("{}:18000", address("one"))), "");
    assert_eq!(get("198.51.100.2:18000"), "");

    // The outside, with NAT and without; names are asked of the host's resolver beyond.
    let beyond = ("198.51.100.1", 80);
    assert_eq!(reached(&home, "one", &[beyond], ANSWERED_S), [beyond.0]);
    let ask = "getent ahostsv4 outside.example | cut -d' ' -f1 | head -n1";
    assert_eq!(inside(&home, "one", ask), "203.0.113.7");
    assert_eq!(inside(&home, "two", ask), "");

    // Neither each other, also where the host was just answered, nor without NAT the outside.
    let nothing: [&str; 0] = [];
    assert_eq!(reached(&home, "two", &[beyond, (&one, 22), (&one, 8000)], DROPPED_S), nothing);

    // The host: sshd listens on every address of it.
    assert_eq!(shell("ss -Hltn sport = :22 | wc -l | awk '{print ($1>0)}'"), "1");
    let uplink = shell("ip -4 -br addr show eth0 | awk '{print $3}' | cut -d/ -f1");
    let hosts = ["172.16.0.1", "198.51.100.2", uplink.as_str()];
    let ports = hosts.iter().flat_map(|host| [(*host, 22), (*host, 18_000)]);
    // With one that answers, as a guest that is too busy to try would reach nothing either.
    let all: Vec<(&str, u16)> = ports.chain([(two.as_str(), 22), beyond]).collect();
    assert_eq!(reached(&home, "one", &all, DROPPED_S), [beyond.0]);
    let local = shell("ip -6 -br addr show br-fc | grep -o 'fe80[^/]*' || true");
    assert_eq!(local, "", "the bridge has an IPv6 address");
    // Nor does a process in it talk to the agent or dial the host over vsock.
    let vsock = "perl -e 'use Socket; socket(S,40,1,0)||exit 9; \
                 $a=pack(\"SSLLx4\",40,0,$ARGV[1],$ARGV[0]); exit(connect(S,$a)?0:1)'";
    for (cid, port) in [(2, 10_789), (2, 1), (3, 10_788)] {
        let script =
            format!("runuser -u nobody -- timeout 5 {vsock} {cid} {port} && echo yes || echo no");
        assert_eq!(inside(&home, "one", &script), "no", "{cid} {port}");
    }

    // Flushed rules are restored while VMs run.
    shell("nft flush ruleset");
    home.wait("the rules", || shell("nft list tables").contains("inet banger"));
    let host_and_beyond = [("172.16.0.1", 22), beyond];
    home.wait("the way out", || {
        let reached = reached(&home, "one", &host_and_beyond, DROPPED_S);
        assert!(!reached.contains(&"172.16.0.1"), "{reached:?}");
        reached == [beyond.0]
    });

    // A daemon that ends takes the names along, not the VMs; the next one brings them back.
    home.ok(&["daemon", "stop"]);
    assert!(shell("resolvectl query one.vm 2>&1 || true").contains("not found"));
    assert!(!shell("resolvectl domain br-fc").contains("~vm"));
    assert_eq!(get("127.0.0.1:18000"), "from one", "while there is no daemon");
    assert_eq!(home.state("one"), "running");
    home.wait("the name", || shell("resolvectl query one.vm 2>&1 || true").contains(&one));

    home.ok(&["vm", "delete", "-f", "one", "two"]);
    assert_eq!(get("127.0.0.1:18000"), "");
    drop(outside);
    finish(home, &before);
}

#[test]
fn network_ten_at_once() {
    let before = host();
    let home = home("");
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let children: Vec<_> =
        names.iter().map(|name| home.spawn(&["vm", "create", "--name", name])).collect();
    for (name, child) in names.iter().zip(children) {
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {printed}");
    }
    let list = home.json(&["vm", "list"]);
    let mut addresses = std::collections::BTreeSet::new();
    for vm in list.as_array().unwrap() {
        assert_eq!(vm["state"], "running", "{vm}");
        let (name, ip) = (vm["name"].as_str().unwrap(), vm["ip"].as_str().unwrap());
        addresses.insert(ip.to_owned());
        assert!(shell(&format!("resolvectl query {name}.vm")).contains(ip));
    }
    assert_eq!(addresses.len(), 10);
    let mut args = vec!["vm", "delete", "-f"];
    args.extend(names.iter().map(String::as_str));
    home.ok(&args);
    finish(home, &before);
}

#[test]
fn network_two_homes_do_not_meet() {
    let before = host();
    let (first, second) = (home(""), home(""));
    first.ok(&["vm", "create", "--name", "web"]);
    second.ok(&["vm", "create", "--name", "web"]);
    second.ok(&["vm", "create", "--name", "other"]);
    let address = |home: &Home, vm: &str| show(home, vm)["ip"].clone();
    let (one, two) = (address(&first, "web"), address(&second, "web"));
    assert_ne!(one, two);
    // Whoever came first has the names, and keeps them.
    let asked = || shell("resolvectl query web.vm 2>&1 || true");
    std::thread::sleep(std::time::Duration::from_secs(11));
    assert!(asked().contains(one.as_str().unwrap()), "{}", asked());
    assert!(shell("resolvectl query other.vm 2>&1 || true").contains("not found"));
    let doctor = |home: &Home| home.run(&["doctor"]).out;
    assert!(doctor(&second).contains("the DNS server of another daemon"), "{}", doctor(&second));
    assert!(!doctor(&first).contains("the DNS server of another daemon"), "{}", doctor(&first));
    // One that ends takes only its own along.
    second.ok(&["daemon", "stop"]);
    assert!(asked().contains(one.as_str().unwrap()), "{}", asked());
    assert_eq!(second.state("web"), "running");
    first.ok(&["daemon", "stop"]);
    second.wait("the names of the second", || asked().contains(two.as_str().unwrap()));
    // So does one whose last VM is gone, while it runs.
    assert_eq!(first.state("web"), "running");
    second.ok(&["vm", "delete", "-f", "web", "other"]);
    first.wait("the names of the first again", || asked().contains(one.as_str().unwrap()));
    assert_eq!(inside(&first, "web", "echo here"), "here");
    first.ok(&["vm", "delete", "-f", "web"]);
    second.finish();
    finish(first, &before);
}
