//! The client of Firecracker's API, compared with the API description and tested against fakes that
//! answer correctly, wrongly, or not at all.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod description;
mod world;

use std::collections::BTreeSet;
use std::error::Error;
use std::thread::JoinHandle;

use banger_host::vmm::firecracker::api::{
    ANSWER_TIMEOUT, Client, ClientError, PATHS, RequestError,
};
use banger_host::vmm::firecracker::schema::{
    Action, Balloon, BalloonUpdate, BootSource, CacheType, Drive, Entropy, Logger, MachineConfig,
    MemoryBackend, Metrics, NetworkInterface, RateLimiter, Serial, SnapshotCreate, SnapshotLoad,
    SnapshotType, TokenBucket, VmState, Vsock,
};
use serde_json::{Value, json};

use description::API;
use world::{Behavior, Received, firecracker};

/// Every call that the client has, as it must come out: method, path, body.
fn calls() -> Vec<(&'static str, &'static str, Value)> {
    let limits = json!({"bandwidth": {"size": 1000, "refill_time": 100, "one_time_burst": 5000}});
    vec![
        ("GET", "/", Value::Null),
        ("GET", "/version", Value::Null),
        ("PUT", "/logger", json!({"log_path": "/log", "level": "Info", "show_level": true})),
        ("PUT", "/metrics", json!({"metrics_path": "/metrics"})),
        ("PUT", "/serial", json!({"serial_out_path": "/console"})),
        ("PUT", "/machine-config", json!({"vcpu_count": 2, "mem_size_mib": 512})),
        (
            "PUT",
            "/boot-source",
            json!({"kernel_image_path": "/vmlinux", "initrd_path": "/initramfs",
                   "boot_args": "console=ttyS0"}),
        ),
        (
            "PUT",
            "/drives/work",
            json!({"drive_id": "work", "is_root_device": false, "is_read_only": false,
                   "path_on_host": "/drive-work", "cache_type": "Writeback",
                   "rate_limiter": limits}),
        ),
        (
            "PUT",
            "/network-interfaces/net",
            json!({"iface_id": "net", "host_dev_name": "fc-0123456789ab",
                   "guest_mac": "02:23:45:67:89:ab",
                   "tx_rate_limiter": {"ops": {"size": 9, "refill_time": 1}}}),
        ),
        ("PUT", "/vsock", json!({"guest_cid": 3, "uds_path": "/v.sock"})),
        ("PUT", "/entropy", json!({})),
        (
            "PUT",
            "/balloon",
            json!({"amount_mib": 64, "deflate_on_oom": true, "stats_polling_interval_s": 1}),
        ),
        ("PUT", "/actions", json!({"action_type": "InstanceStart"})),
        ("PATCH", "/balloon", json!({"amount_mib": 32})),
        ("PATCH", "/vm", json!({"state": "Paused"})),
        (
            "PUT",
            "/snapshot/create",
            json!({"snapshot_path": "/state", "mem_file_path": "/memory",
                   "snapshot_type": "Full"}),
        ),
        (
            "PUT",
            "/snapshot/load",
            json!({"snapshot_path": "/state", "resume_vm": true,
                   "mem_backend": {"backend_type": "File", "backend_path": "/memory"}}),
        ),
    ]
}

fn drive() -> Drive {
    let burst = TokenBucket { size: 1000, refill_time: 100, one_time_burst: Some(5000) };
    Drive {
        drive_id: "work".into(),
        is_root_device: false,
        is_read_only: false,
        path_on_host: "/drive-work".into(),
        cache_type: CacheType::Writeback,
        rate_limiter: Some(RateLimiter { bandwidth: Some(burst), ops: None }),
    }
}

fn interface() -> NetworkInterface {
    let bucket = TokenBucket { size: 9, refill_time: 1, one_time_burst: None };
    NetworkInterface {
        iface_id: "net".into(),
        host_dev_name: "fc-0123456789ab".into(),
        guest_mac: "02:23:45:67:89:ab".into(),
        rx_rate_limiter: None,
        tx_rate_limiter: Some(RateLimiter { bandwidth: None, ops: Some(bucket) }),
    }
}

fn boot_source() -> BootSource {
    BootSource {
        kernel_image_path: "/vmlinux".into(),
        initrd_path: "/initramfs".into(),
        boot_args: "console=ttyS0".into(),
    }
}

fn snapshot() -> SnapshotLoad {
    SnapshotLoad {
        snapshot_path: "/state".into(),
        mem_backend: MemoryBackend { backend_type: "File".into(), backend_path: "/memory".into() },
        resume_vm: true,
    }
}

