//! Failures of kernels and images as they are shown: a code for scripts, and what to do.

use banger_api::{ApiError, ErrorCode};

use crate::ext4::Ext4Error;
use crate::ext4::tar::TarError;
use crate::failure::code_of;
use crate::fetch::FetchError;
use crate::images::ImageError;
use crate::kernels::KernelError;

fn fetch_error_code(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::MissingTool { .. } => ErrorCode::HostNotReady,
        FetchError::ToolFailed { .. } => ErrorCode::Internal,
        FetchError::Cancelled => ErrorCode::Cancelled,
        FetchError::Io { source, .. } => code_of(source),
        FetchError::NoSpace { .. } => ErrorCode::NoSpace,
        FetchError::NotFound { .. } => ErrorCode::NotFound,
        FetchError::Ambiguous { .. } => ErrorCode::Ambiguous,
        FetchError::BadName { .. } => ErrorCode::BadRequest,
        FetchError::InUse { .. } => ErrorCode::InUse,
        FetchError::Damaged { .. } => ErrorCode::Corrupt,
    }
}

fn fetch_error_hint(error: &FetchError) -> Option<String> {
    Some(match error {
        FetchError::MissingTool { package, .. } => format!("apt install {package}"),
        FetchError::ToolFailed { .. } => {
            "`banger daemon logs` has all it said; check the network and the package sources".into()
        }
        FetchError::NoSpace { .. } => {
            "free some disk space; `banger image list` and `banger vm list` show what takes it"
                .into()
        }
        FetchError::NotFound { kind, .. } => format!("`banger {kind} list` shows what there is"),
        FetchError::Ambiguous { .. } => "use more digits of the id".into(),
        FetchError::InUse { .. } => "delete these VMs first".into(),
        FetchError::Damaged { kind, id, .. } => {
            format!("`banger {kind} delete {id}`, then fetch it again")
        }
        FetchError::Cancelled | FetchError::Io { .. } | FetchError::BadName { .. } => {
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
pub fn fetch(error: &FetchError) -> ApiError {
    told(fetch_error_code(error), fetch_error_hint(error), error)
}

fn ext4_code(error: &Ext4Error) -> ErrorCode {
    match error {
        Ext4Error::Fetch(error) => fetch_error_code(error),
        Ext4Error::Tree(_) | Ext4Error::Tar(_) => ErrorCode::Corrupt,
        Ext4Error::Build(_) => ErrorCode::Internal,
    }
}

/// A failure of a kernel.
pub fn kernel(error: &KernelError) -> ApiError {
    let (code, hint) = match error {
        KernelError::Fetch(error) => return fetch(error),
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

fn archive_hint(error: &Ext4Error) -> Option<String> {
    let Ext4Error::Tar(error) = error else { return None };
    let hint = match error {
        TarError::Truncated => {
            "copy it again; of a multi-volume archive, unpack all volumes and pack them as one"
        }
        TarError::MultiVolume { .. } => "unpack all volumes by tar -M and pack them as one archive",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// A failure of an image.
pub fn image(error: &ImageError) -> ApiError {
    let (code, hint) = match error {
        ImageError::Fetch(error) => return fetch(error),
        ImageError::UnknownRecipe { .. } => (
            ErrorCode::NotFound,
            Some(format!(
                "`banger image pull {}` makes that one; `banger image import` takes any other",
                banger_api::images::DEFAULT_IMAGE
            )),
        ),
        ImageError::BadArchive { source, .. } => (ext4_code(source), archive_hint(source)),
        ImageError::NameTaken { .. } => (
            ErrorCode::NameTaken,
            Some("choose another name, or give `--replace` to move this one".into()),
        ),
        ImageError::Worker(error) => return (**error).clone(),
        ImageError::Foreign { found, .. } => (ErrorCode::BadRequest, Some(found.hint.clone())),
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
