//! `banger image register`.

use std::path::{Path, PathBuf};

use banger_api::exit;
use banger_api::images::{ImageKernel, ImageRegisterRequest, OWN_KERNEL};

use crate::commands::image::pull::{fetch, print_made};
use crate::commands::kernel::import::{Wanted, absolute};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::{follow, values};

/// Make an image of a file that stays where it is.
///
///   banger image register lab --rootfs /srv/lab.ext4
///   banger run --image lab
///   banger image register void --rootfs void.ext4 --kernel image
///   banger image promote lab            later: copy it into the store
///
/// The file must be an ext4 file system that was unmounted. Nothing writes to it
/// or deletes it; VMs cannot start while it is missing or changed. Other kinds of
/// files are imported: `banger image import`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name of the image
    #[arg(value_parser = values::reference)]
    pub name: String,
    /// File with the root file system
    #[arg(long, value_name = "FILE")]
    pub rootfs: PathBuf,
    /// Kernel that its machines boot by default: a file, or `image` for the one it contains
    #[arg(long, value_name = "FILE|image")]
    pub kernel: Option<PathBuf>,
    /// Folder with the modules of the kernel, if it is no Debian package
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// Move the name if another image has it
    #[arg(long)]
    pub replace: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let rootfs = std::path::absolute(&args.rootfs)
        .map_err(|error| usage(format!("`{}`: {error}", args.rootfs.display())))?;
    let request = ImageRegisterRequest {
        rootfs: rootfs.into(),
        kernel: args
            .kernel
            .as_deref()
            .map(|path| kernel(path, args.modules.as_deref()))
            .transpose()?,
        name: args.name.clone(),
        replace: args.replace,
    };
    let client = context.client().await?;
    let answer = follow::request(context, client.register_image(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    match context.format {
        Format::Json => context.json(&client.image(&args.name).await?)?,
        Format::Text => print_made(context, &args.name, made)?,
    }
    Ok(exit::OK)
}

fn kernel(path: &Path, modules: Option<&Path>) -> Result<ImageKernel, Failure> {
    if path == Path::new(OWN_KERNEL) {
        if modules.is_some() {
            let text =
                "`--modules` is for a kernel file; the image's own kernel has its modules in it";
            return Err(usage(text).into());
        }
        return Ok(ImageKernel::Contained);
    }
    let path = absolute(path, Wanted::File)?.into();
    let modules = modules.map(|path| absolute(path, Wanted::Folder)).transpose()?;
    Ok(ImageKernel::Files { path, modules: modules.map(Into::into) })
}
