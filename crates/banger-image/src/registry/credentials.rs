//! Credentials of the user for registries: Docker's `config.json` and its credential helpers
//! (`docker login` writes them; docker-credential-helpers, README "Development").

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::RegistryError;
use crate::fetch::{FetchError, PathContext, Progress, Tool, Tools};

/// Largest configuration in bytes.
const CONFIG_BYTES: u64 = 1 << 20;
/// Longest answer of a helper in bytes.
const ANSWER_BYTES: u64 = 64 << 10;
/// Key of Docker's own registry in the configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// User name with which a helper marks an identity token.
const TOKEN_USER: &str = "<token>";
/// Words of helpers that have no entry.
const NOT_FOUND: &str = "credentials not found";

/// What a user presents to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic(String, String),
    /// A token that the registry's token server exchanges.
    Identity(String),
}

/// Without secrets.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic(..) => "Basic",
            Self::Identity(_) => "Identity",
        })
    }
}

/// Docker's configuration.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Answer of a helper.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Path of Docker's configuration by the environment: `DOCKER_CONFIG`, `~/.docker`.
pub fn config_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match set("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

/// The credentials for a registry; `None` if there are none.
///
/// # Errors
/// A configuration that cannot be understood; a helper that fails.
pub fn find(
    config: Option<&Path>,
    host: &str,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Option<Credentials>, RegistryError> {
    let bad = |why: String| RegistryError::Credentials { host: host.to_owned(), why };
    let Some(config) = config.map(|path| read(path).map_err(bad)).transpose()?.flatten() else {
        return Ok(None);
    };
    let key = if host == "docker.io" { DOCKER_HUB } else { host };
    let helper = config.cred_helpers.get(host).or(config.creds_store.as_ref());
    if let Some(helper) = helper
        && let Some(found) = ask(helper, key, tools, progress).map_err(|why| match why {
            Failed::Cancelled => FetchError::Cancelled.into(),
            Failed::Because(why) => bad(why),
        })?
    {
        return Ok(Some(found));
    }
    let spellings = [
        key.to_owned(),
        format!("https://{host}"),
        format!("http://{host}"),
        format!("https://{host}/v1/"),
        format!("https://{host}/v2/"),
    ];
    let auth = spellings.iter().find_map(|key| config.auths.get(key));
    auth.map_or(Ok(None), |auth| of(auth).map_err(bad))
}

fn read(path: &Path) -> Result<Option<Config>, String> {
    let shown = path.display();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("`{shown}`: {error}")),
    };
    let mut text = Vec::new();
    let read = file.take(CONFIG_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| format!("`{shown}`: {error}"))?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(format!("`{shown}` is larger than 1 MiB"));
    }
    // The error of the parser may quote a secret; its place does not.
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("`{shown}` is not valid (line {line}, column {column})")
    })
}

fn of(auth: &Auth) -> Result<Option<Credentials>, String> {
    if let Some(token) = auth.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::Identity(token.clone())));
    }
    if let Some(text) = auth.auth.as_ref().filter(|text| !text.is_empty()) {
        let bad = || "an entry of `auths` is not base64 of USER:PASSWORD".to_owned();
        let pair = STANDARD.decode(text.trim()).map_err(|_| bad())?;
        let pair = String::from_utf8(pair).map_err(|_| bad())?;
        let (user, password) = pair.split_once(':').ok_or_else(bad)?;
        let password = password.trim_end_matches('\0');
        return Ok(Some(Credentials::Basic(user.to_owned(), password.to_owned())));
    }
    Ok(match (&auth.username, &auth.password) {
        (Some(user), Some(password)) if !user.is_empty() => {
            Some(Credentials::Basic(user.clone(), password.clone()))
        }
        _ => None,
    })
}

enum Failed {
    Cancelled,
    Because(String),
}

