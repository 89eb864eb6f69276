//! An image of a catalog that minisign has signed: a real daemon downloads its file from a web
//! server on this host, and a VM boots from it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::Command;

use banger_testkit::{Home, Options, Publisher, Run};
use serde_json::Value;
use tests_vm::container::layout;

const IMAGE: &str = "test-catalog-base";

fn trust_check(home: &Home) -> Value {
    let report: Value = serde_json::from_str(&home.run(&["doctor", "--json"]).out).unwrap();
    let checks = report.as_array().unwrap();
    checks.iter().find(|check| check["code"] == "trust").unwrap().clone()
}

/// A publisher of an image with busybox only.
fn publisher() -> Publisher {
    let temp = tempfile::tempdir().unwrap();
    layout(temp.path());
    let publisher = Publisher::new();
    let mut tar = Command::new("tar");
    tar.arg("--numeric-owner").arg("-C").arg(temp.path().join("bundle/rootfs")).arg("-cf");
    assert!(tar.arg(publisher.served("base.tar")).arg(".").status().unwrap().success());
    publisher.publish("images", IMAGE, "base.tar");
    publisher
}

#[test]
fn an_image_of_a_signed_catalog_is_pulled_and_boots() {
    let publisher = publisher();
    let (catalog, public) = (publisher.catalog(), publisher.public());
    let config = format!("[trust]\ncatalogs = [{catalog:?}]\nkeys = [{public:?}]\n");
    let options = Options { config, ..Options::default() };
    let home = Home::with(options.clone());
    assert_eq!(trust_check(&home)["verdict"], "ok");
    let ran = home.run(&["run", "--rm", "--image", IMAGE, "--", "cat", "/etc/os-release"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "NAME=Tiny\n"), "{}", ran.err);
    let shown = home.json(&["image", "show", IMAGE]);
    assert_eq!(shown["signature"]["scheme"], "minisign", "{shown:#}");
    let key = shown["signature"]["key"].as_str().unwrap();
    assert!(fs::read_to_string(&public).unwrap().contains(key), "{shown:#}");
    // Nothing is downloaded twice.
    let (file, away) = (publisher.served("base.tar"), publisher.served("away"));
    fs::rename(&file, &away).unwrap();
    home.ok(&["image", "pull", IMAGE]);
    home.ok(&["image", "delete", IMAGE]);
    home.finish();

    // One other byte: of the file, and of the catalog.
    let home = Home::bare(options);
    let refused = |because: &str| {
        let run: Run = home.run(&["image", "pull", IMAGE]);
        assert!(run.code != 0 && run.err.contains(because), "{because}: {}", run.err);
        assert_eq!(home.run(&["image", "show", IMAGE]).code, 3);
    };
    let mut whole = fs::read(&away).unwrap();
    whole[700] ^= 1;
    fs::write(&file, whole).unwrap();
    refused("/base.tar` does not match its digest");
    fs::rename(&away, &file).unwrap();
    let signed = fs::read_to_string(&catalog).unwrap();
    fs::write(&catalog, signed.replace("base.tar", "bass.tar")).unwrap();
    refused("catalog.json");
    let check = trust_check(&home);
    assert_eq!(check["verdict"], "missing", "{check:#}");
    assert!(check["seen"].as_str().unwrap().contains("catalog.json"), "{check:#}");
    fs::write(&catalog, signed).unwrap();
    home.ok(&["image", "pull", IMAGE]);
    home.ok(&["image", "delete", IMAGE]);
    home.finish();
}
