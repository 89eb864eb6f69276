//! Which addresses guests can and cannot reach.

use std::net::Ipv4Addr;

use banger_root::protocol::Nat;
use banger_root::{Did, net};

use crate::guest::{Guest, LLDP, NEVER, RESERVED, SOON, Udp, arp, link_local, tagged, udp, udp6};
use crate::lab::{HOST, Lab, OUTSIDE, PORT, Service, in_namespace, sh};

const A: &str = "aaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbb";
const C: &str = "cccccccccccc";

/// The guest reaches an outside service and receives its answer.
fn must_reach(guest: &Guest, service: &Service, text: &str) {
    guest.udp(OUTSIDE, PORT, text);
    let from = service.must_hear(text);
    assert_eq!(from.ip(), HOST, "it comes from the host's address");
    let (from, _, port) = guest.hears(SOON, text).unwrap();
    assert_eq!((from, port), (OUTSIDE, 4000));
}

fn must_not_reach(guest: &Guest, service: &Service, text: &str) {
    guest.udp(OUTSIDE, PORT, text);
    service.must_not_hear(text);
}

#[test]
fn guests_reach_the_outside_with_nat_only() {
    in_namespace("reach::guests_reach_the_outside_with_nat_only", |lab| {
        let service = lab.service();
        let on = lab.guest(A, Nat::On);
        let off = lab.guest(B, Nat::Off);
        must_reach(&on, &service, "from on");
        must_not_reach(&off, &service, "from off");
        // Changed while the guest runs.
        lab.attach(B, Nat::On);
        must_reach(&off, &service, "now on");
        lab.attach(A, Nat::Off);
        must_not_reach(&on, &service, "now off");
        // Link-local networks are not forwarded.
        sh(&format!("ip route add 169.254.0.0/16 via {OUTSIDE}"));
        lab.outside(|| sh("ip addr add 169.254.169.254/32 dev out0"));
        off.udp(Ipv4Addr::new(169, 254, 169, 254), PORT, "metadata");
        service.must_not_hear("metadata");
        let resolver = lab.outside(|| Service::bind("0.0.0.0:53"));
        off.udp(Ipv4Addr::new(169, 254, 169, 254), 53, "name");
        resolver.must_hear("name");
    });
}

#[test]
fn the_outside_does_not_reach_a_guest() {
    in_namespace("reach::the_outside_does_not_reach_a_guest", |lab| {
        let guest = lab.guest(A, Nat::On);
        let service = lab.service();
        let address = guest.address;
        lab.outside(|| sh(&format!("ip route add {address}/32 via {HOST}")));
        service.say((address, 22), "from outside");
        assert_eq!(guest.hears(NEVER, "from outside"), None);
        sh("nft delete chain inet banger forward");
        service.say((address, 22), "without rules");
        assert!(guest.hears(SOON, "without rules").is_some());
    });
}

#[test]
fn the_host_reaches_guests() {
    in_namespace("reach::the_host_reaches_guests", |lab| {
        let guest = lab.guest(A, Nat::Off);
        let host = Service::bind("0.0.0.0:7000");
        host.say((guest.address, 22), "hello");
        let (from, port, _) = guest.hears(SOON, "hello").unwrap();
        assert_eq!((from, port), (guest.gateway, 7000));
        // The answer returns to the port that sent the packet.
        let mac = guest.arp(guest.gateway).unwrap();
        let mut answer = udp(guest.to((mac, guest.gateway), 7000), "yes");
        answer[34..36].copy_from_slice(&22u16.to_be_bytes());
        guest.send(&answer);
        host.must_hear("yes");
    });
}

/// Packets to a service of the host by different routes; each arrives if our rules are absent.
fn ways_to_the_host(guest: &Guest, mac: [u8; 6]) -> Vec<(&'static str, Vec<u8>)> {
    let to = |address| guest.to((mac, address), PORT);
    let round = |by| Udp { to: (by, HOST), ..to(HOST) };
    let bridge = link_local(mac);
    vec![
        ("the bridge's address", udp(to(guest.gateway), "the bridge's address")),
        ("the uplink's address", udp(to(HOST), "the uplink's address")),
        ("loopback", udp(to(Ipv4Addr::LOCALHOST), "loopback")),
        ("with a tag", tagged(to(HOST), "with a tag")),
        ("around the bridge", udp(round(LLDP), "around the bridge")),
        ("a reserved address", udp(round(RESERVED), "a reserved address")),
        ("IPv6", udp6((guest.mac, mac), bridge, PORT, "IPv6")),
        (
            "IPv6 to all",
            udp6((guest.mac, [0x33, 0x33, 0, 0, 0, 1]), all_nodes(), PORT, "IPv6 to all"),
        ),
    ]
}

