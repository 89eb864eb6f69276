//! Hints about the host as data: the privileged helper gives them, and the API passes them on.
//!
//! [`HostHint::words`] gives the words of a command line. A program of another version may not know
//! a kind of hint, so every hint is sent with these words and is then read as text: [`to_wire`],
//! [`from_wire`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Field of a hint on the wire with its words.
const WORDS: &str = "text";

/// A change of the host that may help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "hint", rename_all = "snake_case")]
pub enum HostHint {
    /// Install packages of the host's distribution, as Debian names them.
    InstallPackages {
        /// Names of the packages.
        packages: Vec<String>,
    },
    /// Install a program of a Firecracker release in `/usr/local/bin`.
    InstallFirecracker {
        /// Name of the program: `firecracker` or `jailer`.
        program: String,
    },
    /// Install a program in a folder that only root can change.
    ProtectProgram {
        /// Path of the program.
        path: String,
    },
    /// Add a user to those that the helper serves.
    AddHelperUser {
        /// The user's uid.
        uid: u32,
    },
    /// Load a kernel module: modprobe(8).
    LoadModule {
        /// Name of the module.
        module: String,
    },
    /// Read the kernel's log: dmesg(1).
    ReadKernelLog,
    /// Boot the host's kernel with a parameter.
    BootWith {
        /// The parameter, such as `systemd.unified_cgroup_hierarchy=1`.
        parameter: String,
    },
    /// Find the process that uses a file or device: fuser(1).
    FindHolder {
        /// Path of the file or device.
        path: String,
    },
    /// Configure a free subnet for VMs, in the daemon's or the helper's configuration.
    ChooseSubnet,
    /// Configure another name for the bridge.
    ChooseBridge,
    /// Configure the network that VMs of this host use, or stop all of them.
    ShareNetwork {
        /// The subnet in use, in CIDR notation.
        subnet: String,
        /// The bridge in use.
        bridge: String,
    },
    /// Stop a VM.
    StopVm,
    /// Stop the VM that uses a device, or restart the host if the VM is not running.
    StopVmOrRestartHost,
    /// Restart a VM whose VMM or guest agent accepts no connections.
    RestartVm,
    /// Create a VM again, which gives it another id.
    CreateAgain,
    /// Delete network interfaces of the host.
    DeleteInterfaces {
        /// Names of the interfaces.
        names: Vec<String>,
    },
    /// Give the host a default route.
    ConnectHost,
    /// Add a DNS server that VMs can reach to `/etc/resolv.conf`.
    AddNameserver,
    /// Configure the host's resolver to forward the domain `vm` to the daemon's DNS server.
    ForwardNames,
    /// Wait until another daemon, which serves the names of VMs, ends or has no VM.
    AwaitOtherDaemon,
    /// Find the program that changes a shared object; the daemon restores the object by itself.
    FindChange {
        /// The object.
        object: Shared,
    },
    /// Let Docker's iptables-legacy rules accept packets of VMs.
    AllowInDocker {
        /// The bridge of VMs.
        bridge: String,
        /// The interface of the default route.
        uplink: String,
    },
    /// Let a firewall accept packets of VMs, if VMs reach nothing.
    AllowInFirewall {
        /// The firewall.
        firewall: Firewall,
        /// The bridge of VMs.
        bridge: String,
    },
    /// Let the user's systemd outlive the last session: loginctl(1).
    EnableLingering,
    /// Show the daemon's log.
    ShowDaemonLog,
    /// Words of another program, or of a hint of a newer version.
    Text {
        /// One line, no full stop.
        text: String,
    },
}

/// An object of the host that all VMs share and that the daemon restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// `net.ipv4.ip_forward`.
    Forwarding,
    /// The bridge.
    Bridge,
    /// banger's nftables rules.
    Rules,
    /// banger's rules in `DOCKER-USER`.
    DockerRules,
    /// systemd-resolved's configuration for names of VMs.
    Names,
}

/// A firewall that drops forwarded packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Firewall {
    /// firewalld.
    Firewalld,
    /// Uncomplicated Firewall.
    Ufw,
}

impl Firewall {
    /// Name of the program.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
        }
    }
}

impl HostHint {
    /// Install a package.
    pub fn install(package: &str) -> Self {
        Self::InstallPackages { packages: vec![package.to_owned()] }
    }

