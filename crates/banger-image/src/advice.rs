//! Errors of kernels and images as [`ApiError`]: a code and a hint for each.

use std::io::ErrorKind;

use banger_api::hint::{ImageAdvice, KernelAdvice, Kind, SetupAdvice};
use banger_api::images::{DEFAULT_IMAGE, DEFAULT_KERNEL, FAST_KERNEL};
use banger_api::{ApiError, ErrorCode, Hint, reference};

use crate::ext4::Ext4Error;
use crate::ext4::tar::TarError;
use crate::fetch::FetchError;
use crate::images::{ImageError, OciError};
use crate::kernels::{KernelError, KernelFormatError};
use crate::registry::RegistryError;
use crate::trust::TrustError;

fn fetch_error_code(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::MissingTool { .. } | FetchError::Certificates(_) => ErrorCode::HostNotReady,
        FetchError::ToolFailed { .. } => ErrorCode::Internal,
        FetchError::Cancelled => ErrorCode::Cancelled,
        FetchError::Io { source, .. } => ErrorCode::of_io(source),
        FetchError::NoSpace { .. } | FetchError::DiskFull { .. } => ErrorCode::NoSpace,
        FetchError::NotFound { .. } => ErrorCode::NotFound,
        FetchError::Ambiguous { .. } => ErrorCode::Ambiguous,
        FetchError::BadName { .. } => ErrorCode::BadRequest,
        FetchError::InUse { .. } => ErrorCode::InUse,
        FetchError::Damaged { .. } => ErrorCode::Corrupt,
    }
}

/// What to do about it.
pub fn fetch_error_hints(error: &FetchError) -> Vec<Hint> {
    vec![match error {
        FetchError::MissingTool { package, .. } => Hint::install(package),
        FetchError::ToolFailed { .. } => {
            return vec![Hint::ShowDaemonLog, ImageAdvice::CheckSources.into()];
        }
        FetchError::Certificates(_) => SetupAdvice::CorrectCertificates.into(),
        FetchError::NoSpace { .. } | FetchError::DiskFull { .. } => Hint::FreeSpace { path: None },
        FetchError::NotFound { kind: crate::fetch::Kind::Kernel, wanted, .. }
            if wanted == FAST_KERNEL =>
        {
            KernelAdvice::Build { recipe: FAST_KERNEL.into() }.into()
        }
        FetchError::NotFound { kind, wanted, names } => {
            let kind = named(*kind);
            reference::suggest(kind, names.iter().map(String::as_str).chain([recipe(kind)]), wanted)
        }
        FetchError::Ambiguous { .. } => Hint::NarrowReference,
        FetchError::InUse { .. } => Hint::DeleteUsers,
        FetchError::Damaged { kind, id, .. } => {
            let delete = Hint::Delete { what: named(*kind), name: id.to_string() };
            return vec![delete, ImageAdvice::FetchAgain.into()];
        }
        FetchError::Io { doing: "open", source, .. } if source.kind() == ErrorKind::NotFound => {
            ImageAdvice::CheckPath.into()
        }
        FetchError::Cancelled | FetchError::Io { .. } | FetchError::BadName { .. } => {
            return Vec::new();
        }
    }]
}

fn named(kind: crate::fetch::Kind) -> Kind {
    match kind {
        crate::fetch::Kind::Image => Kind::Image,
        crate::fetch::Kind::Kernel => Kind::Kernel,
    }
}

/// The name for which there is a built-in recipe.
fn recipe(kind: Kind) -> &'static str {
    if kind == Kind::Kernel { DEFAULT_KERNEL } else { DEFAULT_IMAGE }
}

fn api_error(
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
    api_error(fetch_error_code(error), fetch_error_hints(error), error)
}

fn ext4_code(error: &Ext4Error) -> ErrorCode {
    match error {
        Ext4Error::Fetch(error) => fetch_error_code(error),
        Ext4Error::Tree(_) | Ext4Error::Tar(_) | Ext4Error::Volume(_) | Ext4Error::Source(_) => {
            ErrorCode::Corrupt
        }
        Ext4Error::Part { source, .. } => ext4_code(source),
        Ext4Error::Changed(_) => ErrorCode::Busy,
        Ext4Error::Build(_) => ErrorCode::Internal,
    }
}

