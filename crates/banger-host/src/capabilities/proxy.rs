//! Proxy: the guest's part of `[proxy]`, and checks that its proxies can be reached.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_agent_proto::boot::GuestConfig;
use banger_api::Hint;
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_engine::capabilities::proxy::CAPABILITY;
use banger_engine::capability::{Doctor, Effects};
use banger_engine::devices::{Devices, NicKind};
use tokio::net::TcpStream;

use super::{HostCapability, Parts, variables};
use crate::handover::Handover;
use banger_image::proxy::{ProxySettings, ProxyUrl};

/// Time limit for a connection to a proxy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

struct Reach(ProxySettings);

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let settings = parts.proxy.clone();
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            doctor: Some(Arc::new(Reach(settings.clone()))),
            ..Effects::default()
        },
        guest: Some(Arc::new(move |_vm, devices, config| {
            add(&settings, devices, config);
            Ok(Handover::default())
        })),
    }
}

fn add(settings: &ProxySettings, devices: &Devices, config: &mut GuestConfig) {
    let lease = devices.nic.address();
    let network = lease.and_then(|lease| {
        let network = ipnet::Ipv4Net::new(lease.address, lease.prefix).ok()?;
        Some(network.trunc().to_string())
    });
    // QEMU's own network shows the host's loopback address as its gateway; a bridge does not.
    let loopback = match devices.nic.kind() {
        NicKind::User => lease.map(|lease| IpAddr::from(lease.gateway)),
        NicKind::Tap => None,
    };
    variables::add(config, CAPABILITY.name, &settings.guest_variables(network, loopback));
}

#[async_trait]
impl Doctor for Reach {
    async fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for (word, proxy) in self.0.proxies() {
            checks.push(judge(word, proxy, connect(proxy).await));
        }
        if self.0.http.is_some() != self.0.https.is_some() {
            let (set, unset) =
                if self.0.http.is_some() { ("http", "https") } else { ("https", "http") };
            checks.push(Check {
                verdict: Verdict::Warning,
                seen: format!(
                    "`proxy.{set}` is set and `proxy.{unset}` is not: {unset} goes without a proxy"
                ),
                hints: vec![Hint::Configure { key: format!("proxy.{unset}"), value: None }],
                ..blank("proxy.partial")
            });
        }
        checks
    }
}

fn blank(code: &str) -> Check {
    Check {
        code: code.into(),
        verdict: Verdict::Ok,
        seen: String::new(),
        hints: Vec::new(),
        needed_for: vec!["network".into()],
    }
}

async fn connect(proxy: &ProxyUrl) -> Result<(), String> {
    let dial = TcpStream::connect((proxy.host(), proxy.port()));
    match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

fn judge(word: &str, proxy: &ProxyUrl, reached: Result<(), String>) -> Check {
    let mut check = blank(&format!("proxy.{word}"));
    match reached {
        Ok(()) if proxy.is_on_loopback() => {
            check.verdict = Verdict::Warning;
            check.seen = format!("{proxy} is on this host's loopback address");
            check.hints = vec![SetupAdvice::UseNetworkProxy.into()];
        }
        Ok(()) => check.seen = format!("{proxy} accepts connections"),
        Err(why) => {
            check.verdict = Verdict::Warning;
            check.seen = format!("{proxy} cannot be reached: {why}");
            check.hints = vec![Hint::Configure { key: format!("proxy.{word}"), value: None }];
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use super::super::variables::tests::content;
    use super::*;
    use crate::testing::{devices, empty_config, plan, spec, tap};

    fn settings(proxy: &str) -> ProxySettings {
        ProxySettings { http: Some(proxy.parse().unwrap()), ..ProxySettings::default() }
    }

    #[test]
    fn the_guest_gets_the_proxy_as_its_network_reaches_it() {
        let vm = plan("0123456789ab", "web");
        let mut devices = devices(&vm, &spec());
        let built = |devices: &Devices| {
            let mut config = empty_config();
            add(&settings("http://127.0.0.1:3128"), devices, &mut config);
            config
        };
        let config = built(&devices);
        assert_eq!(config.env["HTTP_PROXY"], "http://10.0.2.2:3128");
        assert!(config.env["no_proxy"].ends_with(",10.0.2.0/24"), "{:?}", config.env);
        assert!(content(&config.files, "/etc/environment").contains("http://10.0.2.2:3128\n"));
        devices.nic = tap(&vm);
        let config = built(&devices);
        assert_eq!(config.env["http_proxy"], "http://127.0.0.1:3128");
        assert!(config.env["no_proxy"].ends_with(",172.16.0.0/24"), "{:?}", config.env);
    }

    #[tokio::test]
    async fn doctor_says_which_proxy_cannot_be_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://me:secret@{}", listener.local_addr().unwrap());
        let checks = async || Reach(settings(&proxy)).checks().await;
        let found = checks().await;
        let codes: Vec<&str> = found.iter().map(|check| check.code.as_str()).collect();
        assert_eq!(codes, ["proxy.http", "proxy.partial"]);
        assert!(found[0].seen.contains("loopback"), "{found:?}");
        drop(listener);
        let found = checks().await;
        assert!(found[0].seen.contains("cannot be reached"), "{found:?}");
        assert!(!format!("{found:?}").contains("secret"));
        assert_eq!(Reach(ProxySettings::default()).checks().await, []);
    }
}