    /// Load a kernel module.
    pub fn load(module: &str) -> Self {
        Self::LoadModule { module: module.to_owned() }
    }

    /// Words of another program.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// The hint in the words of a command line: one line, no full stop.
    pub fn words(&self) -> String {
        match self {
            Self::InstallPackages { packages } => {
                format!("install {0}: `apt install {0}`", packages.join(" "))
            }
            Self::InstallFirecracker { program } => format!(
                "put `{program}` of a Firecracker release, from 1.8 on and before 2.0, into \
                 /usr/local/bin"
            ),
            Self::ProtectProgram { .. } => {
                "install it where only root can write, such as /usr/local/bin".into()
            }
            Self::AddHelperUser { uid } => {
                format!("`sudo banger-root install --owner {uid}` adds this user")
            }
            Self::LoadModule { module } => {
                format!("load the kernel module: `sudo modprobe {module}`")
            }
            Self::ReadKernelLog => "`dmesg` shows the kernel's log".into(),
            Self::BootWith { parameter } => format!("boot the host with `{parameter}`"),
            Self::FindHolder { path } => {
                format!("`sudo fuser -v {path}` shows the process that uses it: end it")
            }
            Self::StopVm => "stop a VM".into(),
            Self::StopVmOrRestartHost => {
                "stop the VM, or restart the host if the VM is not running".into()
            }
            Self::RestartVm => {
                "the VMM or its guest agent does not accept connections: restart the VM".into()
            }
            Self::CreateAgain => "create the VM again".into(),
            Self::EnableLingering => "`loginctl enable-linger` lets them continue".into(),
            Self::ShowDaemonLog => "`banger daemon logs` shows the daemon's log".into(),
            Self::ChooseSubnet => CHOOSE_SUBNET.into(),
            Self::ChooseBridge => "set `[network] bridge` to another name".into(),
            Self::ShareNetwork { subnet, bridge } => format!(
                "stop all VMs of this host first, or configure their network: subnet `{subnet}`, \
                 bridge `{bridge}`"
            ),
            Self::DeleteInterfaces { names } => {
                let delete = |name: &String| format!("`sudo ip link delete {name}`");
                format!("delete it: {}", names.iter().map(delete).collect::<Vec<_>>().join(", "))
            }
            Self::ConnectHost => {
                "VMs reach only what the host reaches: connect it, see `ip route`".into()
            }
            Self::AddNameserver => ADD_NAMESERVER.into(),
            Self::ForwardNames => FORWARD_NAMES.into(),
            Self::AwaitOtherDaemon => {
                "this daemon takes over when the other ends or its last VM is deleted".into()
            }
            Self::FindChange { object } => find_change(*object).into(),
            Self::AllowInDocker { bridge, uplink } => allow_in_docker(bridge, uplink),
            Self::AllowInFirewall { firewall, bridge } => allow_in_firewall(*firewall, bridge),
            Self::Text { text } => text.clone(),
        }
    }
}

const CHOOSE_SUBNET: &str = "set `[network] subnet` to a free one, or, if bangerd is not root, \
                             `sudo banger-root install --subnet NETWORK`";
const ADD_NAMESERVER: &str =
    "add an IPv4 `nameserver` that is not the host itself to `/etc/resolv.conf`";
const FORWARD_NAMES: &str = "make your resolver forward the domain `vm` to the address in `banger \
                             daemon status`; see docs/network.md for dnsmasq and NetworkManager";

fn find_change(object: Shared) -> &'static str {
    match object {
        Shared::Forwarding => {
            "banger sets it again in a moment; find the program that sets it in `/etc/sysctl.d`"
        }
        Shared::Bridge => {
            "banger restores it in a moment; find the program that changes it, often NetworkManager"
        }
        Shared::Rules => {
            "banger restores them in a moment; remove `flush ruleset` from scripts of the host"
        }
        Shared::DockerRules => "banger restores them in a moment",
        Shared::Names => "banger configures it again within seconds while it runs",
    }
}

fn allow_in_docker(bridge: &str, uplink: &str) -> String {
    format!(
        "iptables-legacy -I DOCKER-USER -i {bridge} -o {uplink} -j ACCEPT; iptables-legacy -I \
         DOCKER-USER -o {bridge} -j ACCEPT; or have Docker use nftables: update-alternatives \
         --set iptables /usr/sbin/iptables-nft"
    )
}