fn all_nodes() -> std::net::Ipv6Addr {
    "ff02::1".parse().unwrap()
}

fn ways_that_work(guest: &Guest, service: &Service, mac: [u8; 6]) -> Vec<&'static str> {
    let mut works = Vec::new();
    for (way, frame) in ways_to_the_host(guest, mac) {
        guest.send(&frame);
        if service.heard(way) {
            works.push(way);
        }
    }
    works
}

#[test]
fn guests_do_not_reach_services_of_the_host() {
    in_namespace("reach::guests_do_not_reach_services_of_the_host", |lab| {
        // Services on IPv4 and IPv6, on all addresses.
        let service = Service::bind(&format!("[::]:{PORT}"));
        let guest = lab.guest(A, Nat::On);
        let mac = guest.arp(guest.gateway).unwrap();
        // The most permissive settings of a host.
        sh("cd /proc/sys/net/ipv4/conf
            for i in all br-fc; do echo 1 > $i/route_localnet; done
            for i in all br-fc fc-aaaaaaaaaaaa; do echo 0 > $i/rp_filter; done");
        assert_eq!(ways_that_work(&guest, &service, mac), Vec::<&str>::new());
        // A port published by Docker bypasses the input hook.
        sh(&format!(
            "nft 'table ip docker {{ chain pre {{ type nat hook prerouting priority dstnat;
            fib daddr type local udp dport 8080 dnat to {OUTSIDE}:{PORT}; }}; }}'"
        ));
        let outside = lab.service();
        let published = guest.to((mac, HOST), 8080);
        guest.send(&udp(published, "published"));
        outside.must_not_hear("published");
        sh("nft delete chain inet banger early");
        guest.send(&udp(published, "published without"));
        outside.must_hear("published without");
        // Each route except IPv6's works without rules; the two IPv6 routes without the sysctls.
        sh("nft flush ruleset");
        let ipv4 = [
            "the bridge's address",
            "the uplink's address",
            "loopback",
            "with a tag",
            "around the bridge",
            "a reserved address",
        ];
        assert_eq!(ways_that_work(&guest, &service, mac), ipv4);
        assert_eq!(sh("ip -6 addr show dev br-fc; ip -6 addr show dev fc-aaaaaaaaaaaa"), "");
        sh("cd /proc/sys/net/ipv6/conf/br-fc; echo 0 > accept_dad; echo 0 > disable_ipv6");
        // The kernel takes a moment to add the address.
        let over_ipv6 = || ways_that_work(&guest, &service, mac).contains(&"IPv6");
        assert!((0..10).any(|_| over_ipv6()));
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
        assert_eq!(ways_that_work(&guest, &service, mac), Vec::<&str>::new());
    });
}

/// Docker enables br_netfilter: IPv4 rules also see bridged frames.
#[test]
fn reachability_is_the_same_with_br_netfilter() {
    in_namespace("reach::reachability_is_the_same_with_br_netfilter", |lab| {
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if !std::path::Path::new(switch).exists() {
            eprintln!("SKIPPED: the kernel has no br_netfilter loaded");
            return;
        }
        sh(&format!("echo 1 > {switch}"));
        let outside = lab.service();
        let (a, b) = (lab.guest(A, Nat::On), lab.guest(B, Nat::Off));
        must_reach(&a, &outside, "from a");
        must_not_reach(&b, &outside, "from b");
        let mac = a.arp(a.gateway).unwrap();
        let host = Service::bind(&format!("[::]:{PORT}"));
        assert_eq!(ways_that_work(&a, &host, mac), Vec::<&str>::new());
        a.send(&udp(a.to((mac, b.address), PORT), "to b"));
        assert_eq!(b.hears(NEVER, "to b"), None);
        host.say((b.address, 22), "from the host");
        assert!(b.hears(SOON, "from the host").is_some());
    });
}

