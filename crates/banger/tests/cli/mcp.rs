//! `banger mcp`, driven line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use banger_testkit::Home;
use serde_json::{Value, json};

use crate::support::home;

/// A client of one server.
struct Client {
    server: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    next: u64,
    /// Messages of progress so far.
    progress: Vec<String>,
}

impl Client {
    fn start(home: &Home, args: &[&str]) -> Self {
        Self::of(home.command(&[&["mcp"], args].concat()))
    }

    fn of(mut command: Command) -> Self {
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = server.stdin.take();
        let from = BufReader::new(server.stdout.take().unwrap());
        let mut client = Self { server, to, from, next: 0, progress: Vec::new() };
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = client.ask("initialize", hello);
        assert_eq!(answer["result"]["serverInfo"]["name"], "banger");
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.to.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Sends a request; returns its id.
    fn request(&mut self, method: &str, parameters: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters }));
        id
    }

    /// The answer to a request.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.message();
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The next message.
    fn message(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.from.read_line(&mut line).unwrap() > 0, "the server ended");
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["method"] == "notifications/progress" {
            let text = message["params"]["message"].as_str().unwrap_or_default();
            self.progress.push(text.to_owned());
        }
        message
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.request(method, parameters);
        self.answer(id)
    }

    /// Begins a call of a tool.
    fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        let token = json!({ "progressToken": format!("of {tool}") });
        let call = json!({ "name": tool, "arguments": arguments, "_meta": token });
        self.request("tools/call", call)
    }

    /// The result of a call that must succeed.
    #[track_caller]
    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments);
        let result = self.answer(id)["result"].clone();
        assert_eq!(result["isError"], false, "{tool}: {result}");
        result["structuredContent"].clone()
    }

    /// The error of a call that must fail.
    #[track_caller]
    fn fail(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments);
        let result = self.answer(id)["result"].clone();
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["structuredContent"]["error"].clone()
    }

    /// Names of the tools.
    fn tools(&mut self) -> Vec<String> {
        let answer = self.ask("tools/list", json!({}));
        let tools = answer["result"]["tools"].as_array().unwrap().clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Closes the connection; the exit code of the server.
    fn close(mut self) -> Option<i32> {
        self.to = None;
        self.server.wait().unwrap().code()
    }

    /// Ends the server by a signal; its exit code.
    fn signal(mut self, number: i32) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.server);
        let signal = rustix::process::Signal::from_named_raw(number).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        self.server.wait().unwrap().code()
    }
}