fn allow_in_firewall(firewall: Firewall, bridge: &str) -> String {
    let command = match firewall {
        Firewall::Firewalld => format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd \
             --reload"
        ),
        Firewall::Ufw => format!("ufw route allow in on {bridge}"),
    };
    format!("if VMs reach nothing: {command}")
}

/// Several hints in the words of a command line; `None` without hints.
pub fn words(hints: &[HostHint]) -> Option<String> {
    let all: Vec<String> = hints.iter().map(HostHint::words).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// A hint as JSON with its words in the field `text`, for readers that do not know its kind.
pub fn to_wire<T: Serialize>(hint: &T, words: String) -> Value {
    let mut value = serde_json::to_value(hint).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.entry(WORDS).or_insert(Value::String(words));
    }
    value
}

/// Reads a hint of [`to_wire`]; its words as `text` if its kind or a value in it is unknown. `None`
/// for a hint of a version that sent no words.
pub fn from_wire<T: DeserializeOwned>(value: &Value, text: fn(String) -> T) -> Option<T> {
    let words = || value.get(WORDS)?.as_str().map(|words| text(words.to_owned()));
    T::deserialize(value).ok().or_else(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<HostHint> {
        let names = vec!["fc-1".to_owned(), "fc-2".to_owned()];
        let of = |text: &str| text.to_owned();
        let mut all = vec![
            HostHint::install("nftables"),
            HostHint::InstallFirecracker { program: of("jailer") },
            HostHint::ProtectProgram { path: of("/home/u/jailer") },
            HostHint::AddHelperUser { uid: 1000 },
            HostHint::load("tun"),
            HostHint::ReadKernelLog,
            HostHint::BootWith { parameter: of("a=1") },
            HostHint::FindHolder { path: of("/dev/loop0") },
            HostHint::ChooseSubnet,
            HostHint::ChooseBridge,
            HostHint::ShareNetwork { subnet: of("10.0.0.0/24"), bridge: of("br") },
            HostHint::StopVm,
            HostHint::StopVmOrRestartHost,
            HostHint::RestartVm,
            HostHint::CreateAgain,
            HostHint::DeleteInterfaces { names },
            HostHint::ConnectHost,
            HostHint::AddNameserver,
            HostHint::ForwardNames,
            HostHint::AwaitOtherDaemon,
            HostHint::AllowInDocker { bridge: of("br"), uplink: of("eth0") },
            HostHint::EnableLingering,
            HostHint::ShowDaemonLog,
            HostHint::text("words"),
        ];
        all.extend(
            [Shared::Forwarding, Shared::Bridge, Shared::Rules, Shared::DockerRules, Shared::Names]
                .map(|object| HostHint::FindChange { object }),
        );
        let bridge = of("br");
        all.extend(
            [Firewall::Firewalld, Firewall::Ufw]
                .map(|firewall| HostHint::AllowInFirewall { firewall, bridge: bridge.clone() }),
        );
        all
    }

    #[test]
    fn every_hint_has_words_and_survives_the_wire() {
        for hint in all() {
            let words = hint.words();
            assert!(!words.is_empty() && !words.contains('\n'), "{hint:?}: {words}");
            assert!(!words.contains("  ") && !words.ends_with('.'), "{words}");
            let value = to_wire(&hint, words.clone());
            assert_eq!(value["text"], words, "{hint:?}");
            assert_eq!(from_wire(&value, HostHint::text).as_ref(), Some(&hint));
        }
    }

    #[test]
    fn an_unknown_hint_is_read_as_its_words() {
        for newer in [
            r#"{"hint": "fly", "to": "the moon", "text": "fly"}"#,
            r#"{"hint": "find_change", "object": "moon", "text": "fly"}"#,
            r#"{"hint": "load_module", "text": "fly"}"#,
            r#"{"text": "fly"}"#,
        ] {
            let value: Value = serde_json::from_str(newer).unwrap();
            assert_eq!(from_wire(&value, HostHint::text), Some(HostHint::text("fly")), "{newer}");
        }
        for unreadable in [r#"{"hint": "fly"}"#, r#"{"hint": "fly", "text": 1}"#, "1", "null"] {
            let value: Value = serde_json::from_str(unreadable).unwrap();
            assert_eq!(from_wire(&value, HostHint::text), None, "{unreadable}");
        }
    }
}
