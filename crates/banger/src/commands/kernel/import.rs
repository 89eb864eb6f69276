//! `banger kernel import`.

use std::io;
use std::path::{Path, PathBuf};

use banger_api::images::KernelImportRequest;
use banger_api::{ApiError, ErrorCode, exit};

use crate::commands::image::pull::fetch;
use crate::commands::kernel::pull::print_kernel;
use crate::context::Context;
use crate::errors::{Failure, usage};
use crate::{follow, values};

/// Add a kernel from files.
///
///   banger kernel import --name bookworm linux-image-6.1.0-56-amd64.deb
///   banger kernel import --name mine --modules /lib/modules/6.12.1 vmlinuz-6.12.1
///   banger run --kernel mine
///
/// A kernel without modules needs the drivers of guests built in: virtio over
/// MMIO with disks, network and vsock; ext4; overlayfs.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Debian package, bzImage (vmlinuz) or vmlinux
    pub file: PathBuf,
    /// Name to give it
    #[arg(long, value_parser = values::reference)]
    pub name: String,
    /// Folder with the modules of a bzImage or vmlinux
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// Move the name if another kernel has it
    #[arg(long)]
    pub replace: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let path = absolute(&args.file, Wanted::File)?.into();
    let modules = args.modules.as_deref().map(|path| absolute(path, Wanted::Folder));
    let modules = modules.transpose()?.map(Into::into);
    let (name, replace) = (args.name.clone(), args.replace);
    let client = context.client().await?;
    let request = KernelImportRequest { path, modules, name, replace };
    let answer = follow::request(context, client.import_kernel(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    print_kernel(context, &client, &args.name, made).await?;
    Ok(exit::OK)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    File,
    Folder,
}

/// The absolute path, since the daemon has another working folder.
///
/// # Errors
/// There is no such file or folder.
pub(crate) fn absolute(path: &Path, wanted: Wanted) -> Result<PathBuf, ApiError> {
    let failed = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::BadRequest,
        };
        ApiError::new(code, format!("`{}` cannot be read", path.display())).caused_by(&error)
    };
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    match wanted {
        Wanted::File if !kind.is_file() => {
            Err(usage(format!("`{}` is not a regular file", path.display())))
        }
        Wanted::Folder if !kind.is_dir() => {
            Err(usage(format!("`{}` is not a folder", path.display())))
        }
        _ => std::path::absolute(path).map_err(failed),
    }
}
