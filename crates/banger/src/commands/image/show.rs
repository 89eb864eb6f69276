//! `banger image show`.

use banger_api::build::BuildInputs;
use banger_api::exit;
use banger_api::images::{ImageConfig, ImageSignature, ImageView};
use banger_api::program::booted_init;
use banger_api::size::human_size;

use crate::commands::image::list::or_dash;
use crate::context::{Context, Format};
use crate::errors::Failure;
use crate::render::plain;
use crate::render::time::ago;

/// Show everything about one image.
///
///   banger image show debian
///   banger image show debian --packages     what is installed in it
///   banger image show debian --json
///
/// Of an image that was made in a VM, `banger image history` shows the images
/// that it was made from.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Name, id or prefix of the id
    pub image: String,
    /// Show the installed packages with their versions, one a line
    #[arg(long)]
    pub packages: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    if args.packages {
        let packages = client.image_packages(&args.image).await?;
        match context.format {
            Format::Json => context.json(&packages)?,
            Format::Text => {
                let lines = packages.iter().map(|package| format!("{}\n", plain::line(package)));
                context.print(&lines.collect::<String>())?;
            }
        }
        return Ok(exit::OK);
    }
    let image = client.image(&args.image).await?;
    match context.format {
        Format::Json => context.json(&image)?,
        Format::Text => context.print(&text(&image))?,
    }
    Ok(exit::OK)
}

fn or(known: Option<String>) -> String {
    known.unwrap_or_else(|| "unknown".to_owned())
}

type Rows = Vec<(&'static str, String)>;

fn text(image: &ImageView) -> String {
    let config = image.config.as_ref();
    let booted = booted_init(image.init.as_deref(), config, false);
    let init = match (booted, image.init.as_deref(), config) {
        (Some(init), ..) => init.to_owned(),
        (None, Some(init), _) => format!("none: the entry point runs, not {init}"),
        (None, None, Some(_)) => "none: the entry point runs".to_owned(),
        (None, None, None) => "none: the agent is its init".to_owned(),
    };
    let mut rows = vec![
        ("names", or_dash(&image.names)),
        ("id", image.id.to_string()),
        ("source", image.source.clone()),
        ("made from", image.provenance.clone()),
        ("signature", signature(image.signature.as_ref())),
    ];
    if let Some(path) = &image.registered {
        rows.push(("file", path.to_string()));
    }
    if let Some(built) = &image.built {
        build(built, &mut rows);
    }
    if let Some(from) = &image.committed {
        rows.push(("base", format!("{} ({})", from.base_name, from.base)));
        rows.push(("vm", format!("{} ({})", from.vm.name, from.vm.id)));
    }
    rows.extend([
        ("system", or(image.system.clone())),
        ("packages", or(image.packages.map(|count| count.to_string()))),
        ("created", format!("{} ({})", ago(&image.created_at), image.created_at)),
        ("size", human_size(image.virtual_bytes)),
        ("takes", human_size(image.used_bytes)),
        ("init", init),
    ]);
    if image.opencode {
        rows.push(("opencode", "yes".to_owned()));
    }
    if let Some(config) = config {
        container(config, &mut rows);
    }
    rows.push(("used by", or_dash(&image.used_by)));
    rows.push(("fingerprint", image.fingerprint.clone()));
    rows.iter().map(|(name, value)| format!("{name:<13}{}\n", plain::line(value))).collect()
}

fn signature(found: Option<&ImageSignature>) -> String {
    match found {
        Some(ImageSignature { scheme, key, signed }) => {
            format!("{}, key {key}, of {signed}", scheme.as_str())
        }
        None => "none verified".to_owned(),
    }
}

/// The inputs of a build.
fn build(built: &BuildInputs, rows: &mut Rows) {
    rows.push(("base", format!("{} ({})", built.base_name, built.base)));
    if !built.packages.is_empty() {
        rows.push(("added", built.packages.join(", ")));
    }
    for copy in &built.copies {
        rows.push(("copied", format!("{} with SHA-256 {}", copy.target, copy.sha256)));
    }
    if let Some(sha256) = &built.script_sha256 {
        rows.push(("script", format!("SHA-256 {sha256}")));
    }
}

/// How a container of the image runs.
fn container(config: &ImageConfig, rows: &mut Rows) {
    // As an array, since a part may have spaces.
    let list = |parts: &[String]| serde_json::to_string(parts).unwrap_or_default();
    if !config.entrypoint.is_empty() {
        rows.push(("entry point", list(&config.entrypoint)));
    }
    if !config.cmd.is_empty() {
        rows.push(("command", list(&config.cmd)));
    }
    rows.extend(config.env.iter().map(|variable| ("env", variable.clone())));
    rows.extend(config.user.clone().map(|user| ("user", user)));
    rows.extend(config.working_dir.clone().map(|folder| ("folder", folder)));
    rows.extend(config.exposed_ports.iter().map(|port| ("port", port.clone())));
    rows.extend(config.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    rows.extend(config.stop_signal.clone().map(|signal| ("stop signal", signal)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_container_has_rows() {
        let config = ImageConfig {
            entrypoint: vec!["/bin/app".into(), "a b".into()],
            cmd: vec!["serve".into()],
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            user: Some("33:33".into()),
            working_dir: Some("/srv".into()),
            exposed_ports: vec!["80/tcp".into()],
            labels: [("k".to_owned(), "v".to_owned())].into(),
            stop_signal: Some("SIGQUIT".into()),
        };
        let mut rows = Vec::new();
        container(&config, &mut rows);
        let rows: Vec<String> =
            rows.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let wanted = [
            r#"entry point=["/bin/app","a b"]"#,
            r#"command=["serve"]"#,
            "env=PATH=/bin",
            "env=LANG=C",
            "user=33:33",
            "folder=/srv",
            "port=80/tcp",
            "label=k=v",
            "stop signal=SIGQUIT",
        ];
        assert_eq!(rows, wanted);
        let mut none = Vec::new();
        container(&ImageConfig::default(), &mut none);
        assert!(none.is_empty());
    }
}
