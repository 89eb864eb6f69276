//! Examples of answers.

use serde_json::{Value, json};

/// The example of a type of answers.
pub fn of_answer(name: &str) -> Option<Value> {
    of_vms(name).or_else(|| of_images(name)).or_else(|| of_host(name))
}

fn of_vms(name: &str) -> Option<Value> {
    let vm = json!({ "id": "e60eb3b27ffd", "name": "web" });
    Some(match name {
        "Accepted" => json!({ "operation": "op-abc123", "vm": vm }),
        "CancelAnswer" => {
            json!({ "operation": "op-abc123", "effect": "cancelling", "state": "running" })
        }
        "OperationView" => json!({
            "id": "op-abc123", "kind": "create",
            "subject": { "type": "vm", "id": "e60eb3b27ffd", "name": "web" },
            "state": "succeeded", "started_at": "2026-01-01T00:00:00Z", "error": null
        }),
        "VmSummary" => summary(),
        "VmDetails" => details(),
        "VmHealth" => json!({
            "id": "e60eb3b27ffd", "name": "web", "state": "running", "agent": "ok",
            "round_trip_us": 410, "uptime_ms": 61_000,
            "boot_id": "0d4ad1a4-6f0c-4a37-9a4b-3cb2a1b7a1b1"
        }),
        "BootView" => boot(),
        "VmSecrets" => json!({
            "opencode": { "port": 4096, "username": "opencode", "password": "3f9c0c5e" }
        }),
        "SyncView" => json!({
            "host": "/home/me/app", "guest": "/root/app", "ignore": ["*.o"], "state": "watching",
            "files": 310, "pending": 0, "rounds": 12, "conflicts": [], "problems": []
        }),
        "VmStats" => json!({
            "id": "e60eb3b27ffd", "name": "web", "state": "running", "disk": disk(),
            "run": {
                "sampled_us": 73_204_000_000_u64, "uptime_ms": 61_000,
                "cpu": { "vcpus": 2, "time_us": 5_400_000 },
                "memory": {
                    "limit_bytes": 2_147_483_648_u64, "resident_bytes": 220_200_960,
                    "guest": { "total_bytes": 2_054_160_384_u64, "available_bytes": 1_900_000_000 }
                },
                "disk_io": { "read_bytes": 73_400_320, "written_bytes": 1_048_576,
                    "source": "host" },
                "network": { "received_bytes": 9216, "sent_bytes": 4096, "source": "guest" }
            }
        }),
        "Unpacked" => json!({ "entries": 3, "bytes": 4096, "left_out": 0 }),
        "Detached" => json!({ "type": "running", "pid": 431, "log": "/run/banger/exec-431.log" }),
        "ServerSentEvent" => json!({
            "id": "5e1f09c2-17",
            "data": "{\"id\":\"5e1f09c2-17\",\"at_unix_ms\":1767225600000,\"event\":\"gone\",\
                \"vm\":\"e60eb3b27ffd\"}"
        }),
        _ => return None,
    })
}

fn disk() -> Value {
    json!({
        "root_bytes": 8_589_934_592_u64, "root_used_bytes": 9_502_720,
        "work_bytes": 8_589_934_592_u64, "work_used_bytes": 1_138_688
    })
}

fn boot() -> Value {
    json!({ "state": "running", "source": "systemd", "after_ms": 2310 })
}

fn summary() -> Value {
    json!({
        "id": "e60eb3b27ffd", "name": "web", "state": "running", "image": "debian",
        "vcpus": 2, "memory_mib": 2048, "ip": null, "created_at": "2026-01-01T00:00:00Z",
        "disk": disk(),
        "publish": [{ "listen": "127.0.0.1", "host_port": 8080, "guest_port": 80 }],
        "labels": { "team": "shop" }
    })
}

