//! `banger image import`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use banger_api::images::{ImageUpload, ImportRequest, is_ref_name};
use banger_api::operation::Accepted;
use banger_api::{ApiError, ErrorCode, Hint, exit};
use banger_client::Client;

use crate::commands::image::pull::{fetch, print_made};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::render::progress::{Lines, Progress};
use crate::{follow, values};

/// Create an image from a root file system in a file or folder.
///
///   banger image import rootfs.tar.zst
///   docker export CONTAINER | banger image import --name mine -
///   banger run --image mine
///
/// FILE is a tar archive, an ext4 or squashfs image, a disk (qcow2 or raw) whose
/// only file system is ext4, a container image (an OCI layout, or an archive of
/// `docker save`), or a folder. Its content tells the kind; files may be compressed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// File or folder; `-` for standard input
    pub file: PathBuf,
    /// Name to give it [default: the file's name up to its first dot]
    #[arg(long, value_parser = values::reference)]
    pub name: Option<String>,
    /// Move the name if another image has it
    #[arg(long)]
    pub replace: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let from_input = args.file == Path::new("-");
    let name = match args.name {
        Some(name) => name,
        None if from_input => {
            return Err(usage("standard input has no name".to_owned())
                .with_hint(Hint::text("name the image: `banger image import --name NAME -`"))
                .into());
        }
        None => {
            absolute(&args.file)?;
            name_from(&args.file)?
        }
    };
    let replace = args.replace;
    let (client, answer) = if from_input {
        let upload = ImageUpload { name: name.clone(), replace };
        let client = context.client().await?;
        let accepted = upload_input(context, &client, &upload).await?;
        (client, (accepted, context.interrupts.listen()))
    } else {
        let path = absolute(&args.file)?;
        let client = context.client().await?;
        let request = ImportRequest { path: path.into(), name: name.clone(), replace };
        let answer = follow::request(context, client.import_image(&request)).await?;
        (client, answer)
    };
    let made = fetch(context, &client, &name, answer).await?;
    match context.format {
        Format::Json => context.json(&client.image(&name).await?)?,
        Format::Text => print_made(context, &name, made)?,
    }
    Ok(exit::OK)
}

/// Uploads standard input; Ctrl-C aborts the upload, and the daemon removes the partial file.
async fn upload_input(
    context: &Context,
    client: &Client,
    upload: &ImageUpload,
) -> Result<Accepted, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(usage("standard input is a terminal, not a file".to_owned())
            .with_hint(Hint::text("redirect a file or the output of a program to it"))
            .into());
    }
    let mut pressed = context.interrupts.listen();
    let mut track = Progress::new(context, Lines::Total).track(&upload.name);
    let begun = std::time::Instant::now();
    let sent = |done| {
        let at_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        track.transfer(at_ms, "upload", done, None);
    };
    let uploading = client.upload_image(upload, tokio::io::stdin(), sent);
    let answer = tokio::select! {
        answer = uploading => answer,
        () = pressed.next() => {
            let error = ApiError::new(ErrorCode::Cancelled, "the upload was cancelled");
            return Err(Failure::Cancelled(Box::new(error)));
        }
    };
    Ok(answer?)
}

fn name_from(file: &Path) -> Result<String, ApiError> {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let name = whole.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let name = name.as_deref().and_then(|name| name.split('.').next()).unwrap_or_default();
    if is_ref_name(name) {
        return Ok(name.to_owned());
    }
    let text = format!("cannot derive an image name from `{}`", file.display());
    Err(usage(text).with_hint(Hint::text("set the name with `--name`")))
}

/// The absolute path, since the daemon has another working folder.
///
/// # Errors
/// It does not exist, or is neither a regular file nor a folder.
fn absolute(file: &Path) -> Result<PathBuf, ApiError> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::BadRequest,
        };
        let text = format!("`{}` cannot be read", file.display());
        let error = ApiError::new(code, text).caused_by(&error);
        if code != ErrorCode::NotFound {
            return error;
        }
        error.with_hint(Hint::text(
            "name a file or folder of this host, or `-` for standard input; `banger image pull \
             NAME` fetches an image",
        ))
    };
    let path = std::path::absolute(file).map_err(failed)?;
    let kind = std::fs::metadata(&path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        // The daemon cannot open a pipe of this process, such as `<(COMMAND)` of a shell.
        let path = file.display();
        let hint = format!("read it here: `banger image import --name NAME - <{path}`");
        let text = format!("`{path}` is neither a file nor a folder");
        return Err(usage(text).with_hint(Hint::text(hint)));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_from_the_file() {
        assert_eq!(name_from(Path::new("/x/Alpine-3.tar.gz")).unwrap(), "alpine-3");
        for bad in ["/", ".tar", "ä.tar", "a b.tar"] {
            assert_eq!(name_from(Path::new(bad)).unwrap_err().code, ErrorCode::BadRequest, "{bad}");
        }
    }
}
