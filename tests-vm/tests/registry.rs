//! Pulls by a real daemon from a registry on this host: proxies and certificates of the
//! environment, two clients, a cancelled one, a disk that is too small. No VM boots.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_testkit::certificates::{authority, server};
use banger_testkit::{ConnectProxy, Home, Options, Registry, SmallDisk, kill, program};
use tests_vm::container::layout;

/// A registry with a certificate for `registry.test`, and the authority of that.
fn tls_registry(folder: &Path) -> (Registry, PathBuf) {
    let (authority, authority_key) = authority(folder, "authority");
    let names = "DNS:registry.test,IP:127.0.0.1";
    let (certificate, key) = server(folder, (&authority, &authority_key), names);
    let (certificate, key) = (certificate.display(), key.display());
    let tls = format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
    let registry = Registry::start(&folder.join("registry"), &tls, "");
    registry.push(&layout(folder), "tiny:1", &[]);
    (registry, authority)
}

fn home(env: &[(&str, &str)], cli: Option<PathBuf>) -> Home {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Home::bare(Options { env, cli, ..Options::default() })
}

/// The command line and its daemon with another store of certificates than this host's.
fn with_host_store(folder: &Path, authority: &Path) -> PathBuf {
    let (script, store) = (folder.join("cli"), "/etc/ssl/certs");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -euc 'mount -t tmpfs tmpfs {store}; cp {} \
         {store}/ca-certificates.crt; exec {} \"$@\"' sh \"$@\"\n",
        authority.display(),
        program("banger").display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn proxies_and_certificates_are_those_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, authority) = tls_registry(folder.path());
    let port = registry.host.rsplit(':').next().unwrap();
    let named = format!("registry.test:{port}");
    let proxy = ConnectProxy::start(&[(&named, &registry.host)]);
    let image = format!("{named}/tiny:1");
    let trusted = ("SSL_CERT_FILE", authority.to_str().unwrap());
    let by_proxy = ("HTTPS_PROXY", proxy.url.as_str());
    let clean = |home: Home| {
        home.ok(&["image", "delete", &image]);
        home.finish();
    };

    let through = home(&[trusted, by_proxy], None);
    through.ok(&["image", "pull", "-q", &image]);
    assert!(!proxy.seen().is_empty() && proxy.seen().iter().all(|host| *host == named));
    clean(through);
    // The configuration is stronger than the environment.
    let config = format!("[proxy]\nhttps = \"{}\"\n", proxy.url);
    let nowhere = ("HTTPS_PROXY".to_owned(), "http://127.0.0.1:9".to_owned());
    let env = vec![(trusted.0.to_owned(), trusted.1.to_owned()), nowhere];
    let through = Home::bare(Options { env, config, ..Options::default() });
    through.ok(&["image", "pull", "-q", &image]);
    clean(through);
    // Not through the proxy, and so not at all: the name is known to the proxy only.
    let seen = proxy.seen().len();
    let direct = home(&[trusted, by_proxy, ("NO_PROXY", "other.test,registry.test")], None);
    let run = direct.run(&["image", "pull", "-q", &image]);
    assert_ne!(run.code, 0);
    assert!(run.err.contains(&format!("cannot reach the registry {named}")), "{}", run.err);
    assert_eq!(proxy.seen().len(), seen);
    direct.finish();
    // Without the authority.
    let untrusting = home(&[by_proxy], None);
    let run = untrusting.run(&["image", "pull", "-q", &image]);
    assert!(run.err.contains("certificate"), "{}", run.err);
    assert!(!untrusting.path().join("data/layers").exists(), "nothing is downloaded");
    untrusting.finish();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: another store of certificates needs root");
    }
    let trusting = home(&[by_proxy], Some(with_host_store(folder.path(), &authority)));
    trusting.ok(&["image", "pull", "-q", &image]);
    clean(trusting);
}

/// Number of answers for each blob that was sent.
fn sent(registry: &Registry) -> Vec<usize> {
    let mut counts = std::collections::BTreeMap::new();
    registry.blobs().into_iter().for_each(|blob| *counts.entry(blob).or_default() += 1);
    counts.into_values().collect()
}

