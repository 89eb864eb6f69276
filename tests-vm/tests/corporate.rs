//! A VM behind an intercepting proxy with its own authority: `[proxy]` and `[ca]`.
//!
//! The proxy runs in a network namespace, the daemon with its guest in another one, and one pair of
//! interfaces connects them. There is no route, so only the proxy's address can be reached.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use banger_testkit::{Home, Options, Run, program};
use tests_vm::archive::{FIXED_ADDRESSES, archive};

/// Image of the test: what developers install behind such a proxy.
const IMAGE: &str = "test-corporate";
const PACKAGES: &str = "ca-certificates,crun,curl,dbus,git,iproute2,kmod,netavark,npm,passwd,\
    podman,procps,python3-pip,systemd,systemd-sysv,udev";

const PROXY: &str = "10.99.0.1";
/// A server that the proxy reaches, and the guest only through the proxy.
const ORIGIN: &str = "198.51.100.7";
const CREDENTIALS: &str = "me:p@ss";
/// Names in the certificate of the proxy: those that package managers ask by default.
const NAMES: &str =
    "DNS:*.corp.test,DNS:pypi.org,DNS:files.pythonhosted.org,DNS:registry.npmjs.org";

/// Programs that fetch something through the proxy, with a part of their output and a request that
/// the proxy then has seen.
const PROGRAMS: [(&str, &str, &str); 11] = [
    ("curl -fsS https://www.corp.test/hello", "hello", "https www.corp.test /hello"),
    ("curl -fsS http://198.51.100.7/hello", "hello", "http 198.51.100.7 /hello"),
    (
        "git ls-remote https://git.corp.test/x.git",
        "refs/heads/main",
        "https git.corp.test /x.git/info/refs",
    ),
    (
        "python3 -c 'import urllib.request as r; \
         print(r.urlopen(\"https://py.corp.test/hello\").read())'",
        "hello",
        "https py.corp.test /hello",
    ),
    // Without the variables: the bundle, and OpenSSL's folder.
    (
        "env -u SSL_CERT_FILE python3 -c 'import urllib.request as r; \
         print(r.urlopen(\"https://folder.corp.test/hello\").read())'",
        "hello",
        "https folder.corp.test /hello",
    ),
    (
        "pip install -q --break-system-packages --root-user-action ignore corporate && \
         python3 -m corporate",
        "by pip",
        "https files.pythonhosted.org /packages/corporate-1.0-py3-none-any.whl",
    ),
    (
        "mkdir /tmp/n && cd /tmp/n && npm install --no-audit --no-fund --no-update-notifier \
         corporate && node -e 'require(\"corporate\")'",
        "by npm",
        "https registry.npmjs.org /corporate/-/corporate-1.0.0.tgz",
    ),
    (
        "echo 'deb [trusted=yes] https://apt.corp.test/debian ./' > /tmp/l; \
         o='-o Dir::Etc::SourceList=/tmp/l -o Dir::Etc::SourceParts=-'; \
         apt-get update $o -o APT::Update::Error-Mode=any && apt-cache policy $o corporate",
        "1.0-corp",
        "https apt.corp.test /debian/./Packages",
    ),
    // A service of systemd, as Docker is.
    (
        "systemd-run --quiet --pipe --wait curl -fsS https://unit.corp.test/unit",
        "unit",
        "https unit.corp.test /unit",
    ),
    // A login, through PAM, and as another user.
    (
        "runuser -l nobody -s /bin/sh -c 'curl -fsS https://login.corp.test/login'",
        "login",
        "https login.corp.test /login",
    ),
    // A container's image, and a program in the container; the programs are the guest's.
    (
        "podman run --quiet --rm --network host --cgroups disabled \
         --security-opt apparmor=unconfined -v /usr:/usr:ro \
         -v /usr/bin:/bin:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro \
         -v /etc/ssl:/etc/ssl:ro registry.corp.test/corporate \
         sh -c 'cat /etc/corporate && curl -fsS https://inside.corp.test/inside'",
        "container\ninside",
        "https inside.corp.test /inside",
    ),
];