fn names(home: &Home) -> Vec<String> {
    let listing: Value = serde_json::from_str(&home.ok(&["ps", "-a", "--json"])).unwrap();
    let name = |vm: &Value| vm["name"].as_str().unwrap().to_owned();
    listing.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_machine_is_made_used_and_removed_with_the_session() {
    let home = home();
    let mut client = Client::start(&home, &[]);
    let web = client.call("create", json!({ "name": "web", "labels": { "task": "t" } }));
    assert_eq!((&web["state"], &web["ends_with_session"]), (&json!("running"), &json!(true)));
    assert_eq!(web["labels"]["task"], "t");
    assert!(client.progress.iter().any(|stage| stage == "boot"), "{:?}", client.progress);
    client.call("create", json!({ "name": "stays", "keep": true }));

    client.progress.clear();
    let ran = client.call(
        "exec",
        json!({
            "vm": "web", "command": "echo out; echo err >&2; exit 7", "workdir": "/srv",
        }),
    );
    assert_eq!((&ran["exit_code"], &ran["timed_out"]), (&json!(7), &json!(false)));
    assert_eq!((&ran["stdout"], &ran["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert_eq!(client.progress, ["out\n", "err\n"]);
    let cat = client.call("exec", json!({ "vm": "web", "argv": ["cat"], "stdin": "in\u{1b}[2J" }));
    assert_eq!(cat["stdout"], "in\\u{1b}[2J", "escape sequences are shown");

    client.call("write_file", json!({ "vm": "web", "path": "/root/a", "content": "text\n" }));
    let read = client.call("read_file", json!({ "vm": "web", "path": "a", "offset": 2 }));
    assert_eq!(
        read,
        json!({
            "content": "xt\n", "encoding": "text", "offset": 2, "size": 5, "truncated": false,
        })
    );
    let bytes = json!({ "vm": "web", "path": "b", "content": "G1syShA=", "encoding": "base64" });
    client.call("write_file", bytes);
    let read = client.call("read_file", json!({ "vm": "web", "path": "/root/b" }));
    assert_eq!((&read["encoding"], &read["content"]), (&json!("base64"), &json!("G1syShA=")));

    let run = client.call("run", json!({ "command": "hostname" }));
    assert!(run["stdout"].as_str().unwrap().contains('-'), "{run}");
    let own = client.call("list", json!({ "own": true }));
    assert_eq!(own["machines"].as_array().unwrap().len(), 1, "{own}");
    assert_eq!(client.close(), Some(0));
    assert_eq!(names(&home), ["stays"]);
    home.ok(&["vm", "delete", "-f", "stays"]);
    home.finish();
}

#[test]
fn machines_end_with_a_server_that_is_killed() {
    let home = home();
    for (number, code) in [(15, Some(143)), (2, Some(130)), (1, Some(129)), (9, None)] {
        let mut client = Client::start(&home, &[]);
        client.call("create", json!({ "name": "web" }));
        assert_eq!(client.signal(number), code);
        home.wait_state("web", "gone");
    }
    home.finish();
}

#[test]
fn commands_have_limits_in_time_and_size() {
    let home = home();
    let mut client = Client::start(&home, &[]);
    client.call("create", json!({ "name": "web" }));
    let slept = client.call(
        "exec",
        json!({
            "vm": "web", "command": "echo begun; sleep 1000", "timeout_ms": 50,
        }),
    );
    assert_eq!((&slept["timed_out"], &slept["signal"]), (&json!(true), &json!(15)));
    assert_eq!(slept["stdout"], "begun\n");
    let long = "0123456789".repeat(100);
    let cut = client.call(
        "exec",
        json!({
            "vm": "web", "argv": ["cat"], "stdin": long, "max_output_bytes": 20,
        }),
    );
    assert_eq!(cut["stdout"], "0123456789\n[980 bytes left out]\n0123456789");
    assert_eq!((&cut["truncated"], &cut["stdout_bytes"]), (&json!(true), &json!(1000)));
    // A call that the client gives up.
    let id = client.begin("exec", json!({ "vm": "web", "command": "echo begun; sleep 1000" }));
    while client.message()["params"]["message"] != "begun\n" {}
    let reason = json!({ "requestId": id, "reason": "a test" });
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": reason,
    });
    client.send(&cancel);
    assert_eq!(client.call("exec", json!({ "vm": "web", "argv": ["true"] }))["exit_code"], 0);
    assert_eq!(client.close(), Some(0));
    home.finish();
}

#[test]
fn errors_have_a_code_and_a_remedy() {
    let home = home();
    let mut client = Client::start(&home, &[]);
    let missing = client.fail("exec", json!({ "vm": "web", "command": "true" }));
    assert_eq!(missing["code"], "not_found");
    assert!(missing["remedy"].as_str().unwrap().contains("banger vm list"), "{missing}");
    for (tool, arguments, message) in [
        ("exec", json!({ "vm": "web" }), "there is no command"),
        ("exec", json!({ "vm": "w", "command": "x", "argv": ["x"] }), "exclude each other"),
        ("exec", json!({ "vm": "w", "command": "x", "timeout_ms": 0 }), "must be from 1 to"),
        ("exec", json!({ "machine": "w" }), "unknown field `machine`"),
        ("create", json!({ "name": "A b" }), "is not a VM name"),
        ("create", json!({ "publish": ["x"] }), "is not a port to publish"),
        ("create", json!({ "labels": { "A b": "" } }), "is not a label key"),
        ("write_file", json!({ "vm": "w", "path": "/srv/", "content": "" }), "must name a file"),
        ("write_file", json!({ "vm": "w", "path": "a", "content": "", "mode": "9" }), "octal"),
        ("read_file", json!({ "vm": "w", "path": "a", "max_bytes": 0 }), "must be from 1 to"),
        ("list_files", json!({ "vm": "w", "path": "a", "depth": 9 }), "must be from 1 to 8"),
        ("publish", json!({ "vm": "w", "port": "80:x" }), "is not a port to publish"),
        ("upload", json!({ "vm": "w", "host_path": "/etc", "path": "" }), "is not in a folder"),
        ("download", json!({ "vm": "w", "host_path": "/x", "path": "" }), "is not in a folder"),
        ("workspace_diff", json!({ "vm": "w", "max_output_bytes": 0 }), "must be from 1 to"),
        ("format", json!({}), "there is no tool `format`"),
    ] {
        let error = client.fail(tool, arguments.clone());
        assert_eq!(error["code"], "bad_request", "{tool} {arguments}: {error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{tool}: {error}");
    }
    client.call("create", json!({ "name": "web" }));
    let program = client.fail("exec", json!({ "vm": "web", "argv": ["nosuch"] }));
    assert_eq!(program["message"], "`nosuch` was not found");
    let folder = client.fail("read_file", json!({ "vm": "web", "path": "/root" }));
    assert!(folder["message"].as_str().unwrap().contains("is a folder"), "{folder}");
    let absent = client.fail("read_file", json!({ "vm": "web", "path": "/nosuch" }));
    assert_eq!(absent["code"], "not_found", "{absent}");
    // A machine that the user made.
    home.ok(&["vm", "create", "--name", "mine"]);
    let refused = client.fail("delete", json!({ "vm": "mine" }));
    assert_eq!(refused["code"], "wrong_state");
    client.call("delete", json!({ "vm": "mine", "force": true }));
    client.call("delete", json!({ "vm": "web" }));
    assert!(names(&home).is_empty());
    assert_eq!(client.close(), Some(0));
    home.finish();
}

#[test]
fn tools_can_be_left_out() {
    let home = home();
    let mut client = Client::start(&home, &["--read-only"]);
    let reading = [
        "list",
        "show",
        "read_file",
        "list_files",
        "workspace_status",
        "workspace_diff",
        "ports",
        "logs",
    ];
    assert_eq!(client.tools(), reading);
    let error = client.fail("create", json!({}));
    assert!(error["remedy"].as_str().unwrap().contains("--read-only"), "{error}");
    assert_eq!(client.close(), Some(0));
    let mut client = Client::start(&home, &["--tools", "exec,create"]);
    assert_eq!(client.tools(), ["create", "exec"]);
    client.fail("delete", json!({ "vm": "web" }));
    assert_eq!(client.close(), Some(0));
    home.finish();
}

#[test]
fn files_are_copied_within_the_folders_of_the_server() {
    let home = home();
    let folder = home.path().join("project");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    std::fs::write(folder.join("src/main"), "main\n").unwrap();
    let mut server = home.command(&["mcp"]);
    server.current_dir(&folder);
    let mut client = Client::of(server);
    client.call("create", json!({ "name": "web" }));
    // The working folder of the server, where it was not told other ones.
    let sent = client.call("upload", json!({ "vm": "web", "host_path": "src", "path": "/srv" }));
    assert_eq!((&sent["bytes"], &sent["left_out"]), (&json!(5), &json!(0)));
    let read = client.call("read_file", json!({ "vm": "web", "path": "/srv/src/main" }));
    assert_eq!(read["content"], "main\n");
    let contents = json!({ "vm": "web", "host_path": "src/.", "path": "/srv/other" });
    client.call("upload", contents);
    let got = json!({ "vm": "web", "path": "/srv/other/main", "host_path": "copy" });
    assert_eq!(client.call("download", got)["bytes"], 5);
    assert_eq!(std::fs::read(folder.join("copy")).unwrap(), b"main\n");
    let outside = json!({ "vm": "web", "path": "/srv/other/main", "host_path": "../copy" });
    let error = client.fail("download", outside);
    assert!(error["remedy"].as_str().unwrap().contains("--files FOLDER"), "{error}");
    assert!(!home.path().join("copy").exists());
    let missing = json!({ "vm": "web", "path": "/srv/nosuch", "host_path": "copy" });
    assert_eq!(client.fail("download", missing)["code"], "not_found");
    assert_eq!(std::fs::read(folder.join("copy")).unwrap(), b"main\n", "it is as it was");
    for tool in ["workspace_status", "workspace_diff", "workspace_pull"] {
        let error = client.fail(tool, json!({ "vm": "web" }));
        assert_eq!(error["code"], "not_found", "{tool}: {error}");
        assert!(error["remedy"].as_str().unwrap().contains("banger run PATH"), "{tool}");
    }
    assert_eq!(client.close(), Some(0));
    let absent = home.run(&["mcp", "--files", "/nosuch"]);
    assert!(absent.err.contains("`/nosuch` of this host cannot be used"), "{}", absent.err);
    home.finish();
}
