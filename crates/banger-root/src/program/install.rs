//! Installs the helper where only root can change it, with systemd socket activation. This module
//! lists every installed file, and `uninstall` removes exactly those.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_base::HostHint;

use crate::{Kind, RootError, programs};

/// Folder of the copies of the programs.
const COPIES: &str = "/usr/local/lib/banger-root";
/// Folder in which an installation of banger has all its programs, below its prefix.
const INSTALLATION: &str = "lib/banger";
/// Programs of the helper.
const PROGRAMS: [&str; 2] = ["banger-root", "banger-shim"];
/// Folder of the units.
const UNITS: &str = "/etc/systemd/system";
/// The socket unit.
const SOCKET_UNIT: &str = "banger-root.socket";
/// The service unit.
const SERVICE_UNIT: &str = "banger-root.service";

fn socket_unit() -> String {
    "[Unit]\nDescription=Socket of banger's root helper\n\n\
     [Socket]\nListenStream=/run/banger-root.sock\n\
     # The helper decides by the peer's uid whether it serves a connection.\nSocketMode=0666\n\n\
     [Install]\nWantedBy=sockets.target\n"
        .into()
}

fn service_unit(folder: &Path, owners: &[u32], subnet: Option<&str>) -> String {
    let folder = folder.display();
    let owners: Vec<String> = owners.iter().map(|uid| format!(" --owner {uid}")).collect();
    let subnet = subnet.map(|subnet| format!(" --subnet {subnet}")).unwrap_or_default();
    format!(
        "[Unit]\nDescription=banger's root helper: bridge, TAP, block devices, jails\n\
         Requires={SOCKET_UNIT}\nAfter={SOCKET_UNIT}\n\
         # The next request starts it again after any failure.\nStartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={folder}/banger-root serve{}{subnet}\n\
         # Shims and VMMs outlive it.\nKillMode=process\n\
         Restart=no\nTasksMax=infinity\nDelegate=no\n",
        owners.concat()
    )
}

/// All values of an option in the unit of an earlier installation.
fn installed(unit: &str, option: &str) -> Vec<String> {
    let command = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap_or_default();
    let words: Vec<&str> = command.split_whitespace().collect();
    let values = words.windows(2).filter(|pair| pair[0] == option);
    values.map(|pair| pair[1].to_owned()).collect()
}

/// Installs programs and units for these users (names or uids), in addition to those of an earlier
/// installation. The default is those alone, or the user who called sudo.
///
/// Programs of an installation of banger that only root can change run where they are, so that its
/// next version replaces them; those of a build are copied.
///
/// # Errors
/// Not root, no systemd, a user that does not exist, or a file that cannot be written.
pub fn install(owners: &[String], subnet: Option<&str>) -> Result<(), RootError> {
    must_be_root("install")?;
    let before = fs::read_to_string(unit(SERVICE_UNIT)).unwrap_or_default();
    let earlier: Vec<u32> =
        installed(&before, "--owner").iter().filter_map(|uid| uid.parse().ok()).collect();
    let mut owners = match uids(owners) {
        Err(error) if owners.is_empty() && earlier.is_empty() => return Err(error),
        Err(_) if owners.is_empty() => Vec::new(),
        named => named?,
    };
    owners.extend(earlier);
    owners.sort_unstable();
    owners.dedup();
    let kept = installed(&before, "--subnet").pop();
    let subnet = subnet.map(str::to_owned).or(kept);
    if !Path::new("/run/systemd/system").is_dir() {
        let text = "systemd is not running, so the helper cannot be installed as a service";
        return Err(RootError::new(Kind::HostNotReady, text).with_hint(HostHint::text(
            "start `banger-root serve --owner UID --socket /run/banger-root.sock` as root",
        )));
    }
    let own = std::env::current_exe()
        .map_err(|error| RootError::system("find the path of this program", &error))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let folder = if is_installation(beside) { beside } else { Path::new(COPIES) };
    if folder == Path::new(COPIES) {
        make_folder(folder)?;
        for name in PROGRAMS {
            copy(&beside.join(name), &folder.join(name))?;
        }
    }
    write(&unit(SOCKET_UNIT), &socket_unit())?;
    write(&unit(SERVICE_UNIT), &service_unit(folder, &owners, subnet.as_deref()))?;
    systemctl(&["daemon-reload"])?;
    // Stops a helper of an earlier version; running VMs and shims are not affected.
    systemctl(&["stop", SERVICE_UNIT])?;
    systemctl(&["enable", "--now", SOCKET_UNIT])?;
    if folder != Path::new(COPIES) {
        remove_copies()?;
    }
    let list: Vec<String> = owners.iter().map(u32::to_string).collect();
    println!("banger-root is installed for uid {}", list.join(", "));
    Ok(())
}

/// Removes the installed files, and the helper's files of deleted VMs.
///
/// # Errors
/// Not root; VMs exist; a file cannot be removed.
pub fn uninstall() -> Result<(), RootError> {
    must_be_root("uninstall")?;
    let places = crate::Places::default();
    if fs::read_dir(places.vms()).is_ok_and(|mut vms| vms.next().is_some()) {
        let text = format!("there are VMs in `{}`", places.vms().display());
        return Err(RootError::new(Kind::Busy, text)
            .with_hint(HostHint::text("delete them first: `banger vm list`")));
    }
    if Path::new("/run/systemd/system").is_dir() {
        // Units that do not exist are ignored.
        let _ = systemctl(&["disable", "--now", SOCKET_UNIT]);
        let _ = systemctl(&["stop", SERVICE_UNIT]);
    }
    let files = [unit(SOCKET_UNIT), unit(SERVICE_UNIT), "/run/banger-root.sock".into()];
    for path in &files {
        tolerate_absent(path, fs::remove_file(path))?;
    }
    remove_copies()?;
    for folder in [&places.state, &places.run] {
        tolerate_absent(folder, fs::remove_dir_all(folder))?;
    }
    if Path::new("/run/systemd/system").is_dir() {
        systemctl(&["daemon-reload"])?;
    }
    println!("banger-root is removed");
    Ok(())
}

