//! Pulls of images and kernels that are signed: by cosign's form of signatures in Debian's
//! docker-registry, and by a catalog.

use std::fs;
use std::path::Path;

use banger_api::images::{Rebuild, SignatureScheme};
use banger_image::fetch::NoProgress;
use banger_image::images::ImageStore;
use banger_image::registry::Settings;
use banger_image::trust::{Requirement, Rule, TrustSettings};
use banger_testkit::Registry;
use banger_testkit::certificates::openssl;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::containers::{World, busybox, run, text};
use crate::support::{is_root_for, tools};

fn sha256(path: &Path) -> String {
    run("sha256sum", &[text(path)]).split(' ').next().unwrap().to_owned()
}

/// Adds a file to a layout; returns its descriptor.
fn blob(layout: &Path, kind: &str, content: &[u8], more: &str) -> String {
    let file = layout.join("new");
    fs::write(&file, content).unwrap();
    let hex = sha256(&file);
    fs::rename(&file, layout.join("blobs/sha256").join(&hex)).unwrap();
    let size = content.len();
    format!(r#"{{"mediaType":"{kind}","digest":"sha256:{hex}","size":{size}{more}}}"#)
}

/// A layout with the signature that cosign would make for an image.
fn signature(layout: &Path, secret: &Path, image: &str) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let payload = format!(
        "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"\"}},\"image\":\
         {{\"docker-manifest-digest\":\"{image}\"}},\
         \"type\":\"cosign container image signature\"}},\"optional\":null}}"
    );
    let (file, signed) = (layout.join("payload"), layout.join("signed"));
    fs::write(&file, &payload).unwrap();
    let args = ["dgst", "-sha256", "-sign", text(secret), "-out", text(&signed), text(&file)];
    openssl(&args);
    let sig = STANDARD.encode(fs::read(&signed).unwrap());
    let note = format!(r#","annotations":{{"dev.cosignproject.cosign/signature":"{sig}"}}"#);
    let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
    let layer = blob(layout, kind, payload.as_bytes(), &note);
    let diff_id = sha256(&file);
    let config = format!(
        r#"{{"architecture":"","os":"","config":{{}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{diff_id}"]}}}}"#
    );
    let config = blob(layout, "application/vnd.oci.image.config.v1+json", config.as_bytes(), "");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{layer}]}}"#
    );
    let note = r#","annotations":{"org.opencontainers.image.ref.name":"latest"}"#;
    let entry = blob(layout, kind, manifest.as_bytes(), note);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
    fs::write(layout.join("index.json"), index).unwrap();
}

fn key(folder: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (secret, public) = (folder.join(name), folder.join(format!("{name}.pub")));
    let kind = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    openssl(&[&["genpkey", "-out", text(&secret)], &kind[..]].concat());
    openssl(&["pkey", "-in", text(&secret), "-pubout", "-out", text(&public)]);
    (secret, public)
}

#[test]
fn an_image_of_a_registry_needs_the_signature_that_a_rule_demands() {
    if !is_root_for("unpack an image with owners and devices") {
        return;
    }
    let world = World::new();
    let layout = world.layered(&[&|root: &Path| busybox(root)]);
    let registry = Registry::start(&world.at("registry"), "", "");
    registry.push(&layout, "acme/app:1", &[]);
    let folder = world.at("keys");
    fs::create_dir(&folder).unwrap();
    let ((secret, public), (_, other)) = (key(&folder, "ours"), key(&folder, "other"));
    let store = |signature, keys: &[&Path]| {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let rule = Rule { name: format!("{}/acme/*", registry.host), signature, keys };
        let trust = TrustSettings { registries: vec![rule], ..TrustSettings::default() };
        let settings = Settings { docker_config: None, ..Settings::default() };
        let store = ImageStore::new(world.at("pulled").join("images"), tools());
        store.with_registries(settings).trusting(trust)
    };
    let name = format!("{}/acme/app:1", registry.host);
    let pull = |store: &ImageStore| store.pull(&name, Rebuild::IfOutdated, &NoProgress);
    let refused = |store: &ImageStore| pull(store).unwrap_err().to_string();
    let demanding = store(Requirement::Required, &[&public]);
    let error = refused(&demanding);
    assert!(error.contains("has no signature") && error.contains("acme/app:1"), "{error}");
    assert!(demanding.list().objects.is_empty());
    let unsigned = pull(&store(Requirement::Off, &[])).unwrap();
    assert_eq!(unsigned.record.signature, None);
    let digest = unsigned.record.provenance.rsplit(' ').next().unwrap().to_owned();
    let beside = world.at("signature");
    signature(&beside, &secret, &format!("sha256:{digest}"));
    registry.push(&beside, &format!("acme/app:sha256-{digest}.sig"), &[]);
    // The image is here: it is not downloaded, and its record tells the signature from now on.
    let signed = pull(&demanding).unwrap();
    let found = signed.record.signature.unwrap();
    assert_eq!(found.scheme, SignatureScheme::Cosign);
    assert!(found.key.contains(text(&public)), "{found:?}");
    assert_eq!(found.signed, format!("sha256:{digest}"));
    assert_eq!(signed.record.id, unsigned.record.id);
    let error = refused(&store(Requirement::Required, &[&other]));
    assert!(error.contains("none by a configured key"), "{error}");
    fs::write(&public, "nothing").unwrap();
    assert!(refused(&demanding).contains("ours.pub"));
}
