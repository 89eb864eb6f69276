//! Life cycle of the shared network: repeated, concurrent and interrupted calls.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger_base::{HostHint, VmId};
use banger_root::protocol::Nat;
use banger_root::{Did, Kind, Places, net};
use banger_sys::tap::Tap;

use crate::lab::{Lab, USER, in_namespace, sh};

const A: &str = "aaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbb";
/// `RUN VM`: the process attaches and detaches this VM until it is killed.
const CHILD: &str = "BANGER_NET_CHILD";

fn id(n: usize) -> VmId {
    format!("{:012x}", n * 7919 + 1).parse().unwrap()
}

#[test]
fn the_last_detach_restores_the_host() {
    in_namespace("life::the_last_detach_restores_the_host", |lab| {
        let before = lab.picture();
        let vm: VmId = A.parse().unwrap();
        assert_eq!(net::detach(&lab.places, &vm).unwrap(), Did::WasAbsent, "never attached");
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::WasAbsent);
        assert_eq!(net::refill(&lab.places).unwrap(), Did::WasAbsent);
        assert_eq!(lab.picture(), before);

        let (did, lease) = net::attach(&lab.places, USER, &vm, Nat::On).unwrap();
        assert_eq!(did, Did::Made);
        assert_eq!(
            net::attach(&lab.places, USER, &vm, Nat::On).unwrap(),
            (Did::WasThere, lease.clone())
        );
        assert_eq!(net::lease(&lab.places, &vm).unwrap(), Some(lease.clone()));
        let other = net::attach(&lab.places, USER + 1, &vm, Nat::On).unwrap_err();
        assert_eq!(other.kind, Kind::Refused);
        assert_eq!(net::refill(&lab.places).unwrap(), Did::Made);
        assert_eq!(net::refill(&lab.places).unwrap(), Did::WasThere);
        assert_eq!(sh("ip -o link show | grep -c ' fcp-'").trim(), "4");
        // The next attach takes one of these.
        lab.attach(B, Nat::Off);
        assert_eq!(sh("ip -o link show | grep -c ' fcp-'").trim(), "3");
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        assert_eq!(net::detach(&lab.places, &vm).unwrap(), Did::Removed);
        assert_eq!(net::detach(&lab.places, &vm).unwrap(), Did::WasAbsent);
        assert_eq!(net::lease(&lab.places, &vm).unwrap(), None);
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "0", "no VM needs it");
        lab.detach(B);
        assert_eq!(lab.picture(), before);
        // The same address as before.
        assert_eq!(lab.attach(A, Nat::On).1, lease);
        lab.detach(A);
        // Forwarding that was on before stays on.
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let before = lab.picture();
        lab.attach(A, Nat::On);
        lab.detach(A);
        assert_eq!(lab.picture(), before);
    });
}

#[test]
fn only_a_vm_on_the_bridge_has_a_tap_to_open() {
    in_namespace("life::only_a_vm_on_the_bridge_has_a_tap_to_open", |lab| {
        let before = lab.picture();
        let vm: VmId = A.parse().unwrap();
        let refused = |expected: Kind| {
            let error = net::open_tap(&lab.places, &vm).unwrap_err();
            assert_eq!(error.kind, expected, "{error}");
        };
        // Nothing is made where there is nothing.
        refused(Kind::NotFound);
        assert_eq!(lab.picture(), before);
        lab.attach(B, Nat::Off);
        refused(Kind::NotFound);
        lab.attach(A, Nat::On);
        let tap = net::open_tap(&lab.places, &vm).unwrap();
        refused(Kind::Busy);
        drop(tap);
        drop(net::open_tap(&lab.places, &vm).unwrap());
        // One that somebody took from the bridge has no filter.
        let name = vm.tap_name();
        sh(&format!("ip link set {name} nomaster"));
        refused(Kind::NotFound);
        assert_eq!(net::ensure(&lab.places).unwrap(), Did::Made);
        drop(net::open_tap(&lab.places, &vm).unwrap());
        // One of that name that somebody made is not opened, and one that is gone not made.
        sh(&format!("ip link delete {name}"));
        refused(Kind::NotFound);
        sh(&format!("ip link show {name} 2>/dev/null && exit 1 || true"));
        lab.detach(A);
        refused(Kind::NotFound);
        lab.detach(B);
        assert_eq!(lab.picture(), before);
    });
}

