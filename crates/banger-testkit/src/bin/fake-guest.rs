//! A fake of QEMU and its companion; the guest is [`banger_testkit::guest`].
//!
//! With `--uds-path` among its arguments it is the companion: it listens on the vsock socket and
//! answers as the agent. Otherwise it is the VMM: it sends hello and ready. The last part of its
//! file name selects its behavior: `fake-guest-silent`.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;

use banger_agent_proto::HELLO_PORT;
use banger_testkit::guest;

/// A connection to this socket ends the VMM.
const POWER: &str = "fake-power.sock";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let behavior = guest::behavior(args.first().map(String::as_str).unwrap_or_default());
    let value = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let result = match (value("--uds-path"), value("--socket")) {
        (Some(uds), Some(vhost)) => companion(&uds, &vhost, &behavior),
        _ => vmm(&behavior),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn vmm(behavior: &str) -> std::io::Result<()> {
    let power = UnixListener::bind(POWER)?;
    println!("fake console");
    if behavior != "silent" {
        guest::boot(UnixStream::connect(format!("v.sock_{HELLO_PORT}"))?, behavior)?;
    }
    power.accept()?;
    Ok(())
}

fn companion(uds: &str, vhost: &str, behavior: &str) -> std::io::Result<()> {
    let agent = UnixListener::bind(uds)?;
    let _vhost = UnixListener::bind(vhost)?;
    for stream in agent.incoming() {
        let (stream, behavior) = (stream?, behavior.to_owned());
        thread::spawn(move || {
            // A client may disconnect early.
            let _ = guest::serve(stream, &behavior, || UnixStream::connect(POWER).map(|_| ()));
        });
    }
    Ok(())
}
