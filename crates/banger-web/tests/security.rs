//! Who is admitted to the page: each rule with requests as an attacker's page, another program or
//! another browser would send them, against a daemon on the simulated host.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use banger_api::paths::Paths;
use banger_client::Client;
use banger_testkit::{Home, Options, program};
use banger_web::{Links, WebPage};

/// A page in front of a simulated daemon.
struct Page {
    home: Home,
    address: SocketAddr,
    links: Links,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A browser with a session.
struct Browser {
    cookie: String,
    csrf: String,
}

impl Page {
    fn start() -> Self {
        let home = Home::bare(Options {
            env: vec![("BANGERD".into(), program("bangerd-sim").display().to_string())],
            ..Options::default()
        });
        home.ok(&["daemon", "start"]);
        let root = home.path().to_owned();
        let (send, receive) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let uid = rustix::process::geteuid().as_raw();
                let paths =
                    Paths::resolve(|name| (name == "BANGER_HOME").then(|| root.clone()), uid);
                let client = Client::of_running_daemon(paths.unwrap());
                let page = WebPage::bind(client, "127.0.0.1:0".parse().unwrap()).await.unwrap();
                send.send((page.address(), page.links())).unwrap();
                tokio::select! {
                    served = page.serve() => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let (address, links) = receive.recv().unwrap();
        Self { home, address, links, _stop: stop }
    }

    /// Sends a request and reads the answer to the end of the connection.
    fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status: status.unwrap_or_default(), head: head.into(), body: body.into() }
    }

    fn request(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            text += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += "Content-Type: application/x-www-form-urlencoded\r\n";
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        self.send(&format!("{text}\r\n{body}"))
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request(&format!("GET {path}"), headers, "")
    }

