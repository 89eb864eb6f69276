//! Fake Firecracker: confined to its jail and with the VM's uid, it serves the API, enforces the
//! real order of requests, opens the configured files, and stays alive after the guest powers off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use banger_agent_proto::HELLO_PORT;
use banger_sys::tap::Tap;
use banger_testkit::guest::{self, Request};
use rustix::fs::OFlags;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::{Value, json};

use crate::Args;

const VERSION: &str = "1.12.1";
const STARTED: &str = "The requested operation is not supported after starting the microVM.";

/// Whether the vCPUs are paused.
static PAUSED: AtomicBool = AtomicBool::new(false);

/// The configuration so far.
#[derive(Default)]
struct Machine {
    id: String,
    behavior: String,
    boot_source: bool,
    drives: Vec<String>,
    tap: Option<Tap>,
    metrics: Option<File>,
    vsock: Option<(String, UnixListener)>,
    started: bool,
}

/// Serves the API until it is killed.
pub fn run(args: &Args, behavior: &str) -> io::Result<()> {
    if behavior == "broken" {
        return Err(io::Error::other("RunWithApiError: broken as configured"));
    }
    confine()?;
    let api = UnixListener::bind(args.value("--api-sock")?)?;
    let machine = Machine {
        id: args.value("--id")?.to_owned(),
        behavior: behavior.to_owned(),
        ..Machine::default()
    };
    let machine = Arc::new(Mutex::new(machine));
    for stream in api.incoming() {
        let (stream, machine) = (stream?, machine.clone());
        thread::spawn(move || {
            if let Err(error) = converse(stream, &machine) {
                eprintln!("fake-firecracker: API: {error}");
            }
        });
    }
    Ok(())
}

/// Enters the jail as the real jailer does: changes root and drops to the owner's uid. It runs
/// before a second thread exists, because these calls affect one thread.
fn confine() -> io::Result<()> {
    let meta = fs::metadata(".")?;
    let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn converse(mut stream: UnixStream, machine: &Mutex<Machine>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = guest::read_request(&mut reader)? {
        let answer = machine.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
        let (status, body) = match answer {
            Ok(None) => ("204 No Content", String::new()),
            Ok(Some(body)) => ("200 OK", body.to_string()),
            Err(fault) => ("400 Bad Request", json!({"fault_message": fault}).to_string()),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        )?;
        match body.len() {
            0 => stream.write_all(b"\r\n")?,
            length => write!(
                stream,
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )?,
        }
    }
    Ok(())
}

fn text<'a>(body: &'a Value, name: &str) -> Result<&'a str, String> {
    let missing = || {
        format!(
            "An error occurred when deserializing the json body of a request: \
             missing field `{name}`."
        )
    };
    body[name].as_str().ok_or_else(missing)
}

impl Machine {
    fn answer(&mut self, request: &Request) -> Result<Option<Value>, String> {
        let (method, path) = (request.method.as_str(), request.path.as_str());
        match (method, path) {
            ("GET", "/") => {
                let state = match (self.started, PAUSED.load(Ordering::Relaxed)) {
                    (false, _) => "Not started",
                    (true, false) => "Running",
                    (true, true) => "Paused",
                };
                return Ok(Some(json!({
                    "id": self.id,
                    "state": state,
                    "vmm_version": VERSION,
                    "app_name": "Firecracker",
                })));
            }
            ("GET", "/version") => return Ok(Some(json!({"firecracker_version": VERSION}))),
            ("PUT", path) if self.started && path != "/actions" => return Err(STARTED.into()),
            _ => {}
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|error| {
            format!("An error occurred when deserializing the json body of a request: {error}.")
        })?;
        match (method, path) {
            ("PATCH", "/vm") => self.set_vcpus(text(&body, "state")?),
            ("PUT", "/machine-config") => machine_config(&body),
            ("PUT", "/boot-source") => {
                for file in ["kernel_image_path", "initrd_path"] {
                    let path = text(&body, file)?;
                    File::open(path)
                        .map_err(|error| format!("The kernel file cannot be opened: {error}"))?;
                }
                self.boot_source = true;
                Ok(())
            }
            ("PUT", "/vsock") => {
                let path = text(&body, "uds_path")?;
                let listener = UnixListener::bind(path).map_err(|error| {
                    format!("Cannot create backend for vsock device: UnixBind({error})")
                })?;
                self.vsock = Some((path.to_owned(), listener));
                Ok(())
            }
            ("PUT", "/entropy") if self.behavior == "collapses" => {
                eprintln!("collapsed as configured");
                std::process::exit(101)
            }
            ("PUT", "/entropy") => Ok(()),
            ("PUT", "/logger") => text(&body, "log_path").and_then(open_pipe).map(drop),
            ("PUT", "/metrics") => {
                self.metrics = Some(open_pipe(text(&body, "metrics_path")?)?);
                Ok(())
            }
            ("PUT", "/actions") => self.act(text(&body, "action_type")?),
            ("PUT", _) => match path.rsplit_once('/') {
                Some(("/drives", id)) => self.drive(id, &body),
                Some(("/network-interfaces", id)) => self.network(id, &body),
                _ => Err(format!("Invalid request method and/or path: {method} {path}.")),
            },
            _ => Err(format!("Invalid request method and/or path: {method} {path}.")),
        }
        .map(|()| None)
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        match (action, self.started) {
            ("InstanceStart", false) => self.start(),
            ("InstanceStart", true) => Err(STARTED.into()),
            (_, false) => Err("The requested operation is not supported before starting the \
                               microVM."
                .into()),
            ("SendCtrlAltDel", true) if self.behavior == "stuck" => Ok(()),
            ("SendCtrlAltDel", true) => power_off().map_err(|error| error.to_string()),
            ("FlushMetrics", true) => self.flush().map_err(|error| error.to_string()),
            _ => Err(format!("unknown variant `{action}`")),
        }
    }

