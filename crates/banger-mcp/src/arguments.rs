//! Parameters of the tools. The comments are the descriptions that a model reads.

use std::collections::BTreeMap;

use banger_api::{ApiError, ErrorCode};
use banger_client::text::line;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest time that a command may run, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 3_600_000;
/// Time that a command may run without another limit, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 120_000;
/// Most output that is returned of each stream of a command, in bytes.
pub const MAX_OUTPUT_BYTES: u32 = 1024 * 1024;
/// Output that is returned of each stream without another limit, in bytes.
pub const DEFAULT_OUTPUT_BYTES: u32 = 32 * 1024;

/// Reads the parameters of a call.
///
/// # Errors
/// A parameter is missing, unknown or of another type.
pub fn parse<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, ApiError> {
    let arguments = serde_json::Value::Object(arguments.unwrap_or_default());
    serde_json::from_value(arguments).map_err(|error| {
        let text = format!("the parameters are not valid: {}", line(&error.to_string()));
        ApiError::new(ErrorCode::BadRequest, text)
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Only machines that this session created and that end with it.
    #[serde(default)]
    pub own: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name or id of the machine.
    pub vm: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Name: lower-case letters, digits and dashes. Made up if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Image: a name of `banger image list`, a recipe such as `debian`, or an image of a registry.
    #[serde(default)]
    pub image: Option<String>,
    /// Number of CPUs.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Whether the machine reaches networks outside of this host.
    #[serde(default)]
    pub nat: Option<bool>,
    /// TCP ports to publish, as `HOST_PORT:MACHINE_PORT`, such as `8080:80`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Labels, such as `{"task": "tests"}`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the machine stays after this session.
    #[serde(default)]
    pub keep: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Name or id of the machine.
    pub vm: String,
    /// Command line for `/bin/sh -c`. Either this or `argv`.
    #[serde(default)]
    pub command: Option<String>,
    /// Program and arguments, without a shell.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Folder to run in; the user's home if absent.
    #[serde(default)]
    pub workdir: Option<String>,
    /// User to run as, `USER` or `USER:GROUP`; root if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Text for standard input.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Time limit in milliseconds, at most 3600000; 120000 if absent. The command is ended then.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Most bytes to return of each stream, at most 1048576; 32768 if absent.
    #[serde(default)]
    pub max_output_bytes: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Command line for `/bin/sh -c`. Either this or `argv`.
    #[serde(default)]
    pub command: Option<String>,
    /// Program and arguments, without a shell.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Image: a name of `banger image list`, a recipe such as `debian`, or an image of a registry.
    #[serde(default)]
    pub image: Option<String>,
    /// Number of CPUs.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Whether the machine reaches networks outside of this host.
    #[serde(default)]
    pub nat: Option<bool>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Text for standard input.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Time limit of the command in milliseconds, at most 3600000; 120000 if absent.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Most bytes to return of each stream, at most 1048576; 32768 if absent.
    #[serde(default)]
    pub max_output_bytes: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    /// Name or id of the machine.
    pub vm: String,
    /// Path of the file, absolute or in the home of root.
    pub path: String,
    /// First byte to return; 0 if absent.
    #[serde(default)]
    pub offset: u64,
    /// Most bytes to return, at most 1048576; 262144 if absent.
    #[serde(default)]
    pub max_bytes: Option<u32>,
}

/// How the content of a file is written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    // Comments, not documentation: a schema with descriptions of values has no plain `type`.
    // Text in UTF-8.
    #[default]
    Text,
    // Any bytes, as base64 (RFC 4648).
    Base64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// Name or id of the machine.
    pub vm: String,
    /// Path of the file, absolute or in the home of root.
    pub path: String,
    /// The content, at most 8 MiB; `upload` takes larger files.
    pub content: String,
    /// How the content is written here.
    #[serde(default)]
    pub encoding: Encoding,
    /// Permission bits in octal digits; `644` if absent.
    #[serde(default)]
    pub mode: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFiles {
    /// Name or id of the machine.
    pub vm: String,
    /// Path of the folder, absolute or in the home of root.
    pub path: String,
    /// How many levels of folders, from 1 to 8; 1 if absent.
    #[serde(default)]
    pub depth: Option<u8>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyFiles {
    /// Name or id of the machine.
    pub vm: String,
    /// Path of a file or folder of this host, absolute or in the folder that the server runs in.
    pub host_path: String,
    /// Path in the machine, absolute or in the home of root.
    pub path: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceDiff {
    /// Name or id of the machine.
    pub vm: String,
    /// Only names of files and numbers of lines.
    #[serde(default)]
    pub stat: bool,
    /// Most bytes to return, at most 1048576; 32768 if absent.
    #[serde(default)]
    pub max_output_bytes: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspacePull {
    /// Name or id of the machine.
    pub vm: String,
    /// Put the machine's commits and uncommitted changes on this new branch instead of into the
    /// files of the repository.
    #[serde(default)]
    pub branch: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Name or id of the machine.
    pub vm: String,
    /// The port, as `HOST_PORT:MACHINE_PORT`, such as `8080:80`. The host listens on 127.0.0.1.
    pub port: String,
}

/// A log about a machine.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    // The serial console.
    #[default]
    Console,
    // Lines of the agent on the console.
    Agent,
    // The program that runs the machine.
    Vmm,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Name or id of the machine.
    pub vm: String,
    /// Which log.
    #[serde(default)]
    pub source: LogSource,
    /// Number of lines at the end; 100 if absent.
    #[serde(default)]
    pub lines: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Name or id of the machine.
    pub vm: String,
    /// Delete a machine that this session did not create.
    #[serde(default)]
    pub force: bool,
}
