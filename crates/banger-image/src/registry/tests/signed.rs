//! Files of signed catalogs, and images with signatures in the forms of cosign. The signatures are
//! made by minisign(1) and openssl(1).

use std::path::Path;
use std::process::Command;

use banger_testkit::Publisher;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::trust::{Listed, PublicKey, TrustError, TrustSettings, Wanted};

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {printed}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Signs a catalog with this list of images and kernels.
fn publish(publisher: &Publisher, lists: &str) -> TrustSettings {
    publisher.sign(&format!(r#"{{"version":1,{lists}}}"#));
    TrustSettings {
        catalogs: vec![publisher.catalog()],
        keys: vec![publisher.public()],
        registries: Vec::new(),
    }
}

fn entry(name: &str, url: &str, content: &[u8]) -> String {
    let hex = sha256(content).trim_start_matches("sha256:").to_owned();
    let bytes = content.len();
    format!(r#"{{"name":"{name}","arch":"x86_64","sha256":"{hex}","bytes":{bytes},"url":"{url}"}}"#)
}

fn refusal(trust: &TrustSettings) -> String {
    match trust.find(Wanted::Image, "base") {
        Err(error) => error.to_string(),
        Ok(found) => panic!("{found:?}"),
    }
}

#[test]
fn a_flipped_byte_of_a_catalog_or_its_signature_is_refused_by_name() {
    let publisher = Publisher::new();
    let images = entry("base", "https://images.invalid/base.tar", b"x");
    let trust = publish(&publisher, &format!(r#""images":[{images}]"#));
    let found = trust.find(Wanted::Image, "base").unwrap().unwrap();
    let public = fs::read_to_string(publisher.public()).unwrap();
    assert!(public.contains(&found.signature.key), "the id is that of minisign: {public}");
    assert!(trust.find(Wanted::Image, "other").unwrap().is_none());
    assert!(trust.find(Wanted::Kernel, "base").unwrap().is_none());
    for path in [publisher.catalog(), publisher.signature()] {
        let (name, whole) = (text(&path), fs::read(&path).unwrap());
        // The text of the first comment is the only part that minisign does not sign.
        let unsigned = if name.ends_with("sig") {
            "untrusted comment: ".len()..whole.iter().position(|byte| *byte == b'\n').unwrap()
        } else {
            0..0
        };
        for at in (0..whole.len()).filter(|at| !unsigned.contains(at)) {
            for bit in [1, 0x20] {
                let mut flipped = whole.clone();
                flipped[at] ^= bit;
                fs::write(&path, flipped).unwrap();
                let error = refusal(&trust);
                assert!(error.contains("catalog.json"), "{name} {at}: {error}");
            }
        }
        for cut in [&whole[..whole.len() - 2], &[&whole[..], b"x"].concat()] {
            fs::write(&path, cut).unwrap();
            refusal(&trust);
        }
        fs::write(&path, whole).unwrap();
    }
    // Another key, and none.
    let other = Publisher::new();
    let by_other = TrustSettings { keys: vec![other.public()], ..trust.clone() };
    assert!(refusal(&by_other).contains("which `trust.keys` does not have"));
    fs::remove_file(publisher.signature()).unwrap();
    assert!(refusal(&trust).contains("catalog.json.minisig"));
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let publisher = Publisher::new();
    let good = entry("base", "https://images.invalid/base.tar", b"x");
    for (bad, expected) in [
        (good.replace("https:", "http:"), "https"),
        (good.replace("https:", "file:"), "https"),
        (good.replace("images.invalid", "me:secret@images.invalid"), "without a login"),
        (good.replace("\"bytes\":1", "\"bytes\":0"), "0 bytes"),
        (good.replace("\"bytes\":1", "\"bytes\":999999999999999"), "is not possible"),
        (good.replace("\"sha256\":\"", "\"sha256\":\"Z"), "hexadecimal"),
        (good.replace("base\"", "../base\""), "is no name"),
        (good.replace("\"arch\"", "\"architecture\""), "unknown field"),
        (good.replace("x86_64", "aarch64"), "for aarch64 only"),
    ] {
        let error = refusal(&publish(&publisher, &format!(r#""images":[{bad}]"#)));
        assert!(error.contains(expected), "{bad}: {error}");
    }
    let newer = publish(&publisher, r#""images":[]"#);
    publisher.sign(r#"{"version":2}"#);
    assert!(refusal(&newer).contains("version 2"));
    assert!(matches!(newer.check(), Err(TrustError::Unusable { .. })));
}

fn listed(publisher: &Publisher, server: &Server, content: &[u8]) -> Listed {
    let url = format!("http://{}/base.tar", server.address);
    let trust = publish(publisher, &format!(r#""images":[{}]"#, entry("base", &url, content)));
    trust.find(Wanted::Image, "base").unwrap().unwrap()
}

#[test]
fn the_file_of_a_catalog_is_continued_and_checked() {
    let (publisher, puller) = (Publisher::new(), Puller::new());
    let content: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    let (served, half) = (content.clone(), content.len() / 2);
    let server = Server::new(move |request, stream| match request.from() {
        0 => {
            let length = format!("content-length: {}", served.len());
            reply(stream, "200 OK", &[length], &served[..half]);
        }
        from => part(stream, &served, from),
    });
    let wanted = listed(&publisher, &server, &content);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let fetch = |wanted: &Listed| {
        super::super::fetch(wanted, &puller.cache(), &puller.settings, &path, &NoProgress)
    };
    fetch(&wanted).unwrap();
    assert!(fs::read(&path).unwrap() == content);
    let froms: Vec<usize> = server.requests.lock().unwrap().iter().map(Request::from).collect();
    assert_eq!(froms, [0, half]);
    for (expected, answer) in [
        ("does not match its digest", &b"other"[..]),
        ("sends 6 bytes of", b"longer"),
        ("sends 2 bytes of", b"no"),
    ] {
        let server = Server::new(move |_, stream| ok(stream, answer));
        let wanted = listed(&publisher, &server, b"right");
        let error = fetch(&wanted).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let gone = Server::new(|_, stream| reply(stream, "404 X", &[], b""));
    let wanted = listed(&publisher, &gone, b"right");
    let error = fetch(&wanted).unwrap_err();
    let expected = format!("the server {} answers with status 404", gone.address);
    assert!(error.to_string().contains(&expected), "{error}");
}

/// Keys of openssl, and what they sign.
struct Signer(tempfile::TempDir);

impl Signer {
    fn new(kind: &[&str]) -> Self {
        let signer = Self(tempfile::tempdir().unwrap());
        let (secret, public) = (signer.0.path().join("key"), signer.public());
        run("openssl", &[&["genpkey", "-out", text(&secret)], kind].concat());
        run("openssl", &["pkey", "-in", text(&secret), "-pubout", "-out", text(&public)]);
        signer
    }

    fn public(&self) -> PathBuf {
        self.0.path().join("key.pub")
    }

    fn key(&self) -> PublicKey {
        PublicKey::load(&self.public()).unwrap()
    }

    /// A signature in base64.
    fn sign(&self, message: &[u8]) -> String {
        let [key, file, signature] = ["key", "message", "signature"].map(|n| self.0.path().join(n));
        fs::write(&file, message).unwrap();
        let is_ed25519 = fs::read_to_string(self.public()).unwrap().len() < 130;
        if is_ed25519 {
            let args = ["pkeyutl", "-sign", "-rawin", "-inkey", text(&key), "-in", text(&file)];
            run("openssl", &[&args[..], &["-out", text(&signature)]].concat());
        } else {
            let args = ["dgst", "-sha256", "-sign", text(&key), "-out", text(&signature)];
            run("openssl", &[&args[..], &[text(&file)]].concat());
        }
        STANDARD.encode(fs::read(signature).unwrap())
    }
}

/// Documents and blobs beside an image, by the end of their path.
type Extra = Vec<(String, Vec<u8>)>;

fn payload(digest: &str) -> Vec<u8> {
    let identity = r#""identity":{"docker-reference":"localhost/x"}"#;
    let image = format!(r#""image":{{"docker-manifest-digest":"{digest}"}}"#);
    let kind = r#""type":"cosign container image signature""#;
    format!(r#"{{"critical":{{{identity},{image},{kind}}},"optional":null}}"#).into_bytes()
}

fn manifest(kind: &str, blob: &[u8], more: &str) -> Vec<u8> {
    let (digest, size) = (sha256(blob), blob.len());
    let config = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"x","size":2}"#;
    let layer = format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}{more}}}"#);
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#).into_bytes()
}

/// A signature of simple signing: its tag, and its payload.
fn simple(signer: &Signer, image: &str, about: &str) -> Extra {
    let payload = payload(about);
    let more = format!(
        r#","annotations":{{"dev.cosignproject.cosign/signature":"{}"}}"#,
        signer.sign(&payload)
    );
    let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
    let tag = format!("/manifests/{}.sig", image.replace(':', "-"));
    vec![(tag, manifest(kind, &payload, &more)), (sha256(&payload), payload)]
}

/// A bundle, found by the API for referrers or by their tag.
fn bundle(signer: &Signer, image: &str, predicate: &str, by_tag: bool) -> Extra {
    let hex = image.trim_start_matches("sha256:");
    let subject = format!(r#"[{{"digest":{{"sha256":"{hex}"}}}}]"#);
    let statement = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":{subject},
            "predicateType":"{predicate}","predicate":{{}}}}"#
    );
    let kind = "application/vnd.in-toto+json";
    let encoded = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
    let (payload, sig) = (STANDARD.encode(&statement), signer.sign(encoded.as_bytes()));
    let envelope = format!(
        r#"{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"sig":"{sig}"}}]}}"#
    );
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let bundle = format!(r#"{{"mediaType":"{kind}","dsseEnvelope":{envelope}}}"#).into_bytes();
    let made = manifest(kind, &bundle, "");
    let digest = sha256(&made);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","artifactType":"{kind}"}}]}}"#
    );
    let place = match by_tag {
        true => format!("/manifests/sha256-{hex}"),
        false => format!("/referrers/{image}"),
    };
    vec![
        (place, index.into_bytes()),
        (format!("/manifests/{digest}"), made),
        (sha256(&bundle), bundle),
    ]
}

/// Verifies the image of a registry that has these documents beside it.
fn verify(keys: &[PublicKey], extra: Extra) -> Result<String, String> {
    let (made, puller) = (image(), Puller::new());
    let server = Server::new(move |request, stream| {
        match extra.iter().find(|(end, _)| request.path.ends_with(end)) {
            Some((_, body)) => ok(stream, body),
            None if request.path.ends_with("/manifests/1") => made.serve(request, stream),
            None => reply(stream, "404 Not Found", &[], b""),
        }
    });
    let wanted: ContainerRef = format!("{}/x:1", server.address).parse().unwrap();
    let verified = runtime().unwrap().block_on(async {
        let tools = Tools::new("");
        let found = find(&wanted, &puller.settings, &tools, &NoProgress).await.unwrap();
        found.verify(keys, &NoProgress).await
    });
    verified.map(|signature| signature.key).map_err(|error| error.to_string())
}

#[test]
fn images_are_signed_by_a_configured_key_or_refused() {
    let p256 = Signer::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let signers = [
        Signer::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        Signer::new(&["-algorithm", "ED25519"]),
        Signer::new(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ];
    let digest = sha256(&image().manifest);
    for signer in signers.iter().chain([&p256]) {
        let keys = [signers[0].key(), signer.key()];
        let key = verify(&keys, simple(signer, &digest, &digest)).unwrap();
        assert!(key.starts_with(&signer.key().id), "{key}");
    }
    const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
    let keys = [p256.key()];
    for by_tag in [false, true] {
        verify(&keys, bundle(&p256, &digest, SIGN, by_tag)).unwrap();
    }
    let other = sha256(b"another image");
    let by_other = simple(&signers[0], &digest, &digest);
    let attestation = bundle(&p256, &digest, "https://spdx.dev/Document", false);
    for (extra, expected) in [
        (Extra::new(), "has no signature"),
        (attestation, "has no signature"),
        (by_other, "none by a configured key"),
        (simple(&p256, &digest, &other), "of another image"),
        (simple(&p256, &other, &digest), "has no signature"),
    ] {
        let error = verify(&keys, extra).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    // A flipped byte of the payload, and one of the signature in the manifest.
    let good = simple(&p256, &digest, &digest);
    let manifest = String::from_utf8(good[0].1.clone()).unwrap();
    let start = manifest.find("signature\":\"").unwrap() + "signature\":\"".len();
    let end = start + manifest[start..].find('"').unwrap();
    let places = (0..good[1].1.len()).map(|at| (1, at)).chain((start..end).map(|at| (0, at)));
    for (place, at) in places.step_by(5) {
        let mut extra = good.clone();
        extra[place].1[at] ^= 1;
        assert!(verify(&keys, extra).is_err(), "{place} {at}");
    }
}

#[test]
fn files_that_are_no_keys_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pub");
    let signer = Signer::new(&["-algorithm", "X25519"]);
    let other = fs::read_to_string(signer.public()).unwrap();
    let pem =
        |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    for (content, expected) in [
        ("", "no public key"),
        ("RWQ", "no public key"),
        (&pem("AAAA"), "no public key"),
        (&pem("?"), "no public key"),
        (&other, "not supported"),
    ] {
        fs::write(&path, content).unwrap();
        let error = PublicKey::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("key.pub"), "{error}");
    }
}
