//! Memory and descriptors of the daemon after many requests and clients that leave.

use std::io::{Read, Write};
use std::time::Instant;

use banger_testkit::{descriptors, resident_kib};

use crate::support::{Daemon, Home, PATIENCE};

/// Requests whose memory is compared with that after the first ones.
const REQUESTS: usize = 10_000;
/// Requests after which caches and the allocator have their size.
const FIRST: usize = 2_000;
/// Clients that leave in the middle.
const CLIENTS: usize = 200;
/// Growth that the allocator explains: less than half a kilobyte for a request.
const MAX_GROWTH_KIB: u64 = 4096;

/// Requests of all kinds that leave nothing on record.
fn requests(daemon: &Daemon, count: usize) {
    for number in 0..count {
        let vm = number % 10;
        let reply = match number % 8 {
            0 => daemon.get("/v1/vms"),
            1 => daemon.get(&format!("/v1/vms/vm-{vm}")),
            2 => daemon.get("/v1/operations"),
            3 => daemon.get(&format!("/v1/vms/nope-{number}")),
            4 => daemon.get("/v1/daemon"),
            5 => daemon.post("/v1/vms", &format!("{{\"name\":\"Bad {number}\"}}")),
            6 => daemon.get("/v1/stats?all=true"),
            _ => daemon.post(&format!("/v1/vms/vm-{vm}/actions"), "{\"stop\":{}}"),
        };
        assert!(reply.status < 500, "{number}: {reply:?}");
    }
}

/// Clients that leave in the middle of a request, of an answer and of a stream.
fn leave(daemon: &Daemon) {
    let requests = [
        "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v1/vms/vm-1/logs?follow=true HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{\"name\":",
        "GET /v1/vms HTTP/1.1\r\nho",
    ];
    for request in requests.iter().cycle().take(CLIENTS) {
        let mut stream = daemon.connect();
        stream.write_all(request.as_bytes()).unwrap();
        if request.starts_with("GET") && request.ends_with("\r\n\r\n") {
            // It has begun to answer.
            stream.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn requests_and_clients_that_leave_take_no_memory() {
    let home = Home::new();
    let daemon = home.start();
    for number in 0..10 {
        daemon.make(&format!("vm-{number}"));
    }
    let pid = u32::try_from(daemon.pid()).unwrap();
    requests(&daemon, FIRST);
    let few = descriptors(pid);
    leave(&daemon);
    requests(&daemon, FIRST);
    let before = resident_kib(pid);
    leave(&daemon);
    requests(&daemon, REQUESTS);
    let after = resident_kib(pid);
    let deadline = Instant::now() + PATIENCE;
    while descriptors(pid) > few {
        assert!(Instant::now() < deadline, "descriptors of clients that have left are open");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(after <= before + MAX_GROWTH_KIB, "{before} KiB, and later {after} KiB");
    daemon.stop();
}
