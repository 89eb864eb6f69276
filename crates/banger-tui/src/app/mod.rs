//! The program: the main loop, which owns terminal and model, and the tasks that talk to the
//! daemon.

mod actions;
mod background;
mod feed;
pub mod terminal;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_api::operation::VmTag;
use banger_api::{ApiError, ErrorCode, exit};
use banger_client::Client;
use crossterm::event::EventStream;
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::model::{Model, Tone};
use crate::theme::{Background, Theme};
use crate::update::{Effect, Msg, update};
use feed::Feed;
use terminal::Screen;

/// Interval in which ages, and bars of running stages, move.
const TICK: Duration = Duration::from_millis(250);
/// Shortest interval between two frames for what comes from the daemon; a key is shown at once.
const FRAME: Duration = Duration::from_millis(33);
/// Messages that wait for the main loop.
const QUEUE: usize = 4096;
/// Exit code of a command that did not reach its guest, after which its message is left readable.
const SHELL_FAILED: i32 = exit::RUN_FAILED as i32;

/// What the program needs.
pub struct Options {
    /// The daemon; a call starts one.
    pub starter: Client,
    /// The daemon that runs; no call starts one.
    pub client: Client,
    /// The command line's program, for shells.
    pub program: PathBuf,
    /// Background of the terminal, if the user says which.
    pub background: Option<Background>,
    /// Whether colours are shown.
    pub colours: bool,
}

/// Runs until the user quits; returns the exit code.
///
/// # Errors
/// No terminal, no daemon, or an error of the terminal.
pub async fn run(options: Options) -> Result<u8, ApiError> {
    terminal::require()?;
    options.starter.ensure_daemon().await?;
    let theme = match (options.colours, options.background) {
        (false, _) => Theme::monochrome(),
        (true, Some(background)) => Theme::colours(background),
        (true, None) => Theme::colours(background::guess()),
    };
    let mut signals = Signals::listen()?;
    let (sender, messages) = mpsc::channel(QUEUE);
    let screen = Screen::take()?;
    let feed = Feed::start(options.client.clone(), sender);
    let size = crossterm::terminal::size().unwrap_or((80, 24));
    let model = Model::new(size, theme, now_ms());
    let program = Program { options, screen, model, feed, messages };
    program.run(&mut signals).await
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// Signals that end the program, with its exit codes.
struct Signals([(Signal, u8); 3]);

impl Signals {
    fn listen() -> Result<Self, ApiError> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let text = "signal handlers cannot be installed";
                ApiError::new(ErrorCode::Internal, text).caused_by(&error)
            })
        };
        Ok(Self([
            (listen(SignalKind::terminate())?, 128 + 15),
            (listen(SignalKind::hangup())?, 128 + 1),
            (listen(SignalKind::interrupt())?, 128 + 2),
        ]))
    }

    async fn next(&mut self) -> u8 {
        let [(term, term_code), (hup, hup_code), (int, int_code)] = &mut self.0;
        tokio::select! {
            _ = term.recv() => *term_code,
            _ = hup.recv() => *hup_code,
            _ = int.recv() => *int_code,
        }
    }
}

struct Program {
    options: Options,
    screen: Screen,
    model: Model,
    feed: Feed,
    messages: mpsc::Receiver<Msg>,
}

/// What the main loop does after a message.
enum Next {
    /// Continues.
    Continue,
    /// Ends.
    Quit,
    /// Runs a shell in place of the screen.
    Shell(VmTag),
    /// Stops the process until it is continued.
    Suspend,
}

