//! Every verb of the API, and where each face offers it.
//!
//! A new operation or action of the API, command, key, form or tool fails the test in
//! [`super`] until it has its place here. docs/faces.md is made of this table.

/// A verb.
#[derive(Debug)]
pub struct Verb {
    /// The operation of the OpenAPI document, `vm_action ACTION`, or, in brackets, what is made of
    /// several of them.
    pub name: &'static str,
    /// Commands, as the words after `banger`.
    pub cli: &'static str,
    /// Keys, as place and command of `banger_tui::keys`.
    pub tui: &'static str,
    /// Paths of forms and pages.
    pub web: &'static str,
    /// Tools.
    pub mcp: &'static str,
}

/// A verb with its faces in their order: names separated by commas, after `=` where it is shown
/// without being asked for, or after `-` why it is not offered.
const fn row(
    name: &'static str,
    cli: &'static str,
    tui: &'static str,
    web: &'static str,
    mcp: &'static str,
) -> Verb {
    Verb { name, cli, tui, web, mcp }
}

/// What is kept on the host, and the host itself, are for its user.
const USER: &str = "- agents use machines; images and the host are the user's";
/// Something that has no place in lists and details of machines.
const RARE: &str = "- rare: `banger` has it";
/// For programs.
const PROGRAMS: &str = "- for programs";
/// Needs a terminal, a pipe or files of this host.
const STREAMS: &str = "- needs streams or files of the user: `banger` has it";