/// A process that keeps a network namespace, and ends with its input: with the test.
struct Namespace {
    child: Child,
    _input: ChildStdin,
}

impl Namespace {
    /// Runs a program in a new namespace, whose loopback interface is up.
    fn new(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh", program])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        Self { child, _input: input }
    }

    /// The namespace without a program.
    fn idle() -> Self {
        let mut namespace = Self::new("sh", &["-c", "echo ready; exec cat"]);
        let mut ready = [0; 6];
        namespace.child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        namespace
    }

    fn path(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.child.id())
    }

    /// Runs a command in it.
    fn run(&self, script: &str) -> Run {
        let mut command = Command::new("nsenter");
        command.args([&self.path(), "sh", "-c", script]).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    fn ok(&self, script: &str) -> String {
        let run = self.run(script);
        assert_eq!(run.code, 0, "{script}: {}", run.err);
        run.out
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The proxy in its namespace, and the namespace of the daemon.
struct Network {
    outer: Namespace,
    inner: Namespace,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Network {
    fn start(folder: &Path) -> Self {
        let fixture = |name| format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        make_certificates(folder);
        run("python3", &[&fixture("corporate_files.py"), &at("served")]);
        let script = fixture("intercepting_proxy.py");
        let (proxy, origin) = (format!("{PROXY}:3128"), format!("{ORIGIN}:80"));
        let start = format!(
            "ip address add {PROXY}/32 dev lo && ip address add {ORIGIN}/32 dev lo && \
             exec python3 \"$@\""
        );
        let (leaf, key, served) = (at("leaf.pem"), at("leaf.key"), at("served"));
        let args =
            ["-c", &start, "sh", &script, &leaf, &key, &served, CREDENTIALS, &proxy, &origin];
        let mut outer = Namespace::new("sh", &args);
        let mut lines = BufReader::new(outer.child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| seen.lock().unwrap().push(line));
        });
        let inner = Namespace::idle();
        outer.ok(&format!(
            "ip link add v-up type veth peer name v-down netns {} && ip link set v-up up && \
             ip route add 10.99.0.2 dev v-up src {PROXY}",
            inner.child.id()
        ));
        inner.ok(&format!(
            "ip address add 10.99.0.2/32 dev v-down && ip link set v-down up && \
             ip route add {PROXY} dev v-down"
        ));
        Self { outer, inner, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// A command line that runs, with its daemon, in the inner namespace.
    fn cli(&self, folder: &Path) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join("banger");
        let (net, banger) = (self.inner.path(), program("banger"));
        let script = format!("#!/bin/sh\nexec nsenter {net} {} \"$@\"\n", banger.display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
}

/// An authority, and a certificate of it for the proxy.
fn make_certificates(folder: &Path) {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let request = [request.as_slice(), &["-nodes", "-days", "2"]].concat();
    let (ca, ca_key, names) = (at("ca.pem"), at("ca.key"), format!("subjectAltName={NAMES}"));
    let authority = ["-subj", "/O=Corp/CN=Corp Root", "-keyout", &ca_key, "-out", &ca];
    run("openssl", &[&request, authority.as_slice()].concat());
    let (leaf, leaf_key) = (at("leaf.pem"), at("leaf.key"));
    let files = ["-keyout", &leaf_key, "-out", &leaf, "-CA", &ca, "-CAkey", &ca_key];
    let extensions = ["-addext", &names, "-addext", "basicConstraints=CA:FALSE"];
    run("openssl", &[&request, ["-subj", "/CN=leaf"].as_slice(), &files, &extensions].concat());
}

fn sh(home: &Home, script: &str) -> Run {
    home.run(&["exec", "--wait", "booted", "web", "--", "sh", "-c", script])
}

/// The next daemon reads this configuration.
fn configure(home: &Home, config: &str) {
    home.run(&["daemon", "stop"]);
    let config = format!("vmm = \"qemu\"\n[network]\ndriver = \"user\"\n{config}");
    fs::write(home.path().join("config/config.toml"), config).unwrap();
}

/// The image is in the cache of all tests, so a second home needs no network to use it.
fn import_image() {
    let archive = archive(IMAGE, PACKAGES, FIXED_ADDRESSES);
    let home = Home::new();
    home.ok(&["image", "import", "--replace", "--name", IMAGE, archive.to_str().unwrap()]);
    home.finish();
}

#[test]
fn programs_of_a_guest_get_through_an_intercepting_proxy() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only the superuser can make network namespaces");
        return;
    }
    import_image();
    let folder = tempfile::tempdir().unwrap();
    let network = Network::start(folder.path());
    let home = Home::with(Options { cli: Some(network.cli(folder.path())), ..Options::default() });
    let url = format!("http://me:p%40ss@{PROXY}:3128");
    let bundle = folder.path().join("ca.pem");
    let settings = format!(
        "[proxy]\nhttp = \"{url}\"\nhttps = \"{url}\"\n[ca]\nfiles = [\"{}\"]\n",
        bundle.display()
    );
    configure(&home, &settings);
    home.ok(&["vm", "create", "--name", "web", "--image", IMAGE, "--memory", "1G"]);
    programs_get_through(&home, &network);
    nothing_gets_round(&home, &network);

    // The distribution's own program keeps the certificate.
    let again = sh(&home, "update-ca-certificates >&2 && curl -fsS https://www.corp.test/hello");
    assert_eq!(again.out, "hello", "{}", again.err);
    // The password is in no argument of a program and in no output.
    let doctor = home.run(&["doctor", "-v"]);
    assert!(doctor.out.contains(&format!("http://***@{PROXY}")), "{}", doctor.out);
    for text in [doctor.out, doctor.err, home.ok(&["daemon", "logs"])] {
        assert!(!text.contains("p%40ss"), "{text}");
    }

    // A file that cannot be used refuses the start.
    home.ok(&["vm", "stop", "web"]);
    fs::copy(folder.path().join("ca.key"), &bundle).unwrap();
    let refused = home.run(&["vm", "start", "web"]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    assert!(refused.err.contains("ca.pem` contains a private key (line 1)"), "{}", refused.err);

    // Without the settings nothing of them stays, and the certificate is not trusted.
    configure(&home, "");
    home.ok(&["vm", "start", "web"]);
    let early = |script: &str| home.run(&["exec", "web", "--", "sh", "-c", script]);
    let left = early(
        "env | grep -i -e proxy -e ssl_cert; \
         grep -rl -e corp -e banger /etc/environment /etc/profile.d /etc/banger \
         /run/systemd/system.conf.d /usr/local/share/ca-certificates; \
         find /etc/ssl/certs -lname '*banger*'; true",
    );
    assert_eq!(left.out, "", "{}", left.err);
    let untrusted = early(&format!("curl -fsS -x {url} https://www.corp.test/hello"));
    assert_eq!(untrusted.code, 60, "{}{}", untrusted.out, untrusted.err);
    home.ok(&["vm", "delete", "-f", "web"]);
    home.ok(&["image", "delete", IMAGE]);
    home.finish();
}

fn programs_get_through(home: &Home, network: &Network) {
    for (program, output, request) in PROGRAMS {
        let run = sh(home, program);
        let requests = network.requests();
        assert!(
            run.code == 0 && run.out.contains(output),
            "{program}: {}{}\n{requests:?}",
            run.out,
            run.err
        );
        assert!(requests.iter().any(|seen| seen == request), "{request}: {requests:?}");
    }
}

/// No request reaches a server but through the proxy, and no IPv6 route leads out of the guest.
fn nothing_gets_round(home: &Home, network: &Network) {
    let direct = format!("curl -sS --max-time 20 --noproxy '*' http://{ORIGIN}/hello");
    let run = sh(home, &direct);
    assert_ne!(run.code, 0, "{}", run.out);
    let is_direct = |seen: &String| seen.starts_with("direct");
    assert!(!network.requests().iter().any(is_direct), "{:?}", network.requests());
    // The server is there.
    assert_eq!(network.outer.ok(&direct), "hello");
    let routes = sh(home, "ip -6 route show default; ip -6 address show scope global");
    assert_eq!((routes.code, routes.out.as_str()), (0, ""), "{}", routes.err);
}
