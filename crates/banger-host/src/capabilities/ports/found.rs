//! Forwarding processes, found without the database. Their arguments, which they ignore, name the
//! VM and the state folder of its daemon.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use banger_api::{ByteString, VmId};
use banger_base::ProcRef;
use banger_sys::proc;

use crate::layout::Layout;
use crate::leftovers::home;

/// Name of the program.
const PROGRAM: &[u8] = b"banger-forward";
/// Maximum length of the arguments that are read: two paths and an id.
const MAX_ARGUMENTS: u64 = 16 * 1024;

/// Arguments of the process of a VM.
pub fn arguments(vm: &VmId, layout: &Layout) -> Vec<OsString> {
    vec![OsString::from(vm.as_str()), OsString::from_vec(home(layout).as_bytes().to_vec())]
}

/// The forwarding processes of a state folder and of this user.
pub fn all(home: &ByteString) -> Vec<(VmId, ProcRef)> {
    let uid = rustix::process::geteuid().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (entry.metadata().ok()?.uid() == uid).then_some(pid)
    });
    processes.filter_map(|pid| of_process(pid, home)).collect()
}

fn of_process(pid: u32, home: &ByteString) -> Option<(VmId, ProcRef)> {
    // Before and after: the id may be another process's in between.
    let process = proc::reference(pid)?;
    let file = fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut line = Vec::new();
    file.take(MAX_ARGUMENTS).read_to_end(&mut line).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    let program = Path::new(OsStr::from_bytes(words.next()?));
    let (vm, of) = (words.next()?, words.next()?);
    let is_ours = program.file_name()?.as_bytes() == PROGRAM && of == home.as_bytes();
    let vm = std::str::from_utf8(vm).ok()?.parse().ok()?;
    (is_ours && proc::is_alive(process)).then_some((vm, process))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process with these arguments, which blocks when the pipe is full.
    fn run(program: &str, arguments: [&str; 2]) -> Child {
        let mut command = Command::new("yes");
        let mut child =
            command.arg0(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        // execve(2) wakes the parent before the arguments are to be seen.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    #[test]
    fn only_forwarders_of_this_home_are_found() {
        let path = format!("/nonexistent/home {}", std::process::id());
        let mut processes = [
            run("/x/banger-forward", ["0123456789ab", &path]),
            run("/x/banger-forward", ["0123456789ab", "/nonexistent/other"]),
            run("/x/banger-forward", ["no id", &path]),
            run("/x/other", ["0123456789ab", &path]),
        ];
        let found = all(&ByteString::from(path.as_str()));
        let ours = (VmId::try_from("0123456789ab".to_owned()).unwrap(), processes[0].id());
        for process in &mut processes {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let found: Vec<_> = found.into_iter().map(|(vm, process)| (vm, process.pid)).collect();
        assert_eq!(found, [ours]);
    }
}
