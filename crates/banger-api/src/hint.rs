//! What to do about a failure or a finding, as data.
//!
//! A face words hints for itself: a command line names a command ([`words`]), a page on another
//! host shows a button for the same request.

use serde::{Deserialize, Deserializer, Serialize};

use crate::vm::VmAction;

/// One thing that may help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "hint", rename_all = "snake_case")]
pub enum Hint {
    /// Ask for an action on a VM: `POST /v1/vms/{vm}/actions` with `action` as its body.
    AskVm {
        /// Name or id.
        vm: String,
        /// The action.
        action: VmAction,
    },
    /// Show a VM: its state, its problems, the stages of its start.
    ShowVm {
        /// Name or id.
        vm: String,
    },
    /// Ask the agent of a VM whether it responds.
    CheckVm {
        /// Name or id.
        vm: String,
    },
    /// Show a log of a VM.
    ShowVmLog {
        /// Name or id.
        vm: String,
        /// Which log.
        log: VmLog,
    },
    /// List what there is.
    List {
        /// Of which kind.
        what: Kind,
    },
    /// Use the name of an existing object that resembles the one in the request.
    SimilarNames {
        /// The names, most similar first; at least one.
        names: Vec<String>,
    },
    /// Delete an image or a kernel.
    Delete {
        /// Of which kind.
        what: Kind,
        /// Name or id.
        name: String,
    },
    /// Delete the VMs that use it.
    DeleteUsers,
    /// Give an image one more name.
    TagImage {
        /// A name that it has.
        image: String,
    },
    /// Fetch an image or a kernel by its recipe.
    Pull {
        /// Of which kind.
        what: Kind,
        /// Name of the recipe.
        recipe: String,
    },
    /// Use another name.
    ChooseAnotherName,
    /// Ask for the name to be moved to the new image (`replace`).
    ReplaceName,
    /// Use a whole name, or more digits of the id.
    NarrowReference,
    /// Ask for the same again.
    Retry,
    /// Look at what the host has and lacks.
    CheckHost,
    /// Show whether the daemon runs.
    ShowDaemon,
    /// End the daemon; VMs go on.
    StopDaemon,
    /// Show the daemon's log.
    ShowDaemonLog,
    /// Read a file of the daemon's host.
    ReadFile {
        /// Its path.
        path: String,
    },
    /// Install packages of the host's distribution, as Debian names them.
    InstallPackages {
        /// Their names.
        packages: Vec<String>,
    },
    /// Install the helper for what needs root, as root and once.
    InstallHelper {
        /// The program, where it is not in the search path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
    },
    /// Run a program on the host.
    RunOnHost {
        /// Program and arguments.
        argv: Vec<String>,
        /// Whether it has to be root that does.
        as_root: bool,
    },
    /// Free some disk space.
    FreeSpace {
        /// A file or folder on the disk that is full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Make a file or folder writable for the daemon's user.
    MakeWritable {
        /// Its path, where the message does not name it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Set a variable of the environment to another folder.
    UseFolder {
        /// Name of the variable.
        variable: String,
    },
    /// Change a key of the configuration.
    Configure {
        /// The key, with dots.
        key: String,
        /// A value for it, where one is known to help.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// What none of the others says.
    Text {
        /// One line, no full stop.
        text: String,
    },
}

/// A log of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmLog {
    /// The guest's serial console.
    Console,
    /// What the VMM and its companion wrote.
    Vmm,
}

/// A kind of thing that has names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A VM.
    Vm,
    /// An image.
    Image,
    /// A kernel.
    Kernel,
}

impl Kind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Image => "image",
            Self::Kernel => "kernel",
        }
    }
}

impl From<&str> for Hint {
    fn from(text: &str) -> Self {
        Self::Text { text: text.to_owned() }
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self::Text { text }
    }
}

impl Hint {
    /// Ask for an action on a VM.
    pub fn ask(vm: impl ToString, action: VmAction) -> Self {
        Self::AskVm { vm: vm.to_string(), action }
    }

    /// Show a VM.
    pub fn show(vm: impl ToString) -> Self {
        Self::ShowVm { vm: vm.to_string() }
    }

    /// Ask the agent of a VM whether it responds.
    pub fn check(vm: impl ToString) -> Self {
        Self::CheckVm { vm: vm.to_string() }
    }

    /// Show a log of a VM.
    pub fn log(vm: impl ToString, log: VmLog) -> Self {
        Self::ShowVmLog { vm: vm.to_string(), log }
    }

