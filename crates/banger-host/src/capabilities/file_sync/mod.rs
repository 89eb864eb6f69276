//! Files of the host: those of `[[file_sync]]` and logins of coding agents, read at each start and
//! written by the guest's agent before the guest's init runs. An image gets none of them.

mod read;

use std::path::PathBuf;
use std::sync::Arc;

use banger_agent_proto::boot::GuestFile;
use banger_api::agent::{Agent, AgentLogin};
use banger_api::handover::{HandoverKind, HandoverState};
use banger_engine::capabilities::file_sync::CAPABILITY;
use banger_engine::capability::Effects;

use super::{HostCapability, Parts};
use crate::handover::{Handover, HandoverSettings, SyncedFile};
use read::{Budget, Found, Trouble};

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let settings = parts.handover.clone();
    HostCapability {
        effects: Effects { name: CAPABILITY.name, ..Effects::default() },
        guest: Some(Arc::new(move |vm, _devices, config| {
            let mut handover = Handover::default();
            if vm.build.is_none() {
                config.files.extend(files(&settings, vm.agent_login.as_ref(), &mut handover));
            }
            Ok(handover)
        })),
    }
}

/// The files, with a report for each entry.
fn files(
    settings: &HandoverSettings,
    wanted: Option<&AgentLogin>,
    handover: &mut Handover,
) -> Vec<GuestFile> {
    let mut budget = Budget::default();
    let mut files = Vec::new();
    // Before others, so that these do not take its room.
    if let Some(wanted) = wanted {
        files.extend(login(wanted.agent, wanted.host.as_path().into(), &mut budget, handover));
    }
    let is_other = wanted.is_none_or(|wanted| wanted.agent != Agent::Opencode);
    if let Some(host) = opencode_login(settings).filter(|_| is_other) {
        files.extend(login(Agent::Opencode, host, &mut budget, handover));
        let is_missing =
            handover.reports.last().is_some_and(|one| one.state == HandoverState::Missing);
        if is_missing {
            // Most users have no such login: only the log and `vm show` have it.
            handover.warnings.pop().iter().for_each(|text| tracing::warn!("{text}"));
        }
    }
    for synced in &settings.files {
        files.extend(entry(synced, HandoverKind::FileSync, &mut budget, handover));
    }
    files
}

/// A login, for the guest's root only.
fn login(
    agent: Agent,
    host: PathBuf,
    budget: &mut Budget,
    handover: &mut Handover,
) -> Vec<GuestFile> {
    let synced = SyncedFile { host, guest: format!("/root/{}", agent.login()), mode: Some(0o600) };
    entry(&synced, agent.login_kind(), budget, handover)
}

/// The login on the host, in the folder of opencode's data (XDG Base Directory Specification).
fn opencode_login(settings: &HandoverSettings) -> Option<PathBuf> {
    let standard = settings.home.as_ref().map(|home| home.join(".local/share"));
    let of = |folder: PathBuf| folder.join("opencode/auth.json");
    let own = settings.data_home.clone().map(of).filter(|path| path.exists());
    own.or_else(|| standard.map(of))
}

fn entry(
    synced: &SyncedFile,
    kind: HandoverKind,
    budget: &mut Budget,
    handover: &mut Handover,
) -> Vec<GuestFile> {
    let host = synced.host.display();
    let found = match kind != HandoverKind::FileSync && synced.host.is_dir() {
        true => Err(Trouble::Refused("is a folder, not a login".to_owned())),
        false => read::read(synced, budget),
    };
    match found {
        Ok(Found { files, left_out }) => {
            let detail = (!left_out.is_empty()).then(|| left_out.join(", "));
            if let Some(detail) = &detail {
                handover.warnings.push(format!("`{host}` is copied without {detail}"));
            }
            handover.report(kind, &synced.guest, HandoverState::Copied, detail);
            files
        }
        Err(trouble) => {
            let (state, why) = match trouble {
                Trouble::Missing => (HandoverState::Missing, "does not exist".to_owned()),
                Trouble::Unreadable(error) => {
                    (HandoverState::Unreadable, format!("cannot be read: {error}"))
                }
                Trouble::Refused(why) => (HandoverState::Refused, why),
            };
            let detail = format!("`{host}` {why}");
            let what = kind.as_str();
            handover.warnings.push(format!(
                "{what}: {detail}; the guest keeps what it has at `{}`",
                synced.guest
            ));
            handover.report(kind, &synced.guest, state, detail);
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
