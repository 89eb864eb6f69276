//! `banger tui`.

use banger_client::Client;

use crate::context::{Context, Format};
use crate::errors::{Failure, usage};

/// Show and control all machines on one screen.
///
///   banger tui
///   banger tui --theme light
///
/// Keys and mouse; `?` shows all keys. Machines keep running after its end.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Colours for the terminal's background; without colours if NO_COLOR is set
    #[arg(long, value_enum, default_value_t, hide_default_value = true)]
    pub theme: Theme,
}

/// Colours of the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Theme {
    /// By COLORFGBG, or else colours that can be read on both
    #[default]
    Auto,
    /// For a dark background
    Dark,
    /// For a light background
    Light,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if context.format == Format::Json {
        return Err(usage("a screen cannot be shown as JSON").into());
    }
    let options = banger_tui::Options {
        starter: context.client().await?,
        client: Client::of_running_daemon(context.paths()?),
        program: std::env::current_exe()?,
        background: match args.theme {
            Theme::Auto => None,
            Theme::Dark => Some(banger_tui::Background::Dark),
            Theme::Light => Some(banger_tui::Background::Light),
        },
        // https://no-color.org
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    Ok(banger_tui::run(options).await?)
}