    /// Install a package.
    pub fn install(package: impl ToString) -> Self {
        Self::InstallPackages { packages: vec![package.to_string()] }
    }
}

/// Reads hints: kinds that a newer program made up are left out, and the text of an older one is
/// kept.
///
/// # Errors
/// Neither a list nor a text.
pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Hint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        List(Vec<serde_json::Value>),
        None(()),
    }
    Ok(match Stored::deserialize(from)? {
        Stored::Text(text) => vec![text.into()],
        Stored::List(list) => {
            list.into_iter().filter_map(|hint| serde_json::from_value(hint).ok()).collect()
        }
        Stored::None(()) => Vec::new(),
    })
}

/// Hints in the words of the command line; none where there are none.
pub fn words(hints: &[Hint]) -> Option<String> {
    use Hint::{AskVm, ChooseAnotherName, ReplaceName, UseFolder};
    use VmAction::{Delete, Repair, Stop};
    // What belongs together is one phrase.
    let phrase = match hints {
        [] => return None,
        [AskVm { action: Stop { .. }, .. }, AskVm { vm, action: Delete { force: true } }] => {
            format!("stop it first, or use `banger vm delete -f {vm}`")
        }
        [AskVm { vm, action: Repair {} }, AskVm { action: Delete { force: true }, .. }] => {
            format!("`banger vm repair {vm}` tries again; `banger vm delete -f {vm}` removes it")
        }
        [ChooseAnotherName, AskVm { vm, action: Delete { force } }] => {
            let force = if *force { "-f " } else { "" };
            format!("choose another name, or `banger vm delete {force}{vm}` first")
        }
        [ChooseAnotherName, ReplaceName] => {
            "choose another name, or move this one with `--replace`".to_owned()
        }
        [first, UseFolder { variable }] => {
            format!("{}, or set `{variable}` to another folder", first.words())
        }
        hints => hints.iter().map(Hint::words).collect::<Vec<_>>().join("; "),
    };
    Some(phrase)
}

impl Hint {
    fn words(&self) -> String {
        match self {
            Self::AskVm { vm, action } => ask_words(vm, *action),
            Self::ShowVm { vm } => format!("`banger vm show {vm}` says why"),
            Self::CheckVm { vm } => format!("`banger vm health {vm}` checks the agent again"),
            Self::ShowVmLog { vm, log: VmLog::Console } => {
                format!("`banger vm logs {vm} --console` shows what the guest printed")
            }
            Self::ShowVmLog { vm, log: VmLog::Vmm } => {
                format!("`banger vm logs {vm} --vmm` shows what its VMM and companion did")
            }
            Self::List { what: Kind::Vm } => "`banger vm list` lists all VMs".into(),
            Self::List { what } => {
                format!("`banger {} list` shows what there is", what.as_str())
            }
            Self::SimilarNames { names } => {
                let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("did you mean {}?", quoted.join(" or "))
            }
            Self::Delete { what, name } => {
                format!("`banger {} delete {name}` deletes it", what.as_str())
            }
            Self::DeleteUsers => "delete these VMs first".into(),
            Self::TagImage { image } => {
                format!("`banger image tag {image} OTHER` gives it another name")
            }
            Self::Pull { what, recipe } => {
                format!("`banger {} pull {recipe}` fetches it", what.as_str())
            }
            Self::ChooseAnotherName => "choose another name".into(),
            Self::ReplaceName => "move this one with `--replace`".into(),
            Self::NarrowReference => "use the name or more digits of the id".into(),
            Self::Retry => "run the command again".into(),
            Self::CheckHost => "`banger doctor` says what is missing and how to get it".into(),
            Self::ShowDaemon => "`banger daemon status` shows it".into(),
            Self::StopDaemon => "`banger daemon stop` ends it".into(),
            Self::ShowDaemonLog => "`banger daemon logs` shows what it does".into(),
            Self::ReadFile { path } => format!("its log is `{path}`"),
            Self::InstallPackages { packages } => format!("apt install {}", packages.join(" ")),
            Self::InstallHelper { program: Some(program) } => format!("sudo {program} install"),
            Self::InstallHelper { program: None } => {
                "`sudo banger-root install`, once; the program is beside banger and bangerd".into()
            }
            Self::RunOnHost { argv, as_root } => {
                format!("{}{}", if *as_root { "sudo " } else { "" }, argv.join(" "))
            }
            Self::FreeSpace { path: None } => "free some disk space; `banger image list` and \
                 `banger vm list` show the sizes"
                .into(),
            Self::FreeSpace { path: Some(path) } => {
                format!("free some space on the disk that holds `{path}`")
            }
            Self::MakeWritable { path: None } => "make it writable for your user".into(),
            Self::MakeWritable { path: Some(path) } => {
                format!("make `{path}` and its folder writable")
            }
            Self::UseFolder { variable } => format!("set `{variable}` to another folder"),
            Self::Configure { key, value: Some(value) } => {
                format!("`{key} = \"{value}\"` in config.toml")
            }
            Self::Configure { key, value: None } => format!("change `{key}` in config.toml"),
            Self::Text { text } => text.clone(),
        }
    }
}

