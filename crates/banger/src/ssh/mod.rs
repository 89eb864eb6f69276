//! Options for ssh(1) that lead to a VM: through the agent, with a host key that is known.

pub mod known_hosts;
pub mod reach;
pub mod user_config;

use std::ffi::OsString;
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

/// The options, each as a line of ssh_config(5), for the hosts that `%h` stands for.
///
/// # Errors
/// A path that ssh_config(5) cannot express.
pub fn options(
    paths: &Paths,
    program: &Path,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<String>, ApiError> {
    let mut command = String::new();
    let set = FOLDERS.iter().filter_map(|name| Some((name, env(name)?)));
    for (name, value) in set.filter(|(_, value)| !value.is_empty()) {
        let value = plain(Path::new(&value))?;
        let start = if command.is_empty() { "env " } else { "" };
        command.push_str(&format!("{start}{name}={} ", for_shell(&value)));
    }
    command.push_str(&for_shell(&plain(program)?));
    Ok(vec![
        "User root".into(),
        format!("ProxyCommand {command} ssh-proxy %h %p"),
        format!("IdentityFile \"{}\"", plain(&paths.ssh_key())?),
        "IdentitiesOnly yes".into(),
        format!("UserKnownHostsFile \"{}\"", plain(&paths.ssh_known_hosts())?),
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
) -> Result<String, ApiError> {
    let mut text = String::from("# Written by `banger ssh-config`: how ssh reaches VMs.\n");
    text.push_str(&format!("Host *.{DOMAIN}\n"));
    for option in options(paths, program, env)? {
        text.push_str(&format!("    {option}\n"));
    }
    Ok(text)
}

/// A path without characters that ssh(1) expands, or for which its versions have different escapes.
pub fn plain(path: &Path) -> Result<String, ApiError> {
    let special = |c: char| c.is_control() || "\"\\$%*?[]{}~".contains(c);
    match path.to_str() {
        Some(text) if !text.contains(special) => Ok(text.to_owned()),
        _ => {
            let text = format!("`{}` cannot be used in a configuration of ssh", path.display());
            Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(Hint::text(
                "use a path of UTF-8 without control characters and without any of \" \\ $ % * ? \
                 [ ] { } ~",
            )))
        }
    }
}

/// One word of a shell's command line.
fn for_shell(text: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "/._-+:@,=".contains(c);
    match !text.is_empty() && text.chars().all(safe) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\"'\"'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(home: &str) -> Paths {
        let home = home.to_owned();
        let env = move |name: &str| (name == "BANGER_HOME").then(|| home.clone());
        Paths::resolve(env, 1000).unwrap()
    }

    #[test]
    fn the_configuration_leads_to_the_agent() {
        let env = |name: &str| (name == "BANGER_HOME").then(|| OsString::from("/my home"));
        let text = config(&paths("/my home"), Path::new("/opt/it's/banger"), env).unwrap();
        let expected = "\
# Written by `banger ssh-config`: how ssh reaches VMs.
Host *.vm
    User root
    ProxyCommand env BANGER_HOME='/my home' '/opt/it'\"'\"'s/banger' ssh-proxy %h %p
    IdentityFile \"/my home/state/ssh/id_ed25519\"
    IdentitiesOnly yes
    UserKnownHostsFile \"/my home/state/ssh/known_hosts\"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    CheckHostIP no
";
        assert_eq!(text, expected);
        let text = config(&paths("/b"), Path::new("/usr/bin/banger"), |_| None).unwrap();
        assert!(text.contains("ProxyCommand /usr/bin/banger ssh-proxy %h %p\n"), "{text}");
    }

    #[test]
    fn paths_that_ssh_would_change_are_refused() {
        for home in ["/a%h", "/a\nHost *", "/a\"b", "/${HOME}", "/a*", "/~x", "/a\\b"] {
            let error = config(&paths(home), Path::new("/banger"), |_| None).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest, "{home}");
        }
    }
}