impl Program {
    async fn run(mut self, signals: &mut Signals) -> Result<u8, ApiError> {
        let mut input = EventStream::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drawn = Instant::now();
        self.draw()?;
        let mut stale = false;
        loop {
            let due = drawn + FRAME;
            let next = tokio::select! {
                biased;
                code = signals.next() => return Ok(code),
                event = input.next() => match event {
                    Some(Ok(event)) => {
                        let next = self.apply(Msg::Input(event));
                        // What is typed is shown at once, or with what is typed next.
                        (drawn, stale) = (Instant::now(), false);
                        self.draw()?;
                        next
                    }
                    // The terminal is gone.
                    Some(Err(_)) | None => return Ok(128 + 1),
                },
                () = sleep_until(due), if stale => {
                    (drawn, stale) = (Instant::now(), false);
                    self.draw()?;
                    Next::Continue
                }
                Some(message) = self.messages.recv() => {
                    stale = true;
                    self.apply(message)
                }
                _ = tick.tick() => {
                    stale = true;
                    self.apply(Msg::Tick(now_ms()))
                }
            };
            match next {
                Next::Continue => {}
                Next::Quit => return Ok(exit::OK),
                Next::Shell(vm) => {
                    // The reader of the terminal ends, so that keys go to the shell.
                    drop(input);
                    if let Some(code) = self.shell(&vm, signals).await? {
                        return Ok(code);
                    }
                    input = EventStream::new();
                }
                Next::Suspend => {
                    drop(input);
                    terminal::leave();
                    // The shell continues this process later.
                    let us = rustix::process::getpid();
                    let _ = rustix::process::kill_process(us, rustix::process::Signal::TSTP);
                    self.enter()?;
                    input = EventStream::new();
                }
            }
        }
    }

    fn draw(&mut self) -> Result<(), ApiError> {
        self.screen.draw(&mut self.model)
    }

    /// Shows the screen again; the terminal may have another size by now.
    fn enter(&mut self) -> Result<(), ApiError> {
        self.screen.enter()?;
        self.model.size = crossterm::terminal::size().unwrap_or(self.model.size);
        self.apply(Msg::Tick(now_ms()));
        self.draw()
    }

    fn apply(&mut self, message: Msg) -> Next {
        let mut next = Next::Continue;
        for effect in update(&mut self.model, message) {
            let feed = self.feed.clone();
            match effect {
                Effect::Act(vms, action) => drop(tokio::spawn(actions::act(feed, vms, action))),
                Effect::Create(request) => drop(tokio::spawn(actions::create(feed, *request))),
                Effect::DeleteImage(name) => {
                    let kind = crate::model::PullKind::Image;
                    tokio::spawn(actions::delete(feed, kind, name));
                }
                Effect::DeleteKernel(name) => {
                    let kind = crate::model::PullKind::Kernel;
                    tokio::spawn(actions::delete(feed, kind, name));
                }
                Effect::Pull(kind, name) => drop(tokio::spawn(actions::pull(feed, kind, name))),
                Effect::Cancel(operation) => drop(tokio::spawn(actions::cancel(feed, operation))),
                Effect::StartDaemon => {
                    let starter = self.options.starter.clone();
                    tokio::spawn(actions::start_daemon(feed, starter));
                }
                Effect::Watch(vm) => feed.watch(vm),
                Effect::Show(tab) => feed.show(tab),
                Effect::ReadVms => feed.reread(),
                Effect::Refresh => feed.refresh(),
                Effect::Shell(vm) => next = Next::Shell(vm),
                Effect::Suspend => next = Next::Suspend,
                Effect::Quit => next = Next::Quit,
            }
        }
        next
    }

    /// Runs a shell in place of the screen. Returns an exit code if a signal ends the program.
    async fn shell(&mut self, vm: &VmTag, signals: &mut Signals) -> Result<Option<u8>, ApiError> {
        terminal::leave();
        let mut command = tokio::process::Command::new(&self.options.program);
        command.args(["vm", "shell", vm.id.as_str()]);
        let status = match command.spawn() {
            Ok(mut child) => loop {
                tokio::select! {
                    status = child.wait() => break status,
                    code = signals.next() => {
                        // Ctrl-C is the shell's, too.
                        if code == 128 + 2 {
                            continue;
                        }
                        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok())
                            && let Some(pid) = rustix::process::Pid::from_raw(pid)
                        {
                            // It restores the terminal on SIGTERM.
                            let term = rustix::process::Signal::TERM;
                            let _ = rustix::process::kill_process(pid, term);
                        }
                        let _ = child.wait().await;
                        return Ok(Some(code));
                    }
                }
            },
            Err(error) => Err(error),
        };
        match status {
            Ok(status) if status.code() == Some(SHELL_FAILED) => wait_for_enter().await,
            Ok(_) => {}
            Err(error) => {
                let text = format!("the shell cannot be started: {error}");
                self.model.say(Tone::Bad, text);
            }
        }
        self.enter()?;
        self.feed.reread();
        Ok(None)
    }
}

/// Leaves the message of a failed shell readable.
async fn wait_for_enter() {
    let _ = write!(std::io::stdout(), "press Enter to return to the list ");
    let _ = std::io::stdout().flush();
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
    });
    let _ = read.await;
}
