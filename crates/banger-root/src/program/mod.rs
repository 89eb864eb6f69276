//! The program `banger-root`: carries out requests that require root for an ordinary user's daemon.
//!
//! `serve` answers on a socket, usually one opened by systemd (sd_listen_fds(3)); `install` and
//! `uninstall` add and remove the program and its two units. It is a module, so that the tests'
//! helper is the same program with a failpoint.

mod install;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use banger_base::HostHint;
use banger_sys::stdio::error_line;
use banger_sys::unix_path::{self, NotListening};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::programs::Versions;
use crate::server::{Failpoint, Server, listen};
use crate::{Kind, Places, Programs, RootError};

const USAGE: &str = "\
Carries out the operations of an ordinary user's banger that need root: bridge, TAP and NAT,
copy-on-write devices, and Firecracker in its jail.

  sudo banger-root install [--owner USER]… [--subnet NETWORK]
                                             install the helper as a service, once; it serves
                                             USER, by default the user who called sudo, besides
                                             earlier users; NETWORK is 172.16.0.0/24 by default
  sudo banger-root uninstall                 remove everything that install created
  banger-root serve --owner UID… [--subnet NETWORK] [--socket PATH]
                                             answer requests; systemd starts this on demand
  banger-root --version";

/// Runs the program with its arguments. The failpoint is for tests.
pub fn main(failpoint: Option<Failpoint>) -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Only the values of options may be other than text.
    let words: Vec<&str> = args.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let rest = args.get(1..).unwrap_or_default();
    let done =
        match words.as_slice() {
            ["--version" | "-V"] => {
                let (version, build) = (env!("CARGO_PKG_VERSION"), env!("BANGER_BUILD_ID"));
                // Ignored: a closed pipe is not an error.
                let _ = writeln!(io::stdout(), "banger-root {version} ({build})");
                Ok(())
            }
            ["--help" | "-h"] => {
                let _ = writeln!(io::stdout(), "{USAGE}");
                Ok(())
            }
            ["install", ..] => Options::of(rest).and_then(|options| {
                options.places()?;
                install::install(&options.owners, options.subnet)
            }),
            ["uninstall"] => install::uninstall(),
            ["serve", ..] => Options::of(rest).and_then(|options| serve(&options, failpoint)),
            _ => Err(RootError::new(Kind::BadRequest, "invalid arguments")
                .with_hint(HostHint::text(USAGE))),
        };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error_line(format_args!("error: {error}"));
            for cause in &error.causes {
                error_line(format_args!("  because: {cause}"));
            }
            if let Some(hint) = error.hints.words() {
                error_line(format_args!("hint: {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Options of `install` and `serve`.
#[derive(Default)]
struct Options<'a> {
    owners: Vec<String>,
    subnet: Option<&'a str>,
    socket: Option<&'a Path>,
}

impl<'a> Options<'a> {
    fn of(words: &'a [OsString]) -> Result<Self, RootError> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let bad = |text: String| RootError::new(Kind::BadRequest, text);
            let name = word.display();
            let mut value = || words.next().ok_or_else(|| bad(format!("`{name}` needs a value")));
            let text = |value: &'a OsString| {
                let problem = || bad(format!("`{}` of `{name}` is not UTF-8", value.display()));
                value.to_str().ok_or_else(problem)
            };
            match word.to_str() {
                Some("--owner") => options.owners.push(text(value()?)?.to_owned()),
                Some("--subnet") => options.subnet = Some(text(value()?)?),
                Some("--socket") => options.socket = Some(Path::new(value()?)),
                _ => {
                    let text = format!("`{name}` is not an option of banger-root");
                    return Err(bad(text).with_hint(HostHint::text(USAGE)));
                }
            }
        }
        Ok(options)
    }

    /// Folders and names, with the configured subnet.
    fn places(&self) -> Result<Places, RootError> {
        let mut places = Places::default();
        if let Some(text) = self.subnet {
            places.network = text.parse().map_err(|_| {
                RootError::new(Kind::BadRequest, format!("`{text}` is not a network"))
                    .with_hint(HostHint::text("write it as 10.20.30.0/24"))
            })?;
        }
        crate::net::check(&places)?;
        Ok(places)
    }
}

fn serve(options: &Options<'_>, failpoint: Option<Failpoint>) -> Result<(), RootError> {
    if !rustix::process::geteuid().is_root() {
        return Err(RootError::new(Kind::Refused, "banger-root must be started by root"));
    }
    let uids: Result<Vec<u32>, _> =
        options.owners.iter().map(|owner| owner.parse::<u32>()).collect();
    let uids = uids.map_err(|_| RootError::new(Kind::BadRequest, "`--owner` needs a uid"))?;
    let listener = match options.socket {
        Some(path) => bind(path)?,
        None => activated()?,
    };
    rustix::process::umask(Mode::from_bits_truncate(0o022));
    raise_descriptor_limit();
    let server = Server {
        places: options.places()?,
        programs: Programs::installed()?,
        build_id: env!("BANGER_BUILD_ID").into(),
        versions: Versions::default(),
        failpoint,
    };
    listen(server, &listener, &uids).map_err(|error| RootError::system("serve", &error))
}

/// Each connection needs a descriptor, and one for each file of its request; systemd starts
/// services with a soft limit of 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // With a lower limit, connections wait for free descriptors.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Binds a socket that every user may connect to, like the socket unit of systemd: the uid of the
/// peer decides whether it is served. Replaces the socket of an earlier helper.
fn bind(path: &Path) -> Result<UnixListener, RootError> {
    let failed = |error: std::io::Error| RootError::on_path("listen on", path, &error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            let text = format!("`{}` is not a socket, so it is not replaced", path.display());
            return Err(RootError::new(Kind::BadRequest, text));
        }
        Ok(_) => {
            if unix_path::connect_until(path, Instant::now(), NotListening::Fail).is_ok() {
                let text = format!("another process listens on `{}`", path.display());
                return Err(RootError::new(Kind::Busy, text));
            }
            unix_path::remove(path).map_err(failed)?;
        }
    }
    // No other thread exists yet, so changing the umask is safe.
    rustix::process::umask(Mode::empty());
    unix_path::bind_with_mode(path, Mode::from_bits_truncate(0o666)).map_err(failed)
}

/// The socket opened by systemd: sd_listen_fds(3).
fn activated() -> Result<UnixListener, RootError> {
    let for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let one = std::env::var("LISTEN_FDS").is_ok_and(|count| count == "1");
    if !for_us || !one {
        let text = "systemd passed no socket";
        return Err(RootError::new(Kind::BadRequest, text)
            .with_hint(HostHint::text("`sudo banger-root install` lets systemd start it")));
    }
    banger_sys::harden::inherited_listener(3)
        .map_err(|error| RootError::system("use the socket that systemd opened", &error))
}
