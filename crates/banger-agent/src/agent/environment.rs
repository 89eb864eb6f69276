//! The environment of a command, as a login gives it: the image's files, then the configuration,
//! then the request.
//!
//! Read are `/etc/environment` (pam_env(8)), and for the locale `/etc/default/locale` (Debian),
//! `/etc/locale.conf` (systemd), `/etc/sysconfig/i18n` (older Red Hat) and the plain assignments of
//! `/etc/profile.env` (Gentoo) and `/etc/profile.d/*locale*.sh` (Alpine), which only a login shell
//! executes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_agent_proto::exec::ExecRequest;

use super::{lookup, terminfo};
use crate::users::User;

/// A file of variables for every program.
const ENVIRONMENT: &str = "/etc/environment";

/// Files that set the locale, in order: later ones win.
const LOCALE_FILES: [&str; 4] =
    ["/etc/profile.env", "/etc/sysconfig/i18n", "/etc/locale.conf", "/etc/default/locale"];

/// Scripts of login shells; the locale's are read.
const PROFILE_FOLDER: &str = "/etc/profile.d";

/// Largest such file that is read, in bytes, and most scripts looked at.
const FILE_MAX: u64 = 64 * 1024;
const SCRIPTS_MAX: usize = 256;

/// Age from which on a file that has the same times is the same.
const SETTLED: Duration = Duration::from_secs(2);

/// Room for the usual file, in bytes: it is then read at once.
const FILE_USUAL: usize = 2 * 1024;

/// What a login decides itself; the image's files do not change it.
const OF_THE_LOGIN: [&str; 5] = ["HOME", "USER", "LOGNAME", "SHELL", "TERM"];

/// Variables by name.
pub type Variables = BTreeMap<OsString, OsString>;

/// The environment for this request. `shell` is the user's, or what replaces it.
pub fn of(
    request: &ExecRequest,
    user: &User,
    shell: &str,
    configured: &BTreeMap<String, String>,
) -> Variables {
    let mut env = Variables::new();
    let mut set = |name: &str, value: &OsStr| env.insert(name.into(), value.into());
    set("PATH", lookup::default_path().as_ref());
    set("HOME", user.home.as_ref());
    set("USER", user.name.as_ref());
    set("LOGNAME", user.name.as_ref());
    set("SHELL", shell.as_ref());
    if request.tty.is_some() {
        let wanted = request.term.as_deref().unwrap_or(terminfo::COMMON);
        set("TERM", terminfo::known(wanted, &terminfo::folders(&user.home)).as_ref());
    }
    env.extend(of_the_image());
    for (name, value) in configured {
        env.insert(name.into(), value.into());
    }
    for (name, value) in &request.env {
        env.insert(name.as_os_str().into(), value.as_os_str().into());
    }
    env
}

/// What tells whether a file has changed; none if it does not exist.
type Stamp = Option<(u64, u64, u64, SystemTime, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some((found.dev(), found.ino(), found.len(), found.modified().ok()?, changed.0, changed.1))
}

/// The variables of the image's files as they were read, and the stamps of those files then.
struct Known {
    stamps: Vec<(PathBuf, Stamp)>,
    variables: Variables,
}

/// The variables of the image's files, which are read again when one of them has changed.
fn of_the_image() -> Variables {
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*known
        && known.stamps.iter().all(|(path, before)| stamp(path) == *before)
    {
        return known.variables.clone();
    }
    let paths = [PROFILE_FOLDER, ENVIRONMENT].into_iter().chain(LOCALE_FILES).map(PathBuf::from);
    let paths = paths.chain(locale_scripts());
    let stamps: Vec<(PathBuf, Stamp)> = paths.map(|path| (path.clone(), stamp(&path))).collect();
    let variables = read_all();
    // A file may change twice within the resolution of its times.
    let settled = SystemTime::now().checked_sub(SETTLED).unwrap_or(UNIX_EPOCH);
    let settled = settled.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_old = |stamp: &Stamp| {
        stamp.is_none_or(|(.., changed, _)| u64::try_from(changed).is_ok_and(|at| at < settled))
    };
    let is_settled = stamps.iter().all(|(_, stamp)| is_old(stamp));
    *known = is_settled.then(|| Known { stamps, variables: variables.clone() });
    variables
}

fn read_all() -> Variables {
    let mut env = Variables::new();
    for path in locale_scripts().iter().map(PathBuf::as_path).chain(LOCALE_FILES.map(Path::new)) {
        env.extend(assignments(&read(path)).into_iter().filter(|(name, _)| is_locale(name)));
    }
    let all = assignments(&read(Path::new(ENVIRONMENT)));
    env.extend(all.into_iter().filter(|(name, _)| !OF_THE_LOGIN.iter().any(|own| name == own)));
    env
}

/// What is not there or not a file has no variables.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_USUAL);
    let is_file = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    let read = is_file.then(|| File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes));
    match read {
        Some(Ok(_)) => bytes,
        _ => Vec::new(),
    }
}

