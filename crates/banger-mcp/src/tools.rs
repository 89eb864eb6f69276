//! The tools, declared once: names, descriptions, what they may change, and their parameters.

use std::fmt;
use std::str::FromStr;

use banger_api::{ApiError, ErrorCode, Hint};
use rmcp::model::{JsonObject, ToolAnnotations};
use schemars::JsonSchema;
use serde_json::Value;

use crate::arguments as of;

/// What a tool may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Read,
    /// Machines, or files of this host.
    Write,
    /// It removes a machine, or replaces files.
    Destroy,
}

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Lists machines.
    List,
    /// Shows one machine.
    Show,
    /// Creates a machine.
    Create,
    /// Starts a machine.
    Start,
    /// Stops a machine.
    Stop,
    /// Runs a command in a machine of its own.
    Run,
    /// Runs a command in a machine.
    Exec,
    /// Reads a file of a machine.
    ReadFile,
    /// Writes a file of a machine.
    WriteFile,
    /// Lists a folder of a machine.
    ListFiles,
    /// Copies files of this host into a machine.
    Upload,
    /// Copies files of a machine to this host.
    Download,
    /// What changed in the repository of a machine and in that of this host.
    WorkspaceStatus,
    /// The machine's changes of its repository.
    WorkspaceDiff,
    /// Brings them to the repository of this host.
    WorkspacePull,
    /// Ports of a machine.
    Ports,
    /// Publishes a port of a machine.
    Publish,
    /// A log of a machine.
    Logs,
    /// Deletes a machine.
    Delete,
}

