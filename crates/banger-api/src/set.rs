//! Changes of a VM's specification: the payload of [`crate::vm::VmAction::Set`].

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ByteString;
use crate::error::{ApiError, ErrorCode};
use crate::hint::{Hint, Kind};
use crate::images::is_ref_name;
use crate::labels::{BadLabel, LabelKey, Labels, MAX_LABELS};
use crate::limits::{self, Sizes};
use crate::publish::{self, BadPublish, PortForward};
use crate::sync::{self, SyncFolder};

/// Values to change; absent ones stay. Ports are changes of the published set, not a new set, so
/// that two clients do not overwrite each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVm {
    /// Name or id of a kernel, or `image` for the one that the image contains; only while the VM
    /// is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$")]
    pub kernel: Option<String>,
    /// vCPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::vcpus_schema)]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::memory_schema)]
    pub memory_mib: Option<u64>,
    /// Virtual size of the root disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::root_disk_schema)]
    pub root_bytes: Option<u64>,
    /// Virtual size of the work disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = limits::work_disk_schema)]
    pub work_bytes: Option<u64>,
    /// Whether the guest can reach networks outside of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// Whether the VM is started when the daemon starts, unless it was stopped before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// TCP ports to publish. A port of the host that is published already leads to the new port of
    /// the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PortForward>,
    /// Published ports to remove, before those of `publish` are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpublish: Vec<Unpublish>,
    /// Live folders to add. One with the same folder of the guest is replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub sync: Vec<SyncFolder>,
    /// Live folders to remove, by their path on the host or in the guest, before those of `sync`
    /// are added; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub unsync: Vec<ByteString>,
    /// Labels to add; a label that exists already gets the new value.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Keys of labels to remove, before those of `labels` are added; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub unlabel: Vec<LabelKey>,
}

/// Published ports to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Unpublish {
    /// All published ports.
    All {},
    /// One port of the host.
    Port {
        /// Address of the host; every address if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        listen: Option<IpAddr>,
        /// Port of the host, from 1.
        #[schema(minimum = 1, maximum = 65_535)]
        host_port: u16,
    },
}

impl Unpublish {
    /// Whether it removes this port.
    fn matches(self, port: &PortForward) -> bool {
        match self {
            Self::All {} => true,
            Self::Port { listen, host_port } => {
                port.host_port == host_port && listen.is_none_or(|listen| listen == port.listen)
            }
        }
    }
}

impl fmt::Display for Unpublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All {} => f.write_str("all"),
            Self::Port { listen: None, host_port } => write!(f, "{host_port}"),
            Self::Port { listen: Some(listen), host_port } => {
                write!(f, "{}", SocketAddr::new(*listen, *host_port))
            }
        }
    }
}

/// `all`, `PORT` or `ADDR:PORT`; an IPv6 address is written in brackets.
impl FromStr for Unpublish {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const PROBLEM: &str =
            "write the port of this host, such as 8080 or 127.0.0.1:8080, or `all`";
        if text == "all" {
            return Ok(Self::All {});
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (listen, host_port) = if digits {
            (None, text.parse().unwrap_or(0))
        } else {
            let address: SocketAddr = text.parse().map_err(|_| PROBLEM)?;
            (Some(address.ip()), address.port())
        };
        if host_port == 0 {
            return Err("a port is a number from 1 to 65535");
        }
        Ok(Self::Port { listen, host_port })
    }
}

impl SetVm {
    /// Checks every value that can be checked without the VM and the host.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] naming the value, or that there is no value.
    pub fn check(&self) -> Result<(), ApiError> {
        let bad =
            |error: &dyn std::error::Error| ApiError::new(ErrorCode::BadRequest, error.to_string());
        if *self == Self::default() {
            let error = ApiError::new(ErrorCode::BadRequest, "no value to change is given");
            let hint =
                "give one, such as --memory 4G or -p 8080:80; `banger vm set --help` lists all";
            return Err(error.with_hint(Hint::text(hint)));
        }
        let (vcpus, memory_mib) = (self.vcpus, self.memory_mib);
        let sizes =
            Sizes { vcpus, memory_mib, root_bytes: self.root_bytes, work_bytes: self.work_bytes };
        sizes.check().map_err(|e| bad(&e))?;
        if let Some(kernel) = self.kernel.as_deref().filter(|kernel| !is_ref_name(kernel)) {
            let shown = crate::excerpt(kernel);
            let text = format!("`{shown}` is not a name for a kernel");
            let rule = Hint::FollowNameRule { what: Kind::Kernel };
            return Err(ApiError::new(ErrorCode::BadRequest, text).with_hint(rule));
        }
        publish::check(&self.publish).map_err(|e| bad(&e))?;
        let zero = |port: &Unpublish| matches!(port, Unpublish::Port { host_port: 0, .. });
        if self.unpublish.iter().any(zero) {
            return Err(bad(&BadPublish::Zero));
        }
        sync::check(&self.sync).map_err(|e| bad(&e))?;
        if self.unsync.len() > sync::MAX_FOLDERS {
            return Err(bad(&sync::BadSync::TooMany(self.unsync.len())));
        }
        if self.unlabel.len() > MAX_LABELS {
            return Err(bad(&BadLabel::TooMany(self.unlabel.len())));
        }
        match self.unpublish.len() {
            ..=publish::MAX_PUBLISHED => Ok(()),
            many => Err(bad(&BadPublish::TooMany(many))),
        }
    }

