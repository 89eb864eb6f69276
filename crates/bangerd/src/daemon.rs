//! Startup and shutdown of the daemon.
//!
//! The order matters: the locks first, then the log, then store and recovery, then the sockets,
//! then `ready`. The process that started the daemon reads one line from its standard output:
//! `ready`, or `error ` and an [`ApiError`] in JSON.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode, exit};
use banger_engine::Engine;
use banger_engine::drivers::Drivers;
use banger_engine::store::Store;
use banger_image::images::worker;

use tokio::task::JoinHandle;

use crate::api::{self, Api};
use crate::autostart;
use crate::clocks;
use crate::config::{self, Config};
use crate::dns::Dns;
use crate::feed::Feed;
use crate::folders;
use crate::leftovers;
use crate::limits;
use crate::live_folders::LiveFolders;
use crate::lock::Lock;
use crate::log::{self, Rotating};
use crate::otlp::Export;
use crate::serve;
use crate::session::{self, Sessions};
use crate::slots::{Slots, WhenFull};
use crate::socket::Socket;
use crate::stdio;
use crate::stopping::{self, Signals, Stopping};
use crate::upkeep::{self, DnsPort};

/// Version of the daemon.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Build id: identifies the sources of this build.
pub const BUILD_ID: &str = env!("BANGER_BUILD_ID");

/// Time limit for clients to read their last answer, and for threads in a system call.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// Time limit for releasing shared network state.
const UPKEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The kind of host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// This host.
    Real,
    /// A simulated host.
    Simulated,
}

/// Configuration of a daemon program.
pub struct Program {
    /// Kind of host, shown by `banger daemon status`.
    pub host: Host,
    /// Opens the drivers of the host; the argument is the port of the daemon's DNS server.
    pub open: fn(&Paths, &Config, Arc<AtomicU16>) -> Result<Drivers, ApiError>,
    /// CPUs and bytes of memory of the host.
    pub capacity: fn() -> (u32, u64),
}

/// The locks of a daemon: one for the state folder, one for the run folder.
type Locks = [Lock; 2];

/// State prepared before the first thread starts.
struct Setup {
    paths: Paths,
    config: Config,
    locks: Locks,
    /// Sends spans.
    export: Option<Export>,
}

