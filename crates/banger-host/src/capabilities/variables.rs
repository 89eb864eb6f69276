//! Environment variables for every program of a guest: commands through the agent, logins, services
//! of systemd and of OpenRC.
//!
//! The files are shared with the user and the distribution, so each capability has a block of its
//! own in them, between two marks. An empty block removes the earlier one.

use banger_agent_proto::boot::{GuestConfig, GuestFile, WriteWhen};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use banger_image::proxy::Variables;

/// Adds `variables` to a guest's configuration, in blocks named after the capability.
pub fn add(config: &mut GuestConfig, capability: &str, variables: &Variables) {
    config.files.extend(files(capability, variables));
    config.env.extend(variables.clone());
}

fn files(capability: &str, variables: &Variables) -> [GuestFile; 5] {
    let lines = |line: fn(&str, &str) -> String| -> String {
        variables.iter().map(|(name, value)| line(name, value)).collect()
    };
    let exports = lines(|name, value| format!("export {name}='{value}'\n"));
    let manager = match lines(|name, value| format!(" \"{name}={}\"", value.replace('%', "%%"))) {
        none if none.is_empty() => none,
        assignments => format!("[Manager]\nDefaultEnvironment={assignments}\n"),
    };
    let name = format!("banger-{capability}");
    [
        // pam_env(8): logins, sudo, cron; also read by the agent.
        block(
            "/etc/environment",
            WriteWhen::Block,
            capability,
            &lines(|name, value| format!("{name}={value}\n")),
        ),
        // Login shells without PAM.
        block(&format!("/etc/profile.d/{name}.sh"), WriteWhen::Block, capability, &exports),
        // systemd-system.conf(5), of the system's and of the users' managers. `%` begins a
        // specifier since version 250, and an unknown one makes systemd ignore and log the
        // assignment.
        block(
            &format!("/run/systemd/system.conf.d/{name}.conf"),
            WriteWhen::Block,
            capability,
            &manager,
        ),
        block(
            &format!("/run/systemd/user.conf.d/{name}.conf"),
            WriteWhen::Block,
            capability,
            &manager,
        ),
        // A shell script, where OpenRC is.
        block("/etc/rc.conf", WriteWhen::BlockInFile, capability, &exports),
    ]
}

fn block(path: &str, when: WriteWhen, capability: &str, body: &str) -> GuestFile {
    let begin =
        format!("# banger {capability}: replaced at each start, from [{capability}] of the host");
    let content = format!("{begin}\n{body}# banger {capability}: end\n");
    let content = BASE64.encode(content);
    GuestFile { path: path.into(), mode: 0o644, uid: 0, gid: 0, content, when }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Content of a file of a guest's configuration.
    pub fn content(files: &[GuestFile], path: &str) -> String {
        let file = files.iter().find(|file| file.path == path).unwrap();
        String::from_utf8(BASE64.decode(&file.content).unwrap()).unwrap()
    }

    #[test]
    fn variables_reach_logins_and_services() {
        let variables = Variables::from([
            ("http_proxy".to_owned(), "http://u:%40%C3%A9;@p:1".to_owned()),
            ("no_proxy".to_owned(), "localhost,.vm".to_owned()),
        ]);
        let files = files("proxy", &variables);
        let begin = "# banger proxy: replaced at each start, from [proxy] of the host\n";
        let end = "# banger proxy: end\n";
        for (path, body) in [
            ("/etc/environment", "http_proxy=http://u:%40%C3%A9;@p:1\nno_proxy=localhost,.vm\n"),
            (
                "/etc/profile.d/banger-proxy.sh",
                "export http_proxy='http://u:%40%C3%A9;@p:1'\nexport no_proxy='localhost,.vm'\n",
            ),
            (
                "/run/systemd/system.conf.d/banger-proxy.conf",
                "[Manager]\nDefaultEnvironment= \"http_proxy=http://u:%%40%%C3%%A9;@p:1\" \
                 \"no_proxy=localhost,.vm\"\n",
            ),
            (
                "/etc/rc.conf",
                "export http_proxy='http://u:%40%C3%A9;@p:1'\nexport no_proxy='localhost,.vm'\n",
            ),
        ] {
            assert_eq!(content(&files, path), format!("{begin}{body}{end}"), "{path}");
        }
    }

    #[test]
    fn no_variables_are_empty_blocks() {
        for file in files("proxy", &Variables::new()) {
            let lines = content(std::slice::from_ref(&file), &file.path).lines().count();
            assert_eq!(lines, 2, "{}", file.path);
        }
    }
}
