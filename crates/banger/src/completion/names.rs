//! Names that the daemon knows, for completion. Never starts a daemon.

use banger_api::images::OWN_KERNEL;
use banger_api::operation::OpState;
use banger_api::vm::{VmState, VmSummary};
use banger_api::{ApiError, paths::Paths};
use banger_client::Client;

use crate::completion::{Candidate, Kind, Names};
use crate::render::plain;

/// The names that fit a command and begin with `prefix`.
///
/// # Errors
/// No daemon runs, or its answer is an error.
pub async fn fetch(paths: Paths, names: &Names, prefix: &str) -> Result<Vec<Candidate>, ApiError> {
    let client = Client::of_running_daemon(paths);
    let candidates = match names.kind {
        Kind::VmPath => {
            let mut vms = vms(&client.vms().await?, &names.verb, prefix);
            vms.iter_mut().for_each(|candidate| candidate.value.push(':'));
            vms
        }
        Kind::Vm => vms(&client.vms().await?, &names.verb, prefix),
        Kind::Image => {
            let images = client.images().await?;
            let named = images.iter().map(|image| (&image.names, image.id.as_str(), &image.source));
            named.flat_map(|(names, id, about)| all_names(names, id, about)).collect()
        }
        Kind::Kernel => {
            let kernels = client.kernels().await?;
            let named = kernels.iter().map(|one| (&one.names, one.id.as_str(), &one.release));
            let stored = named.flat_map(|(names, id, about)| all_names(names, id, about));
            let own = Candidate { value: OWN_KERNEL.to_owned(), about: "that of the image".into() };
            // It can be booted, and is no kernel of the store.
            stored.chain((names.verb != "delete").then_some(own)).collect()
        }
        Kind::Operation => {
            let mut operations = client.operations().await?;
            if names.verb == "cancel" {
                operations.retain(|operation| operation.state == OpState::Running);
            }
            let candidate = |id: String, about: &str| Candidate { value: id, about: line(about) };
            operations.iter().map(|one| candidate(one.id.to_string(), &one.kind)).collect()
        }
    };
    let new = |candidate: &Candidate| !names.given.contains(&candidate.value);
    Ok(candidates.into_iter().filter(new).collect())
}

/// The names of an image or kernel, or its id if it has none.
fn all_names(names: &[String], id: &str, about: &str) -> Vec<Candidate> {
    let values = if names.is_empty() { vec![id.to_owned()] } else { names.to_vec() };
    values.into_iter().map(|value| Candidate { value, about: line(about) }).collect()
}

/// VMs in a state that fits the verb: by name, or by id where no name begins with `prefix`.
fn vms(all: &[VmSummary], verb: &str, prefix: &str) -> Vec<Candidate> {
    let fitting: Vec<&VmSummary> = all.iter().filter(|vm| fits(verb, vm.state)).collect();
    let about = |vm: &VmSummary| line(&format!("{}, {}", vm.state.as_str(), vm.image));
    let by_name = fitting
        .iter()
        .map(|vm| Candidate { value: vm.name.to_string(), about: about(vm) })
        .filter(|candidate| candidate.value.starts_with(prefix));
    let by_name: Vec<Candidate> = by_name.collect();
    if !by_name.is_empty() || prefix.is_empty() {
        return by_name;
    }
    let by_id = fitting.iter().filter(|vm| vm.id.as_str().starts_with(prefix));
    by_id
        .map(|vm| Candidate {
            value: vm.id.to_string(),
            about: line(&format!("{}, {}", vm.name, vm.state.as_str())),
        })
        .collect()
}

/// Whether a command can do something with a VM in this state.
fn fits(verb: &str, state: VmState) -> bool {
    use VmState::{Broken, Deleting, Paused, Running, Starting, Stopped};
    match verb {
        "start" | "reset" | "commit" => state == Stopped,
        "stop" | "kill" => matches!(state, Running | Paused | Starting),
        "restart" => matches!(state, Running | Paused | Stopped),
        "exec" | "acp" | "shell" | "ssh" | "health" | "cp" | "ports" | "pause" => state == Running,
        "stats" => matches!(state, Running | Paused),
        "resume" => state == Paused,
        "repair" => state == Broken,
        _ => state != Deleting,
    }
}

/// Text for a description: one line without control characters.
fn line(text: &str) -> String {
    plain::line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, id: &str, state: VmState) -> VmSummary {
        let json = serde_json::json!({
            "id": id, "name": name, "state": state, "image": "debian", "vcpus": 1,
            "memory_mib": 512, "ip": null, "created_at": "", "disk": null, "operation": null,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn vms_fit_the_verb_and_are_found_by_name_first() {
        let all = [
            vm("db", "dbdb00000001", VmState::Stopped),
            vm("gone", "aaaa00000004", VmState::Deleting),
            vm("held", "cccc00000005", VmState::Paused),
            vm("odd", "aaaa00000003", VmState::Broken),
            vm("web", "aaaa00000002", VmState::Running),
        ];
        let shown = |verb: &str, prefix: &str| {
            let values = vms(&all, verb, prefix).into_iter().map(|candidate| candidate.value);
            values.collect::<Vec<_>>().join(" ")
        };
        for (verb, prefix, expected) in [
            ("start", "", "db"),
            ("stop", "", "held web"),
            ("exec", "", "web"),
            ("restart", "", "db held web"),
            ("reset", "", "db"),
            ("repair", "", "odd"),
            ("show", "", "db held odd web"),
            ("delete", "d", "db"),
            ("pause", "", "web"),
            ("resume", "", "held"),
            ("stop", "h", "held"),
            ("exec", "h", ""),
            ("show", "aaaa", "aaaa00000003 aaaa00000002"),
            ("show", "dbdb", "dbdb00000001"),
            ("start", "aaaa", ""),
        ] {
            assert_eq!(shown(verb, prefix), expected, "{verb} {prefix}");
        }
        assert_eq!(vms(&all, "stop", "w")[0].about, "running, debian");
    }
}