/// Whether a folder is that of an installation whose programs only root can change.
fn is_installation(folder: &Path) -> bool {
    let trusted = |name: &str| programs::trusted(&folder.join(name)).is_ok();
    folder.ends_with(INSTALLATION) && PROGRAMS.iter().all(|name| trusted(name))
}

fn remove_copies() -> Result<(), RootError> {
    for path in PROGRAMS.map(|name| Path::new(COPIES).join(name)) {
        tolerate_absent(&path, fs::remove_file(&path))?;
    }
    // An administrator may have put Firecracker there.
    let _ = fs::remove_dir(COPIES);
    Ok(())
}

fn must_be_root(verb: &str) -> Result<(), RootError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let own = std::env::current_exe().unwrap_or_else(|_| "banger-root".into());
    Err(RootError::new(Kind::Refused, format!("{verb} needs root"))
        .with_hint(HostHint::text(format!("sudo {} {verb}", own.display()))))
}

fn unit(name: &str) -> PathBuf {
    Path::new(UNITS).join(name)
}

/// Resolves users given by name or number to uids.
fn uids(owners: &[String]) -> Result<Vec<u32>, RootError> {
    if owners.is_empty() {
        let sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
        let missing = || {
            RootError::new(Kind::BadRequest, "no user is named")
                .with_hint(HostHint::text("banger-root install --owner USER"))
        };
        return sudo.filter(|uid| *uid != 0).map(|uid| vec![uid]).ok_or_else(missing);
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = |owner: &String| {
        let by_name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(owner)).then(|| fields.nth(1)).flatten()
        });
        let text = by_name.unwrap_or(owner);
        text.parse::<u32>()
            .map_err(|_| RootError::new(Kind::BadRequest, format!("there is no user `{owner}`")))
    };
    owners.iter().map(uid).collect()
}

fn make_folder(path: &Path) -> Result<(), RootError> {
    let at = |error: io::Error| RootError::on_path("make the folder", path, &error);
    fs::create_dir_all(path).map_err(at)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(at)
}

/// Copies a program atomically (temporary file and rename), so that a running one is not modified.
fn copy(from: &Path, to: &Path) -> Result<(), RootError> {
    let same = |a: &Path, b: &Path| {
        let (a, b) = (fs::metadata(a).ok()?, fs::metadata(b).ok()?);
        Some((a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    if same(from, to) == Some(true) {
        return Ok(());
    }
    let staged = to.with_extension("new");
    fs::copy(from, &staged)
        .and_then(|_| fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&staged, to))
        .map_err(|error| RootError::on_path("install", from, &error))
}

fn write(path: &Path, text: &str) -> Result<(), RootError> {
    let staged = path.with_extension("new");
    fs::write(&staged, text)
        .and_then(|()| fs::set_permissions(&staged, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&staged, path))
        .map_err(|error| RootError::on_path("write", path, &error))
}

fn tolerate_absent(path: &Path, result: io::Result<()>) -> Result<(), RootError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RootError::on_path("remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn systemctl(args: &[&str]) -> Result<(), RootError> {
    let output = Command::new("systemctl")
        .args(args)
        .output()
        .map_err(|error| RootError::system("run systemctl", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let mut error =
        RootError::new(Kind::HostNotReady, format!("`systemctl {}` failed", args.join(" ")));
    error.causes.extend(String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned));
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_name_program_socket_and_owners() {
        let unit = service_unit(Path::new(COPIES), &[1000, 1001], Some("10.1.0.0/20"));
        assert!(
            unit.contains("/banger-root serve --owner 1000 --owner 1001 --subnet 10.1.0.0/20\n"),
            "{unit}"
        );
        // An installation after that keeps both.
        assert_eq!(installed(&unit, "--owner"), ["1000", "1001"]);
        assert_eq!(installed(&unit, "--subnet"), ["10.1.0.0/20"]);
        assert_eq!(installed("", "--owner"), Vec::<String>::new());
        assert!(unit.contains("KillMode=process"));
        assert!(socket_unit().contains("ListenStream=/run/banger-root.sock"));
    }

    #[test]
    fn only_a_whole_installation_of_root_runs_where_it_is() {
        assert!(rustix::process::geteuid().is_root(), "these tests must run as root");
        let prefix = tempfile::tempdir_in("/var/tmp").unwrap();
        let folder = prefix.path().join(INSTALLATION);
        fs::create_dir_all(&folder).unwrap();
        assert!(!is_installation(&folder), "without programs");
        for name in PROGRAMS {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(is_installation(&folder));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_installation(&folder), "others can replace its programs");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let build = prefix.path().join("target");
        fs::rename(&folder, &build).unwrap();
        assert!(!is_installation(&build), "a build");
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(uids(&["root".into(), "1234".into()]).unwrap(), [0, 1234]);
        assert!(uids(&["no-such-user".into()]).is_err());
    }
}