fn details() -> Value {
    let mut value = summary();
    let more = json!({
        "drivers": { "vmm": "firecracker", "storage": "dm-snapshot", "network": "bridge" },
        "why": { "vmm": "KVM works", "storage": "root is at hand", "network": "root is at hand" },
        "paths": {
            "console_log": "/home/me/.local/state/banger/vms/e60eb3b27ffd/console.log",
            "vmm_log": "/home/me/.local/state/banger/vms/e60eb3b27ffd/vmm.log"
        },
        "image_id": "0123456789abcdef", "kernel_id": "fedcba9876543210", "lifetime": "keep",
        "generation": 9, "pid": 4711, "boot": boot(),
        "boot_id": "0d4ad1a4-6f0c-4a37-9a4b-3cb2a1b7a1b1",
        "start": {
            "total_ms": 980, "guest": [{ "name": "kernel", "ms": 310 }],
            "stages": [{ "name": "network", "ms": 12 }, { "name": "boot", "ms": 820 }]
        }
    });
    if let (Some(object), Value::Object(more)) = (value.as_object_mut(), more) {
        object.extend(more);
    }
    value
}

fn of_images(name: &str) -> Option<Value> {
    let image = json!({
        "id": "0123456789abcdef", "names": ["debian"], "source": "debian",
        "virtual_bytes": 8_589_934_592_u64, "used_bytes": 327_155_712,
        "created_at": "2026-01-01T00:00:00Z", "fingerprint": "sha256:5f70bf18a086",
        "used_by": ["web"], "system": "Debian GNU/Linux 13 (trixie)", "packages": 142
    });
    Some(match name {
        "ImageView" => image,
        "ImageHistoryEntry" => {
            json!({ "id": "0123456789abcdef", "names": ["debian"], "image": image })
        }
        "KernelView" => json!({
            "id": "fedcba9876543210", "names": ["debian"], "release": "6.1.0-56-cloud-amd64",
            "source": "debian", "used_bytes": 48_234_496, "created_at": "2026-01-01T00:00:00Z",
            "used_by": ["web"]
        }),
        "Deleted" => {
            json!({ "id": "0123456789abcdef", "freed_bytes": 327_155_712, "names": ["mine"] })
        }
        _ => return None,
    })
}

fn of_host(name: &str) -> Option<Value> {
    Some(match name {
        "DaemonStatus" => json!({
            "pid": 812, "version": "0.1.0", "build_id": "3f9c0c5e",
            "socket": "/run/user/1000/banger/bangerd.sock",
            "log": "/home/me/.local/state/banger/log/bangerd.log",
            "uptime_s": 3600, "vms": 1, "operations": 0, "simulated": false,
            "defaults": {
                "vcpus": 1, "memory_mib": 2048, "root_bytes": 8_589_934_592_u64,
                "work_bytes": 8_589_934_592_u64, "nat": true, "image": "debian",
                "kernel": "debian"
            },
            "dns": { "listen": "127.0.0.1:42069" }
        }),
        "HostView" => json!({
            "cpus": 8, "memory_bytes": 33_554_432_000_u64, "reserved_vcpus": 2,
            "reserved_memory_bytes": 2_147_483_648_u64, "disk_used_bytes": 10_641_408,
            "disk_free_bytes": 107_374_182_400_u64
        }),
        "DiskUsage" => json!({
            "objects": [{
                "kind": "image", "id": "0123456789abcdef", "names": ["debian"],
                "used_bytes": 327_155_712, "used_by": ["web"], "removable": false
            }],
            "free_bytes": 107_374_182_400_u64
        }),
        "DiskPruned" => json!({
            "objects": [{
                "kind": "image", "id": "0123456789abcdef", "freed_bytes": 327_155_712,
                "error": null
            }],
            "freed_bytes": 327_155_712
        }),
        "Check" => json!({
            "code": "kvm", "verdict": "ok", "seen": "/dev/kvm can be opened",
            "needed_for": ["start"]
        }),
        "Leftover" => json!({
            "id": "e60eb3b27ffd", "objects": ["fc-e60eb3b27ffd"], "disks": [], "processes": []
        }),
        "RemovedLeftover" => {
            json!({ "id": "e60eb3b27ffd", "removed": ["fc-e60eb3b27ffd"], "error": null })
        }
        "Empty" => json!({}),
        _ => return None,
    })
}
