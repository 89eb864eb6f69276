//! Errors of kernels and images as [`ApiError`]: a code and a hint for each.

use banger_api::hint::Kind;
use banger_api::vm::VmAction;
use banger_api::{ApiError, ErrorCode, Hint};
use banger_engine::plan::VmPlan;

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

fn fetch_error_hint(error: &FetchError) -> Option<Hint> {
    Some(match error {
        FetchError::MissingTool { package, .. } => Hint::install(package),
        FetchError::ToolFailed { .. } => {
            "`banger daemon logs` has all it said; check the network and the package sources".into()
        }
        FetchError::NoSpace { .. } => Hint::FreeSpace { path: None },
        FetchError::NotFound { kind, .. } => Hint::List { what: named(*kind) },
        FetchError::Ambiguous { .. } => Hint::NarrowReference,
        FetchError::InUse { .. } => Hint::DeleteUsers,
        FetchError::Damaged { kind, id, .. } => {
            format!("`banger {kind} delete {id}`, then fetch it again").into()
        }
        FetchError::Cancelled | FetchError::Io { .. } | FetchError::BadName { .. } => {
            return None;
        }
    })
}

fn named(kind: crate::fetch::Kind) -> Kind {
    match kind {
        crate::fetch::Kind::Image => Kind::Image,
        crate::fetch::Kind::Kernel => Kind::Kernel,
    }
}

fn told(
    code: ErrorCode,
    hints: impl IntoIterator<Item = Hint>,
    error: &dyn std::error::Error,
) -> ApiError {
    let mut api = ApiError::new(code, error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        api.causes.push(cause.to_string());
        next = cause.source();
    }
    api.hints.extend(hints);
    api
}

/// An error that kernels and images share.
pub fn fetch(error: &FetchError) -> ApiError {
    told(fetch_error_code(error), fetch_error_hint(error), error)
}

/// A failure of the image or kernel that a VM was made from. Another one does not take its place,
/// so the advice for images and kernels in general leads nowhere.
pub fn of_vm(vm: &VmPlan, what: &str, error: &FetchError) -> ApiError {
    let again = match what {
        "kernel" => "`banger kernel pull` fetches it again where it is still Debian's newest",
        _ => "importing the same archive again brings it back",
    };
    let (name, image) = (&vm.name, &vm.boot.image_name);
    let id = if what == "kernel" { vm.boot.kernel.as_str() } else { vm.boot.image.as_str() };
    let text = match what {
        "kernel" => format!("the kernel {id} that `{name}` boots is not usable"),
        _ => format!("the image `{image}` ({id}) that `{name}` was made from is not usable"),
    };
    let mut told = ApiError::new(ErrorCode::Corrupt, text).caused_by(error);
    told.hints = vec![
        format!("{again}; so does putting its files back; without it `{name}` cannot start").into(),
        Hint::ask(name, VmAction::Delete { force: false }),
    ];
    if matches!(error, FetchError::Damaged { .. }) {
        // Once no VM uses it.
        told.hints.extend(fetch_error_hint(error));
    }
    told
}

fn ext4_code(error: &Ext4Error) -> ErrorCode {
    match error {
        Ext4Error::Fetch(error) => fetch_error_code(error),
        Ext4Error::Tree(_) | Ext4Error::Tar(_) => ErrorCode::Corrupt,
        Ext4Error::Build(_) => ErrorCode::Internal,
    }
}

/// An error of a kernel.
pub fn kernel(error: &KernelError) -> ApiError {
    let (code, hint) = match error {
        KernelError::Fetch(error) => return fetch(error),
        KernelError::UnknownRecipe { .. } => (
            ErrorCode::NotFound,
            Some(Hint::Pull {
                what: Kind::Kernel,
                recipe: banger_api::images::DEFAULT_KERNEL.into(),
            }),
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

/// Gives a user a range of ids for user namespaces.
fn subordinate_ids(user: &str) -> Vec<String> {
    let range = "100000-165535";
    let argv = ["usermod", "--add-subuids", range, "--add-subgids", range, user];
    argv.into_iter().map(str::to_owned).collect()
}

fn archive_hint(error: &Ext4Error) -> Option<Hint> {
    let Ext4Error::Tar(error) = error else { return None };
    let hint = match error {
        TarError::Truncated => {
            "copy it again; of a multi-volume archive, unpack all volumes and pack them as one"
        }
        TarError::MultiVolume { .. } => "unpack all volumes by tar -M and pack them as one archive",
        _ => return None,
    };
    Some(hint.into())
}

/// An error of an image.
pub fn image(error: &ImageError) -> ApiError {
    let (code, hint) = match error {
        ImageError::Fetch(error) => return fetch(error),
        ImageError::UnknownRecipe { .. } => (
            ErrorCode::NotFound,
            Some(
                format!(
                    "`banger image pull {}` makes that one; `banger image import` takes any other",
                    banger_api::images::DEFAULT_IMAGE
                )
                .into(),
            ),
        ),
        ImageError::BadArchive { source, .. } => (ext4_code(source), archive_hint(source)),
        ImageError::NameTaken { .. } => {
            let hints = [Hint::ChooseAnotherName, Hint::ReplaceName];
            return told(ErrorCode::NameTaken, hints, error);
        }
        ImageError::Worker(error) => return (**error).clone(),
        ImageError::UnsupportedFile { found, .. } => {
            (ErrorCode::BadRequest, Some(found.hint.clone().into()))
        }
        ImageError::NotARootFs { .. } => (
            ErrorCode::BadRequest,
            Some("give the archive of a whole root file system, such as mmdebstrap makes".into()),
        ),
        ImageError::SourceChanged { .. } => {
            (ErrorCode::Busy, Some("try again when it is finished".into()))
        }
        ImageError::NoSubordinateIds { user, .. } => (
            ErrorCode::HostNotReady,
            Some(Hint::RunOnHost { argv: subordinate_ids(user), as_root: true }),
        ),
    };
    told(code, hint, error)
}