/// All verbs.
pub const TABLE: &[Verb] = &[
    row("vm_list", "vm list, ps", "= list", "/", "list"),
    row("vm_show", "vm show", "Vms/Open", "/vms/{vm}", "show"),
    row("vm_create", "vm create, run, vm run", "Vms/New", "/vms, /vms/new", "create, run"),
    row("vm_action start", "vm start", "Vms/Start", "/vms/actions, /vms/{vm}/actions", "start"),
    row("vm_action stop", "vm stop", "Vms/Stop", "/vms/actions, /vms/{vm}/actions", "stop"),
    row("vm_action restart", "vm restart", "Vms/Restart", "/vms/actions", "- `stop` and `start`"),
    row("vm_action kill", "vm kill", "Vms/Kill", "/vms/actions", "- `delete`, or `stop`"),
    row("vm_action pause", "vm pause", "Vms/Pause", "/vms/actions", "- an agent has no use for it"),
    row("vm_action resume", "vm resume", "Vms/Pause", "/vms/actions", "- as for pause"),
    row("vm_action delete", "vm delete, vm prune", "Vms/Delete", "/vms/actions", "delete"),
    row("vm_action repair", "vm repair", RARE, "/vms/{vm}/actions", USER),
    row("vm_action set", "vm set", "Vms/Ports", "/vms/{vm}/settings, /vms/{vm}/ports", "publish"),
    row("vm_action rename", "vm rename", RARE, "/vms/{vm}/settings", USER),
    row("vm_action reset", "vm reset", RARE, "/vms/{vm}/actions", "- create another machine"),
    row("vm_logs", "vm logs", "Vms/Console", "/live/vms/{vm}", "logs"),
    row("vm_stats", "vm stats", "= list and details", "/vms/{vm}/usage", "- `exec` tells"),
    row("vm_health", "vm health", "- details have the state", "- as in the terminal", "- `exec`"),
    row("vm_boot", "run, vm create", "= details", "= page of the VM", "create, start"),
    row("vm_exec", "exec, vm exec, acp", "Vms/Shell", "/vms/{vm}/terminal/socket", "exec, run"),
    row("vm_detach", "run", STREAMS, STREAMS, "- `exec` with `&`"),
    row("vm_archive", "cp, vm cp", STREAMS, STREAMS, "download, read_file"),
    row("vm_unarchive", "cp, vm cp", STREAMS, STREAMS, "upload, write_file"),
    row("vm_hold", "run", "- its machines are kept", "- its machines are kept", "create"),
    row("vm_secrets", "vm show, run", "- shows no passwords", "- shows no passwords", USER),
    row("vm_sync", "vm sync", RARE, RARE, "- a live folder is the user's"),
    row("(ports)", "vm ports", "= details", "= page of the VM", "ports"),
    row("(shell)", "shell, vm shell", "Vms/Shell", "/vms/{vm}/terminal", "- `exec`"),
    row("(ssh)", "ssh, vm ssh, ssh-config", STREAMS, "/vms/{vm}/terminal", "- `exec`"),
    row("(list files)", "exec", STREAMS, STREAMS, "list_files"),
    row("(workspace status)", "vm workspace status", STREAMS, STREAMS, "workspace_status"),
    row("(workspace diff)", "vm workspace diff", STREAMS, STREAMS, "workspace_diff"),
    row("(workspace pull)", "vm workspace pull", STREAMS, STREAMS, "workspace_pull"),
    row(
        "(workspace push)",
        "vm workspace push",
        STREAMS,
        STREAMS,
        "- `upload`; a push replaces files that the agent works on",
    ),
    row("events", "vm events", "= lists are live", "/live/vms, /live/operations", "- progress"),
    row("operation_list", "operation list", "= list of operations", "/operations", USER),
    row(
        "operation_show",
        "operation show",
        "Operations/Open",
        "/operations/{operation}",
        "- an error has the reason",
    ),
    row(
        "operation_events",
        "vm create",
        "= stages of a new VM",
        "/live/operations/{operation}",
        "- progress notifications",
    ),
    row(
        "operation_cancel",
        "operation cancel",
        "Operations/Cancel, Vms/Cancel",
        "/operations/{operation}/cancel",
        "- a client cancels its call",
    ),
    row("subject_cancel", "operation cancel", PROGRAMS, PROGRAMS, PROGRAMS),
    row("image_list", "image list", "= list of images", "/images", USER),
    row("image_show", "image show", RARE, "/images/{image}", USER),
    row("image_history", "image history", RARE, "/images/{image}", USER),
    row("image_packages", "image show", RARE, "/images/{image}", USER),
    row("image_pull", "image pull", "Stored/Pull", "/images/do/{verb}", USER),
    row("image_import", "image import", STREAMS, "/images/do/{verb}", USER),
    row("image_upload", "image import", STREAMS, "- the page is on the daemon's host", USER),
    row("image_build", "image build", STREAMS, "/images/do/{verb}", USER),
    row("image_commit", "image commit", RARE, "/images/do/{verb}", USER),
    row("image_register", "image register", STREAMS, "/images/do/{verb}", USER),
    row("image_promote", "image promote", RARE, "/images/{image}/promote", USER),
    row("image_tag", "image tag", RARE, "/images/{image}/tag", USER),
    row("image_untag", "image untag", RARE, "/images/{image}/untag", USER),
    row("image_delete", "image delete", "Stored/Delete", "/images/{image}/delete", USER),
    row("kernel_list", "kernel list", "= list of kernels", "/images", USER),
    row("kernel_pull", "kernel pull", "Stored/Pull", "/kernels/do/{verb}", USER),
    row("kernel_import", "kernel import", STREAMS, "/kernels/do/{verb}", USER),
    row("kernel_build", "kernel build", RARE, "/kernels/do/{verb}", USER),
    row("kernel_delete", "kernel delete", "Stored/Delete", "/kernels/{kernel}/delete", USER),
    row("disk_usage", "system df", "= bottom of the screen", "/host", USER),
    row("disk_prune", "system prune, image prune, kernel prune", RARE, "/host/prune", USER),
    row("host", "api", "= bottom of the screen", "/", USER),
    row("doctor", "doctor", RARE, "/host", USER),
    row("leftover_list", "doctor", RARE, RARE, USER),
    row("leftover_remove", "doctor", RARE, RARE, USER),
    row("daemon_status", "daemon status, version", "= bottom of the screen", "/host", USER),
    row("daemon_logs", "daemon logs", RARE, RARE, USER),
    row("daemon_stop", "daemon stop", "- it needs the daemon", "- it needs the daemon", USER),
    row("metrics", "api", "- its lists have them", "- its charts have them", PROGRAMS),
    row("openapi", "api", PROGRAMS, PROGRAMS, PROGRAMS),
];

/// What faces have of their own: without a verb of the API.
pub struct Own {
    /// Commands.
    pub cli: &'static [&'static str],
    /// Keys.
    pub tui: &'static [&'static str],
    /// Paths.
    pub web: &'static [&'static str],
}

/// Faces themselves, moving about in them, and files of the user.
pub const OWN: Own = Own {
    cli: &[
        "tui",
        "web",
        "mcp",
        "serve",
        "completion",
        "daemon start",
        "agent install",
        "agent status",
    ],
    tui: &[
        "Vms/Mark",
        "Vms/MarkAll",
        "Vms/Sort",
        "Vms/Reverse",
        "Everywhere/Filter",
        "Everywhere/Down",
        "Everywhere/Up",
        "Everywhere/PageDown",
        "Everywhere/PageUp",
        "Everywhere/First",
        "Everywhere/Last",
        "Everywhere/Tab(0)",
        "Everywhere/Tab(1)",
        "Everywhere/Tab(2)",
        "Everywhere/Tab(3)",
        "Everywhere/NextTab",
        "Everywhere/PreviousTab",
        "Everywhere/Back",
        "Everywhere/Help",
        "Everywhere/Quit",
        "Offline/StartDaemon",
    ],
    web: &["/enter", "/leave", "/licences", "/static/{hash}/{name}"],
};