/// An error of a kernel.
pub fn kernel(error: &KernelError) -> ApiError {
    let (code, hint) = match error {
        KernelError::Fetch(error) => return fetch(error),
        KernelError::Trust(error) => return trust(error),
        KernelError::Download(error) => return registry(error),
        KernelError::UnknownRecipe { .. } => (
            ErrorCode::NotFound,
            Some(Hint::Pull {
                what: Kind::Kernel,
                recipe: banger_api::images::DEFAULT_KERNEL.into(),
            }),
        ),
        KernelError::NoPackage { .. } => {
            (ErrorCode::HostNotReady, Some(ImageAdvice::AddDebianSources.into()))
        }
        KernelError::BadKernel { source: KernelFormatError::NotAKernel, .. }
        | KernelError::NoRelease { .. } => {
            (ErrorCode::BadRequest, Some(KernelAdvice::SupportedFiles.into()))
        }
        KernelError::BadPackage { .. } | KernelError::BadKernel { .. } | KernelError::Format(_) => {
            (ErrorCode::Corrupt, Some(ImageAdvice::FetchAgain.into()))
        }
        KernelError::Modules { release, .. } => {
            (ErrorCode::BadRequest, Some(give_modules(release)))
        }
        KernelError::SecondModules { .. } => {
            (ErrorCode::BadRequest, Some(KernelAdvice::LeaveOutModules.into()))
        }
        KernelError::OtherModules { release, .. } => {
            (ErrorCode::BadRequest, Some(give_modules(release)))
        }
        KernelError::NameTaken { .. } => {
            let hints = [Hint::ChooseAnotherName, Hint::ReplaceName];
            return api_error(ErrorCode::NameTaken, hints, error);
        }
        KernelError::Disk(error) => (ext4_code(error), None),
        KernelError::NoBuild { .. } => (
            ErrorCode::NotFound,
            Some(KernelAdvice::Build { recipe: banger_api::images::FAST_KERNEL.into() }.into()),
        ),
        KernelError::MissingBuildTools { packages } => {
            let packages = packages.clone();
            (ErrorCode::HostNotReady, Some(Hint::InstallPackages { packages }))
        }
        KernelError::MissingOptions { .. } => (ErrorCode::HostNotReady, None),
        KernelError::NoKernelInImage { .. } => {
            (ErrorCode::BadRequest, Some(KernelAdvice::InstallKernel.into()))
        }
        KernelError::OfImage { source, .. } => {
            (kernel(source).code, Some(KernelAdvice::UseOtherThanOwn.into()))
        }
        KernelError::BadImage { source, .. } => (ext4_code(source), None),
    };
    api_error(code, hint, error)
}

fn give_modules(release: &str) -> Hint {
    KernelAdvice::GiveModules { release: release.to_owned() }.into()
}

fn archive_hint(error: &Ext4Error) -> Option<Hint> {
    let Ext4Error::Tar(error) = error else { return None };
    let hint = match error {
        TarError::Truncated => ImageAdvice::CopyAgain,
        TarError::MultiVolume { .. } => ImageAdvice::JoinVolumes,
        _ => return None,
    };
    Some(hint.into())
}

fn oci_code(error: &OciError) -> ErrorCode {
    match error {
        OciError::Fetch(error) => fetch_error_code(error),
        OciError::Unsupported { .. }
        | OciError::NoPlatform { .. }
        | OciError::SeveralImages { .. } => ErrorCode::BadRequest,
        _ => ErrorCode::Corrupt,
    }
}

fn oci_hint(error: &OciError) -> Option<Hint> {
    Some(match error {
        OciError::SeveralImages { .. } => ImageAdvice::CopyOneImage.into(),
        OciError::DigestMismatch { .. } | OciError::Missing { .. } => ImageAdvice::CopyAgain.into(),
        _ => return None,
    })
}

/// An error of `[trust]`.
pub fn trust(error: &TrustError) -> ApiError {
    let (code, hint) = match error {
        TrustError::Io { .. } | TrustError::Unusable { .. } => {
            (ErrorCode::HostNotReady, SetupAdvice::CorrectConfig.into())
        }
        TrustError::BadSignature { .. } => (ErrorCode::Corrupt, ImageAdvice::CheckSignature.into()),
        TrustError::OtherArchitecture { .. } => (ErrorCode::NotFound, Hint::ChooseAnotherName),
    };
    api_error(code, [hint], error)
}

