//! Selection of the VMs whose resource usage is sampled.

use banger_api::{VmId, routes};

/// VMs to sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsSelection {
    /// Running and paused VMs.
    Running,
    /// All VMs.
    All,
    /// VMs of these ids; those that do not exist are absent from the answer.
    Ids(Vec<VmId>),
}

impl StatsSelection {
    /// Path and query of a request that asks no guest agent.
    pub(crate) fn path_on_host(&self) -> String {
        let path = self.path();
        let separator = if path.contains('?') { '&' } else { '?' };
        format!("{path}{separator}guest=false")
    }

    /// Path and query of the request.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Running => routes::STATS.to_owned(),
            Self::All => format!("{}?all=true", routes::STATS),
            Self::Ids(ids) => {
                let ids: Vec<&str> = ids.iter().map(VmId::as_str).collect();
                format!("{}?vms={}", routes::STATS, ids.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_selects_the_vms() {
        let ids = ["aaaa00000001", "bbbb00000002"].map(|id| id.parse().unwrap());
        for (selection, path) in [
            (StatsSelection::Running, "/v1/stats"),
            (StatsSelection::All, "/v1/stats?all=true"),
            (StatsSelection::Ids(ids.into()), "/v1/stats?vms=aaaa00000001,bbbb00000002"),
        ] {
            assert_eq!(selection.path(), path);
            let separator = if path == "/v1/stats" { "?" } else { "&" };
            assert_eq!(selection.path_on_host(), format!("{path}{separator}guest=false"));
        }
    }
}