#[test]
fn an_overlapping_subnet_is_refused_before_any_change() {
    in_namespace("life::an_overlapping_subnet_is_refused_before_any_change", |lab| {
        let vm: VmId = A.parse().unwrap();
        for (there, gone, route) in [
            ("ip addr add 172.16.0.7/28 dev up0", "ip addr del 172.16.0.7/28 dev up0", "172.16.0."),
            (
                "ip route add 172.16.0.0/12 via 198.51.100.2",
                "ip route del 172.16.0.0/12",
                "172.16.0.0/12",
            ),
        ] {
            sh(there);
            let before = lab.picture();
            let error = net::attach(&lab.places, USER, &vm, Nat::On).unwrap_err();
            assert_eq!(error.kind, Kind::HostNotReady);
            assert!(error.message.contains(route) && error.message.contains("`up0`"), "{error}");
            assert!(error.hints.0.contains(&HostHint::ChooseSubnet));
            assert!(net::findings(&lab.places).iter().any(|f| f.code == "network_subnet" && !f.ok));
            assert_eq!(lab.picture(), before);
            sh(gone);
        }
        // A foreign bridge is neither used nor removed.
        sh("ip link add br-fc type bridge");
        let before = lab.picture();
        let error = net::attach(&lab.places, USER, &vm, Nat::On).unwrap_err();
        assert!(error.message.contains("does not belong to banger"), "{error}");
        assert_eq!(net::detach(&lab.places, &vm).unwrap(), Did::WasAbsent);
        assert_eq!(lab.picture(), before);
    });
}

#[test]
fn the_network_in_use_stays_until_the_last_vm_ends() {
    in_namespace("life::the_network_in_use_stays_until_the_last_vm_ends", |lab| {
        let before = lab.picture();
        let (_, lease) = lab.attach(A, Nat::On);
        let running = lab.picture();
        // The configuration changed, or another daemon has a different one.
        let network = "10.77.0.0/24".parse().unwrap();
        let other = Places { network, bridge: "br-other".into(), ..lab.places.clone() };
        assert_eq!(net::ensure(&other).unwrap(), Did::WasThere);
        let b: VmId = B.parse().unwrap();
        let error = net::attach(&other, USER, &b, Nat::On).unwrap_err();
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.message.contains("172.16.0.0/24"), "{error}");
        assert_eq!(net::detach(&other, &b).unwrap(), Did::WasAbsent);
        assert_eq!(net::lease(&other, &A.parse().unwrap()).unwrap(), Some(lease));
        assert_eq!(lab.picture(), running);
        assert!(net::findings(&other).iter().all(|finding| !finding.seen.contains("br-other")));
        // After the last detach, the wanted network is used.
        assert_eq!(net::detach(&other, &A.parse().unwrap()).unwrap(), Did::Removed);
        assert_eq!(lab.picture(), before);
        let (_, lease) = net::attach(&other, USER, &b, Nat::On).unwrap();
        assert_eq!(lease.gateway, "10.77.0.1".parse::<std::net::Ipv4Addr>().unwrap());
        assert_eq!(net::detach(&lab.places, &b).unwrap(), Did::Removed);
        assert_eq!(lab.picture(), before);
    });
}

#[test]
fn a_tap_can_only_be_opened_by_the_uid_of_its_vm() {
    in_namespace("life::a_tap_can_only_be_opened_by_the_uid_of_its_vm", |lab| {
        let (a, _) = lab.attach(A, Nat::On);
        net::refill(&lab.places).unwrap();
        let (b, _) = lab.attach(B, Nat::On);
        let open = |uid: u32, name: &str| {
            let device =
                std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
            std::thread::scope(|scope| {
                let opened = scope.spawn(|| {
                    let uid = rustix::process::Uid::from_raw(uid);
                    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
                    Tap::open_with(device, name).map(drop).map_err(|error| error.raw_os_error())
                });
                opened.join().unwrap()
            })
        };
        let refused = Err(Some(1));
        assert_eq!(open(a.uid(), &a.tap_name()), Ok(()));
        assert_eq!(open(b.uid(), &b.tap_name()), Ok(()), "one from the pool");
        assert_eq!(open(a.uid(), &b.tap_name()), refused);
        assert_eq!(open(b.uid(), &a.tap_name()), refused);
        assert_eq!(open(a.uid(), "fcp-1"), refused, "an idle one");
        assert_eq!(open(a.uid(), "fcp-new"), refused, "one that is not there");
    });
}

