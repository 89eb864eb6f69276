//! Facts of Firecracker's API description (src/firecracker/swagger/firecracker.yaml): methods,
//! paths, since which minor version of 1.x, and the fields of what we send.

/// The oldest version that banger works with has these, and so has 1.12.
const SINCE_8: u32 = 8;

/// `METHOD path`, and since which 1.x; from 8 on, since nothing older counts.
pub const API: &[(&str, &str, u32)] = &[
    ("GET", "/", SINCE_8),
    ("PUT", "/actions", SINCE_8),
    ("GET", "/balloon", SINCE_8),
    ("PUT", "/balloon", SINCE_8),
    ("PATCH", "/balloon", SINCE_8),
    ("PATCH", "/balloon/hinting/start", 14),
    ("GET", "/balloon/hinting/status", 14),
    ("PATCH", "/balloon/hinting/stop", 14),
    ("GET", "/balloon/statistics", SINCE_8),
    ("PATCH", "/balloon/statistics", SINCE_8),
    ("PUT", "/boot-source", SINCE_8),
    ("PUT", "/cpu-config", SINCE_8),
    ("PUT", "/drives/{drive_id}", SINCE_8),
    ("PATCH", "/drives/{drive_id}", SINCE_8),
    ("PUT", "/entropy", SINCE_8),
    ("GET", "/hotplug/memory", 14),
    ("PUT", "/hotplug/memory", 14),
    ("PATCH", "/hotplug/memory", 14),
    ("PUT", "/logger", SINCE_8),
    ("GET", "/machine-config", SINCE_8),
    ("PUT", "/machine-config", SINCE_8),
    ("PATCH", "/machine-config", SINCE_8),
    ("PUT", "/metrics", SINCE_8),
    ("GET", "/mmds", SINCE_8),
    ("PUT", "/mmds", SINCE_8),
    ("PATCH", "/mmds", SINCE_8),
    ("PUT", "/mmds/config", SINCE_8),
    ("PUT", "/network-interfaces/{iface_id}", SINCE_8),
    ("PATCH", "/network-interfaces/{iface_id}", SINCE_8),
    ("PUT", "/pmem/{id}", 14),
    ("PUT", "/serial", 14),
    ("PUT", "/snapshot/create", SINCE_8),
    ("PUT", "/snapshot/load", SINCE_8),
    ("GET", "/version", SINCE_8),
    ("PATCH", "/vm", SINCE_8),
    ("GET", "/vm/config", SINCE_8),
    ("PUT", "/vsock", SINCE_8),
];

/// What goes along with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    Fields { required: &'static [&'static str], optional: &'static [&'static str] },
}

const fn fields(required: &'static [&'static str], optional: &'static [&'static str]) -> Body {
    Body::Fields { required, optional }
}

/// The bodies of 1.12 that we send, and the one of 1.14.
const BODIES: &[(&str, &str, Body)] = &[
    ("PUT", "/actions", fields(&["action_type"], &[])),
    ("PUT", "/balloon", fields(&["amount_mib", "deflate_on_oom"], &["stats_polling_interval_s"])),
    ("PATCH", "/balloon", fields(&["amount_mib"], &[])),
    ("PUT", "/boot-source", fields(&["kernel_image_path"], &["boot_args", "initrd_path"])),
    (
        "PUT",
        "/drives/{drive_id}",
        fields(
            &["drive_id", "is_root_device"],
            &[
                "partuuid",
                "cache_type",
                "is_read_only",
                "path_on_host",
                "rate_limiter",
                "io_engine",
                "socket",
            ],
        ),
    ),
    ("PUT", "/entropy", fields(&[], &["rate_limiter"])),
    (
        "PUT",
        "/logger",
        fields(&[], &["level", "log_path", "show_level", "show_log_origin", "module"]),
    ),
    (
        "PUT",
        "/machine-config",
        fields(
            &["mem_size_mib", "vcpu_count"],
            &["cpu_template", "smt", "track_dirty_pages", "huge_pages"],
        ),
    ),
    ("PUT", "/metrics", fields(&["metrics_path"], &[])),
    (
        "PUT",
        "/network-interfaces/{iface_id}",
        fields(
            &["host_dev_name", "iface_id"],
            &["guest_mac", "rx_rate_limiter", "tx_rate_limiter"],
        ),
    ),
    ("PUT", "/serial", fields(&[], &["serial_out_path"])),
    ("PUT", "/snapshot/create", fields(&["mem_file_path", "snapshot_path"], &["snapshot_type"])),
    (
        "PUT",
        "/snapshot/load",
        fields(
            &["snapshot_path"],
            &[
                "enable_diff_snapshots",
                "mem_file_path",
                "mem_backend",
                "resume_vm",
                "network_overrides",
            ],
        ),
    ),
    ("PATCH", "/vm", fields(&["state"], &[])),
    ("PUT", "/vsock", fields(&["guest_cid", "uds_path"], &["vsock_id"])),
];

/// Whether a path is one of a template, such as `/drives/{drive_id}`.
fn matches(template: &str, path: &str) -> bool {
    match template.split_once('{') {
        None => template == path,
        Some((begin, _)) => path.strip_prefix(begin).is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        }),
    }
}

/// The template and the body of a request.
pub fn find(method: &str, path: &str) -> Option<(&'static str, Body)> {
    let known = |(other, template, _): &&(&str, &'static str, u32)| {
        *other == method && matches(template, path)
    };
    let (_, template, _) = API.iter().find(known)?;
    let body = BODIES.iter().find(|(other, path, _)| (other, path) == (&method, template));
    Some((template, body.map_or(Body::None, |(_, _, body)| *body)))
}