fn ask_words(vm: &str, action: VmAction) -> String {
    let verb = action.as_str();
    match action {
        VmAction::Start {} => format!("`banger vm start {vm}` starts it"),
        VmAction::Stop { .. } => format!("`banger vm stop {vm}` stops it"),
        VmAction::Kill {} => format!("`banger vm kill {vm}` ends it at once"),
        VmAction::Delete { force: true } => format!("`banger vm delete -f {vm}` removes it"),
        VmAction::Delete { force: false } => format!("`banger vm delete {vm}` removes it"),
        VmAction::Restart { .. } | VmAction::Repair {} => {
            format!("`banger vm {verb} {vm}` brings it back")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApiError, ErrorCode};

    #[test]
    fn a_hint_carries_the_request_that_helps() {
        let error = ApiError::new(ErrorCode::WrongState, "`web` is broken")
            .with_hint(Hint::ask("web", VmAction::Repair {}))
            .with_hint(Hint::show("web"));
        let json = serde_json::to_value(&error).unwrap();
        let expected = serde_json::json!([
            {"hint": "ask_vm", "vm": "web", "action": {"repair": {}}},
            {"hint": "show_vm", "vm": "web"},
        ]);
        assert_eq!(json["hints"], expected);
        assert_eq!(serde_json::from_value::<ApiError>(json).unwrap(), error);
        let words = "`banger vm repair web` brings it back; `banger vm show web` says why";
        assert_eq!(error.hint().as_deref(), Some(words));
    }

    #[test]
    fn hints_of_older_and_newer_programs_are_read() {
        let read = |json: &str| serde_json::from_str::<ApiError>(json).unwrap().hints;
        let old = r#"{"code": "internal", "message": "m", "hint": "try"}"#;
        assert_eq!(read(old), ["try".into()]);
        let new = r#"{"code": "internal", "message": "m",
            "hints": [{"hint": "fly", "to": "the moon"}, {"hint": "retry"}]}"#;
        assert_eq!(read(new), [Hint::Retry]);
        for none in ["", r#", "hints": []"#, r#", "hint": null"#] {
            let json = format!(r#"{{"code": "internal", "message": "m"{none}}}"#);
            assert_eq!(read(&json), [], "{none}");
        }
    }

    #[test]
    fn what_belongs_together_is_one_phrase() {
        let delete = |force| Hint::ask("web", VmAction::Delete { force });
        for (hints, expected) in [
            (vec![], None),
            (
                vec![Hint::ask("web", VmAction::STOP), delete(true)],
                Some("stop it first, or use `banger vm delete -f web`"),
            ),
            (
                vec![Hint::ChooseAnotherName, delete(false)],
                Some("choose another name, or `banger vm delete web` first"),
            ),
            (
                vec![Hint::ChooseAnotherName, delete(true)],
                Some("choose another name, or `banger vm delete -f web` first"),
            ),
            (
                vec![
                    Hint::MakeWritable { path: Some("/s/db".into()) },
                    Hint::UseFolder { variable: "BANGER_STATE_DIR".into() },
                ],
                Some(
                    "make `/s/db` and its folder writable, or set `BANGER_STATE_DIR` to another \
                     folder",
                ),
            ),
            (
                vec![Hint::SimilarNames { names: vec!["web".into(), "wb".into()] }],
                Some("did you mean `web` or `wb`?"),
            ),
            (
                vec![Hint::install("nftables"), "look".into(), Hint::Retry],
                Some("apt install nftables; look; run the command again"),
            ),
        ] {
            assert_eq!(words(&hints).as_deref(), expected, "{hints:?}");
        }
    }
}