    fn link(&self) -> String {
        let link = self.links.new_link().unwrap();
        link.strip_prefix(&format!("http://{}", self.address)).unwrap().to_owned()
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens a link and remembers cookie and token.
    fn browser(&self) -> Browser {
        let answer = self.get(&self.link(), &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let list = self.get("/", &[("Cookie", &cookie)]);
        assert_eq!(list.status, 200, "{}", list.body);
        let (_, rest) = list.body.split_once("name=\"csrf\" value=\"").unwrap();
        let csrf = rest.split('"').next().unwrap().to_owned();
        Browser { cookie, csrf }
    }

    /// Submits a form as the page's own scripts and forms do.
    fn post(&self, browser: &Browser, path: &str, fields: &str) -> Answer {
        let body = format!("csrf={}&{fields}", browser.csrf);
        let headers = [("Cookie", browser.cookie.as_str()), ("Origin", &self.origin())];
        self.request(&format!("POST {path}"), &headers, &body)
    }

    fn vms(&self) -> usize {
        self.home.json(&["vm", "list"]).as_array().unwrap().len()
    }
}

#[test]
fn a_link_opens_one_session() {
    let page = Page::start();
    let link = page.link();
    for path in ["/", "/vms/new", "/images", "/operations", "/host", "/live/vms", "/vms/x", "/nope"]
    {
        let answer = page.get(path, &[]);
        assert_eq!(answer.status, 401, "{path} without a session");
        assert!(answer.body.contains("banger web"), "{}", answer.body);
    }
    let first = page.get(&link, &[]);
    let cookie = first.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let stolen = page.get(&link, &[]);
    assert_eq!((stolen.status, stolen.header("set-cookie")), (403, None));
    assert!(stolen.body.contains("somebody else has"), "{}", stolen.body);
    let guessed = page.get("/enter?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &[]);
    assert_eq!((guessed.status, guessed.header("set-cookie")), (403, None));
    assert_eq!(page.get("/enter", &[]).status, 403);
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(page.get("/", &[("Cookie", cookie)]).status, 200);
    // Beside a cookie of the same name that another port of this address has set.
    let name = cookie.split('=').next().unwrap();
    let both = format!("{name}=planted; other=1; {cookie}");
    assert_eq!(page.get("/", &[("Cookie", &both)]).status, 200);
    let forged = format!("{name}=planted");
    assert_eq!(page.get("/", &[("Cookie", &forged)]).status, 401);
}

#[test]
fn a_session_ends_when_the_user_leaves() {
    let page = Page::start();
    let (browser, other) = (page.browser(), page.browser());
    assert_eq!(page.post(&browser, "/leave", "").status, 303);
    assert_eq!(page.get("/", &[("Cookie", &browser.cookie)]).status, 401);
    assert_eq!(page.get("/", &[("Cookie", &other.cookie)]).status, 200);
}

#[test]
fn a_name_that_was_rebound_is_refused() {
    let page = Page::start();
    let (browser, link) = (page.browser(), page.link());
    let port = page.address.port();
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.1".into()] {
        for path in ["/", link.as_str(), "/static/0/app.js", "/live/vms"] {
            let answer = page.get(path, &[("Host", &host), ("Cookie", &browser.cookie)]);
            assert_eq!(answer.status, 403, "{host} {path}");
            assert!(!answer.body.contains(&browser.csrf));
        }
    }
    // A second `Host`, and a name in the request line.
    let end = format!("Cookie: {}\r\nConnection: close\r\n\r\n", browser.cookie);
    let two = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n{end}");
    assert!((400..500).contains(&page.send(&two).status));
    let absolute = format!("GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{end}");
    assert_eq!(page.send(&absolute).status, 403);
    assert_eq!(page.send("GET / HTTP/1.0\r\n\r\n").status, 403);
    // The link was not used up by that.
    let forwarded = [("Host", "localhost:8000")];
    assert_eq!(page.get(&link, &forwarded).status, 200, "a forwarded port");
}

#[test]
fn a_form_of_another_page_is_refused() {
    let page = Page::start();
    let (browser, other) = (page.browser(), page.browser());
    let (cookie, origin) = (browser.cookie.as_str(), page.origin());
    let valid = format!("csrf={}&name=web&no_start=yes", browser.csrf);
    let foreign = format!("http://127.0.0.1:{}", page.address.port() - 1);
    let post =
        |headers: &[(&str, &str)], body: &str| page.request("POST /vms", headers, body).status;
    for (what, headers, body, status) in [
        ("no session", vec![("Origin", origin.as_str())], valid.as_str(), 401),
        ("no origin", vec![("Cookie", cookie)], valid.as_str(), 403),
        ("another site", vec![("Cookie", cookie), ("Origin", "http://evil.example")], &valid, 403),
        ("a guest's port", vec![("Cookie", cookie), ("Origin", &foreign)], &valid, 403),
        ("a sandboxed frame", vec![("Cookie", cookie), ("Origin", "null")], &valid, 403),
        (
            "another site, by its metadata",
            vec![("Cookie", cookie), ("Origin", &origin), ("Sec-Fetch-Site", "cross-site")],
            &valid,
            403,
        ),
        ("no token", vec![("Cookie", cookie), ("Origin", &origin)], "name=web&no_start=yes", 403),
        ("an empty token", vec![("Cookie", cookie), ("Origin", &origin)], "csrf=&name=web", 403),
        (
            "the token of another session",
            vec![("Cookie", other.cookie.as_str()), ("Origin", &origin)],
            &valid,
            403,
        ),
    ] {
        assert_eq!(post(&headers, body), status, "{what}");
    }
    assert_eq!(page.vms(), 0, "nothing was created");
    assert_eq!(post(&[("Cookie", cookie), ("Origin", &origin)], &valid), 303);
    for path in ["/vms/actions", "/images/do/pull", "/leave", "/operations/op-abc123/cancel"] {
        let headers = [("Cookie", cookie), ("Origin", origin.as_str())];
        assert_eq!(page.request(&format!("POST {path}"), &headers, "x=1").status, 403, "{path}");
    }
    // Other methods reach no handler without a token either.
    for method in ["PUT", "DELETE", "PATCH"] {
        let headers = [("Cookie", cookie), ("Origin", origin.as_str())];
        assert_eq!(page.request(&format!("{method} /vms"), &headers, "x=1").status, 403);
    }
}

#[test]
fn a_terminal_needs_a_session_and_the_own_origin() {
    let page = Page::start();
    page.home.ok(&["vm", "create", "--name", "web"]);
    let browser = page.browser();
    let origin = page.origin();
    let connect = |more: &[(&str, &str)]| {
        let mut headers = vec![
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        headers.extend(more);
        let mut text = String::from("GET /vms/web/terminal/socket?rows=24&cols=80 HTTP/1.1\r\n");
        text += &format!("Host: {}\r\nConnection: Upgrade\r\n", page.address);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(page.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), stream)
    };
    let cookie = ("Cookie", browser.cookie.as_str());
    let own = ("Origin", origin.as_str());
    for (what, headers, status) in [
        ("no cookie", vec![own], 401),
        ("a wrong cookie", vec![own, ("Cookie", "banger_1=x")], 401),
        ("no origin", vec![cookie], 403),
        ("another site", vec![cookie, ("Origin", "http://evil.example")], 403),
        ("a guest's port", vec![cookie, ("Origin", "http://127.0.0.1:1")], 403),
        ("another host", vec![cookie, ("Origin", "http://localhost")], 403),
    ] {
        assert_eq!(connect(&headers).0, status, "{what}");
    }
    let (status, mut stream) = connect(&[cookie, own]);
    assert_eq!(status, 101);
    // The first message: a text frame (RFC 6455, section 5.2) of 7 bytes.
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x07\"ready\"");
}

#[test]
fn nothing_from_elsewhere_is_loaded_and_nothing_inline_runs() {
    let page = Page::start();
    page.home.ok(&["vm", "create", "--name", "web"]);
    let browser = page.browser();
    let cookie = [("Cookie", browser.cookie.as_str())];
    for path in
        ["/", "/vms/new", "/vms/web", "/vms/web/terminal", "/images", "/operations", "/host", "/no"]
    {
        let answer = page.get(path, &cookie);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
        for weak in ["unsafe", "http", "*", "data:", "blob:", "nonce"] {
            assert!(!policy.contains(weak), "{policy}");
        }
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let body = &answer.body;
        for inline in [" style=", "<style", " onclick", " onload", "javascript:"] {
            assert!(!body.contains(inline), "{path}: {inline}");
        }
        for script in body.split("<script").skip(1) {
            let tag = script.split('>').next().unwrap();
            assert!(tag.contains(" src=\"/static/"), "{path}: {tag}");
        }
        for source in body.split("src=\"").skip(1).chain(body.split("<link rel").skip(1)) {
            assert!(!source.split('>').next().unwrap().contains("//"), "{path}: {source}");
        }
    }
    let licences = page.get("/licences", &cookie);
    let text = page.get(licences.header("location").unwrap(), &cookie).body;
    for name in ["@xterm/xterm", "@xterm/addon-fit", "uplot"] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn data_is_lost_only_after_a_confirmation() {
    let page = Page::start();
    page.home.ok(&["vm", "create", "--name", "web", "--no-start"]);
    let browser = page.browser();
    for (path, fields) in [
        ("/vms/web/actions", "action=delete".to_owned()),
        (
            "/vms/actions",
            format!(
                "action=delete&vm={}",
                page.home.json(&["vm", "show", "web"])["id"].as_str().unwrap()
            ),
        ),
    ] {
        let asked = page.post(&browser, path, &fields);
        assert_eq!(asked.status, 200);
        assert!(asked.body.contains("Delete web?"), "{}", asked.body);
        assert_eq!(page.vms(), 1);
    }
    assert_eq!(page.post(&browser, "/vms/web/actions", "action=delete&confirmed=yes").status, 303);
    page.home.wait("the VM to be gone", || page.vms() == 0);
}

#[test]
fn a_failed_create_shows_the_daemons_reason_and_keeps_the_values() {
    let page = Page::start();
    page.home.ok(&["vm", "create", "--name", "web", "--no-start"]);
    let browser = page.browser();
    for (fields, status, text) in [
        ("name=web&memory=1G", 409, "web"),
        ("name=Bad_Name", 400, "`Bad_Name` is not a VM name"),
        ("name=x&memory=banana", 400, "`banana` is not a size"),
        ("name=x&vcpus=99", 400, "99 vCPUs"),
        ("name=x&publish=80", 400, "`80` is not a port to publish"),
    ] {
        let answer = page.post(&browser, "/vms", fields);
        assert_eq!(answer.status, status, "{fields}: {}", answer.body);
        assert!(answer.body.contains("role=\"alert\"") && answer.body.contains(text), "{fields}");
        let value = fields.split('&').next().unwrap().split('=').nth(1).unwrap();
        assert!(answer.body.contains(&format!("value=\"{value}\"")), "{fields}");
    }
    assert_eq!(page.vms(), 1);
    let hostile = page.post(&browser, "/vms", "name=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    assert_eq!(hostile.status, 400);
    assert!(!hostile.body.contains("<script>alert"), "{}", hostile.body);
}

#[test]
fn only_the_loopback_interface_is_listened_on() {
    let paths = Paths::resolve(|name| (name == "BANGER_HOME").then_some("/nonexistent"), 0);
    let client = Client::of_running_daemon(paths.unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7777"] {
        let bound = runtime.block_on(WebPage::bind(client.clone(), address.parse().unwrap()));
        let error = bound.err().unwrap();
        assert!(error.message.contains("ssh -L"), "{}", error.message);
    }
}
