//! Flags about a command in a guest, shared by `run`, `exec` and `vm shell`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use banger_api::ApiError;
use banger_client::{ByteString, ExecRequest};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::context::{Context, Format};
use crate::env_file;
use crate::errors::{Failure, usage};
use crate::render;
use crate::terminal::{self, Wanted};

/// Environment variable with the colour support of a terminal, which TERM does not contain.
const COLORTERM: &str = "COLORTERM";

/// Folder, user and environment of a command.
#[derive(Debug, Clone, Default, Args)]
pub struct CommandOptions {
    /// Folder to run in [default: the user's home, or the workspace]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// Set an environment variable; repeatable
    ///
    /// NAME alone passes on the variable as it is set here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable())]
    pub env: Vec<Variable>,
    /// Set the variables of a file with lines NAME=VALUE; repeatable
    ///
    /// NAME alone passes on the variable as it is set here. Blank lines and lines that start with
    /// `#` are skipped; quotes are part of a value. A later file replaces variables of an earlier
    /// one, and `-e` those of files.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub env_file: Vec<OsString>,
    /// User to run as, each a name or a number [default: root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Let the command use this host's ssh agent, as long as it runs
    #[arg(long)]
    pub ssh_agent: bool,
}

/// A variable for the guest, of any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Not empty, and without `=`.
    pub name: OsString,
    /// Absent for the value in the environment of this process.
    pub value: Option<OsString>,
}

fn variable() -> impl TypedValueParser<Value = Variable> {
    OsStringValueParser::new().try_map(parse_variable)
}

fn parse_variable(text: OsString) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (bytes.get(..at), bytes.get(at + 1..)),
        None => (Some(bytes), None),
    };
    let owned = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    match name.map(owned) {
        Some(name) if !name.is_empty() => Ok(Variable { name, value: value.map(owned) }),
        _ => Err("write NAME=VALUE, or NAME for a variable that is set here".to_owned()),
    }
}

impl CommandOptions {
    /// Creates a request without terminal and input.
    ///
    /// # Errors
    /// A file of `--env-file` cannot be read or has a wrong line.
    pub fn request(&self, argv: Vec<OsString>) -> Result<ExecRequest, ApiError> {
        Ok(ExecRequest {
            argv: argv.into_iter().map(Into::into).collect(),
            env: self.variables(|name| std::env::var_os(name))?,
            cwd: self.workdir.clone().map(Into::into),
            user: self.user.clone(),
            ..ExecRequest::default()
        })
    }

    /// The variables; of several with one name the guest takes the last.
    fn variables(
        &self,
        here: impl Fn(&OsStr) -> Option<OsString>,
    ) -> Result<Vec<(ByteString, ByteString)>, ApiError> {
        let mut given = Vec::new();
        for file in &self.env_file {
            given.extend(env_file::read(file)?);
        }
        given.extend(self.env.iter().cloned());
        let mut env = Vec::new();
        for Variable { name, value } in given {
            match value.or_else(|| here(&name)) {
                Some(value) => env.push((name.into(), value.into())),
                // As in Docker: scripts pass variables that are not always set.
                None => {
                    let name = name.display();
                    render::warning(&format!("`{name}` is not set here, so it is not passed on"));
                }
            }
        }
        Ok(env)
    }
}

/// Adds a terminal of the size and type of the user's terminal to the request.
///
/// # Errors
/// Input or output is not a terminal, or the output format is JSON.
pub fn with_terminal(
    context: &Context,
    mut request: ExecRequest,
    wanted: Wanted,
) -> Result<ExecRequest, Failure> {
    if context.format == Format::Json {
        let text = "a terminal cannot be shown as JSON: leave out `-t` or `--json`";
        return Err(usage(text).into());
    }
    terminal::require(wanted)?;
    // A terminal includes input.
    request.stdin = true;
    request.tty = Some(terminal::size());
    request.term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
    let name = ByteString::from(COLORTERM);
    let given = request.env.iter().any(|(given, _)| *given == name);
    if let (false, Some(value)) = (given, std::env::var_os(COLORTERM)) {
        request.env.push((name, value.into()));
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_or_taken_from_the_environment() {
        let parse = |bytes: &[u8]| parse_variable(OsStr::from_bytes(bytes).into());
        let given = |name: &str, value: Option<&str>| {
            Ok(Variable { name: name.into(), value: value.map(Into::into) })
        };
        assert_eq!(parse(b"A=b=c"), given("A", Some("b=c")));
        assert_eq!(parse(b"A="), given("A", Some("")));
        assert_eq!(parse(b"A"), given("A", None));
        assert_eq!(parse(b"A=\xff").unwrap().value.unwrap().as_bytes(), b"\xff");
        for wrong in ["", "=", "=b"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let env = ["A=1", "HERE", "GONE", "A=2"].map(|text| parse(text.as_bytes()).unwrap());
        let options = CommandOptions { env: env.into(), ..CommandOptions::default() };
        let here = |name: &OsStr| (name == "HERE").then(|| OsString::from("x y"));
        let expected = [("A", "1"), ("HERE", "x y"), ("A", "2")];
        let expected = expected.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(options.variables(here).unwrap(), expected);
    }
}
