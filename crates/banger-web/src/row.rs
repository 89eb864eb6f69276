//! A row of the list of VMs.

use askama::Template;
use banger_api::size::{MIB, human_size};
use banger_api::vm::{VmState, VmSummary};

use crate::history::Latest;
use crate::hub::is_live;

/// A row of the list.
#[derive(Template)]
#[template(path = "row.html")]
pub struct Row<'a> {
    vm: &'a VmSummary,
    latest: Option<Latest>,
}

impl<'a> Row<'a> {
    /// The row of a VM with its newest usage.
    pub fn new(vm: &'a VmSummary, latest: Option<Latest>) -> Self {
        Self { vm, latest: latest.filter(|_| is_live(vm.state)) }
    }

    /// The row as HTML.
    pub fn html(&self) -> String {
        self.render().unwrap_or_default()
    }

    fn cpu(&self) -> String {
        self.latest.map_or_else(String::new, |latest| format!("{:.0} %", latest.cpu_percent))
    }

    /// For sorting.
    fn cpu_order(&self) -> u64 {
        self.latest.map_or(0, |latest| (latest.cpu_percent * 100.0) as u64)
    }

    fn memory(&self) -> String {
        let size = self.vm.memory_mib.map(|mib| human_size(mib * MIB)).unwrap_or_default();
        match self.latest {
            Some(latest) => format!("{} / {size}", human_size(latest.memory_bytes)),
            None => size,
        }
    }

    fn memory_order(&self) -> u64 {
        self.latest.map_or(0, |latest| latest.memory_bytes)
    }

    fn disk(&self) -> String {
        self.vm.disk.map_or_else(String::new, |disk| {
            human_size(disk.root_used_bytes + disk.work_used_bytes)
        })
    }

    fn disk_order(&self) -> u64 {
        self.vm.disk.map_or(0, |disk| disk.root_used_bytes + disk.work_used_bytes)
    }
}

/// What a state looks like beside its name: a colour and a shape.
pub fn mark(state: &VmState) -> &'static str {
    match state {
        VmState::Running => "running",
        VmState::Stopped => "stopped",
        VmState::Starting | VmState::Stopping | VmState::Deleting => "moving",
        VmState::Paused => "paused",
        VmState::Broken => "broken",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_an_image_or_a_label_is_no_markup() {
        let vm: VmSummary = serde_json::from_value(serde_json::json!({
            "id": "0123456789ab", "name": "web", "state": "running",
            "image": "<img src=x onerror=alert(1)>\"'&", "vcpus": 1, "memory_mib": 512,
            "ip": "<b>", "created_at": "", "disk": null, "problem": "<script>",
            "labels": {"x": "<style>*{display:none}</style>"},
        }))
        .unwrap();
        let html = Row::new(&vm, None).html();
        for markup in ["<img", "<b>", "<script", "<style", "\"'&\""] {
            assert!(!html.contains(markup), "{html}");
        }
        assert!(html.contains("&#60;img src=x onerror=alert(1)&#62;&#34;&#39;&#38;"), "{html}");
    }
}
