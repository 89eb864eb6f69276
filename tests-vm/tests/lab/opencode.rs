//! The server of an image with opencode, reached by the name of its machine.

use banger_testkit::{Home, Options};
use serde_json::Value;

use crate::support::{finish, host, shell, show};

const IMAGE: &str = "test-opencode";
/// opencode as npm has it.
const PROGRAM: &str = "/payload/bin/opencode/opencode";

/// opencode starts for minutes in a guest that is emulated twice.
const PATIENT: &str = "boot_timeout_s = 1800\n[vm_defaults]\nvcpus = 2\nmemory = \"1G\"\n\
                       disk_size = \"2G\"\nwork_size = \"1G\"\n";

#[test]
fn opencode_answers_at_the_name_of_its_machine_with_the_password_only() {
    let before = host();
    let home = Home::with(Options { config: PATIENT.into(), ..Options::default() });
    let debian = home.json(&["image", "show", "debian"])["id"].clone();
    let debian = home.path().join("data/images").join(debian.as_str().unwrap()).join("root.ext4");
    let disk = home.path().join("opencode.ext4");
    // Written from outside: the copy into a guest takes minutes here.
    shell(&format!(
        "cp --sparse=always {} {disk}; truncate -s +256M {disk}; e2fsck -fp {disk}
         resize2fs {disk}
         printf '%s\\n' 'cd usr/local/bin' 'write {PROGRAM} opencode' 'sif opencode mode 0100755' |
           debugfs -w -f - {disk}",
        debian.display(),
        disk = disk.display()
    ));
    home.ok(&["image", "register", IMAGE, "--rootfs", disk.to_str().unwrap()]);
    // Longer than other commands may take.
    let created = home.command(&["vm", "create", "--name", "dev", "--image", IMAGE]).output();
    let created = created.unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let vm = show(&home, "dev");
    let stages = vm["start"]["stages"].as_array().unwrap();
    assert!(stages.iter().any(|stage| stage["name"] == "wait_opencode"), "{vm:#}");
    assert_eq!(vm["start"]["warnings"].as_array().map_or(0, Vec::len), 0, "{vm:#}");
    let secrets = home.json(&["vm", "show", "dev", "--secrets"])["secrets"].clone();
    let password = secrets["opencode"]["password"].as_str().unwrap();
    let status = |user: &str| {
        let config = if user.is_empty() { String::new() } else { format!("user = {user}") };
        shell(&format!(
            "curl -s -m 120 -o /dev/null -w '%{{http_code}}' -K - http://dev.vm:4096/ <<<'{config}'"
        ))
    };
    assert_eq!(status(""), "401");
    assert_eq!(status("opencode:other"), "401");
    assert_eq!(status(&format!("opencode:{password}")), "200");
    let ports = home.json(&["vm", "ports", "dev"])[0]["ports"].clone();
    let link = |port: &Value| port["link"] == "http://dev.vm:4096/";
    assert!(ports.as_array().unwrap().iter().any(link), "{ports:#}");
    home.ok(&["vm", "delete", "-f", "dev"]);
    home.ok(&["image", "delete", IMAGE]);
    finish(home, &before);
}
