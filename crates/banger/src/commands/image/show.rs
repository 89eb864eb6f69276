//! `banger image show`.

use banger_api::images::{ImageConfig, ImageSignature, ImageView};
use banger_api::program::booted_init;
use banger_api::size::human_size;
use banger_api::{exit, labels};

use crate::commands::image::list::or_dash;
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;
use crate::render::time::ago;

/// Show everything about one image.
///
///   banger image show debian
///   banger image show debian --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub image: String,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let image = context.client().await?.image(&args.image).await?;
    match context.format {
        Format::Json => context.json(&image)?,
        Format::Text => context.print(&text(&image))?,
    }
    Ok(exit::OK)
}

fn or(known: Option<String>) -> String {
    known.unwrap_or_else(|| "unknown".to_owned())
}

fn signature(found: Option<&ImageSignature>) -> String {
    match found {
        Some(ImageSignature { scheme, key, signed }) => {
            format!("{}, key {key}, of {signed}", scheme.as_str())
        }
        None => "none verified".to_owned(),
    }
}

/// How a container of the image runs; empty values are left out.
fn config_rows(config: &ImageConfig) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let words = |words: &[String]| serde_json::to_string(words).unwrap_or_default();
    let listed =
        |list: &[String], shown: String| if list.is_empty() { String::new() } else { shown };
    let labels: Vec<String> =
        config.labels.iter().map(|(key, value)| labels::shown(key, value)).collect();
    let rows = [
        ("entry point", listed(&config.entrypoint, words(&config.entrypoint))),
        ("command", listed(&config.cmd, words(&config.cmd))),
        ("environment", config.env.join(" ")),
        ("user", text(&config.user)),
        ("folder", text(&config.working_dir)),
        ("ports", config.exposed_ports.join(", ")),
        ("stop signal", text(&config.stop_signal)),
        ("labels", labels.join(", ")),
    ];
    rows.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn text(image: &ImageView) -> String {
    let config = image.config.as_ref();
    let booted = booted_init(image.init.as_deref(), config, false);
    let init = match (booted, image.init.as_deref(), config) {
        (Some(init), ..) => init.to_owned(),
        (None, Some(init), _) => format!("none: {init} is not used by a container image"),
        (None, None, Some(_)) => "none: the entry point runs".to_owned(),
        (None, None, None) => "none: the agent is its init".to_owned(),
    };
    let mut rows = vec![
        ("names", or_dash(&image.names)),
        ("id", image.id.to_string()),
        ("source", image.source.clone()),
        ("made from", image.provenance.clone()),
        ("signature", signature(image.signature.as_ref())),
        ("system", or(image.system.clone())),
        ("packages", or(image.packages.map(|count| count.to_string()))),
        ("created", format!("{} ({})", ago(&image.created_at), image.created_at)),
        ("size", human_size(image.virtual_bytes)),
        ("takes", human_size(image.used_bytes)),
        ("init", init),
        ("used by", or_dash(&image.used_by)),
        ("fingerprint", image.fingerprint.clone()),
    ];
    rows.extend(config.map(config_rows).unwrap_or_default());
    rows.iter().map(|(name, value)| format!("{name:<13}{}\n", plain::line(value))).collect()
}
