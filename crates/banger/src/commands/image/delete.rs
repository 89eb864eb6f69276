//! `banger image delete`, and the deletion of images and kernels.

use banger_api::images::Deleted;
use banger_api::size::human_size;
use banger_api::{ApiError, exit};
use serde::Serialize;

use crate::context::{Context, Format, Verbosity};
use crate::errors::{self, Failure};

/// Delete images that no VM uses.
///
///   banger image delete debian
///   banger image list
///
/// If an image has several names, only the given name is removed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Names, ids or prefixes of ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    all(context, &args.images, async |image| client.delete_image(image).await).await
}

/// An element of the document that `--json` prints.
#[derive(Serialize)]
struct Element {
    reference: String,
    /// `done` or `failed`, as in the documents of actions on VMs.
    result: &'static str,
    #[serde(flatten)]
    deleted: Option<Deleted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Deletes all references in order, continuing after errors.
pub async fn all(
    context: &Context,
    references: &[String],
    delete: impl AsyncFn(&str) -> Result<Deleted, ApiError>,
) -> Result<u8, Failure> {
    let mut named: Vec<&String> = Vec::new();
    for reference in references {
        if !named.contains(&reference) {
            named.push(reference);
        }
    }
    let mut code = exit::OK;
    let mut elements = Vec::new();
    for reference in &named {
        let answer = delete(reference).await;
        match &answer {
            Ok(deleted)
                if context.format == Format::Text && context.verbosity > Verbosity::Quiet =>
            {
                let freed = human_size(deleted.freed_bytes);
                context.print(&match deleted.names.as_slice() {
                    [] => format!("{reference} deleted, {freed} freed\n"),
                    left => {
                        format!("{reference} removed; the image is still {}\n", left.join(", "))
                    }
                })?;
            }
            Ok(_) => {}
            Err(error) => {
                code = if named.len() > 1 { exit::FAILED } else { error.code.exit_code() };
                if context.format == Format::Text {
                    errors::show(context, error);
                }
            }
        }
        let (result, deleted, error) = match answer {
            Ok(deleted) => ("done", Some(deleted), None),
            Err(error) => ("failed", None, Some(error)),
        };
        elements.push(Element { reference: (*reference).clone(), result, deleted, error });
    }
    if context.format == Format::Json {
        context.json(&elements)?;
    }
    Ok(code)
}
