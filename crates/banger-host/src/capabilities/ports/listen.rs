//! Errors of ports that cannot be published.

use std::io;
use std::net::{SocketAddr, TcpListener};

use banger_api::hint::PortAdvice;
use banger_api::publish::PortForward;
use banger_api::{ApiError, ErrorCode};
use banger_engine::plan::VmPlan;
use rustix::io::Errno;

/// First port that needs no privilege: ip(7), `ip_unprivileged_port_start`.
const FIRST_FREE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// The error for an address that cannot be bound.
pub fn refused(vm: &VmPlan, listen: SocketAddr, error: &io::Error) -> ApiError {
    let name = &vm.name;
    let (code, text, hint) = match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => (
            ErrorCode::InUse,
            format!("port `{listen}` of this host is taken, and `{name}` is to publish it"),
            PortAdvice::FreePort,
        ),
        Some(Errno::ACCESS) => (
            ErrorCode::HostNotReady,
            format!("port `{listen}` cannot be published by `{name}`: it is a privileged port"),
            PortAdvice::UseUnprivileged,
        ),
        Some(Errno::ADDRNOTAVAIL) => (
            ErrorCode::HostNotReady,
            format!("port `{listen}` cannot be published by `{name}`: no such address here"),
            PortAdvice::UseOwnAddress,
        ),
        _ => {
            let text = format!("port `{listen}` cannot be published by `{name}`");
            return ApiError::new(ErrorCode::Internal, text).caused_by(error);
        }
    };
    ApiError::new(code, text).with_hint(hint)
}

/// Checks that all ports can be bound.
///
/// # Errors
/// The first port that cannot be bound.
pub fn check_free(vm: &VmPlan, ports: &[PortForward]) -> Result<(), ApiError> {
    for port in ports {
        let listen = port.listens_on();
        TcpListener::bind(listen).map_err(|error| refused(vm, listen, &error))?;
    }
    Ok(())
}

/// Checks that QEMU can forward the ports: it runs without privilege, forwards only IPv4
/// (net/slirp.c), and reports no reasons.
///
/// # Errors
/// The first port that it cannot forward.
pub fn check_for_qemu(vm: &VmPlan, ports: &[PortForward]) -> Result<(), ApiError> {
    let first_free: u16 = std::fs::read_to_string(FIRST_FREE)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    for port in ports {
        let listen = port.listens_on();
        if listen.is_ipv6() {
            let text =
                format!("port `{listen}` cannot be published by `{}`: QEMU has only IPv4", vm.name);
            return Err(ApiError::new(ErrorCode::HostNotReady, text).with_hint(PortAdvice::UseIpv4));
        }
        if listen.port() < first_free {
            return Err(refused(vm, listen, &Errno::ACCESS.into()));
        }
        TcpListener::bind(listen).map_err(|error| refused(vm, listen, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;

    #[test]
    fn unsupported_forwards_of_qemu_are_explained() {
        let vm = plan("0123456789ab", "web");
        assert_eq!(check_for_qemu(&vm, &[]), Ok(()));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let checked = |listen: &str| {
            let ports = [format!("{listen}:80").parse().unwrap()];
            check_for_qemu(&vm, &ports).unwrap_err()
        };
        let ports = [format!("{listen}:80").parse().unwrap()];
        assert_eq!(check_free(&vm, &ports).unwrap_err().code, ErrorCode::InUse);
        let error = checked(&listen.to_string());
        assert_eq!(error.code, ErrorCode::InUse);
        let text = format!("port `{listen}` of this host is taken, and `web` is to publish it");
        assert_eq!(error.message, text);
        assert!(checked("[::1]:8080").message.ends_with("QEMU has only IPv4"));
        assert!(checked("192.0.2.1:8080").message.ends_with("no such address here"));
        assert!(error.hint().unwrap().contains("ss -ltnp"));
        drop(taken);
    }
}