/// Makes the call of this number.
async fn call(api: &mut Client, number: usize) -> Result<(), ClientError> {
    match number {
        0 => api.instance().await.map(|_| ()),
        1 => api.version().await.map(|_| ()),
        2 => {
            let level = "Info".into();
            api.logger(&Logger { log_path: "/log".into(), level, show_level: true }).await
        }
        3 => api.metrics(&Metrics { metrics_path: "/metrics".into() }).await,
        4 => api.serial(&Serial { serial_out_path: "/console".into() }).await,
        5 => api.machine_config(&MachineConfig { vcpu_count: 2, mem_size_mib: 512 }).await,
        6 => api.boot_source(&boot_source()).await,
        7 => api.drive(&drive()).await,
        8 => api.network_interface(&interface()).await,
        9 => api.vsock(&Vsock { guest_cid: 3, uds_path: "/v.sock".into() }).await,
        10 => api.entropy(&Entropy::default()).await,
        11 => {
            let (amount_mib, deflate_on_oom, stats_polling_interval_s) = (64, true, 1);
            api.balloon(&Balloon { amount_mib, deflate_on_oom, stats_polling_interval_s }).await
        }
        12 => api.action(&Action::InstanceStart).await,
        13 => api.resize_balloon(&BalloonUpdate { amount_mib: 32 }).await,
        14 => api.vm_state(&VmState::Paused).await,
        15 => {
            let (snapshot_path, mem_file_path) = ("/state".into(), "/memory".into());
            let snapshot_type = SnapshotType::Full;
            api.create_snapshot(&SnapshotCreate { snapshot_path, mem_file_path, snapshot_type })
                .await
        }
        16 => api.load_snapshot(&snapshot()).await,
        _ => panic!("there is no such call"),
    }
}

#[test]
fn every_path_exists_in_firecrackers_api() {
    let ours: BTreeSet<_> = PATHS.iter().copied().collect();
    assert_eq!(ours.len(), PATHS.len(), "each once");
    let since = |minor: u32| -> BTreeSet<_> {
        let there = API.iter().filter(|(.., since)| *since <= minor);
        there.map(|(method, path, _)| (*method, *path)).collect()
    };
    let newer = &ours - &since(12);
    assert_eq!(newer, BTreeSet::from([("PUT", "/serial")]), "what 1.12 does not have");
    assert!(ours.is_subset(&since(14)));
    let called = calls().into_iter().map(|(method, path, _)| {
        let (template, _) = description::find(method, path).unwrap();
        (method, template)
    });
    assert_eq!(called.collect::<BTreeSet<_>>(), ours, "all are tried here");
}

/// What a Firecracker received. The runtime goes on meanwhile: it has yet to hang up.
async fn joined(received: JoinHandle<Vec<Received>>) -> Vec<Received> {
    tokio::task::spawn_blocking(|| received.join().unwrap()).await.unwrap()
}

/// All calls to one Firecracker; returns what it received.
async fn all_calls(behavior: Behavior) -> (Vec<Result<(), ClientError>>, Vec<Received>) {
    let (socket, received) = firecracker(behavior);
    let mut api = Client::new(socket).await.unwrap();
    let mut results = Vec::new();
    for number in 0..calls().len() {
        results.push(call(&mut api, number).await);
    }
    drop(api);
    (results, joined(received).await)
}

#[tokio::test]
async fn bodies_are_as_described_field_by_field() {
    let (results, received) = all_calls(Behavior::Correct).await;
    for ((request, (method, path, body)), result) in received.iter().zip(calls()).zip(results) {
        assert_eq!((request.method.as_str(), request.path.as_str()), (method, path));
        assert_eq!(request.body, body, "{method} {path}");
        assert_eq!(request.headers["host"], "localhost");
        assert_eq!(request.headers["content-type"], "application/json");
        // A snapshot is not loaded into a VMM that has a guest.
        assert_eq!(result.is_ok(), path != "/snapshot/load", "{method} {path}: {result:?}");
    }
    assert_eq!(received.len(), calls().len(), "all on one connection");
}

fn cause(error: &ClientError) -> &RequestError {
    match error {
        ClientError::Request { cause, .. } => cause,
        ClientError::Connection(error) => panic!("{error}"),
    }
}

/// The failure of each call, which must name method and path, made on a connection of its own.
async fn failures(behavior: Behavior) -> Vec<(&'static str, ClientError)> {
    let mut failures = Vec::new();
    for (number, (method, path, _)) in calls().into_iter().enumerate() {
        let (socket, received) = firecracker(behavior);
        let mut api = Client::new(socket).await.unwrap();
        match call(&mut api, number).await {
            Ok(()) => assert!(
                matches!(behavior, Behavior::SendsInvalidJson) && method != "GET",
                "{behavior:?} {path}"
            ),
            Err(error) => {
                assert_eq!(error.to_string(), format!("Firecracker's `{method} {path}` failed"));
                assert!(error.source().is_some_and(|source| !source.to_string().is_empty()));
                failures.push((method, error));
            }
        }
        drop(api);
        joined(received).await;
    }
    failures
}