/// An error of a registry.
fn registry(error: &RegistryError) -> ApiError {
    let (code, hint) = match error {
        RegistryError::Fetch(error) => return fetch(error),
        RegistryError::Oci(error @ OciError::DigestMismatch { .. }) => {
            (oci_code(error), Some(ImageAdvice::BytesChanged.into()))
        }
        RegistryError::Oci(error) => (oci_code(error), oci_hint(error)),
        RegistryError::NotFound { .. } => {
            (ErrorCode::NotFound, Some(ImageAdvice::CheckReference.into()))
        }
        RegistryError::Denied { host, .. } => {
            (ErrorCode::HostNotReady, Some(ImageAdvice::LogIn { host: host.host.clone() }.into()))
        }
        RegistryError::TooManyRequests { host } => {
            (ErrorCode::Busy, Some(ImageAdvice::LogIn { host: host.host.clone() }.into()))
        }
        RegistryError::Unreachable { .. } | RegistryError::Setup { .. } => {
            (ErrorCode::HostNotReady, Some(ImageAdvice::CheckNetwork.into()))
        }
        RegistryError::Stalled { .. } => (ErrorCode::Timeout, Some(Hint::Retry)),
        RegistryError::Status { .. } => (ErrorCode::Internal, Some(Hint::Retry)),
        RegistryError::Protocol { .. } => (ErrorCode::Corrupt, None),
        RegistryError::Unsigned { .. } => {
            (ErrorCode::Corrupt, Some(ImageAdvice::CheckSignature.into()))
        }
        RegistryError::Trust(error) => return trust(error),
        RegistryError::Credentials { .. } => (ErrorCode::HostNotReady, None),
    };
    api_error(code, hint, error)
}

/// An error of an image.
pub fn image(error: &ImageError) -> ApiError {
    let (code, hint) = match error {
        ImageError::Fetch(error) => return fetch(error),
        ImageError::UnknownRecipe { .. } => {
            let recipe = banger_api::images::DEFAULT_IMAGE.to_owned();
            let hints = [Hint::Pull { what: Kind::Image, recipe }, ImageAdvice::Import.into()];
            return api_error(ErrorCode::NotFound, hints, error);
        }
        ImageError::Registry(error) => return registry(error),
        ImageError::Trust(error) => return trust(error),
        ImageError::Kernel(error) => return kernel(error),
        ImageError::Container { source, .. } => (oci_code(source), oci_hint(source)),
        ImageError::BadArchive { source, .. } => (ext4_code(source), archive_hint(source)),
        ImageError::NameTaken { .. } => {
            let hints = [Hint::ChooseAnotherName, Hint::ReplaceName];
            return api_error(ErrorCode::NameTaken, hints, error);
        }
        ImageError::NotRegistrable { .. } => {
            (ErrorCode::BadRequest, Some(ImageAdvice::CopyIn.into()))
        }
        ImageError::UnusableDisk { .. } => (ErrorCode::GuestFailed, None),
        ImageError::Worker(error) => return (**error).clone(),
        ImageError::UnsupportedFile { found, .. } => {
            (ErrorCode::BadRequest, Some(found.advice.clone().into()))
        }
        ImageError::NotARootFs { .. } => {
            (ErrorCode::BadRequest, Some(ImageAdvice::PackRootFs.into()))
        }
        ImageError::SourceChanged { .. } => {
            (ErrorCode::Busy, Some(ImageAdvice::AwaitWriter.into()))
        }
        ImageError::NoSubordinateIds { user, .. } => (
            ErrorCode::HostNotReady,
            Some(SetupAdvice::AddSubordinateIds { user: Some(user.clone()) }.into()),
        ),
    };
    api_error(code, hint, error)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn similar_names_and_the_built_in_recipe_are_suggested() {
        let hint = |kind, wanted: &str, names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            let error = FetchError::NotFound { kind, wanted: wanted.into(), names };
            fetch(&error).hint().unwrap_or_default()
        };
        use crate::fetch::Kind::{Image, Kernel};
        assert_eq!(hint(Image, "worksop", &["workshop"]), "did you mean `workshop`?");
        // The recipe's image need not exist yet.
        assert_eq!(hint(Image, "debain", &[]), "did you mean `debian`?");
        assert_eq!(hint(Kernel, "debian-clod", &["mine"]), "did you mean `debian-cloud`?");
        assert!(hint(Image, "fedora", &["mine"]).contains("`banger image list`"));
    }

    #[test]
    fn a_file_that_is_not_there_and_bytes_that_changed_on_their_way_have_a_hint() {
        let missing = FetchError::io("open", Path::new("/x"), ErrorKind::NotFound.into());
        assert!(fetch(&missing).hint().unwrap().starts_with("check the path"));
        let changed = OciError::DigestMismatch { name: "layer".into(), expected: "0".into() };
        let hint = registry(&RegistryError::Oci(changed)).hint().unwrap();
        assert!(hint.starts_with("run the command again"), "{hint}");
    }
}
