//! Options for ssh(1) that lead to a VM: through the agent, with a host key that is known.

pub mod known_hosts;
pub mod reach;
pub mod user_config;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use banger_api::paths::Paths;
use banger_api::{ApiError, ErrorCode, Hint};

/// Domain of the VMs' names.
pub const DOMAIN: &str = "vm";
/// The port of ssh.
pub const PORT: u16 = 22;

/// Variables that decide where banger's folders are. ssh may run where the user's shell has not
/// set them, such as below an editor.
const FOLDERS: [&str; 7] = [
    "BANGER_HOME",
    "BANGER_STATE_DIR",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];

/// Host name of a VM: `NAME.vm`.
pub fn host_name(vm: &str) -> String {
    format!("{vm}.{DOMAIN}")
}

/// The options, each as a line of ssh_config(5), for the hosts that `%h` stands for. `offer` names
/// a connection that the proxy takes (`banger_client::Handover`).
///
/// # Errors
/// A path that ssh_config(5) cannot express.
pub fn options(
    paths: &Paths,
    program: &Path,
    env: impl Fn(&str) -> Option<OsString>,
    offer: Option<&str>,
) -> Result<Vec<OsString>, ApiError> {
    let mut command = OsString::from("ProxyCommand ");
    let mut start = "env ";
    let set = FOLDERS.iter().filter_map(|name| Some((name, env(name)?)));
    for (name, value) in set.filter(|(_, value)| !value.is_empty()) {
        command.push(format!("{start}{name}="));
        command.push(for_shell(plain(Path::new(&value))?));
        command.push(" ");
        start = "";
    }
    command.push(for_shell(plain(program)?));
    command.push(" ssh-proxy %h %p");
    if let Some(offer) = offer {
        command.push(format!(" --offer {offer}"));
    }
    Ok(vec![
        "User root".into(),
        command,
        with_path("IdentityFile", &paths.ssh_identity())?,
        "IdentitiesOnly yes".into(),
        with_path("UserKnownHostsFile", &paths.ssh_known_hosts())?,
        "GlobalKnownHostsFile /dev/null".into(),
        "StrictHostKeyChecking yes".into(),
        "UpdateHostKeys no".into(),
        "CheckHostIP no".into(),
    ])
}

/// The whole configuration for `NAME.vm`.
///
/// # Errors
/// As [`options`].
pub fn config(
    paths: &Paths,
    program: &Path,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<OsString, ApiError> {
    let mut text = OsString::from("# Written by `banger ssh-config`: how ssh reaches VMs.\n");
    text.push(format!("Host *.{DOMAIN}\n"));
    for option in options(paths, program, env, None)? {
        for part in ["    ".as_ref(), option.as_os_str(), "\n".as_ref()] {
            text.push(part);
        }
    }
    Ok(text)
}

/// An option whose value is one path, in quotes.
///
/// # Errors
/// As [`plain`].
pub fn with_path(option: &str, path: &Path) -> Result<OsString, ApiError> {
    let mut line = OsString::from(format!("{option} \""));
    line.push(plain(path)?);
    line.push("\"");
    Ok(line)
}

/// A path without characters that ssh(1) expands, or for which its versions have different escapes.
/// Bytes that are not UTF-8 are none of them.
fn plain(path: &Path) -> Result<&OsStr, ApiError> {
    let special = |byte: &u8| byte.is_ascii_control() || b"\"\\$%*?[]{}~".contains(byte);
    if !path.as_os_str().as_bytes().iter().any(special) {
        return Ok(path.as_os_str());
    }
    let text = format!("`{}` cannot be used in a configuration of ssh", path.display());
    Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(
        "use a path without control characters and without any of \" \\ $ % * ? [ ] { } ~",
    )))
}

/// One word of a shell's command line.
fn for_shell(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:@,=".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(safe) {
        return word.to_owned();
    }
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\'').collect();
    let quoted = parts.join(&b"'\"'\"'"[..]);
    OsString::from_vec([b"'", quoted.as_slice(), b"'"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(home: impl Into<OsString>) -> Paths {
        let home = home.into();
        let env = move |name: &str| (name == "BANGER_HOME").then(|| home.clone());
        Paths::resolve(env, 1000).unwrap()
    }

    fn text_of(config: OsString) -> String {
        config.into_string().unwrap()
    }

    #[test]
    fn the_configuration_leads_to_the_agent() {
        let env = |name: &str| (name == "BANGER_HOME").then(|| OsString::from("/my home"));
        let text = text_of(config(&paths("/my home"), Path::new("/opt/it's/banger"), env).unwrap());
        let expected = "\
# Written by `banger ssh-config`: how ssh reaches VMs.
Host *.vm
    User root
    ProxyCommand env BANGER_HOME='/my home' '/opt/it'\"'\"'s/banger' ssh-proxy %h %p
    IdentityFile \"/my home/state/ssh/identity\"
    IdentitiesOnly yes
    UserKnownHostsFile \"/my home/state/ssh/known_hosts\"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    CheckHostIP no
";
        assert_eq!(text, expected);
        let config = config(&paths("/b"), Path::new("/usr/bin/banger"), |_| None).unwrap();
        let config = config.to_str().unwrap();
        assert!(config.contains("ProxyCommand /usr/bin/banger ssh-proxy %h %p\n"), "{config}");
    }

    #[test]
    fn paths_in_any_encoding_stay_as_they_are() {
        let home = || OsString::from_vec(b"/caf\xe9, b".to_vec());
        let env = |name: &str| (name == "BANGER_HOME").then(home);
        let config = config(&paths(home()), Path::new("/usr/bin/banger"), env).unwrap();
        for line in [
            &b"    ProxyCommand env BANGER_HOME='/caf\xe9, b' /usr/bin/banger ssh-proxy %h %p\n"[..],
            b"    IdentityFile \"/caf\xe9, b/state/ssh/identity\"\n",
            b"    UserKnownHostsFile \"/caf\xe9, b/state/ssh/known_hosts\"\n",
        ] {
            assert!(config.as_bytes().windows(line.len()).any(|part| part == line), "{config:?}");
        }
    }

    #[test]
    fn paths_that_ssh_would_change_are_refused() {
        for home in ["/a%h", "/a\nHost *", "/a\"b", "/${HOME}", "/a*", "/~x", "/a\\b"] {
            let error = config(&paths(home), Path::new("/banger"), |_| None).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest, "{home}");
        }
    }
}
