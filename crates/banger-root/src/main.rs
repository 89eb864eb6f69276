//! `banger-root`: does for an ordinary user's daemon what only root can do, and nothing else.
//!
//! `serve` answers on a socket, most often one that systemd opened for it (sd_listen_fds(3));
//! `install` and `uninstall` put the program and its two units in place and take them away.

mod install;

use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use banger_root::programs::Versions;
use banger_root::server::{Server, listen};
use banger_root::{Kind, Places, Programs, RootError};

const USAGE: &str = "\
Does for an ordinary user's banger what only root can do: bridge, TAP and NAT,
copy-on-write devices, and Firecracker in its jail.

  sudo banger-root install [--owner USER]…   once; USER is who called sudo
  sudo banger-root uninstall                 takes away all that install did
  banger-root serve --owner UID… [--socket PATH]
                                             what systemd starts on demand
  banger-root --version";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--version" | "-V"] => {
            println!("banger-root {} ({})", env!("CARGO_PKG_VERSION"), env!("BANGER_BUILD_ID"));
            Ok(())
        }
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        ["install", rest @ ..] => owners(rest).and_then(|(owners, _)| install::install(&owners)),
        ["uninstall"] => install::uninstall(),
        ["serve", rest @ ..] => owners(rest).and_then(|(owners, socket)| serve(&owners, socket)),
        _ => Err(RootError::new(Kind::BadRequest, "these are not arguments of banger-root")
            .with_hint(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in &error.causes {
                eprintln!("  because: {cause}");
            }
            if let Some(hint) = &error.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// `--owner` as often as wanted, and `--socket`.
fn owners<'a>(words: &[&'a str]) -> Result<(Vec<String>, Option<&'a str>), RootError> {
    let mut owners = Vec::new();
    let mut socket = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| RootError::new(Kind::BadRequest, format!("`{word}` needs a value")))?;
        match *word {
            "--owner" => owners.push((*value).to_owned()),
            "--socket" => socket = Some(*value),
            other => {
                let text = format!("`{other}` is not an option");
                return Err(RootError::new(Kind::BadRequest, text).with_hint(USAGE));
            }
        }
    }
    Ok((owners, socket))
}

fn serve(owners: &[String], socket: Option<&str>) -> Result<(), RootError> {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o022));
    if !rustix::process::geteuid().is_root() {
        return Err(RootError::new(Kind::Refused, "banger-root must be started by root"));
    }
    let uids: Result<Vec<u32>, _> = owners.iter().map(|owner| owner.parse::<u32>()).collect();
    let uids = uids.map_err(|_| RootError::new(Kind::BadRequest, "an owner is a uid"))?;
    let listener = match socket {
        Some(path) => {
            let path = std::path::Path::new(path);
            let at = |error: std::io::Error| RootError::on_path("listen on", path, &error);
            banger_sys::unix_path::remove(path).map_err(at)?;
            banger_sys::unix_path::bind(path).map_err(at)?
        }
        None => activated()?,
    };
    let server = Server {
        places: Places::default(),
        programs: Programs::installed()?,
        build_id: env!("BANGER_BUILD_ID").into(),
        versions: Versions::default(),
        abort_once: std::env::var_os("BANGER_ROOT_ABORT_ONCE").map(Into::into),
    };
    listen(server, &listener, &uids).map_err(|error| RootError::system("serve", &error))
}

/// The socket that systemd opened: sd_listen_fds(3).
fn activated() -> Result<UnixListener, RootError> {
    let for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let one = std::env::var("LISTEN_FDS").is_ok_and(|count| count == "1");
    if !for_us || !one {
        let text = "no socket came from systemd";
        return Err(RootError::new(Kind::BadRequest, text)
            .with_hint("`sudo banger-root install` lets systemd start it"));
    }
    banger_sys::harden::inherited_listener(3)
        .map_err(|error| RootError::system("use the socket that systemd opened", &error))
}