#[tokio::test]
async fn refusals_contain_firecrackers_sanitised_message() {
    for (_, error) in failures(Behavior::Refuses).await {
        assert!(
            matches!(cause(&error), RequestError::Fault(message) if message == "no [31m way"),
            "{error:?}"
        );
    }
    for (_, error) in failures(Behavior::FailsWithHtml).await {
        let RequestError::Fault(message) = cause(&error) else { panic!("{error:?}") };
        assert_eq!(message, "500 Internal Server Error");
    }
}

#[tokio::test]
async fn invalid_answers_fail_their_request() {
    let http = |cause: &RequestError| matches!(cause, RequestError::Http(_));
    let malformed = |cause: &RequestError| matches!(cause, RequestError::Malformed);
    type Is = fn(&RequestError) -> bool;
    let behaviors: [(Behavior, Is); 5] = [
        (Behavior::Truncates, malformed),
        (Behavior::SpeaksSsh, http),
        (Behavior::SendsInvalidJson, malformed),
        (Behavior::Endless, malformed),
        (Behavior::Disconnects, http),
    ];
    for (behavior, expected) in behaviors {
        let failures = failures(behavior).await;
        assert!(failures.len() >= 2, "{behavior:?}");
        for (_, error) in failures {
            assert!(expected(cause(&error)), "{behavior:?}: {error:?}");
        }
    }
}

/// The clock is paused: tokio advances it to the client's timeout when no task can run.
#[tokio::test(start_paused = true)]
async fn a_firecracker_that_does_not_answer_times_out() {
    let (socket, received) = firecracker(Behavior::Silent);
    let mut api = Client::new(socket).await.unwrap();
    let begin = tokio::time::Instant::now();
    let error = api.instance().await.unwrap_err();
    assert!(matches!(cause(&error), RequestError::Timeout), "{error:?}");
    assert_eq!(error.to_string(), "Firecracker's `GET /` failed");
    assert_eq!(begin.elapsed().as_secs(), ANSWER_TIMEOUT.as_secs());
    drop(api);
    joined(received).await;
}

#[tokio::test]
async fn requests_fail_after_the_connection_ended() {
    let (socket, received) = firecracker(Behavior::Disconnects);
    let mut api = Client::new(socket).await.unwrap();
    api.instance().await.unwrap_err();
    for _ in 0..3 {
        let error = api.version().await.unwrap_err();
        assert_eq!(error.to_string(), "Firecracker's `GET /version` failed");
    }
    drop(api);
    joined(received).await;
}

#[tokio::test]
async fn a_guest_is_started_paused_kept_and_loaded_again() {
    let (socket, received) = firecracker(Behavior::Correct);
    let mut api = Client::new(socket).await.unwrap();
    assert_eq!(api.version().await.unwrap(), "1.12.1");
    let error = api.action(&Action::InstanceStart).await.unwrap_err();
    assert!(
        matches!(cause(&error), RequestError::Fault(message) if message.contains("without kernel"))
    );
    assert_eq!(api.instance().await.unwrap().state, "Not started");
    api.boot_source(&boot_source()).await.unwrap();
    api.drive(&drive()).await.unwrap();
    api.action(&Action::InstanceStart).await.unwrap();
    let instance = api.instance().await.unwrap();
    assert_eq!((instance.id.as_str(), instance.state.as_str()), ("0123456789ab", "Running"));
    let late = api.drive(&drive()).await.unwrap_err();
    assert!(matches!(cause(&late), RequestError::Fault(_)), "{late:?}");
    api.action(&Action::FlushMetrics).await.unwrap();
    api.action(&Action::SendCtrlAltDel).await.unwrap();
    let create = SnapshotCreate {
        snapshot_path: "/state".into(),
        mem_file_path: "/memory".into(),
        snapshot_type: SnapshotType::Diff,
    };
    api.create_snapshot(&create).await.unwrap_err();
    api.vm_state(&VmState::Paused).await.unwrap();
    assert_eq!(api.instance().await.unwrap().state, "Paused");
    api.create_snapshot(&create).await.unwrap();
    api.vm_state(&VmState::Resumed).await.unwrap();
    assert_eq!(api.instance().await.unwrap().state, "Running");
    drop(api);
    let requests = joined(received).await;
    assert!(requests.iter().any(|request| request.body["snapshot_type"] == "Diff"));

    let (socket, received) = firecracker(Behavior::Correct);
    let mut api = Client::new(socket).await.unwrap();
    api.load_snapshot(&snapshot()).await.unwrap();
    assert_eq!(api.instance().await.unwrap().state, "Running");
    drop(api);
    joined(received).await;
}