#[test]
fn concurrent_attaches() {
    in_namespace("life::many_at_once", |lab| {
        let before = lab.picture();
        let began = Instant::now();
        let leases: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..10)
                .map(|n| {
                    scope.spawn(move || net::attach(&lab.places, USER, &id(n), Nat::On).unwrap().1)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        println!("10 at once: {:?}", began.elapsed());
        let mut addresses: Vec<_> = leases.iter().map(|lease| lease.address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 10);
        let set = sh("nft list set bridge banger guests");
        for (n, lease) in leases.iter().enumerate() {
            assert!(
                set.contains(&format!("{} ", lease.address))
                    || set.contains(&format!("{},", lease.address)),
                "{set}"
            );
            sh(&format!("ip link show {} | grep -q 'UP.*master br-fc'", id(n).tap_name()));
        }
        std::thread::scope(|scope| {
            for n in 0..10 {
                scope.spawn(move || net::detach(&lab.places, &id(n)).unwrap());
            }
        });
        assert_eq!(lab.picture(), before);
    });
}

#[test]
fn attach_and_ensure_are_fast() {
    in_namespace("life::attach_and_ensure_are_fast", |lab| {
        let mut first = Vec::new();
        let mut next = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            lab.attach(A, Nat::On);
            first.push(began.elapsed());
            for n in 0..4 {
                net::refill(&lab.places).unwrap();
                let began = Instant::now();
                net::attach(&lab.places, USER, &id(n), Nat::On).unwrap();
                next.push(began.elapsed());
            }
            for n in 0..4 {
                net::detach(&lab.places, &id(n)).unwrap();
            }
            lab.detach(A);
        }
        first.sort();
        next.sort();
        let ensured = {
            lab.attach(A, Nat::On);
            net::ensure(&lab.places).unwrap();
            let began = Instant::now();
            net::ensure(&lab.places).unwrap();
            began.elapsed()
        };
        println!("attach: first {first:?}, next {next:?}; ensure with nothing to do: {ensured:?}");
        // Four times the duration on an idle machine.
        assert!(next[next.len() / 2] < Duration::from_millis(100), "{next:?}");
    });
}

#[test]
fn attach_loop_child() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    let (run, vm) = orders.split_once(' ').unwrap();
    let places = Places { run: run.into(), tap_pool: 2, ..Places::default() };
    let vm: VmId = vm.parse().unwrap();
    for round in 0.. {
        let nat = if round % 2 == 0 { Nat::On } else { Nat::Off };
        net::attach(&places, USER, &vm, nat).unwrap();
        net::refill(&places).unwrap();
        net::detach(&places, &vm).unwrap();
    }
}

fn killed_after(lab: &Lab, vms: &[&str], pause: Duration) {
    let mut children: Vec<_> = vms
        .iter()
        .map(|vm| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "life::attach_loop_child", "--nocapture"])
                .env(CHILD, format!("{} {vm}", lab.places.run.display()))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(pause);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn the_next_call_completes_a_killed_one() {
    in_namespace("life::the_next_call_completes_a_killed_one", |lab| {
        let before = lab.picture();
        for round in 0..40 {
            killed_after(lab, &[A, B], Duration::from_millis(20 + round * 7));
            match round % 3 {
                0 => {}
                1 => drop(net::ensure(&lab.places).unwrap()),
                _ => {
                    let (c, lease) = lab.attach("cccccccccccc", Nat::Off);
                    assert!(sh("nft list ruleset").contains(&lease.address.to_string()));
                    net::detach(&lab.places, &c).unwrap();
                }
            }
            lab.detach(A);
            lab.detach(B);
            assert_eq!(lab.picture(), before, "round {round}");
        }
    });
}
