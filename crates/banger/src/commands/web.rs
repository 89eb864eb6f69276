//! `banger web`.

use std::fs;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use banger_api::{ApiError, ErrorCode, exit};
use banger_web::{DEFAULT_LISTEN, Links, WebPage};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::context::{Context, Format};
use crate::errors::Failure;

/// Serve the web page: machines, images, a terminal in the browser.
///
///   banger web                     on 127.0.0.1:7777; opens the browser
///   banger web --no-open           print the link only
///   banger web --listen 8888       another port
///
/// The printed link opens one session in one browser; press Enter for another one.
/// The page is served until Ctrl-C, on this computer only; machines go on without
/// it. From another computer: `ssh -L 7777:127.0.0.1:7777 HOST`, and open the link
/// there.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Loopback address and port to listen on; 127.0.0.1:7777 unless `web_listen` is configured
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = listen, allow_hyphen_values = true)]
    pub listen: Option<SocketAddr>,
    /// Do not open the browser
    #[arg(long)]
    pub no_open: bool,
}

/// `[ADDR:]PORT`; an IPv6 address is written in brackets.
fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(DEFAULT_LISTEN.ip(), port));
    }
    text.parse().map_err(|_| "write a port, or an address and a port: 127.0.0.1:7777".to_owned())
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let client = context.client().await?;
    let configured = client.ensure_daemon().await?.web_listen;
    let listen = args.listen.or(configured).unwrap_or(DEFAULT_LISTEN);
    let page = WebPage::bind(client.clone(), listen).await?;
    let links = page.links();
    let link = new_link(&links)?;
    match context.format {
        Format::Text => context.print(&format!("{link}\n"))?,
        Format::Json => context.json(&serde_json::json!({
            "listen": page.address().to_string(), "link": link,
        }))?,
    }
    let is_interactive = context.can_prompt() && context.format == Format::Text;
    context.info(match is_interactive {
        true => "The link opens one session. Enter prints another one, Ctrl-C ends the page.",
        false => "The link opens one session. Ctrl-C ends the page.",
    });
    let opened = match is_interactive && !args.no_open && has_desktop() {
        true => open(&client.paths().run, &links),
        false => None,
    };
    let mut interrupts = context.interrupts.listen();
    let result = tokio::select! {
        served = page.serve() => served.map_err(|error| {
            ApiError::new(ErrorCode::Internal, "the web page cannot be served").caused_by(&error)
        }),
        result = further_links(context, &links), if is_interactive => result.map_err(|error| {
            ApiError::new(ErrorCode::Internal, "no further link").caused_by(&error)
        }),
        () = interrupts.next() => Ok(()),
    };
    drop(opened);
    Ok(result.map(|()| exit::OK)?)
}

fn new_link(links: &Links) -> Result<String, ApiError> {
    links.new_link().map_err(|error| {
        ApiError::new(ErrorCode::HostNotReady, "no random numbers").caused_by(&error)
    })
}

/// Prints a link for each line of input; never ends without an error.
async fn further_links(context: &Context, links: &Links) -> io::Result<()> {
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).await? == 0 {
            // The terminal is closed; a signal ends the command.
            std::future::pending::<()>().await;
        }
        context
            .print(&format!("{}\n", links.new_link()?))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}

/// Whether a browser can show a page to the user of this terminal.
fn has_desktop() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal()
        && !is_set("SSH_CONNECTION")
        && (is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"))
}

/// A page that leads to a link; removed when dropped.
struct Redirect(PathBuf);

impl Drop for Redirect {
    fn drop(&mut self) {
        // It may be gone, and its link has been used.
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens the browser, with a file that leads to the link: every user of the host can read the
/// arguments of a process. The printed link works without the browser, so errors are not reported.
fn open(folder: &Path, links: &Links) -> Option<Redirect> {
    let path = folder.join(format!("web-{}.html", std::process::id()));
    let link = links.new_link().ok()?;
    let text = format!("<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={link}\">\n");
    // A file of an earlier process with this id.
    let _ = fs::remove_file(&path);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).ok()?;
    let redirect = Redirect(path);
    file.write_all(text.as_bytes()).ok()?;
    let mut browser = tokio::process::Command::new("xdg-open");
    browser.arg(&redirect.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    browser.spawn().ok()?;
    Some(redirect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_optional() {
        for (text, address) in [
            ("8888", "127.0.0.1:8888"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:7777", "[::1]:7777"),
        ] {
            assert_eq!(listen(text).map(|address| address.to_string()), Ok(address.to_owned()));
        }
        for text in ["", "localhost:7777", "127.0.0.1", "70000", "-1"] {
            assert!(listen(text).unwrap_err().contains("127.0.0.1:7777"), "{text}");
        }
    }
}
