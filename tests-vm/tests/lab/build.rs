//! An image that is built in a machine under Firecracker.

use std::fs;

use serde_json::Value;
use tests_vm::package::package;

use crate::support::{finish, home, host};

const IMAGE: &str = "test-build";
/// The Debian package and its program.
const NAME: &str = "greeter";
const PROGRAM: &str = "#!/bin/sh\necho hello from a package\n";

#[test]
fn build_installs_a_package_with_apt() {
    let before = host();
    let home = home("");
    let folder = tempfile::tempdir().unwrap();
    let deb = package(folder.path(), NAME, ("/usr/local/bin/greeter", PROGRAM));
    let (empty, none) = (folder.path().join("empty"), folder.path().join("none"));
    fs::create_dir(&empty).unwrap();
    fs::write(&none, "").unwrap();
    let copies = [
        format!("{}:/var/tmp/greeter.deb", deb.display()),
        // Without sources nothing is fetched, wherever the test runs.
        format!("{}/.:/etc/apt/sources.list.d", empty.display()),
        format!("{}:/etc/apt/sources.list", none.display()),
    ];
    let mut build = vec!["image", "build", IMAGE, "--from", "debian", "--replace"];
    copies.iter().for_each(|copy| build.extend(["--copy", copy]));
    build.extend(["--package", "/var/tmp/greeter.deb"]);
    home.ok(&build);
    let packages = home.json(&["image", "show", "--packages", IMAGE]);
    let installed = |name: &Value| name.as_str().unwrap() == format!("{NAME} 1.5");
    assert!(packages.as_array().unwrap().iter().any(installed), "{packages:#}");
    let said = home.ok(&["run", "--rm", "--image", IMAGE, "--", "greeter"]);
    assert_eq!(said, "hello from a package\n");
    home.ok(&["image", "delete", IMAGE]);
    finish(home, &before);
}
