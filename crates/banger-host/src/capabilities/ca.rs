//! Certificates: the guest's part of `[ca]`, and its checks. The files are read at each start, so a
//! renewed certificate reaches a VM at its next start; a file that cannot be used refuses it.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use banger_agent_proto::boot::{CERTIFICATES_FILE, GuestCertificate};
use banger_api::doctor::{Check, Verdict};
use banger_api::hint::SetupAdvice;
use banger_api::{ApiError, ErrorCode};
use banger_engine::capabilities::ca::CAPABILITY;
use banger_engine::capability::{Doctor, Effects, Preflight, VmContext};

use super::{HostCapability, Parts, variables};
use crate::failure::blocking;
use crate::handover::Handover;
use banger_image::ca::{CaError, CaSettings, Certificate, Validity};
use banger_image::proxy::Variables;

/// Variables of programs that do not read the distribution's bundle. Each gets the file with the
/// public certificates and those of `[ca]`.
const VARIABLES: [&str; 5] = [
    // Python and other users of OpenSSL, which on Debian reads the folder of hashes only; Go.
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NIX_SSL_CERT_FILE",
];

struct Files(CaSettings);

/// The capability on this host.
pub fn capability(parts: &Parts) -> HostCapability {
    let files = Arc::new(Files(parts.ca.clone()));
    let settings = parts.ca.clone();
    HostCapability {
        effects: Effects {
            name: CAPABILITY.name,
            preflight: Some(files.clone()),
            doctor: Some(files),
            ..Effects::default()
        },
        guest: Some(Arc::new(move |_vm, _devices, config| {
            let certificates = settings.load().map_err(|error| refusal(&error))?;
            variables::add(config, CAPABILITY.name, &variables(&certificates));
            config.certificates = certificates
                .into_iter()
                .map(|one| GuestCertificate { pem: one.pem, subject_hash: one.subject_hash })
                .collect();
            Ok(Handover::default())
        })),
    }
}

fn variables(certificates: &[Certificate]) -> Variables {
    if certificates.is_empty() {
        return Variables::new();
    }
    VARIABLES.map(|name| (name.to_owned(), CERTIFICATES_FILE.to_owned())).into()
}

fn refusal(error: &CaError) -> ApiError {
    let mut refused = ApiError::new(ErrorCode::HostNotReady, error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        refused.causes.push(source.to_string());
    }
    refused.with_hint(SetupAdvice::CorrectCertificates)
}

#[async_trait]
impl Preflight for Files {
    async fn check(&self, _context: VmContext<'_>) -> Result<(), ApiError> {
        let settings = self.0.clone();
        let load = move || settings.load().map_err(|error| refusal(&error));
        let now = SystemTime::now();
        for certificate in blocking(load).await? {
            let validity = certificate.validity(now);
            if validity != Validity::Valid {
                tracing::warn!(subject = certificate.subject, ?validity, "a certificate of `[ca]`");
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Doctor for Files {
    async fn checks(&self) -> Vec<Check> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let settings = self.0.clone();
        let load = move || settings.load().map_err(|error| refusal(&error));
        vec![judge(blocking(load).await, SystemTime::now())]
    }
}

fn judge(loaded: Result<Vec<Certificate>, ApiError>, now: SystemTime) -> Check {
    let mut check = Check {
        code: "ca.files".into(),
        verdict: Verdict::Ok,
        seen: String::new(),
        hints: Vec::new(),
        needed_for: vec!["start".into()],
    };
    match loaded {
        Ok(all) => {
            let invalid: Vec<&Certificate> =
                all.iter().filter(|one| one.validity(now) != Validity::Valid).collect();
            check.seen = match all.len() {
                1 => "one certificate".into(),
                count => format!("{count} certificates"),
            };
            if let Some(first) = invalid.first() {
                let count = invalid.len();
                let why = match first.validity(now) {
                    Validity::NotYet => "is not valid yet",
                    Validity::Expired | Validity::Valid => "has expired",
                };
                check.verdict = Verdict::Warning;
                check.seen += &format!(", {count} not valid now: `{}` {why}", first.subject);
                check.hints = vec![SetupAdvice::ReplaceCertificates.into()];
            }
        }
        Err(error) => {
            check.verdict = Verdict::Missing;
            check.seen = error.line();
            check.hints = error.hints;
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::variables::tests::content;
    use super::*;
    use crate::testing::{devices, empty_config, parts, plan, spec};
    use banger_testkit::certificates::authority;

    #[test]
    fn a_guest_gets_certificates_and_variables_or_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let (pem, _) = authority(folder.path(), "one");
        let vm = plan("0123456789ab", "web");
        let devices = devices(&vm, &spec());
        let built = |ca: CaSettings| {
            let part = capability(&Parts { ca, ..parts(folder.path()) }).guest.unwrap();
            let mut config = empty_config();
            part(&vm, &devices, &mut config).map(|_| config)
        };
        let config = built(CaSettings { files: vec![pem.clone()] }).unwrap();
        let [certificate] = config.certificates.as_slice() else { panic!("{config:?}") };
        assert_eq!(certificate.pem, std::fs::read_to_string(&pem).unwrap());
        assert_eq!(certificate.subject_hash.len(), 8);
        assert_eq!(config.env["NODE_EXTRA_CA_CERTS"], CERTIFICATES_FILE);
        let line = format!("SSL_CERT_FILE={CERTIFICATES_FILE}\n");
        assert!(content(&config.files, "/etc/environment").contains(&line));
        let config = built(CaSettings::default()).unwrap();
        assert!(config.certificates.is_empty() && config.env.is_empty());
        let files = vec![pem, folder.path().join("missing")];
        let error = built(CaSettings { files }).unwrap_err();
        assert_eq!(error.code, ErrorCode::HostNotReady);
        assert!(error.message.contains("missing") && !error.hints.is_empty(), "{error:?}");
    }

    #[tokio::test]
    async fn doctor_reports_bad_and_expired_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let (pem, key) = authority(folder.path(), "one");
        let settings = CaSettings { files: vec![pem] };
        let later = SystemTime::now() + Duration::from_secs(3 * 86_400);
        let judged = |now| judge(settings.load().map_err(|error| refusal(&error)), now);
        assert_eq!(judged(SystemTime::now()).verdict, Verdict::Ok);
        let expired = judged(later);
        assert_eq!(expired.verdict, Verdict::Warning);
        assert!(expired.seen.contains("1 not valid now: `CN=one"), "{}", expired.seen);
        assert_eq!(Files(CaSettings::default()).checks().await, []);
        let with_key = Files(CaSettings { files: vec![key] });
        let checks = with_key.checks().await;
        assert_eq!(checks[0].verdict, Verdict::Missing);
        assert!(checks[0].seen.contains("private key"), "{}", checks[0].seen);
    }
}
