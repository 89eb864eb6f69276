//! `banger run --opencode` on the simulated host, whose guests answer on port 4096 as opencode
//! does.

use std::os::unix::fs::PermissionsExt;

use banger_testkit::{Home, Run};

use crate::support::{home, run};

const IMAGE: &str = "localhost/debian-dev:1";
const PASSWORD: &str = "simulated-password";

/// Runs the CLI on a host with this opencode: it prints its arguments and what the server answers.
fn with_opencode(home: &Home, version: &str, args: &[&str]) -> Run {
    let tools = home.path().join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo {version}; exit; fi\n\
         echo \"$*\" | sed 's/127.0.0.1:[0-9]*/ADDRESS/'\n\
         for word; do case $word in http*) url=$word ;; esac; done\n\
         code() {{ curl -s -m 60 -o /dev/null -w '%{{http_code}}\\n' \"$@\" \"$url/any\"; }}\n\
         password=$OPENCODE_PASSWORD\n\
         [ $1 != attach ] || password=$OPENCODE_SERVER_PASSWORD\n\
         code\ncode -u \"opencode:$password\"\n\
         echo \"$NO_PROXY\"\n[ $1 != attach ] || exit 7\n\
         if [ $# = 3 ]; then case {version} in *preview) exit 1 ;; esac; fi\n"
    );
    std::fs::write(tools.join("opencode"), script).unwrap();
    std::fs::set_permissions(tools.join("opencode"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut command = home.command(args);
    // Somebody's own server has another password.
    command.env("PATH", path).env("OPENCODE_PASSWORD", "another");
    command.env("NO_PROXY", "example.org").output().unwrap().into()
}

#[test]
fn the_opencode_of_the_host_is_attached_with_the_password() {
    let home = home();
    let args = ["run", "--name", "dev", "--image", IMAGE, "--opencode"];
    let attached = with_opencode(&home, "1.18.33", &args);
    let expected = "attach http://ADDRESS --dir /root\n401\n200\nexample.org,127.0.0.1,dev.vm\n";
    assert_eq!((attached.out.as_str(), attached.code), (expected, 7), "{}", attached.err);
    let port = home.json(&["vm", "ports", "dev"])[0]["ports"][0].clone();
    let endpoint = port["endpoint"].as_str().unwrap();
    assert!(endpoint.starts_with("172.16.0.") && endpoint.ends_with(":4096"), "{port}");
    assert_eq!(port["link"], format!("http://{endpoint}/"));
    assert!(attached.err.ends_with("`dev` is still running; `banger vm stop dev` stops it\n"));
    let args = ["run", "--rm", "--name", "two", "--image", IMAGE, "--opencode"];
    let attached = with_opencode(&home, "2.0.0", &args);
    let expected = "--server http://ADDRESS /root\n401\n200\nexample.org,127.0.0.1,two.vm\n";
    assert_eq!((attached.out.as_str(), attached.code), (expected, 0), "{}", attached.err);
    // It cannot begin in a folder of the machine.
    let attached = with_opencode(&home, "2.0.0-preview", &args);
    let again = expected.replace(" /root", "");
    assert_eq!((attached.out, attached.code), (expected.to_owned() + &again, 0));
    assert!(attached.err.contains("go to `/root` in it"), "{}", attached.err);
    let names = home.json(&["vm", "list"]);
    assert_eq!(names.as_array().unwrap().len(), 1, "`--rm` deletes the machine: {names}");
    run(&home, "vm delete -f dev");
    home.finish();
}

#[test]
fn without_opencode_on_the_host_a_user_is_told_what_to_do() {
    let home = home();
    let plain = |args: &[&str]| -> Run {
        home.command(args).env("PATH", "/nowhere").output().unwrap().into()
    };
    let refused = plain(&["run", "--rm", "--image", IMAGE, "--opencode"]);
    assert_eq!(refused.code, 125, "{}", refused.err);
    assert!(refused.err.contains("npm install -g opencode-ai"), "{}", refused.err);
    let told = plain(&["run", "--name", "dev", "--image", IMAGE, "--opencode"]);
    assert_eq!((told.code, told.out.as_str()), (0, ""), "{}", told.err);
    for words in ["banger vm show dev --secrets", "attach http://127.0.0.1:4096 --dir /root"] {
        assert!(told.err.contains(words), "{}", told.err);
    }
    assert!(!told.err.contains(PASSWORD), "{}", told.err);
    let detached = plain(&[
        "run",
        "-d",
        "--name",
        "two",
        "--image",
        IMAGE,
        "--opencode",
        "-p",
        "127.0.0.1:14096:4096",
    ]);
    assert!(detached.err.contains("attach http://127.0.0.1:14096 "), "{}", detached.err);
    assert!(!detached.err.contains("vm set"), "{}", detached.err);
    run(&home, "vm delete -f dev two");
    home.finish();
}

#[test]
fn an_image_without_opencode_and_a_command_are_refused() {
    let home = home();
    run(&home, "image pull debian");
    for (args, words) in [
        (&["run", "--opencode"][..], "the image `debian` has no opencode"),
        (&["run", "--opencode", "--image", IMAGE, "make"], "instead of running a command"),
    ] {
        let refused = with_opencode(&home, "1.18.33", args);
        assert!(refused.code != 0 && refused.err.contains(words), "{args:?}: {}", refused.err);
    }
    assert_eq!(home.json(&["vm", "list"]), serde_json::json!([]), "nothing was created");
    home.finish();
}

#[test]
fn only_secrets_show_the_password() {
    let home = home();
    for (name, image) in [("dev", IMAGE), ("plain", "debian")] {
        home.ok(&["vm", "create", "--name", name, "--image", image, "--no-start"]);
    }
    let secrets = |name: &str| home.json(&["vm", "show", name, "--secrets"])["secrets"].clone();
    let access = serde_json::json!({ "port": 4096, "username": "opencode", "password": PASSWORD });
    assert_eq!(secrets("dev"), serde_json::json!({ "opencode": access }));
    assert_eq!(secrets("plain"), serde_json::json!({}));
    let shown = home.ok(&["vm", "show", "dev", "--secrets"]);
    assert!(shown.contains(PASSWORD), "{shown}");
    let shown = home.ok(&["vm", "show", "dev"]) + &home.json(&["vm", "show", "dev"]).to_string();
    assert!(!shown.contains(PASSWORD) && shown.contains("port 4096 of the guest"), "{shown}");
    home.ok(&["image", "show", "debian"]);
    assert_eq!(home.json(&["image", "show", IMAGE])["opencode"], true);
    run(&home, "vm delete dev plain");
    home.finish();
}