    /// Entries of `unpublish` that match none of the published ports.
    pub fn not_published(&self, now: &[PortForward]) -> Vec<Unpublish> {
        let unknown = |port: &&Unpublish| {
            !matches!(port, Unpublish::All {}) && !now.iter().any(|known| port.matches(known))
        };
        self.unpublish.iter().filter(unknown).copied().collect()
    }

    /// The published ports after the change.
    ///
    /// # Errors
    /// Too many ports, or a port that collides with one that is published already.
    pub fn published(&self, now: &[PortForward]) -> Result<Vec<PortForward>, BadPublish> {
        let stays = |port: &&PortForward| !self.unpublish.iter().any(|one| one.matches(port));
        let mut ports: Vec<PortForward> = now.iter().filter(stays).copied().collect();
        for port in &self.publish {
            match ports.iter_mut().find(|known| known.listens_on() == port.listens_on()) {
                Some(known) => *known = *port,
                None => ports.push(*port),
            }
        }
        publish::check(&ports)?;
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[&str]) -> Vec<PortForward> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn removal(text: &str) -> Unpublish {
        text.parse().unwrap()
    }

    #[test]
    fn ports_are_removed_then_added_or_redirected() {
        let now = ports(&["8080:80", "0.0.0.0:9090:90"]);
        let set = |publish: &[&str], unpublish: &[&str]| SetVm {
            publish: ports(publish),
            unpublish: unpublish.iter().map(|text| removal(text)).collect(),
            ..SetVm::default()
        };
        let after = |set: SetVm| set.published(&now).unwrap();
        assert_eq!(after(set(&["1:2"], &[])), ports(&["8080:80", "0.0.0.0:9090:90", "1:2"]));
        assert_eq!(after(set(&["8080:81"], &[])), ports(&["8080:81", "0.0.0.0:9090:90"]));
        assert_eq!(after(set(&[], &["9090"])), ports(&["8080:80"]));
        assert_eq!(after(set(&[], &["127.0.0.1:9090"])), now);
        assert_eq!(after(set(&["9090:1"], &["all"])), ports(&["9090:1"]));
        let collides = set(&["9090:1"], &[]).published(&now).unwrap_err();
        assert!(collides.to_string().contains("is published twice"), "{collides}");
        let unknown = set(&[], &["80", "8080", "all"]).not_published(&now);
        assert_eq!(unknown, [removal("80")]);
        let many: Vec<PortForward> = (1..=64)
            .map(|n| PortForward { listen: [127, 0, 0, 1].into(), host_port: n, guest_port: n })
            .collect();
        assert_eq!(set(&["100:1"], &[]).published(&many), Err(BadPublish::TooMany(65)));
    }

    #[test]
    fn removals_are_parsed_as_they_are_shown() {
        for text in ["all", "8080", "127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(removal(text).to_string(), text);
        }
        for text in ["", "0", "65536", "x", "8080:80", "::1:8080", "127.0.0.1:0", "-1", "all "] {
            assert!(text.parse::<Unpublish>().is_err(), "{text}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        let refused = |set: SetVm| set.check().unwrap_err().message;
        assert_eq!(refused(SetVm::default()), "no value to change is given");
        let text = refused(SetVm { vcpus: Some(0), ..SetVm::default() });
        assert_eq!(text, "0 vCPUs: a VM has 1 to 32");
        let text = refused(SetVm { memory_mib: Some(1), ..SetVm::default() });
        assert!(text.starts_with("1 MiB of memory"), "{text}");
        let text = refused(SetVm { work_bytes: Some(1), ..SetVm::default() });
        assert!(text.starts_with("a work disk of"), "{text}");
        let zero = Unpublish::Port { listen: None, host_port: 0 };
        let text = refused(SetVm { unpublish: vec![zero], ..SetVm::default() });
        assert!(text.starts_with("port 0"), "{text}");
    }
}