    fn set_vcpus(&self, state: &str) -> Result<(), String> {
        match (state, self.started) {
            ("Paused" | "Resumed", true) => PAUSED.store(state == "Paused", Ordering::Relaxed),
            (_, false) => return Err("the microVM is not running".into()),
            _ => return Err(format!("unknown variant `{state}`")),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        metrics.write_all(b"{\"fake\":{\"flushed\":1}}\n")
    }

    fn drive(&mut self, id: &str, body: &Value) -> Result<(), String> {
        if text(body, "drive_id")? != id {
            return Err("The id from the path does not match the id from the body!".into());
        }
        let path = text(body, "path_on_host")?;
        let write = body["is_read_only"] != true;
        OpenOptions::new().read(true).write(write).open(path).map_err(|error| {
            let what = "Virtio backend error: Error manipulating the backing file";
            format!("Unable to create the virtio block device: {what}: {error} {path}")
        })?;
        self.drives.push(id.to_owned());
        Ok(())
    }

    /// Firecracker opens the TAP here too, not when the guest starts.
    fn network(&mut self, id: &str, body: &Value) -> Result<(), String> {
        if text(body, "iface_id")? != id {
            return Err("The id from the path does not match the id from the body!".into());
        }
        let name = text(body, "host_dev_name")?;
        let tap = Tap::open(name).map_err(|error| {
            format!("Cannot create network device: Open tap device failed: {error} {name}")
        })?;
        self.tap = Some(tap);
        Ok(())
    }

    fn start(&mut self) -> Result<(), String> {
        if !self.boot_source {
            return Err("Cannot start microvm without kernel configuration.".into());
        }
        let Some((path, agent)) = self.vsock.take() else {
            return Err("this guest dials its host, and has no vsock device".into());
        };
        self.started = true;
        println!("fake console: {} drives", self.drives.len());
        let behavior = self.behavior.clone();
        let dials = behavior != "silent";
        thread::spawn(move || {
            let hello =
                || guest::boot(UnixStream::connect(format!("{path}_{HELLO_PORT}"))?, &behavior);
            let booted = if dials { hello() } else { Ok(()) };
            if let Err(error) = booted {
                eprintln!("fake-firecracker: {error}");
                std::process::exit(1);
            }
        });
        let behavior = self.behavior.clone();
        thread::spawn(move || {
            for stream in agent.incoming().flatten() {
                let behavior = behavior.clone();
                // A client may disconnect early.
                thread::spawn(move || {
                    while PAUSED.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    guest::serve(stream, &behavior, power_off)
                });
            }
        });
        Ok(())
    }
}

/// Opens a file or pipe for log and metrics as Firecracker does: without waiting for a reader.
fn open_pipe(path: &str) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options.open(path).map_err(|error| format!("Failed to open target file: {error}"))
}

fn machine_config(body: &Value) -> Result<(), String> {
    match (body["vcpu_count"].as_u64(), body["mem_size_mib"].as_u64()) {
        (Some(1..=32), Some(1..)) => Ok(()),
        (_, Some(1..)) => Err("The vCPU number is invalid!".into()),
        _ => Err("The memory size (MiB) is invalid.".into()),
    }
}

/// Prints the last console line of the guest's kernel. The VMM continues, as Firecracker does.
fn power_off() -> io::Result<()> {
    let mut console = io::stdout().lock();
    console.write_all(b"[    1.000000] reboot: Power down\n")?;
    console.flush()
}
