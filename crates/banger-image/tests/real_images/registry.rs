//! Pulls from Debian's docker-registry on this host, filled by umoci and skopeo.

use std::fs;

use banger_api::images::Rebuild;
use banger_image::fetch::{NoProgress, Progress};
use banger_image::images::{ImageError, ImageStore};
use banger_image::registry::{RegistryError, Settings};

use banger_testkit::Registry;
use banger_testkit::certificates::{authority, server};

use crate::containers::{World, awkward, busybox, run, text};
use crate::gnu_tar::compare_trees;
use crate::support::{is_root_for, tools};

fn store(world: &World, settings: Settings) -> ImageStore {
    let folder = world.at("pulled");
    ImageStore::new(folder.join("images"), tools()).with_registries(settings)
}

/// Fails when anything is downloaded.
struct NoDownload;

impl Progress for NoDownload {
    fn stage(&self, name: &str) {
        assert!(!name.contains("download"), "{name}");
    }
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn images_of_docker_registry_are_pulled_once() {
    if !is_root_for("unpack an image with owners and devices") {
        return;
    }
    let world = World::new();
    let layout = awkward(&world);
    let registry = Registry::start(&world.at("registry"), "", "");
    registry.push(&layout, "acme/app:1", &[]);
    let zstd = world.at("zstd");
    let to = format!("oci:{}:latest", text(&zstd));
    let from = format!("oci:{}:latest", text(&layout));
    run("skopeo", &["copy", "--quiet", "--dest-compress-format", "zstd", &from, &to]);
    registry.push(&zstd, "acme/app:zstd", &[]);
    registry.push(&layout, "acme/app:v2s2", &["--format", "v2s2"]);
    let store = store(&world, Settings { docker_config: None, ..Settings::default() });
    let unpacked = world.unpacked(&layout);
    let pull = |name: &str, progress: &dyn Progress| {
        store.pull(&format!("{}/{name}", registry.host), Rebuild::IfOutdated, progress)
    };
    for tag in ["1", "zstd", "v2s2"] {
        let image = pull(&format!("acme/app:{tag}"), &NoProgress).unwrap();
        compare_trees(&unpacked, &image.root_disk(), tag);
        assert_eq!(image.record.source, format!("registry {}/acme/app:{tag}", registry.host));
        let again = pull(&format!("acme/app:{tag}"), &NoDownload).unwrap();
        assert_eq!(again.record.id, image.record.id);
        // By digest, and found by every spelling.
        let digest = image.record.provenance.rsplit(' ').next().unwrap();
        let by_digest = pull(&format!("acme/app@sha256:{digest}"), &NoDownload).unwrap();
        assert_eq!(by_digest.record.id, image.record.id);
    }
    assert!(store.resolve(&format!("{}/acme/app:1", registry.host)).is_ok());
    for (name, code) in [("acme/app:2", "no image"), ("acme/none", "no image")] {
        let error = pull(name, &NoProgress).unwrap_err();
        assert!(error.to_string().contains(code), "{error}");
    }
    // The registry's file is altered behind its back.
    let other = ImageStore::new(world.at("other/images"), tools());
    let blobs = world.at("registry/storage/docker/registry/v2/blobs/sha256");
    let mut largest = (0, blobs.clone());
    for blob in fs::read_dir(&blobs)
        .unwrap()
        .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
    {
        let path = blob.unwrap().path().join("data");
        largest = largest.max((fs::metadata(&path).unwrap().len(), path));
    }
    let mut data = fs::read(&largest.1).unwrap();
    let at = data.len() / 2;
    data[at] ^= 1;
    fs::write(&largest.1, data).unwrap();
    let failed = ["1", "zstd", "v2s2"].iter().filter(|tag| {
        let name = format!("{}/acme/app:{tag}", registry.host);
        match other.pull(&name, Rebuild::IfOutdated, &NoProgress) {
            Err(ImageError::Registry(RegistryError::Oci(error))) => {
                error.to_string().contains("does not match its digest")
            }
            Err(error) => panic!("{error}"),
            Ok(_) => false,
        }
    });
    assert!(failed.count() > 0);
}

#[test]
fn a_registry_with_tls_and_a_login_is_used_by_dockers_configuration() {
    if !is_root_for("unpack an image by umoci") {
        return;
    }
    let world = World::new();
    let layout = world.layered(&[&busybox]);
    let folder = world.at("registry");
    fs::create_dir(&folder).unwrap();
    let (authority, authority_key) = authority(&folder, "authority");
    let (certificate, key) = server(&folder, (&authority, &authority_key), "IP:127.0.0.1");
    // bcrypt of `secret`, as htpasswd(1) makes it.
    let users = "me:$2b$04$Q69/jSJFn68/JQiiWuIrDu5ajhcyX9oz/0Yk9ttdLet6A2udp9meS\n";
    let htpasswd = folder.join("htpasswd");
    fs::write(&htpasswd, users).unwrap();
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", text(&certificate), text(&key));
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", text(&htpasswd));
    let registry = Registry::start(&folder, &tls, &auth);
    registry.push(&layout, "app:1", &["--dest-creds", "me:secret"]);
    let config = world.at("config.json");
    let login = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, registry.host);
    fs::write(&config, login).unwrap();
    let name = format!("{}/app:1", registry.host);
    let mut settings = Settings { docker_config: Some(config), ..Settings::default() };
    let untrusted = store(&world, settings.clone()).pull(&name, Rebuild::IfOutdated, &NoProgress);
    let error = untrusted.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    settings.ca.files = vec![authority];
    let image = store(&world, settings.clone()).pull(&name, Rebuild::IfOutdated, &NoProgress);
    assert!(image.unwrap().names.contains(&name));
    settings.docker_config = None;
    let denied = store(&world, settings).pull(&name, Rebuild::IfOutdated, &NoProgress);
    let Err(ImageError::Registry(RegistryError::Denied { sent: false, .. })) = denied else {
        panic!("{denied:?}")
    };
}