#[test]
fn guests_do_not_reach_each_other() {
    in_namespace("reach::guests_do_not_reach_each_other", |lab| {
        let (a, b) = (lab.guest(A, Nat::On), lab.guest(B, Nat::On));
        let gateway = a.arp(a.gateway).unwrap();
        let ways = [
            ("directly", (b.mac, b.address)),
            ("to all", (crate::guest::BROADCAST, b.address)),
            ("through the host", (gateway, b.address)),
            ("to all of the network", (crate::guest::BROADCAST, Ipv4Addr::new(172, 16, 0, 255))),
        ];
        let tried = |rules: &str| {
            for (way, to) in ways {
                a.send(&udp(a.to(to, PORT), way));
                assert_eq!(b.hears(NEVER, way), None, "{way} {rules}");
            }
            assert_eq!(a.arp(b.address), None, "{rules}");
        };
        tried("with rules");
        // Ports are isolated even without rules; only the route through the host needs rules.
        sh("nft flush ruleset");
        a.send(&udp(a.to((b.mac, b.address), PORT), "directly"));
        assert_eq!(b.hears(NEVER, "directly"), None);
        sh("echo 0 > /proc/sys/net/ipv4/conf/br-fc/rp_filter");
        a.send(&udp(a.to((gateway, b.address), PORT), "routed"));
        assert!(b.hears(SOON, "routed").is_some());
        net::ensure(&lab.places).unwrap();
        tried("with rules again");
    });
}

#[test]
fn forged_packets_are_dropped() {
    in_namespace("reach::forged_packets_are_dropped", |lab| {
        let service = lab.service();
        let (a, b) = (lab.guest(A, Nat::On), lab.guest(B, Nat::On));
        let gateway = a.arp(a.gateway).unwrap();
        let free = Ipv4Addr::new(172, 16, 0, 250);
        let packet = |from| Udp { from, ..a.to((gateway, OUTSIDE), PORT) };
        let own = packet((a.mac, a.address));
        for (forgery, frame) in [
            ("another MAC", udp(packet((b.mac, a.address)), "another MAC")),
            ("another address", udp(packet((a.mac, b.address)), "another address")),
            ("all of another", udp(packet((b.mac, b.address)), "all of another")),
            ("nobody's address", udp(packet((a.mac, free)), "nobody's address")),
            ("the host's address", udp(packet((a.mac, HOST)), "the host's address")),
            ("a tag", tagged(own, "a tag")),
            ("a tag, forged", tagged(packet((a.mac, b.address)), "a tag, forged")),
        ] {
            a.send(&frame);
            assert!(!service.heard(forgery), "{forgery} came through");
        }
        a.send(&udp(own, "its own"));
        service.must_hear("its own");

        let asks = |from, by| a.arp_as(from, by, a.gateway);
        assert!(asks((a.mac, a.address), a.mac).is_some());
        assert_eq!(asks((a.mac, b.address), a.mac), None, "another's address");
        assert_eq!(asks((b.mac, a.address), a.mac), None, "another's MAC in the packet");
        assert_eq!(asks((a.mac, a.address), b.mac), None, "another's MAC on the frame");
        // A gratuitous ARP answer.
        a.send(&arp(2, (a.mac, b.address), (gateway, a.gateway), gateway));
        // The bridge learns from frames for itself before any rule runs.
        let mut lldp = udp(Udp { from: (b.mac, b.address), to: (LLDP, HOST), port: PORT }, "x");
        a.send(&lldp);
        lldp[5] = 3;
        a.send(&lldp);
        let host = Service::bind("0.0.0.0:7000");
        host.say((b.address, 22), "for b");
        assert!(b.hears(SOON, "for b").is_some());
        assert_eq!(a.hears(NEVER, "for b"), None, "it came to another");
    });
}

/// Docker's drop policy, its chain DOCKER-USER, and a user's rule in that chain.
fn docker() {
    sh("nft 'table ip filter { chain DOCKER-USER { return comment \"mine\"; }
        chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }; }'");
}

