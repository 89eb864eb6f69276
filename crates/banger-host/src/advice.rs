//! Failures of kernels and images as they are shown: a code for scripts, and what to do.

use banger_api::{ApiError, ErrorCode};

use crate::ext4::Ext4Error;
use crate::failure::code_of;
use crate::images::ImageError;
use crate::kernels::KernelError;
use crate::supply::SupplyError;

fn supply_code(error: &SupplyError) -> ErrorCode {
    match error {
        SupplyError::MissingTool { .. } => ErrorCode::HostNotReady,
        SupplyError::ToolFailed { .. } => ErrorCode::Internal,
        SupplyError::Cancelled => ErrorCode::Cancelled,
        SupplyError::Io { source, .. } => code_of(source),
        SupplyError::NoSpace { .. } => ErrorCode::NoSpace,
        SupplyError::NotFound { .. } => ErrorCode::NotFound,
        SupplyError::Ambiguous { .. } => ErrorCode::Ambiguous,
        SupplyError::BadName { .. } => ErrorCode::BadRequest,
        SupplyError::InUse { .. } => ErrorCode::InUse,
        SupplyError::Damaged { .. } => ErrorCode::Corrupt,
    }
}

fn supply_hint(error: &SupplyError) -> Option<String> {
    Some(match error {
        SupplyError::MissingTool { package, .. } => format!("apt install {package}"),
        SupplyError::ToolFailed { .. } => {
            "`banger daemon logs` has all it said; check the network and the package sources".into()
        }
        SupplyError::NoSpace { .. } => {
            "free some disk space; `banger image list` and `banger vm list` show what takes it"
                .into()
        }
        SupplyError::NotFound { kind, .. } => format!("`banger {kind} list` shows what there is"),
        SupplyError::Ambiguous { .. } => "use more digits of the id".into(),
        SupplyError::InUse { .. } => "delete these VMs first".into(),
        SupplyError::Damaged { kind, id, .. } => {
            format!("`banger {kind} delete {id}`, then fetch it again")
        }
        SupplyError::Cancelled | SupplyError::Io { .. } | SupplyError::BadName { .. } => {
            return None;
        }
    })
}

fn told(code: ErrorCode, hint: Option<String>, error: &dyn std::error::Error) -> ApiError {
    let mut api = ApiError::new(code, error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        api.causes.push(cause.to_string());
        next = cause.source();
    }
    api.hint = hint;
    api
}

/// A failure that kernels and images share.
pub fn supply(error: &SupplyError) -> ApiError {
    told(supply_code(error), supply_hint(error), error)
}

fn ext4_code(error: &Ext4Error) -> ErrorCode {
    match error {
        Ext4Error::Supply(error) => supply_code(error),
        Ext4Error::Tree(_) | Ext4Error::Tar(_) | Ext4Error::NotUtf8(_) => ErrorCode::Corrupt,
        Ext4Error::Build(_) => ErrorCode::Internal,
    }
}

/// A failure of a kernel.
pub fn kernel(error: &KernelError) -> ApiError {
    let (code, hint) = match error {
        KernelError::Supply(error) => return supply(error),
        KernelError::UnknownRecipe { .. } => (
            ErrorCode::NotFound,
            Some(format!("`banger kernel pull` fetches `{}`", banger_api::images::DEFAULT_KERNEL)),
        ),
        KernelError::NoPackage { .. } => (
            ErrorCode::HostNotReady,
            Some("add Debian's own package sources to this host, or use Debian".into()),
        ),
        KernelError::BadPackage { .. }
        | KernelError::BadKernel { .. }
        | KernelError::Format(_)
        | KernelError::Modules { .. } => (ErrorCode::Corrupt, Some("fetch it again".into())),
        KernelError::Disk(error) => (ext4_code(error), None),
    };
    told(code, hint, error)
}

/// A failure of an image.
pub fn image(error: &ImageError) -> ApiError {
    let (code, hint) = match error {
        ImageError::Supply(error) => return supply(error),
        ImageError::UnknownRecipe { .. } => (
            ErrorCode::NotFound,
            Some(format!(
                "`banger image pull {}` makes that one; `banger image import` takes any other",
                banger_api::images::DEFAULT_IMAGE
            )),
        ),
        ImageError::BadArchive { source, .. } => (ext4_code(source), None),
        ImageError::NotARootFs { .. } => (
            ErrorCode::BadRequest,
            Some("give the archive of a whole root file system, such as mmdebstrap makes".into()),
        ),
        ImageError::SourceChanged { .. } => {
            (ErrorCode::Busy, Some("try again when it is finished".into()))
        }
        ImageError::NoSubordinateIds { user, .. } => (
            ErrorCode::HostNotReady,
            Some(format!(
                "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            )),
        ),
    };
    told(code, hint, error)
}