/// Runs the daemon; with the argument `--defaults` prints the defaults of a new VM.
pub fn main(program: &Program) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == worker::ARGUMENT => {
            return worker::main(&arguments.collect::<Vec<_>>());
        }
        Some(first) if first == "--defaults" => return print_defaults(program),
        Some(_) | None => {}
    }
    let ended = prepare().and_then(|setup| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            ApiError::new(ErrorCode::Internal, "cannot start threads").caused_by(&error)
        })?;
        let export = setup.export.clone();
        let ended = runtime.block_on(run(setup, program));
        // Further tasks had their time; the next daemon finishes their work.
        runtime.shutdown_timeout(LAST_WAIT);
        if let Some(export) = export {
            export.end();
        }
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Prints the defaults of a new VM as one line of JSON. [`config`] alone decides them; the command
/// line shows them in its help.
fn print_defaults(program: &Program) -> ExitCode {
    let decided = || {
        let uid = rustix::process::geteuid().as_raw();
        let paths = Paths::resolve(|name| std::env::var_os(name), uid)?;
        let config = config::load(&paths.config_file(), |name| std::env::var_os(name))?;
        let (cpus, memory_bytes) = (program.capacity)();
        serde_json::to_string(&config.vm_defaults(cpus, memory_bytes)).map_err(|error| {
            ApiError::new(ErrorCode::Internal, "cannot write JSON").caused_by(&error)
        })
    };
    match decided() {
        Ok(line) => {
            stdio::output(&format!("{line}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&error);
            ExitCode::from(exit::FAILED)
        }
    }
}

fn prepare() -> Result<Setup, ApiError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let uid = rustix::process::geteuid().as_raw();
    let paths = Paths::resolve(|name| std::env::var_os(name), uid)?;
    let config = config::load(&paths.config_file(), |name| std::env::var_os(name))?;
    folders::make(&paths)?;
    let locks = [Lock::take(&paths.state)?, Lock::take(&paths.run)?];
    let log = Rotating::open(&paths.daemon_log(), log::MAX_BYTES)?;
    limits::raise();
    // Last: the exporter of spans is a thread.
    let export = config.collector.as_ref().map(Export::begin).transpose()?;
    log::install(log, config.log_level.filter(), export.as_ref());
    Ok(Setup { paths, config, locks, export })
}

fn store(paths: &Paths) -> Result<Arc<dyn Store>, ApiError> {
    Ok(Arc::new(banger_store::Store::open(&paths.state.join(banger_store::FILE_NAME))?))
}

async fn run(setup: Setup, program: &Program) -> Result<(), ApiError> {
    let host = program.host;
    tracing::info!(version = VERSION, build_id = BUILD_ID, ?host, "begin");
    let mut signals = Signals::take()?;
    let dns_port = Arc::new(AtomicU16::new(0));
    let drivers = (program.open)(&setup.paths, &setup.config, dns_port.clone())?;
    let capacity = drivers.host.capacity();
    let defaults = setup.config.vm_defaults(capacity.cpus, capacity.memory_bytes);
    let engine = Engine::open(store(&setup.paths)?, drivers, defaults).await?;
    let Setup { paths, config, locks, .. } = setup;
    leftovers::log(&engine).await;
    let locks = Arc::new(locks);
    let stopping = Stopping::new({
        let locks = Arc::downgrade(&locks);
        move || mark_stopping(&locks)
    });
    let api_socket = Socket::bind(&paths.socket())?;
    let session_socket = Socket::bind(&paths.session_socket())?;
    let dns = Dns::start(config.dns_port, engine.clone(), stopping.clone()).await;
    let dns_state = DnsPort { listening: dns.listening(), port: dns_port };
    let upkeep = tokio::spawn(upkeep::run(engine.clone(), dns_state, stopping.clone()));
    // Not awaited: interrupting a comparison has no effect.
    tokio::spawn(clocks::follow(engine.clone(), stopping.clone(), clocks::Reading::now));
    autostart::begin(&engine, &stopping);
    let feed = Feed::start(&engine, &stopping);
    let live_folders = LiveFolders::new(engine.clone(), &paths.state);
    let keeping_alike = tokio::spawn(live_folders.clone().follow(stopping.clone()));
    let router = api::router(Arc::new(Api {
        engine: engine.clone(),
        config,
        socket: paths.socket(),
        log: paths.daemon_log(),
        state: paths.state.clone(),
        host,
        dns: dns.listening(),
        since: Instant::now(),
        feed: feed.clone(),
        live_folders,
        stopping: stopping.clone(),
    }));
    let serving = serve_all(api_socket, session_socket, router, &engine, &stopping);
    say("ready");
    tokio::select! {
        () = signals.next() => stopping.request(),
        () = stopping.requested() => {}
    }
    tracing::info!("stopping");
    let mut open = Vec::new();
    for accepting in serving {
        // Each returns immediately, and removes its socket.
        open.extend(accepting.await);
    }
    dns.ended().await;
    // It limits its time itself.
    let _ = keeping_alike.await;
    // It ends on the shutdown request and releases shared state. The helper may be waiting for
    // another client's lock; after the time limit the next daemon releases the rest.
    let _ = tokio::time::timeout(UPKEEP_TIMEOUT, upkeep).await;
    stopping::drain(&engine, &mut signals).await;
    let answered = async {
        for open in &open {
            open.all_free().await;
        }
    };
    // Event streams receive the end of their operations; one that is not read is not waited for.
    let _ = tokio::time::timeout(LAST_WAIT, answered).await;
    tracing::info!("end");
    Ok(())
}

/// Marks the lock files, so that the next daemon waits for this one.
fn mark_stopping(locks: &Weak<[Lock; 2]>) {
    for lock in locks.upgrade().iter().flat_map(|locks| locks.iter()) {
        if let Err(error) = lock.mark_stopping() {
            tracing::warn!(error = %error, "cannot mark the lock file as stopping");
        }
    }
}

/// Serves both sockets, each in a task that returns the open connections when the daemon shuts
/// down.
fn serve_all(
    api: Socket,
    session: Socket,
    router: axum::Router,
    engine: &Arc<Engine>,
    stopping: &Stopping,
) -> [JoinHandle<Arc<Slots>>; 2] {
    let http = {
        let stop = stopping.clone();
        let most = limits::connections(serve::MAX_CONNECTIONS);
        let slots = Slots::new(most, WhenFull::CloseIdlest);
        serve::accept(api, stopping.clone(), slots, move |stream, slot| {
            serve::http(stream, slot, router.clone(), stop.clone())
        })
    };
    let sessions = {
        let sessions = Arc::new(Sessions::new(engine.clone(), stopping.clone()));
        // A session may hold a VM, so none is closed to admit another.
        let most = limits::connections(session::MAX_CONNECTIONS);
        let slots = Slots::new(most, WhenFull::Wait);
        serve::accept(session, stopping.clone(), slots, move |stream, slot| {
            let sessions = sessions.clone();
            async move {
                session::serve(stream, sessions).await;
                drop(slot);
            }
        })
    };
    [tokio::spawn(http), tokio::spawn(sessions)]
}

fn report(error: &ApiError) {
    tracing::error!(error = %error, causes = ?error.causes, "the daemon did not start");
    let json = serde_json::to_string(error).unwrap_or_default();
    let mut text = format!("error: {}\n", error.message);
    for cause in &error.causes {
        text.push_str(&format!("  because: {cause}\n"));
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    stdio::error(&text);
    say(&format!("error {json}"));
}

/// Writes the one line that the starting process waits for, then closes standard output.
fn say(line: &str) {
    // The reader may be gone.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
    if let Ok(null) = null
        && let Err(error) = rustix::stdio::dup2_stdout(&null)
    {
        tracing::warn!(error = %error, "standard output stays open");
    }
}
