//! Paths of the HTTP API, in one place for the daemon and its clients.
//!
//! `{vm}` is a name, an id or a unique prefix of an id.

/// Declares the routes, and the list of all routes.
macro_rules! routes {
    ($($(#[$doc:meta])* pub const $name:ident: &str = $path:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $path;)*

        /// All routes.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

routes! {
/// `GET`: [`crate::daemon::DaemonStatus`].
pub const DAEMON: &str = "/v1/daemon";
/// `POST`: stops the daemon; VMs keep running.
pub const DAEMON_STOP: &str = "/v1/daemon/stop";
/// `GET`: the daemon's log, one JSON object a line.
pub const DAEMON_LOGS: &str = "/v1/daemon/logs";
/// `GET`: [`crate::host::HostView`].
pub const HOST: &str = "/v1/host";
/// `GET`: array of [`crate::doctor::Check`].
pub const DOCTOR: &str = "/v1/doctor";
/// `GET`: array of [`crate::doctor::Leftover`].
pub const LEFTOVERS: &str = "/v1/leftovers";
/// `POST` [`crate::doctor::RemoveLeftovers`]: array of [`crate::doctor::RemovedLeftover`].
pub const LEFTOVER_REMOVALS: &str = "/v1/leftover-removals";
/// `GET`: array of [`crate::vm::VmSummary`], with any number of [`crate::filter::VmFilter`] as
/// `filter` in the query; `POST` [`crate::vm::CreateVm`].
pub const VMS: &str = "/v1/vms";
/// `GET`: [`crate::vm::VmDetails`].
pub const VM: &str = "/v1/vms/{vm}";
/// `POST` [`crate::vm::VmAction`]: requests an action.
pub const VM_ACTION: &str = "/v1/vms/{vm}/actions";
/// `GET` with [`crate::boot::Wait`] in the query: returns [`crate::boot::BootView`] once the VM has
/// reached that stage of its start or at the timeout.
pub const VM_BOOT: &str = "/v1/vms/{vm}/boot";
/// `GET`: [`crate::vm::VmHealth`].
pub const VM_HEALTH: &str = "/v1/vms/{vm}/health";
/// `GET`: [`crate::opencode::VmSecrets`].
pub const VM_SECRETS: &str = "/v1/vms/{vm}/secrets";
/// `GET`: array of [`crate::sync::SyncView`], the live folders of a VM with their state.
pub const VM_SYNC: &str = "/v1/vms/{vm}/sync";
/// `GET`: array of [`crate::stats::VmStats`], one sample of each running VM. `vms`, ids separated
/// by commas, selects VMs in any state; `all=true` selects all; `guest=false` asks no guest agent.
pub const STATS: &str = "/v1/stats";
/// `GET`: a log of a VM as bytes: of its console, its agent, its VMM or its shim.
pub const VM_LOGS: &str = "/v1/vms/{vm}/logs";
/// `POST`: a command in the guest. The body and, after `101`, the stream are those of the agent's
/// `/exec`.
pub const VM_EXEC: &str = "/v1/vms/{vm}/exec";
/// `POST`: starts a command in the guest that continues without a client. Body and answer are those
/// of the agent's `/detach`.
pub const VM_DETACH: &str = "/v1/vms/{vm}/detach";
/// `GET`: a file or folder of the guest as a tar archive; `PUT`: unpacks one. Query, body and
/// answer are those of the agent's `/archive`.
pub const VM_ARCHIVE: &str = "/v1/vms/{vm}/archive";
/// `POST`: keeps a session-bound VM alive; after `101`, until the connection ends.
pub const VM_HOLD: &str = "/v1/vms/{vm}/hold";
/// `GET`: server-sent events of [`crate::events::Event`], resumed with `Last-Event-ID`; `about`
/// in the query, a [`crate::events::About`], selects some of them.
pub const EVENTS: &str = "/v1/events";
/// `GET`: array of [`crate::operation::OperationView`], newest first.
pub const OPERATIONS: &str = "/v1/operations";
/// `GET`: [`crate::operation::OperationView`].
pub const OPERATION: &str = "/v1/operations/{operation}";
/// `GET`: server-sent events of [`crate::operation::OpEvent`], resumed with `Last-Event-ID`.
pub const OPERATION_EVENTS: &str = "/v1/operations/{operation}/events";
/// `POST`: cancels and undoes an operation: [`crate::operation::CancelAnswer`].
pub const OPERATION_CANCEL: &str = "/v1/operations/{operation}/cancel";
/// `POST` [`crate::operation::SubjectRef`]: cancels and undoes all operations on a subject:
/// array of [`crate::operation::CancelAnswer`].
pub const CANCELS: &str = "/v1/cancels";
/// `GET`: array of [`crate::images::ImageView`].
pub const IMAGES: &str = "/v1/images";
/// `GET`: [`crate::images::ImageView`]; `DELETE`: [`crate::images::Deleted`].
pub const IMAGE: &str = "/v1/images/{image}";
/// `GET`: array of [`crate::images::ImageHistoryEntry`]: the image, and those it was made from.
pub const IMAGE_HISTORY: &str = "/v1/images/{image}/history";
/// `GET`: installed packages with their versions, an array of strings.
pub const IMAGE_PACKAGES: &str = "/v1/images/{image}/packages";
/// `POST` [`crate::images::ImagePullRequest`].
pub const IMAGE_PULL: &str = "/v1/image-pulls";
/// `POST` [`crate::images::ImportRequest`].
pub const IMAGE_IMPORT: &str = "/v1/image-imports";
/// `POST` an archive, with [`crate::images::ImageUpload`] as query.
pub const IMAGE_UPLOAD: &str = "/v1/image-uploads";
/// `POST` [`crate::build::ImageBuildRequest`].
pub const IMAGE_BUILD: &str = "/v1/image-builds";
/// `POST` [`crate::images::ImageCommitRequest`].
pub const IMAGE_COMMIT: &str = "/v1/image-commits";
/// `POST` [`crate::images::ImageRegisterRequest`].
pub const IMAGE_REGISTER: &str = "/v1/image-registrations";
/// `POST` [`crate::images::ImagePromoteRequest`].
pub const IMAGE_PROMOTE: &str = "/v1/image-promotions";
/// `POST` [`crate::images::TagRequest`].
pub const IMAGE_TAGS: &str = "/v1/images/{image}/tags";
/// `DELETE`: removes one name of an image.
pub const IMAGE_TAG: &str = "/v1/image-tags/{name}";
/// `GET`: [`crate::disk::DiskUsage`].
pub const DISK: &str = "/v1/disk";
/// `POST` [`crate::disk::DiskPrune`]: removes what nothing uses: [`crate::disk::DiskPruned`].
pub const DISK_PRUNES: &str = "/v1/disk-prunes";
/// `GET`: array of [`crate::images::KernelView`].
pub const KERNELS: &str = "/v1/kernels";
/// `DELETE`: [`crate::images::Deleted`].
pub const KERNEL: &str = "/v1/kernels/{kernel}";
/// `POST` [`crate::images::PullRequest`].
pub const KERNEL_PULL: &str = "/v1/kernel-pulls";
/// `POST` [`crate::images::KernelBuildRequest`].
pub const KERNEL_BUILD: &str = "/v1/kernel-builds";
/// `POST` [`crate::images::KernelImportRequest`].
pub const KERNEL_IMPORT: &str = "/v1/kernel-imports";
/// `GET`: metrics in the text format of Prometheus.
pub const METRICS: &str = "/metrics";
/// `GET`: the OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
}

/// Value of the `Upgrade` header of [`VM_HOLD`].
pub const HOLD_PROTOCOL: &str = "banger-hold/1";

/// Header of every answer: the daemon's build id.
pub const BUILD_HEADER: &str = "banger-build";
/// Header of a request that only a daemon of this build may carry out: another one answers with
/// [`BUILD_MISMATCH`] and does nothing.
pub const EXPECT_BUILD_HEADER: &str = "banger-expect-build";
/// HTTP status of a request that expects another build: 421 Misdirected Request (RFC 9110).
pub const BUILD_MISMATCH: u16 = 421;

/// Header of every answer: the daemon's version.
pub const VERSION_HEADER: &str = "banger-version";
/// Header of a request that creates a VM: a [`crate::idempotency::IdempotencyKey`]. A repeated
/// request gets the answer to the first one.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Header of an answer that was given before, to a request with the same key: `true`.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";

/// Header of an answer with a VM's log: the position of its start, for resuming the log later.
pub const LOG_PLACE_HEADER: &str = "banger-log-place";

/// Fills one `{placeholder}` of a route, percent-encoding characters that a path segment cannot
/// contain.
pub fn fill(route: &str, placeholder: &str, value: &str) -> String {
    route.replace(&format!("{{{placeholder}}}"), &encode(value))
}

/// Percent-encodes every byte except unreserved characters (RFC 3986, section 2.3).
pub fn encode(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_within_their_segment() {
        assert_eq!(fill(VM, "vm", "web-1"), "/v1/vms/web-1");
        assert_eq!(fill(VM, "vm", "../x y?"), "/v1/vms/..%2Fx%20y%3F");
    }
}
