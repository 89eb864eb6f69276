//! runit: its second stage executes runsvdir, which starts a supervisor for each service; the
//! supervisor keeps the service's state in `supervise/stat` (runsv(8)).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{LOOK, Outcome, processes};

/// How long services may take once their supervisors run; those that do not run then have failed.
const SERVICES: Duration = Duration::from_secs(5);

pub fn wait() -> Outcome {
    let services = loop {
        let found =
            processes::of_init().into_iter().find_map(|process| services_of(&process.command));
        match found {
            Some(folder) => break folder,
            None => std::thread::sleep(LOOK),
        }
    };
    let deadline = Instant::now() + SERVICES;
    loop {
        let down = not_running(Path::new(&services));
        if down.is_empty() || Instant::now() >= deadline {
            return Outcome::booted("runit: services are supervised", down);
        }
        std::thread::sleep(LOOK);
    }
}

/// The folder of services in runsvdir's command line: `runsvdir -P /etc/service log: …`.
fn services_of(command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    if program != "runsvdir" {
        return None;
    }
    words.find(|word| word.starts_with('/')).map(str::to_owned)
}

/// Services that should run and do not: those with a file `down` are not meant to.
fn not_running(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter(|entry| entry.path().is_dir() && !entry.path().join("down").exists())
        .filter(|entry| {
            let state = fs::read_to_string(entry.path().join("supervise/stat"));
            !state.is_ok_and(|state| state.starts_with("run"))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_services_is_in_the_command_line() {
        assert_eq!(services_of("runsvdir -P /etc/service log: ....").unwrap(), "/etc/service");
        assert_eq!(services_of("/usr/bin/runsvdir -P /run/x").unwrap(), "/run/x");
        assert_eq!(services_of("sh /etc/runit/2"), None);
        assert_eq!(services_of(""), None);
    }

    #[test]
    fn services_are_running_or_disabled() {
        let dir = tempfile::tempdir().unwrap();
        for (name, state) in
            [("a", Some("run\n")), ("b", Some("finish\n")), ("c", None), ("d", None)]
        {
            let supervise = dir.path().join(name).join("supervise");
            fs::create_dir_all(&supervise).unwrap();
            if let Some(state) = state {
                fs::write(supervise.join("stat"), state).unwrap();
            }
        }
        fs::write(dir.path().join("d/down"), "").unwrap();
        fs::create_dir(dir.path().join(".hidden")).unwrap();
        assert_eq!(not_running(dir.path()), ["b", "c"]);
    }
}