#[test]
fn two_pulls_download_once_and_a_cancelled_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), "", "");
    let layout = layout(folder.path());
    let images = ["one:1", "one:2", "other:1"].map(|name| {
        registry.push(&layout, name, &[]);
        format!("{}/{name}", registry.host)
    });
    // What skopeo asked for.
    let before = registry.blobs().len();
    let home = Home::bare(Options::default());
    home.ok(&["daemon", "start"]);
    let pulls = images.each_ref().map(|image| home.spawn(&["image", "pull", "-q", image]));
    let ids = pulls.map(|pull| {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(before, 0);
    // Two layers and the configuration.
    assert_eq!(sent(&registry), [1, 1, 1]);

    images.iter().for_each(|image| drop(home.ok(&["image", "delete", image])));
    let usage = home.json(&["system", "df"]);
    let objects = usage["objects"].as_array().unwrap();
    let layers = objects.iter().filter(|object| object["kind"] == "layer");
    assert_eq!(layers.filter(|layer| layer["removable"] == true).count(), 3, "{usage}");
    home.ok(&["system", "prune", "--force"]);
    assert_eq!(fs::read_dir(home.path().join("data/layers")).unwrap().count(), 0);

    registry.hang();
    let mut pull = home.spawn(&["image", "pull", &images[0]]);
    let running = || {
        let operations = home.json(&["operation", "list"]);
        operations.as_array().unwrap().iter().any(|operation| operation["state"] == "running")
    };
    home.wait("the pull is running", running);
    kill(pull.id(), "INT");
    let code = pull.wait().unwrap().code();
    let mut printed = String::new();
    pull.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(code == Some(1) && printed.contains("was cancelled"), "{printed}");
    home.wait("the operation has ended", || !running());
    let staged = fs::read_dir(home.path().join("data/images/staging"));
    assert_eq!(staged.into_iter().flatten().count(), 0);
    assert_eq!(home.json(&["image", "list"]), serde_json::json!([]));
    registry.go_on();
    home.ok(&["image", "pull", "-q", &images[0]]);
    home.ok(&["image", "delete", &images[0]]);
    home.finish();
}

#[test]
fn what_does_not_fit_is_refused_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), "", "");
    registry.push(&layout(folder.path()), "tiny:1", &[]);
    let image = format!("{}/tiny:1", registry.host);
    let home = Home::bare(Options::default());
    let Some(disk) = SmallDisk::mount(&home.path().join("data"), 500) else { return };
    let Some(state) = SmallDisk::mount(&home.path().join("state"), 500) else { return };
    home.ok(&["image", "pull", "-q", &image]);
    home.ok(&["image", "delete", &image]);
    disk.leave(30 << 20);
    let before = registry.blobs().len();
    let refused = |args: &[&str]| {
        let run = home.run(args);
        assert_eq!(run.code, 5, "{args:?}: {}", run.err);
        let words = ["not enough space for `", "30 MiB free", "`banger system prune` would free"];
        for word in words {
            assert!(run.err.contains(word), "{args:?}: {}", run.err);
        }
        assert_eq!(home.json(&["image", "list"]), serde_json::json!([]));
    };
    // Its layers are here: the root disk does not fit.
    refused(&["image", "pull", &image]);
    refused(&["image", "import", "--name", "x", folder.path().join("layout").to_str().unwrap()]);
    refused(&["kernel", "pull"]);
    assert_eq!(registry.blobs().len(), before);
    state.leave(20 << 20);
    let run = home.run(&["create", "--name", "web", "--image", &image]);
    assert_eq!(run.code, 5, "{}", run.err);
    for words in ["a new VM needs 64 MiB on the disk: 20 MiB are free", "prune` would free"] {
        assert!(run.err.contains(words), "{}", run.err);
    }
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]));
    state.leave(500 << 20);
    let staged = fs::read_dir(home.path().join("data/images/staging"));
    assert_eq!(staged.into_iter().flatten().count(), 0);
    home.ok(&["system", "prune", "--force"]);
    let run = home.run(&["image", "pull", &image]);
    assert!(run.err.contains("would free nothing"), "{}", run.err);
    disk.leave(500 << 20);
    home.ok(&["image", "pull", "-q", &image]);
    home.ok(&["image", "delete", &image]);
    home.ok(&["daemon", "stop"]);
    drop((disk, state));
    home.finish();
}
