//! `banger image import`.

use std::path::{Path, PathBuf};

use banger_api::images::{ImportRequest, is_ref_name};
use banger_api::{ApiError, ErrorCode, exit};

use crate::commands::image::pull::{fetch, print_made};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::values;

/// Make an image of a root file system in a tar file.
///
///   banger image import rootfs.tar.zst
///   banger image import --name mine rootfs.tar
///   banger run --image mine
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Tar file, plain or compressed
    pub file: PathBuf,
    /// Name to give it [default: the file's name up to its first dot]
    #[arg(long, value_parser = values::reference)]
    pub name: Option<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = match args.name {
        Some(name) => name,
        None => name_from(&args.file)?,
    };
    let request = ImportRequest { path: absolute(&args.file)?, name: name.clone() };
    let client = context.client().await?;
    let accepted = client.import_image(&request).await?;
    let made = fetch(context, &client, &name, &accepted).await?;
    match context.format {
        Format::Json => context.json(&client.image(&name).await?)?,
        Format::Text => print_made(context, &name, made)?,
    }
    Ok(exit::OK)
}

fn name_from(file: &Path) -> Result<String, ApiError> {
    let name = file.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let name = name.as_deref().and_then(|name| name.split('.').next()).unwrap_or_default();
    if is_ref_name(name) {
        return Ok(name.to_owned());
    }
    let text = format!("no name for an image can be made of `{}`", file.display());
    Err(usage(text).with_hint("give it one with `--name`"))
}

/// The daemon has another working folder, so it needs the whole path; and it need not be asked
/// about a file that is not there.
fn absolute(file: &Path) -> Result<String, ApiError> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::BadRequest,
        };
        ApiError::new(code, format!("`{}` cannot be read", file.display())).caused_by(&error)
    };
    let path = std::path::absolute(file).map_err(failed)?;
    if std::fs::metadata(&path).map_err(failed)?.is_dir() {
        let text = format!("`{}` is a folder", file.display());
        return Err(usage(text).with_hint("pack it first: `tar -C FOLDER -cf rootfs.tar .`"));
    }
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| usage(format!("the path `{}` is not UTF-8", path.display())))
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
