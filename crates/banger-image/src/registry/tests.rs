//! Pulls from registries on this host that err, lie and stall.

mod server;
mod signed;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use self::server::{Request, Server, ok, part, reply};
use super::*;
use crate::fetch::NoProgress;

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image of one layer: manifest, configuration, layer.
#[derive(Clone)]
struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn image() -> Image {
    let layer: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    let config = br#"{"os":"linux","architecture":"amd64"}"#.to_vec();
    let entry = |kind: &str, bytes: &[u8]| {
        let (digest, size) = (sha256(bytes), bytes.len());
        let kind = format!("application/vnd.oci.image.{kind}");
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        entry("config.v1+json", &config),
        entry("layer.v1.tar", &layer)
    );
    Image { manifest: manifest.into_bytes(), config, layer }
}

impl Image {
    fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&sha256(&self.layer))
    }

    /// Answers as a registry should.
    fn serve(&self, request: &Request, stream: &mut TcpStream) {
        if request.path.contains("/manifests/") {
            ok(stream, &self.manifest);
        } else if self.is_layer(request) {
            match request.from() {
                0 => ok(stream, &self.layer),
                from => part(stream, &self.layer, from),
            }
        } else if request.path.ends_with(&sha256(&self.config)) {
            ok(stream, &self.config);
        } else {
            reply(stream, "404 Not Found", &[], b"");
        }
    }
}

struct Puller {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Puller {
    fn new() -> Self {
        let timing = Timing {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(2),
            idle: Duration::from_millis(400),
            least_bytes: 1 << 10,
            retry: Duration::from_millis(10),
        };
        let settings = Settings { docker_config: None, timing, ..Settings::default() };
        Self { folder: tempfile::tempdir().unwrap(), settings }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.folder.path().join("layers"))
    }

    fn try_pull(&self, server: &Server, progress: &dyn Progress) -> Result<PathBuf, RegistryError> {
        let wanted: ContainerRef = format!("{}/x:1", server.address).parse().unwrap();
        let layout = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let pull = async {
            let found = find(&wanted, &self.settings, &Tools::new(""), progress).await?;
            found.pull(&self.cache(), &layout, progress).await
        };
        runtime().unwrap().block_on(pull).map(|()| layout)
    }

