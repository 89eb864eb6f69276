//! `banger image build`.

use std::path::{Path, PathBuf};

use banger_api::build::{BuildCopy, ImageBuildRequest, MAX_SCRIPT, is_package};
use banger_api::{ApiError, ByteString, ErrorCode, Hint, exit};

use crate::commands::image::pull::{fetch, print_made};
use crate::context::{Context, Format};
use crate::errors::{Failure, usage};
use crate::{follow, values};

/// Build an image in a temporary VM.
///
///   banger image build dev --from debian --package git --package gcc
///   banger image build web --from dev --script setup.sh --copy site:/srv/site
///   banger run --image web
///
/// The VM gets the files, then the packages, then runs the script as root in
/// /root. Then it is stopped, and its root disk without machine id, host keys,
/// caches, logs and temporary files becomes the image. The same inputs again
/// give the same image at once.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name of the new image
    #[arg(value_parser = values::reference)]
    pub name: String,
    /// Image to begin with
    #[arg(long, value_name = "IMAGE", value_parser = values::reference,
        required_unless_present = "file")]
    pub from: Option<String>,
    /// Script to run as root; by /bin/sh, if it does not begin with `#!`
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Package to install with the image's package manager (repeatable)
    #[arg(long = "package", value_name = "NAME", value_parser = package)]
    pub packages: Vec<String>,
    /// File or folder to copy into the VM, owned by root (repeatable)
    #[arg(long = "copy", value_name = "SRC:DST", value_parser = copy)]
    pub copies: Vec<BuildCopy>,
    /// Size of the root disk [default: that of new VMs]
    #[arg(long, value_parser = values::root_disk)]
    pub size: Option<u64>,
    /// Build again even if an image with the same inputs exists
    #[arg(long)]
    pub no_cache: bool,
    /// Keep the VM if the build fails
    #[arg(long)]
    pub keep: bool,
    /// Move the name if another image has it
    #[arg(long)]
    pub replace: bool,
    /// Not supported: Dockerfiles are built elsewhere
    #[arg(short, long, hide = true, value_name = "DOCKERFILE")]
    pub file: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if let Some(file) = &args.file {
        let text = format!("banger does not build `{}`", file.display());
        let hint = "build with Docker or buildah, then `banger image import` the result";
        return Err(usage(text).with_hint(Hint::text(hint)).into());
    }
    let script = args.script.as_deref().map(read_script).transpose()?;
    let request = ImageBuildRequest {
        name: args.name.clone(),
        from: args.from.unwrap_or_default(),
        copies: args.copies,
        packages: args.packages,
        script,
        root_bytes: args.size,
        no_cache: args.no_cache,
        keep: args.keep,
        replace: args.replace,
    };
    let client = context.client().await?;
    let answer = follow::request(context, client.build_image(&request)).await?;
    let made = fetch(context, &client, &args.name, answer).await?;
    match context.format {
        Format::Json => context.json(&client.image(&args.name).await?)?,
        Format::Text => print_made(context, &args.name, made)?,
    }
    Ok(exit::OK)
}

fn package(text: &str) -> Result<String, String> {
    if is_package(text) {
        Ok(text.to_owned())
    } else {
        Err("a package is a name, with a version perhaps, or an absolute path in the VM".into())
    }
}

/// `SRC:DST`; the last colon separates them.
fn copy(text: &str) -> Result<BuildCopy, String> {
    let (source, target) = text
        .rsplit_once(':')
        .filter(|(source, target)| !source.is_empty() && target.starts_with('/'))
        .ok_or("a copy is SRC:DST, with an absolute path DST in the VM")?;
    // `std::path::absolute` keeps a `/.` at the end out, which means the content of a folder.
    let content = source == "." || source.ends_with("/.");
    let mut path = std::path::absolute(source).map_err(|error| format!("`{source}`: {error}"))?;
    if content {
        path.push(".");
    }
    Ok(BuildCopy { source: path.into(), target: ByteString::from(target) })
}

fn read_script(path: &Path) -> Result<String, ApiError> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::BadRequest,
        };
        ApiError::new(code, format!("the script `{}` cannot be read", path.display()))
            .caused_by(&error)
            .with_hint(Hint::text("`--script` takes the path of a file on this host"))
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_SCRIPT as u64 {
        let text = format!("`{}` is too large for a script", path.display());
        return Err(usage(text).with_hint(Hint::text("copy large files with `--copy`")));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes)
        .map_err(|_| usage(format!("`{}` is not a script: it is no text", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_parsed() {
        let parsed = copy("/a:b:/c d").unwrap();
        assert_eq!((parsed.source, parsed.target), ("/a:b".into(), "/c d".into()));
        assert!(copy("x:/y").unwrap().source.as_path().is_absolute());
        assert_eq!(copy("/x/.:/y").unwrap().source, ByteString::from("/x/."));
        for bad in ["", "x", ":/y", "x:", "x:y"] {
            assert!(copy(bad).is_err(), "{bad}");
        }
    }
}
