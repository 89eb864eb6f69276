//! What the host's user hands over to guests: settings, and reports about each start.

use std::ffi::OsString;
use std::path::PathBuf;

use banger_api::handover::{HandedOver, HandoverKind, HandoverState};

/// Where files and settings of the user are, and which of them guests receive.
#[derive(Debug, Clone, Default)]
pub struct HandoverSettings {
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME` and `XDG_DATA_HOME`, if they are set.
    pub config_home: Option<PathBuf>,
    /// Folder of data of programs.
    pub data_home: Option<PathBuf>,
    /// `GIT_CONFIG_GLOBAL`, if it is set (git(1)).
    pub git_config: Option<PathBuf>,
    /// Folders in which git is looked for.
    pub search_path: OsString,
    /// `[[file_sync]]`.
    pub files: Vec<SyncedFile>,
}

/// An entry of `[[file_sync]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedFile {
    /// A file or folder of the host.
    pub host: PathBuf,
    /// Its path in the guest, normalised and below `/root`.
    pub guest: String,
    /// Permission bits of the files; those of the host if absent.
    pub mode: Option<u32>,
}

/// What a start hands over, without contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handover {
    /// Reports, for `vm show`.
    pub reports: Vec<HandedOver>,
    /// Warnings for the user who starts the VM.
    pub warnings: Vec<String>,
}

impl Handover {
    /// Adds the reports of another capability.
    pub fn extend(&mut self, other: Self) {
        self.reports.extend(other.reports);
        self.warnings.extend(other.warnings);
    }

    /// Adds a report.
    pub fn report(
        &mut self,
        kind: HandoverKind,
        guest: &str,
        state: HandoverState,
        detail: impl Into<Option<String>>,
    ) {
        let (guest, detail) = (guest.to_owned(), detail.into());
        self.reports.push(HandedOver { kind, guest, state, detail });
    }

    /// Corrects the reports by the warnings of a guest, which names files that it could not write.
    pub fn correct(&mut self, warnings: &[String]) {
        for report in self.reports.iter_mut().filter(|one| one.state == HandoverState::Copied) {
            // A file, or one in a folder.
            let names = [format!("`{}`", report.guest), format!("`{}/", report.guest)];
            let is_about = |text: &&String| names.iter().any(|name| text.contains(name));
            if let Some(text) = warnings.iter().find(is_about) {
                report.state = HandoverState::Failed;
                report.detail = Some(text.clone());
            }
        }
    }
}