fn only_docker_lets_through(lab: &Lab) {
    let service = lab.service();
    docker();
    let before = lab.picture();
    let a = lab.guest(A, Nat::On);
    must_reach(&a, &service, "beside Docker");
    // Another VM neither duplicates nor removes the rules.
    lab.attach(B, Nat::On);
    lab.detach(B);
    let ours = || sh("nft list chain ip filter DOCKER-USER").matches("banger").count();
    assert_eq!(ours(), 2);
    must_reach(&a, &service, "still");
    // Only uplinks are allowed, not the bridges of containers.
    sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0;
        ip link set docker0 up");
    net::ensure(&lab.places).unwrap();
    assert!(!sh("nft list chain ip filter DOCKER-USER").contains("docker0"));
    sh("ip link delete docker0");
    // Docker restarts.
    sh("nft flush ruleset");
    docker();
    must_not_reach(&a, &service, "Docker started again");
    assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
    must_reach(&a, &service, "mended");
    let rule = "nft -a list chain ip filter DOCKER-USER | sed -n '/outside/s/.* handle //p'";
    sh(&format!("nft delete rule ip filter DOCKER-USER handle $({rule})"));
    must_not_reach(&a, &service, "a rule was taken");
    assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
    must_reach(&a, &service, "mended again");
    // No rules without a guest that needs them.
    lab.attach(A, Nat::Off);
    assert_eq!(ours(), 0);
    lab.attach(A, Nat::On);
    assert_eq!(ours(), 2);
    assert!(net::findings(&lab.places).iter().any(|f| f.code == "network_docker" && f.ok));
    drop(a);
    lab.detach(A);
    assert_eq!(lab.picture(), before);
}

#[test]
fn guests_reach_the_outside_beside_docker() {
    in_namespace("reach::guests_reach_the_outside_beside_docker", only_docker_lets_through);
}

#[test]
fn iptables_can_list_our_rules() {
    in_namespace("reach::iptables_can_list_our_rules", |lab| {
        if !std::path::Path::new("/usr/sbin/iptables-nft").exists() {
            eprintln!("SKIPPED: there is no iptables-nft (scripts/setup.sh test)");
            return;
        }
        sh("iptables-nft -N DOCKER-USER; iptables-nft -P FORWARD DROP
            iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN");
        let service = lab.service();
        let a = lab.guest(A, Nat::On);
        must_reach(&a, &service, "beside Docker");
        let shown = sh("iptables-nft -S DOCKER-USER");
        assert!(shown.contains("-A DOCKER-USER -i br-fc -o up0 -m comment"), "{shown}");
        assert!(shown.contains("-A DOCKER-USER -j RETURN"), "{shown}");
    });
}

#[test]
fn removed_rules_are_restored() {
    in_namespace("reach::removed_rules_are_restored", |lab| {
        let service = lab.service();
        let a = lab.guest(A, Nat::On);
        lab.attach(B, Nat::Off);
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::WasThere);
        let rules = sh("nft list ruleset");
        for damage in [
            "nft flush ruleset",
            "nft delete table bridge banger",
            "nft flush chain inet banger forward",
            "nft flush set inet banger nat",
            "nft insert rule inet banger input accept",
            "nft add element inet banger nat { 172.16.0.99 }",
        ] {
            sh(damage);
            assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made, "{damage}");
            assert_eq!(sh("nft list ruleset"), rules, "{damage}");
            assert_eq!(net::ensure(&lab.places).unwrap(), Did::WasThere, "{damage}");
            must_reach(&a, &service, damage);
        }
        // Rules of other programs do not affect ours.
        sh("nft add table inet other");
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::WasThere);
        sh("nft delete table inet other");
        // Another VM is attached after damage.
        sh("nft flush ruleset");
        lab.attach(C, Nat::On);
        must_reach(&a, &service, "after the next came");
        sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
        assert!(net::findings(&lab.places).iter().any(|f| f.code == "network_forwarding" && !f.ok));
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
        must_reach(&a, &service, "forwarding again");
        sh("ip addr flush dev br-fc");
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
        must_reach(&a, &service, "address again");
        sh("ip link delete br-fc");
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
        assert!((0..20).any(|_| a.arp(a.gateway).is_some()));
        must_reach(&a, &service, "bridge again");
        let found = net::findings(&lab.places);
        let bad: Vec<_> = found.iter().filter(|f| !f.ok && f.code != "network_dns").collect();
        assert!(bad.iter().all(|f| f.code == "network_resolvers"), "{bad:?}");
    });
}