    fn pull(&self, server: &Server) -> PathBuf {
        self.try_pull(server, &NoProgress).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn error(&self, server: &Server) -> String {
        self.try_pull(server, &NoProgress).unwrap_err().to_string()
    }

    /// Names in the cache.
    fn cached(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache().folder()).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_second_pull_downloads_nothing_and_a_damaged_file_again() {
    let (made, puller) = (image(), Puller::new());
    let served = made.clone();
    let server = Server::new(move |request, stream| served.serve(request, stream));
    let layout = puller.pull(&server);
    assert_eq!(server.blobs().len(), 2);
    let digest = sha256(&made.layer);
    let layer = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    assert!(fs::read(&layer).unwrap() == made.layer);
    puller.pull(&server);
    assert!(server.blobs().is_empty());
    // The same file in the cache.
    let mut damaged = made.layer.clone();
    damaged[1000] ^= 1;
    fs::write(&layer, damaged).unwrap();
    puller.pull(&server);
    assert_eq!(server.blobs().len(), 1);
}

#[test]
fn an_interrupted_download_is_continued() {
    let (made, puller) = (image(), Puller::new());
    let half = made.layer.len() / 2;
    let cuts = Arc::new(Mutex::new(1));
    let (served, left) = (made.clone(), cuts.clone());
    let server = Server::new(move |request, stream| {
        let mut left = left.lock().unwrap();
        if served.is_layer(request) && *left > 0 {
            *left -= 1;
            let length = format!("content-length: {}", served.layer.len() - request.from());
            let end = half.max(request.from());
            if request.from() == 0 {
                return reply(stream, "200 OK", &[length], &served.layer[..end]);
            }
            let (from, all) = (request.from(), served.layer.len());
            let range = format!("content-range: bytes {from}-{}/{all}", all - 1);
            return reply(stream, "206 Partial Content", &[length, range], &[]);
        }
        served.serve(request, stream);
    });
    puller.pull(&server);
    let froms = |requests: Vec<Request>| -> Vec<usize> {
        let layers = requests.iter().filter(|request| made.is_layer(request));
        layers.map(Request::from).collect()
    };
    assert_eq!(froms(server.blobs()), [0, half], "within one pull");
    // Across pulls: the connection always ends in the middle, then no longer.
    let other = Puller::new();
    *cuts.lock().unwrap() = 100;
    let error = other.error(&server);
    assert!(error.contains("cannot reach the registry"), "{error}");
    assert_eq!(froms(server.blobs()), [0, half, half, half]);
    *cuts.lock().unwrap() = 0;
    other.pull(&server);
    assert_eq!(froms(server.blobs()), [half]);
}

#[test]
fn a_part_that_does_not_fit_is_thrown_away() {
    let made = image();
    for (left, ignores_ranges) in [(vec![0; 500_000], false), (made.layer[..500_000].into(), true)]
    {
        let puller = Puller::new();
        let served = made.clone();
        let server = Server::new(move |request, stream| match served.is_layer(request) {
            true if ignores_ranges => ok(stream, &served.layer),
            _ => served.serve(request, stream),
        });
        let cache = puller.cache();
        cache.create().unwrap();
        let digest = Digest::parse(&sha256(&made.layer)).unwrap();
        fs::write(cache.part(&digest), left).unwrap();
        puller.pull(&server);
        assert!(fs::read(cache.whole(&digest)).unwrap() == made.layer);
        assert_eq!(puller.cached().len(), 2, "no part is left");
    }
}

/// Answers instead of the image's own; false if the request is served as usual.
type Answer = fn(&Image, &Request, &mut TcpStream) -> bool;

/// Answers to the request of a layer, each with a part of the error.
const LAYER_ANSWERS: [(&str, Answer); 4] = [
    ("does not match its digest", |image, request, stream| {
        let mut other = image.layer.clone();
        other[7] ^= 1;
        if image.is_layer(request) {
            ok(stream, &other);
        }
        image.is_layer(request)
    }),
    ("sends 5 bytes of", |image, request, stream| {
        if image.is_layer(request) {
            ok(stream, b"short");
        }
        image.is_layer(request)
    }),
    ("sends more of", |image, request, stream| {
        if image.is_layer(request) {
            let longer = [&image.layer[..], b"x"].concat();
            reply(stream, "200 OK", &[], &longer);
        }
        image.is_layer(request)
    }),
    ("sent too little for", |image, request, stream| {
        if image.is_layer(request) {
            let length = format!("content-length: {}", image.layer.len() - request.from());
            reply(stream, "200 OK", &[length], &[]);
            std::thread::sleep(Duration::from_secs(3));
        }
        image.is_layer(request)
    }),
];

/// Other answers, likewise.
const ANSWERS: [(&str, Answer); 8] = [
    ("sends a document of more than 4096 KiB", |_, request, stream| {
        if request.path.contains("/manifests/") {
            let length = "content-length: 100000000".to_owned();
            reply(stream, "200 OK", &[length], &vec![b' '; 5 << 20]);
        }
        true
    }),
    ("sent too little for 2 s", |_, _, _| {
        std::thread::sleep(Duration::from_secs(4));
        true
    }),
    ("of type `file`", |_, _, stream| {
        reply(stream, "302 Found", &["location: file:///etc/passwd".into()], b"");
        true
    }),
    ("without encryption", |image, request, stream| {
        if image.is_layer(request) {
            reply(stream, "307 X", &["location: http://cdn.invalid/x".into()], b"");
        }
        image.is_layer(request)
    }),
    ("too many addresses", |_, request, stream| {
        reply(stream, "302 Found", &[format!("location: {}", request.path)], b"");
        true
    }),
    ("has no image `127", |_, _, stream| {
        reply(stream, "404 Not Found", &[], b"");
        true
    }),
    ("status 503: \u{201c}busy\u{201d}", |_, _, stream| {
        let body = "{\"errors\":[{\"message\":\"\u{201c}busy\\u001b\u{201d}\"}]}";
        reply(stream, "503 X", &[], body.as_bytes());
        true
    }),
    ("refuses further requests", |_, _, stream| {
        reply(stream, "429 X", &[], b"");
        true
    }),
];

#[test]
fn what_a_registry_should_not_send_is_refused() {
    for (expected, answer) in LAYER_ANSWERS.into_iter().chain(ANSWERS) {
        let (made, puller) = (image(), Puller::new());
        let server = Server::new(move |request, stream| {
            if !answer(&made, request, stream) {
                made.serve(request, stream);
            }
        });
        let error = puller.error(&server);
        assert!(error.contains(expected), "{error}");
        let layer = sha256(&image().layer);
        let whole = layer.trim_start_matches("sha256:");
        assert!(!puller.cached().iter().any(|name| name == whole), "{expected}");
    }
}

#[test]
fn logins_are_sent_when_a_registry_demands_them() {
    // `me:secret`
    const BASIC: &str = "Basic bWU6c2VjcmV0";
    for by_token in [false, true] {
        let made = image();
        let server = Server::new(move |request, stream| {
            let sent = request.header("authorization");
            let host = request.header("host").unwrap();
            if by_token && request.path.starts_with("/token?") {
                assert!(request.path.contains("service=s&scope=repository%3Ax%3Apull"));
                return match sent {
                    Some(BASIC) => ok(stream, br#"{"access_token":"T"}"#),
                    _ => reply(stream, "401 X", &[], b""),
                };
            }
            let wanted = if by_token { "Bearer T" } else { BASIC };
            if sent == Some(wanted) {
                return made.serve(request, stream);
            }
            let challenge = match by_token {
                true => format!("Bearer realm=\"http://{host}/token\",service=\"s\""),
                false => "Basic realm=\"x\"".to_owned(),
            };
            reply(stream, "401 X", &[format!("www-authenticate: {challenge}")], b"");
        });
        let mut puller = Puller::new();
        let error = puller.error(&server);
        assert!(error.contains("refuses access") && error.contains("without a login"), "{error}");
        let config = puller.folder.path().join("config.json");
        let auths =
            |auth: &str| format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.address);
        fs::write(&config, auths("bWU6d3Jvbmc=")).unwrap();
        puller.settings.docker_config = Some(config.clone());
        let error = puller.error(&server);
        assert!(error.contains("with the login of Docker's"), "{error}");
        fs::write(&config, auths("bWU6c2VjcmV0")).unwrap();
        puller.pull(&server);
    }
}

#[test]
fn a_pull_is_cancelled_while_the_registry_is_silent() {
    struct Stop(AtomicBool);
    impl Progress for Stop {
        fn stage(&self, _: &str) {}
        fn bytes(&self, done: u64, _: Option<u64>) {
            self.0.fetch_or(done > 0, Ordering::SeqCst);
        }
        fn log(&self, _: &str) {}
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }
    let (made, mut puller) = (image(), Puller::new());
    puller.settings.timing.idle = Duration::from_secs(3600);
    let server = Server::new(move |request, stream| {
        if made.is_layer(request) {
            let length = format!("content-length: {}", made.layer.len());
            reply(stream, "200 OK", &[length], &made.layer[..1000]);
            std::thread::sleep(Duration::from_secs(5));
        } else {
            made.serve(request, stream);
        }
    });
    let stopped = puller.try_pull(&server, &Stop(AtomicBool::new(false)));
    assert!(matches!(stopped, Err(RegistryError::Fetch(FetchError::Cancelled))));
}