fn locale_scripts() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(PROFILE_FOLDER) else { return Vec::new() };
    let is_locale = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("locale") && name.ends_with(".sh")
    };
    let mut scripts: Vec<_> = entries
        .take(SCRIPTS_MAX)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_locale)
        .collect();
    scripts.sort();
    scripts
}

/// Variables of locale(7), and `CHARSET`, which Alpine sets beside them.
fn is_locale(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"LC_") || [b"LANG".as_slice(), b"LANGUAGE", b"CHARSET"].contains(&name)
}

/// Lines `NAME=value`, with or without `export` and quotes. Lines that need a shell are skipped,
/// but for `${NAME:-default}`, which is its default.
fn assignments(content: &[u8]) -> Vec<(OsString, OsString)> {
    content.split(|byte| *byte == b'\n').filter_map(assignment).collect()
}

fn assignment(line: &[u8]) -> Option<(OsString, OsString)> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"export ").map_or(line, <[u8]>::trim_ascii_start);
    let at = line.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (line.get(..at)?, line.get(at + 1..)?);
    let is_name = name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let value = match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        plain => plain,
    };
    let value = defaulted(name, value).unwrap_or(value);
    let needs_shell = value.iter().any(|byte| b"$`\\\"\0".contains(byte));
    (is_name && !needs_shell)
        .then(|| (OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
}

/// The default of `${NAME:-default}`.
fn defaulted<'a>(name: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let inner = value.strip_prefix(b"${")?.strip_suffix(b"}")?.strip_prefix(name)?;
    inner.strip_prefix(b":-").or_else(|| inner.strip_prefix(b"-"))
}

#[cfg(test)]
mod tests {
    use banger_agent_proto::exec::WindowSize;

    use super::*;
    use crate::users;

    fn user() -> User {
        users::find("dev", "dev:x:1000:1000::/nowhere/home:/bin/sh\n", "").unwrap()
    }

    fn parsed(text: &str) -> Vec<(String, String)> {
        let string = |text: OsString| text.into_string().unwrap();
        let pairs = assignments(text.as_bytes()).into_iter();
        pairs.map(|(name, value)| (string(name), string(value))).collect()
    }

    #[test]
    fn files_of_variables_as_distributions_write_them() {
        for (line, name, value) in [
            ("LANG=C.UTF-8", "LANG", "C.UTF-8"),
            ("LANG=\"de_DE.UTF-8\"", "LANG", "de_DE.UTF-8"),
            ("export LANG='C.UTF-8'", "LANG", "C.UTF-8"),
            ("export LANG=${LANG:-C.UTF-8}", "LANG", "C.UTF-8"),
            ("  PATH=/a:/b\r", "PATH", "/a:/b"),
            ("EMPTY=", "EMPTY", ""),
            ("_a1=x=y", "_a1", "x=y"),
        ] {
            assert_eq!(parsed(line), [(name.to_owned(), value.to_owned())], "{line}");
        }
        for line in [
            "",
            "# LANG=C",
            "1A=x",
            "A B=c",
            "=x",
            "A=$B",
            "A=`b`",
            "A=\"$(b)\"",
            "LANG=${OTHER:-C}",
            "if [ x = y ]; then",
        ] {
            assert_eq!(parsed(line), [], "{line}");
        }
        assert_eq!(parsed("A=1\nno line\nB=2").len(), 2);
    }

    #[test]
    fn any_bytes_are_values() {
        let read = assignments(b"A=caf\xe9\nB=\xff\n");
        assert_eq!(read[0].1.as_bytes(), b"caf\xe9");
        assert_eq!(read[1].1.as_bytes(), b"\xff");
    }

    #[test]
    fn only_the_locale_is_taken_from_scripts() {
        for (name, taken) in [("LANG", true), ("LC_ALL", true), ("PATH", false), ("LANGX", false)] {
            assert_eq!(is_locale(OsStr::new(name)), taken, "{name}");
        }
    }

    #[test]
    fn later_environment_wins() {
        let configured = BTreeMap::from([
            ("PATH".to_owned(), "/configured".to_owned()),
            ("A".to_owned(), "configured".to_owned()),
        ]);
        let mut asked = ExecRequest { argv: vec!["x".into()], ..ExecRequest::default() };
        asked.env = vec![("A".into(), "first".into()), ("A".into(), "last".into())];
        let env = of(&asked, &user(), "/bin/sh", &configured);
        let value = |name: &str| env[OsStr::new(name)].to_str().unwrap();
        assert_eq!((value("PATH"), value("A")), ("/configured", "last"));
        assert_eq!((value("HOME"), value("LOGNAME")), ("/nowhere/home", "dev"));
        assert!(!env.contains_key(OsStr::new("TERM")));
        asked.tty = Some(WindowSize { rows: 24, cols: 80 });
        asked.env = vec![("TERM".into(), "of-the-request".into())];
        let env = of(&asked, &user(), "/bin/sh", &configured);
        assert_eq!(env[OsStr::new("TERM")], "of-the-request");
    }
}