/// Asks a helper: the key on its standard input, JSON on its standard output.
fn ask(
    helper: &str,
    key: &str,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Option<Credentials>, Failed> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if helper.is_empty() || !helper.bytes().all(plain) {
        let shown = banger_api::excerpt(helper);
        return Err(Failed::Because(format!("`{shown}` is no name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let path = tools
        .find(&program)
        .ok_or_else(|| Failed::Because(format!("the program `{program}` was not found")))?;
    let run = || -> Result<(Vec<u8>, Option<FetchError>), FetchError> {
        let mut command = Command::new(&path);
        command.arg("get").env("PATH", tools.search_path());
        let mut tool = Tool::of("docker-credential", command);
        let (reader, mut writer) = std::io::pipe().at("make a pipe for", &path)?;
        // Fits into the pipe.
        writer.write_all(key.as_bytes()).at("write to", &path)?;
        drop(writer);
        tool.command.stdin(reader);
        let mut running = tool.start(progress)?;
        let mut output = Vec::new();
        (&mut running).take(ANSWER_BYTES).read_to_end(&mut output).at("read from", &path)?;
        Ok((output, running.finish().err()))
    };
    let because = |error: FetchError| match error {
        FetchError::Cancelled => Failed::Cancelled,
        error => Failed::Because(format!("`{program}`: {error}")),
    };
    let (output, failure) = run().map_err(because)?;
    if let Some(failure) = failure {
        // Helpers print their errors to standard output.
        let text = String::from_utf8_lossy(&output);
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(because(failure));
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| Failed::Because(format!("`{program}` printed no valid answer")))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::Identity(answer.secret),
        "" => return Ok(None),
        _ => Credentials::Basic(answer.username, answer.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::NoProgress;
    use std::os::unix::fs::PermissionsExt;

    fn look(
        config: &str,
        host: &str,
        helper: Option<(&str, &str)>,
    ) -> Result<Option<Credentials>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        if let Some((name, script)) = helper {
            let program = folder.path().join(format!("docker-credential-{name}"));
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tools = Tools::new(folder.path());
        find(Some(&path), host, &tools, &NoProgress).map_err(|error| error.to_string())
    }

    fn basic(user: &str, password: &str) -> Result<Option<Credentials>, String> {
        Ok(Some(Credentials::Basic(user.into(), password.into())))
    }

    #[test]
    fn auths_of_docker_are_found_by_every_spelling() {
        // `me:secret`, `u:p:q`
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},
            "ghcr.io":{"auth":"dTpwOnE="},"https://quay.io":{"username":"a","password":"b"},
            "token.io":{"auth":"","identitytoken":"T"},"empty.io":{}}}"#;
        assert_eq!(look(config, "docker.io", None), basic("me", "secret"));
        assert_eq!(look(config, "ghcr.io", None), basic("u", "p:q"));
        assert_eq!(look(config, "quay.io", None), basic("a", "b"));
        let token = Ok(Some(Credentials::Identity("T".into())));
        assert_eq!(look(config, "token.io", None), token);
        assert_eq!(look(config, "empty.io", None), Ok(None));
        assert_eq!(look(config, "other.io", None), Ok(None));
        assert_eq!(find(None, "x", &Tools::new(""), &NoProgress).unwrap(), None);
        let missing = find(Some(Path::new("/no/config.json")), "x", &Tools::new(""), &NoProgress);
        assert_eq!(missing.unwrap(), None);
    }

    #[test]
    fn helpers_are_asked_for_their_registries() {
        let config = r#"{"credsStore":"all","credHelpers":{"own.io":"own"}}"#;
        let script = concat!(
            r#"[ "$1" = get ] && read -r key; "#,
            r#"echo "{\"ServerURL\":\"$key\",\"Username\":\"u\",\"Secret\":\"of $key\"}""#
        );
        assert_eq!(look(config, "own.io", Some(("own", script))), basic("u", "of own.io"));
        let hub = basic("u", "of https://index.docker.io/v1/");
        assert_eq!(look(config, "docker.io", Some(("all", script))), hub);
        let token = r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"T"}'"#;
        let expected = Ok(Some(Credentials::Identity("T".into())));
        assert_eq!(look(config, "x.io", Some(("all", token))), expected);
        let none = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(look(config, "x.io", Some(("all", none))), Ok(None));
    }

    #[test]
    fn errors_do_not_show_secrets() {
        for (config, helper, expected) in [
            (r#"{"credsStore":"none"}"#, None, "`docker-credential-none` was not found"),
            (r#"{"credsStore":"../x"}"#, None, "no name of a credential helper"),
            (r#"{"auths":{"x.io":{"auth":"secret!"}}}"#, None, "not base64"),
            (r#"{"auths":{"x.io":{"auth":"secret"#, None, "is not valid (line 1, column"),
            (r#"{"auths":{"x.io":"secret"}}"#, None, "is not valid (line 1"),
            (r#"{"credsStore":"a"}"#, Some(("a", "echo secret")), "no valid answer"),
            (r#"{"credsStore":"a"}"#, Some(("a", "echo locked >&2; exit 2")), "exit code 2"),
        ] {
            let error = look(config, "x.io", helper).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }
}