impl Tool {
    /// All tools.
    pub const ALL: [Self; 19] = [
        Self::List,
        Self::Show,
        Self::Create,
        Self::Start,
        Self::Stop,
        Self::Run,
        Self::Exec,
        Self::ReadFile,
        Self::WriteFile,
        Self::ListFiles,
        Self::Upload,
        Self::Download,
        Self::WorkspaceStatus,
        Self::WorkspaceDiff,
        Self::WorkspacePull,
        Self::Ports,
        Self::Publish,
        Self::Logs,
        Self::Delete,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Show => "show",
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Run => "run",
            Self::Exec => "exec",
            Self::ReadFile => "read_file",
            Self::WriteFile => "write_file",
            Self::ListFiles => "list_files",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::WorkspaceStatus => "workspace_status",
            Self::WorkspaceDiff => "workspace_diff",
            Self::WorkspacePull => "workspace_pull",
            Self::Ports => "ports",
            Self::Publish => "publish",
            Self::Logs => "logs",
            Self::Delete => "delete",
        }
    }

    /// What it may change.
    pub fn access(self) -> Access {
        match self {
            Self::List
            | Self::Show
            | Self::ReadFile
            | Self::ListFiles
            | Self::WorkspaceStatus
            | Self::WorkspaceDiff
            | Self::Ports
            | Self::Logs => Access::Read,
            Self::Create | Self::Start | Self::Publish => Access::Write,
            Self::Stop
            | Self::Run
            | Self::Exec
            | Self::WriteFile
            | Self::Upload
            | Self::Download
            | Self::WorkspacePull
            | Self::Delete => Access::Destroy,
        }
    }

    /// What it does, for a model.
    fn about(self) -> &'static str {
        match self {
            Self::List => "List the Linux machines (virtual machines) on this host.",
            Self::Show => "Show a machine: state, sizes, ports, labels, and why it is stopped.",
            Self::Create => {
                "Create a Linux machine and wait until it has booted. It is deleted at the end of \
                 this session, and when it stops, unless `keep` is true."
            }
            Self::Start => "Start a stopped machine and wait until it has booted.",
            Self::Stop => "Shut a machine down. One that ends with this session is deleted by it.",
            Self::Run => {
                "Run one command in a new machine, which is deleted afterwards. For several \
                 commands, use `create` once and then `exec`."
            }
            Self::Exec => {
                "Run a command in a running machine and return its exit code and output. Output \
                 beyond the limit is cut in the middle. Nothing of the command survives a timeout."
            }
            Self::ReadFile => {
                "Read a file of a machine, or a part of it. Text is returned as it is; a file with \
                 other bytes or with control characters is returned as base64."
            }
            Self::WriteFile => {
                "Write a file of a machine, replacing what is there at once and whole. Its folder \
                 must exist."
            }
            Self::ListFiles => {
                "List a folder of a machine: type, mode, size and time of each entry."
            }
            Self::Upload => {
                "Copy a file or folder of this host into a machine, as `cp -r`: into a folder that \
                 exists, else under the new name. Files that exist are replaced."
            }
            Self::Download => {
                "Copy a file or folder of a machine to this host, as `cp -r`: into a folder that \
                 exists, else under the new name. Files that exist are replaced."
            }
            Self::WorkspaceStatus => {
                "Show what changed, in the machine and on this host, since `banger run PATH` put \
                 a git repository in the machine; files that both changed are conflicts."
            }
            Self::WorkspaceDiff => {
                "Show the changes of the machine's repository as a patch, committed or not."
            }
            Self::WorkspacePull => {
                "Bring the changes of the machine's repository to that of this host: into its \
                 files, or onto a new `branch`. Nothing is changed if both sides changed a file."
            }
            Self::Ports => {
                "Show the ports that programs in a machine listen on, and those that are published \
                 on this host, with their URLs."
            }
            Self::Publish => "Publish a TCP port of a machine on this host.",
            Self::Logs => "Show the end of a machine's console or of a log about it.",
            Self::Delete => {
                "Delete a machine with its disks. A machine that this session did not create is \
                 deleted only with `force`."
            }
        }
    }

    /// Its parameters as a JSON Schema.
    fn schema(self) -> JsonObject {
        match self {
            Self::List => schema::<of::List>(),
            Self::Show | Self::Ports | Self::Start | Self::Stop | Self::WorkspaceStatus => {
                schema::<of::Machine>()
            }
            Self::Create => schema::<of::Create>(),
            Self::Run => schema::<of::Run>(),
            Self::Exec => schema::<of::Exec>(),
            Self::ReadFile => schema::<of::ReadFile>(),
            Self::WriteFile => schema::<of::WriteFile>(),
            Self::ListFiles => schema::<of::ListFiles>(),
            Self::Upload | Self::Download => schema::<of::CopyFiles>(),
            Self::WorkspaceDiff => schema::<of::WorkspaceDiff>(),
            Self::WorkspacePull => schema::<of::WorkspacePull>(),
            Self::Publish => schema::<of::Publish>(),
            Self::Logs => schema::<of::Logs>(),
            Self::Delete => schema::<of::Delete>(),
        }
    }

    /// Its description in the protocol.
    pub(crate) fn describe(self) -> rmcp::model::Tool {
        let access = self.access();
        let annotations = ToolAnnotations::new()
            .read_only(access == Access::Read)
            .destructive(access == Access::Destroy)
            .idempotent(access == Access::Read)
            .open_world(matches!(self, Self::Run | Self::Exec));
        rmcp::model::Tool::new(self.as_str(), self.about(), self.schema())
            .with_annotations(annotations)
    }
}

fn schema<T: JsonSchema>() -> JsonObject {
    let schema = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    without_null(&mut schema);
    match schema {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}

/// Removes `null` from types: an absent parameter says the same, and not every client accepts a
/// parameter of two types.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_mut_slice() {
                    let one = one.take();
                    object.insert("type".into(), one);
                }
            }
            object.retain(|name, value| name != "default" || !value.is_null());
            object.values_mut().for_each(without_null);
        }
        Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tool {
    type Err = ApiError;

    fn from_str(name: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            let text = format!("there is no tool `{}`", banger_api::excerpt(name));
            ApiError::new(ErrorCode::BadRequest, text)
                .with_hint(Hint::text(format!("the tools are {names}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_name_a_description_and_a_schema() {
        for tool in Tool::ALL {
            assert_eq!(tool.as_str().parse::<Tool>().unwrap(), tool);
            let described = tool.describe();
            let schema = serde_json::to_value(&*described.input_schema).unwrap();
            assert_eq!(schema["type"], "object", "{tool}");
            assert_eq!(schema["additionalProperties"], false, "{tool}");
            for (name, parameter) in schema["properties"].as_object().unwrap() {
                let about = parameter["description"].as_str();
                assert!(about.is_some(), "{tool} {name} has no description");
                assert!(parameter["type"].is_string(), "{tool} {name}: {parameter}");
            }
        }
        assert!("format".parse::<Tool>().unwrap_err().hint().unwrap().contains("read_file"));
    }
}
