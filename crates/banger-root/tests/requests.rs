//! Hostile input to the helper: bytes, lines, descriptors, other users' VMs. No test here changes
//! the host.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use banger_base::{ByteString, VmId};
use banger_root::programs::{Programs, Versions};
use banger_root::protocol::{Access, Did, Drive, DriveFrom, Launch, Nat, Request, Role, VmmSocket};
use banger_root::server::{Outcome, Server};
use banger_root::{Kind, Places, owner, run, wire};
use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

const VM: &str = "0123456789ab";

fn vm() -> VmId {
    VM.parse().unwrap()
}

/// A deadline that a correct helper does not reach.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// One of each request.
fn samples() -> Vec<Request> {
    let drive = |role, from| Drive { role, from };
    vec![
        Request::Hello,
        Request::Make { vm: vm() },
        Request::SetHome { vm: vm(), home: ByteString::from("/home/ann/.local/state/banger") },
        Request::Remove { vm: vm() },
        Request::NetAttach { vm: vm(), nat: Nat::On },
        Request::NetDetach { vm: vm() },
        Request::TapOpen { vm: vm() },
        Request::NetEnsure,
        Request::RouteDns { port: 42069 },
        Request::UnrouteDns { port: 42069 },
        Request::SnapshotAttach { vm: vm(), root_bytes: 1 << 30 },
        Request::SnapshotDetach { vm: vm() },
        Request::SnapshotOpen { vm: vm(), access: Access::ReadWrite },
        Request::SnapshotReload { vm: vm() },
        Request::SnapshotReady,
        Request::JailMake {
            vm: vm(),
            drives: vec![
                drive(Role::Root, DriveFrom::Snapshot),
                drive(Role::Work, DriveFrom::File),
            ],
        },
        Request::JailClear { vm: vm() },
        Request::Spawn { vm: vm() },
        Request::End { vm: vm() },
        Request::Facts { vm: vm() },
        Request::Connect { vm: vm(), socket: VmmSocket::Vsock },
        Request::CloseHello { vm: vm() },
        Request::VmsOf { home: ByteString::from("/home/ann/.local/state/banger") },
        Request::Objects { vm: vm() },
        Request::Ready,
        Request::Findings,
    ]
}

fn decoded(value: &Value) -> std::io::Result<Request> {
    wire::decode(value.to_string().as_bytes())
}

fn is_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A decoded request serialises to the same value, and any VM in it has a valid id.
fn check(request: &Request) {
    let value = serde_json::to_value(request).unwrap();
    assert_eq!(&decoded(&value).unwrap(), request);
    assert_eq!(value["request"], request.name());
    assert!(value.get("vm").is_none_or(|vm| is_id(vm.as_str().unwrap())), "{value}");
}

#[test]
fn there_is_a_sample_of_each_request() {
    let samples: Vec<&str> = samples().iter().map(Request::name).collect();
    assert_eq!(samples, Request::NAMES);
}

#[test]
fn requests_round_trip_and_unknown_fields_are_refused() {
    for request in samples() {
        check(&request);
        let value = serde_json::to_value(&request).unwrap();
        for (name, more) in [("path", json!("/etc")), ("uid", json!(0)), ("", Value::Null)] {
            let mut value = value.clone();
            value[name] = more;
            assert!(decoded(&value).is_err(), "{value}");
        }
        for name in value.as_object().unwrap().keys() {
            let mut fewer = value.clone();
            fewer.as_object_mut().unwrap().remove(name);
            assert!(decoded(&fewer).is_err(), "{fewer}");
        }
        let twice = value.to_string().replacen('{', r#"{"request":"hello","#, 1);
        assert!(wire::decode::<Request>(twice.as_bytes()).is_err(), "{twice}");
    }
    let drive = json!({"role": "work", "from": "file", "path": "/etc/shadow"});
    let jail = json!({"request": "jail_make", "vm": VM, "drives": [drive]});
    assert!(decoded(&jail).is_err());
    assert!(wire::decode::<Launch>(br#"{"vcpus":1,"memory_mib":1,"program":"sh"}"#).is_err());
}

#[test]
fn ids_with_odd_characters_are_refused() {
    for bad in [
        "",
        "0123456789AB",
        "0123456789a",
        "0123456789abc",
        "../../../etc",
        "0123456789a/",
        "0123456789a\0",
        "0123456789a\n",
        "..0123456789",
        "０１２３",
        "é23456789ab",
        " 123456789ab",
        "-123456789ab",
        "+123456789ab",
        "0x3456789abc",
    ] {
        assert!(decoded(&json!({"request": "make", "vm": bad})).is_err(), "{bad:?}");
    }
    for bad in [json!(0), json!(null), json!([VM]), json!({"id": VM}), json!(true)] {
        assert!(decoded(&json!({"request": "make", "vm": bad})).is_err(), "{bad}");
    }
}

#[test]
fn numbers_out_of_their_range_are_refused() {
    for bad in [json!(-1), json!(65536), json!(1.5), json!("53"), json!(1e40)] {
        assert!(decoded(&json!({"request": "route_dns", "port": bad})).is_err(), "{bad}");
    }
    for bad in [json!(-1), json!(1e30), json!("1")] {
        let request = json!({"request": "snapshot_attach", "vm": VM, "root_bytes": bad});
        assert!(decoded(&request).is_err(), "{request}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, inner) in [("[", ""), (r#"{"a":"#, ""), (r#"{"request":"#, "[")] {
        let text = format!(r#"{{"request":"make","vm":{}{inner}"#, open.repeat(40_000));
        assert!(wire::decode::<Request>(text.as_bytes()).is_err());
        assert!(wire::decode::<Request>(open.repeat(40_000).as_bytes()).is_err());
    }
}

/// Sends bytes from another thread, and receives a message.
fn received(bytes: Vec<u8>) -> std::io::Result<Option<(Request, usize)>> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sender = std::thread::spawn(move || {
        // The receiver may close the connection early.
        let _ = theirs.write_all(&bytes);
    });
    let received = wire::receive::<Request>(&ours, soon());
    drop(ours);
    sender.join().unwrap();
    received.map(|some| some.map(|(request, fds)| (request, fds.len())))
}

#[test]
fn lines_are_limited_in_length() {
    assert_eq!(received(Vec::new()).unwrap(), None);
    let hello = br#"{"request":"hello"}"#;
    assert_eq!(received(hello.to_vec()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let whole = [hello.as_slice(), b"\n"].concat();
    assert_eq!(received(whole).unwrap(), Some((Request::Hello, 0)));
    let two = [hello.as_slice(), b"\n", hello, b"\n"].concat();
    assert!(received(two).is_err(), "bytes after a request are refused");
    let endless = received(vec![b' '; 4 * wire::MAX_LINE]).unwrap_err();
    assert_eq!(endless.to_string(), "the message is longer than 262144 bytes");
    // A long but complete line is parsed, and refused for its content.
    let drives = vec![json!({"role": "work", "from": "snapshot"}); 5000];
    let many = json!({"request": "jail_make", "vm": VM, "drives": drives}).to_string() + "\n";
    assert!(many.len() < wire::MAX_LINE);
    let (request, _) = received(many.into_bytes()).unwrap().unwrap();
    let (server, _folder) = server();
    owner::make(&server.places, 1000, &vm()).unwrap();
    assert_eq!(refusal(&server, 1000, request), Kind::BadRequest);
}

#[test]
fn a_line_can_arrive_in_pieces() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sender = std::thread::spawn(move || {
        for byte in br#"{"request":"ready"}"# {
            theirs.write_all(&[*byte]).unwrap();
        }
        theirs.write_all(b"\n").unwrap();
    });
    let (request, _) = wire::receive::<Request>(&ours, soon()).unwrap().unwrap();
    assert_eq!(request, Request::Ready);
    sender.join().unwrap();
}

#[test]
fn more_descriptors_than_allowed_are_refused() {
    for (count, fits) in [(0, true), (8, true), (9, false), (16, false), (100, false)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = vec![theirs.as_fd(); count];
        assert!(count == 0 || control.push(SendAncillaryMessage::ScmRights(&fds)));
        let line = b"{\"request\":\"ready\"}\n";
        sendmsg(&theirs, &[IoSlice::new(line)], &mut control, SendFlags::empty()).unwrap();
        match wire::receive::<Request>(&ours, soon()) {
            Ok(Some((_, fds))) => assert!(fits && fds.len() == count, "{count}"),
            Ok(None) => panic!("no message"),
            Err(error) => assert!(!fits, "{count}: {error}"),
        }
    }
}

/// A helper with temporary folders and no programs.
fn server() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let places = Places {
        state: folder.path().join("state"),
        run: folder.path().join("run"),
        bridge: "br-no-such".into(),
        cgroups: folder.path().join("cgroups"),
        ..Places::default()
    };
    let programs = Programs {
        firecracker: "firecracker".into(),
        jailer: "jailer".into(),
        search_path: folder.path().into(),
        shim: "/nonexistent".into(),
    };
    let server = Server {
        places,
        programs,
        build_id: "test".into(),
        versions: Versions::default(),
        failpoint: None,
    };
    (server, folder)
}

fn refusal(server: &Server, uid: u32, request: Request) -> Kind {
    match server.carry_out(uid, request, Vec::new()) {
        Err(error) => error.kind,
        Ok(Outcome::AtGate(_)) => panic!("a shim was started"),
        Ok(Outcome::Answered(answer, _)) => panic!("it was carried out: {answer:?}"),
    }
}

#[test]
fn requests_for_another_users_vm_are_refused() {
    let (server, _folder) = server();
    assert_eq!(owner::make(&server.places, 1000, &vm()).unwrap(), Did::Made);
    let mut without_vm = Vec::new();
    for request in samples() {
        let name = request.name();
        if serde_json::to_value(&request).unwrap().get("vm").is_none() {
            without_vm.push(name);
            continue;
        }
        // Root is no exception: it does not need the helper.
        for uid in [1001, 0] {
            assert_eq!(refusal(&server, uid, request.clone()), Kind::Refused, "{name}");
        }
    }
    let expected = [
        "hello",
        "net_ensure",
        "route_dns",
        "unroute_dns",
        "snapshot_ready",
        "vms_of",
        "ready",
        "findings",
    ];
    assert_eq!(without_vm, expected);
    owner::check(&server.places, 1000, &vm()).unwrap();
}

#[test]
fn requests_that_create_objects_need_an_existing_vm() {
    let (server, _folder) = server();
    for name in [
        "net_attach",
        "tap_open",
        "snapshot_attach",
        "snapshot_open",
        "snapshot_reload",
        "jail_make",
        "set_home",
        "spawn",
        "facts",
        "connect",
        "close_hello",
    ] {
        let request = samples().into_iter().find(|request| request.name() == name).unwrap();
        assert_eq!(refusal(&server, 1000, request), Kind::NotFound, "{name}");
    }
}

#[test]
fn launch_limits_are_checked() {
    let (server, _folder) = server();
    let config = |vcpus, memory_mib| {
        let launch = Launch { vcpus, memory_mib };
        run::config(&server.places, &server.programs, (1000, &vm()), launch).unwrap_err().kind
    };
    for (vcpus, memory_mib) in
        [(0, 256), (33, 256), (u32::MAX, 256), (1, 0), (1, (16 << 20) + 1), (1, u64::MAX)]
    {
        assert_eq!(config(vcpus, memory_mib), Kind::BadRequest, "{vcpus} {memory_mib}");
    }
    // Within bounds, the next error is the missing programs.
    assert_eq!(config(32, 16 << 20), Kind::HostNotReady);
}

/// Replaces, removes or inserts a byte of a line.
fn spoil(line: &mut Vec<u8>, (at, byte, how): (usize, u8, u8)) {
    let at = at % line.len().max(1);
    match how % 3 {
        0 if !line.is_empty() => line[at] = byte,
        1 if !line.is_empty() => {
            line.remove(at);
        }
        _ => line.insert(at, byte),
    }
}

proptest! {
    #[test]
    fn garbage_is_no_request(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(request) = wire::decode::<Request>(&bytes) {
            check(&request);
        }
        let _ = wire::decode::<Launch>(&bytes);
    }

    #[test]
    fn spoiled_requests_are_refused_or_still_name_a_vm(
        which in 0..Request::NAMES.len(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
    ) {
        let mut line = serde_json::to_vec(&samples()[which]).unwrap();
        for change in changes {
            spoil(&mut line, change);
        }
        if let Ok(request) = wire::decode::<Request>(&line) {
            check(&request);
        }
    }

    #[test]
    fn only_twelve_hex_digits_are_an_id(text in "[0-9a-fA-Fx./ \\\\\0-]{0,16}|[0-9a-f]{10,14}") {
        let request = decoded(&json!({"request": "end", "vm": text}));
        prop_assert_eq!(request.is_ok(), is_id(&text));
    }
}
