//! Documents of container images: indexes, manifests and configurations of the OCI image
//! specification 1.1 and of Docker's schema 2, and `manifest.json` of `docker save`. Only the
//! fields that an import needs are read.

use std::collections::BTreeMap;

use banger_api::images::ImageConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::OciError;

/// Maximum size of a document in bytes.
pub const DOCUMENT_BYTES: u64 = 4 << 20;
/// Maximum number of layers; Docker makes at most 127.
pub const MAX_LAYERS: usize = 512;
/// Platform of the guests.
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";
/// Type of manifests that are not images, beside those of images in an index.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Media types of indexes.
pub const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Media types of manifests.
pub const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// Media types of layers; the content tells the compression.
const LAYERS: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// SHA-256 of a document or layer: `sha256:` and 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Parses `sha256:HEX`.
    ///
    /// # Errors
    /// Another algorithm, or no digest.
    pub fn parse(text: &str) -> Result<Self, OciError> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        Self::of_hex(hex).ok_or_else(|| OciError::BadDigest { text: banger_api::excerpt(text) })
    }

    /// From 64 lowercase hexadecimal digits.
    pub fn of_hex(hex: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (hex.len() == 64 && hex.bytes().all(digit)).then(|| Self(hex.to_owned()))
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// Name of the blob in an OCI layout.
    pub fn blob(&self) -> String {
        format!("blobs/sha256/{}", self.0)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Refers to a document or layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    digest: String,
    /// Length in bytes.
    pub size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Descriptor {
    /// The digest.
    ///
    /// # Errors
    /// Another algorithm than SHA-256.
    pub fn digest(&self) -> Result<Digest, OciError> {
        Digest::parse(&self.digest)
    }

    /// Name of the image in a layout.
    fn name(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        keys.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
    }
}

/// A manifest or an index, before its type is known.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a document says.
#[derive(Debug)]
pub enum Parsed {
    /// An image.
    Manifest(Manifest),
    /// Where to go on: the manifest, or another index, for the platform of the guests.
    Index(Descriptor),
}

/// Parses a document; `name` is its name for errors.
///
/// # Errors
/// No valid JSON; too large.
pub fn json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, OciError> {
    if bytes.len() as u64 > DOCUMENT_BYTES {
        return Err(OciError::DocumentTooLarge { name: name.to_owned() });
    }
    serde_json::from_slice(bytes)
        .map_err(|source| OciError::BadDocument { name: name.to_owned(), source })
}

/// Parses a manifest or an index.
///
/// # Errors
/// Not such a document; no image for this platform; layers that cannot be used.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Parsed, OciError> {
    let document: Document = json(name, bytes)?;
    if document.schema_version != 2 {
        return Err(OciError::Unsupported {
            what: format!("an image manifest of schema {}", document.schema_version),
        });
    }
    match document {
        Document { manifests: Some(manifests), .. } => Ok(Parsed::Index(choose(&manifests)?)),
        Document { config: Some(config), layers: Some(layers), .. } => {
            let manifest = Manifest { config, layers };
            check(&manifest)?;
            Ok(Parsed::Manifest(manifest))
        }
        Document { media_type, .. } => Err(OciError::Unsupported {
            what: format!("a document of type `{}`", banger_api::excerpt(&media_type)),
        }),
    }
}

fn check(manifest: &Manifest) -> Result<(), OciError> {
    let config = manifest.config.media_type.as_str();
    if !CONFIGS.contains(&config) {
        return Err(OciError::Unsupported {
            what: format!("an artifact of type `{}`, not an image", banger_api::excerpt(config)),
        });
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(OciError::TooManyLayers { count: manifest.layers.len() });
    }
    for layer in &manifest.layers {
        let kind = layer.media_type.as_str();
        if kind.contains("nondistributable") || kind.contains("foreign") {
            return Err(OciError::Unsupported {
                what: format!(
                    "the layer {} of type `{}`, which its publisher does not distribute with \
                     the image",
                    layer.digest()?,
                    banger_api::excerpt(kind)
                ),
            });
        }
        if !LAYERS.contains(&kind) {
            return Err(OciError::Unsupported {
                what: format!(
                    "the layer {} of type `{}`",
                    layer.digest()?,
                    banger_api::excerpt(kind)
                ),
            });
        }
        layer.digest()?;
    }
    manifest.config.digest().map(drop)
}

/// The entry of an index for the platform of the guests.
fn choose(manifests: &[Descriptor]) -> Result<Descriptor, OciError> {
    let is_image = |entry: &&Descriptor| {
        let other = entry.annotations.as_ref().is_some_and(|all| all.contains_key(REFERENCE_TYPE));
        let kind = entry.media_type.as_str();
        !other && (kind.is_empty() || MANIFESTS.contains(&kind) || INDEXES.contains(&kind))
    };
    let images: Vec<&Descriptor> = manifests.iter().filter(is_image).collect();
    let fits = |entry: &&Descriptor| {
        let platform = entry.platform.as_ref();
        platform.is_none_or(|on| on.os == OS && on.architecture == ARCHITECTURE)
    };
    let mut fitting = images.iter().copied().filter(fits);
    let Some(first) = fitting.next() else {
        let platform = |entry: &&Descriptor| {
            let on = entry.platform.as_ref()?;
            Some(banger_api::excerpt(&format!("{}/{}", on.os, on.architecture)))
        };
        let mut offered: Vec<String> = images.iter().filter_map(platform).take(20).collect();
        offered.dedup();
        return Err(OciError::NoPlatform { offered });
    };
    // Entries that name images are alternatives; others are the first choice of their publisher.
    let others: Vec<&Descriptor> = fitting.filter(|entry| entry.digest != first.digest).collect();
    if let Some(other) = others.first()
        && let (Some(one), Some(two)) = (first.name(), other.name())
    {
        let names = [one, two].map(banger_api::excerpt).to_vec();
        return Err(OciError::SeveralImages { names });
    }
    Ok(first.clone())
}

/// The configuration of an image.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Runtime>,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// `config` of a configuration; lists may be null.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Runtime {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

impl Config {
    /// Checks that the image is for the platform of the guests.
    ///
    /// # Errors
    /// [`OciError::NoPlatform`].
    pub fn check_platform(&self) -> Result<(), OciError> {
        let (os, architecture) = (self.os.as_str(), self.architecture.as_str());
        // Old tools leave both out.
        if [OS, ""].contains(&os) && [ARCHITECTURE, ""].contains(&architecture) {
            return Ok(());
        }
        let offered = vec![banger_api::excerpt(&format!("{os}/{architecture}"))];
        Err(OciError::NoPlatform { offered })
    }

    /// Digests of the uncompressed layers.
    ///
    /// # Errors
    /// Another algorithm than SHA-256.
    pub fn diff_ids(&self) -> Result<Vec<Digest>, OciError> {
        let ids = self.rootfs.iter().flat_map(|rootfs| &rootfs.diff_ids);
        ids.map(|id| Digest::parse(id)).collect()
    }

    /// How a container of the image runs.
    pub fn runtime(self) -> ImageConfig {
        let Some(runtime) = self.config else { return ImageConfig::default() };
        let text = |value: Option<String>| value.filter(|text| !text.is_empty());
        ImageConfig {
            entrypoint: runtime.entrypoint.unwrap_or_default(),
            cmd: runtime.cmd.unwrap_or_default(),
            env: runtime.env.unwrap_or_default(),
            user: text(runtime.user),
            working_dir: text(runtime.working_dir),
            exposed_ports: runtime.exposed_ports.unwrap_or_default().into_keys().collect(),
            labels: runtime.labels.unwrap_or_default(),
            stop_signal: text(runtime.stop_signal),
        }
    }
}

/// An image of `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    /// Name of the file with the configuration.
    pub config: String,
    /// Names of the image.
    pub repo_tags: Option<Vec<String>>,
    /// Names of the files with the layers, the lowest first.
    pub layers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn descriptor(kind: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{HEX}","size":1{more}}}"#)
    }

    fn manifest(config: &str, layers: &[String]) -> String {
        let (config, layers) = (descriptor(config, ""), layers.join(","));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
    }

    #[test]
    fn manifests_of_both_kinds_are_read_and_others_named() {
        let layer = |kind: &str| vec![descriptor(kind, "")];
        for kind in LAYERS {
            for config in CONFIGS {
                let text = manifest(config, &layer(kind));
                assert!(matches!(parse("m", text.as_bytes()), Ok(Parsed::Manifest(_))), "{text}");
            }
        }
        let gzip = LAYERS[1];
        let many = vec![descriptor(gzip, ""); 20_000];
        for (text, expected) in [
            (manifest("application/vnd.cncf.helm.config.v1+json", &layer(gzip)), "helm"),
            (
                manifest(
                    CONFIGS[1],
                    &layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
                ),
                "does not distribute",
            ),
            (manifest(CONFIGS[0], &layer("application/vnd.x.layer+encrypted")), "+encrypted"),
            (manifest(CONFIGS[0], &many), "20000 layers"),
            (r#"{"schemaVersion":1,"name":"x"}"#.to_owned(), "schema 1"),
            (r#"{"schemaVersion":2,"mediaType":"text/x"}"#.to_owned(), "text/x"),
            (manifest(CONFIGS[0], &layer(gzip)).replace("sha256:0", "sha512:0"), "sha512"),
            ("{".to_owned(), "`m`"),
            (" ".repeat(5 << 20), "4 MiB"),
        ] {
            let error = parse("m", text.as_bytes()).unwrap_err().to_string();
            let shown: String = text.chars().take(200).collect();
            assert!(error.contains(expected), "{shown}: {error}");
        }
    }

    #[test]
    fn the_index_entry_of_our_platform_is_chosen() {
        let entry = |digit: char, more: &str| {
            descriptor(MANIFESTS[0], more).replace("sha256:0", &format!("sha256:{digit}"))
        };
        let on = |os: &str, arch: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#)
        };
        let named = |name: &str| {
            format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
        };
        let chosen = |entries: &[String]| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            match parse("index.json", text.as_bytes()) {
                Ok(Parsed::Index(entry)) => entry.digest().unwrap().hex()[..1].to_owned(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => error.to_string(),
            }
        };
        let attestation = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        let all = [
            entry('1', &on("linux", "arm64")),
            entry('2', &on("linux", "amd64")),
            entry('3', &on("windows", "amd64")),
        ];
        assert_eq!(chosen(&all), "2");
        assert_eq!(chosen(&[entry('a', attestation), entry('1', "")]), "1");
        assert_eq!(chosen(&[entry('1', &named("a")), entry('1', &named("b"))]), "1");
        let other = chosen(&[all[0].clone(), all[2].clone()]);
        assert!(other.contains("linux/arm64, windows/amd64"), "{other}");
        let several = chosen(&[entry('1', &named("a")), entry('2', &named("b"))]);
        assert!(several.contains("`a`, `b`"), "{several}");
        assert!(chosen(&[]).contains("linux/amd64"));
    }

    #[test]
    fn a_configuration_is_read_with_nulls_and_without() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":"app","Env":["A=1"],
            "Entrypoint":["/x"],"Cmd":null,"WorkingDir":"","ExposedPorts":{"80/tcp":{}},
            "Labels":{"a":"b"},"StopSignal":"SIGQUIT"},"rootfs":{"diff_ids":[]}}"#;
        let config: Config = json("c", text.as_bytes()).unwrap();
        config.check_platform().unwrap();
        let runtime = config.runtime();
        assert_eq!((&runtime.entrypoint, runtime.cmd.len()), (&vec!["/x".to_owned()], 0));
        assert_eq!((runtime.user.as_deref(), runtime.working_dir), (Some("app"), None));
        assert_eq!(runtime.exposed_ports, ["80/tcp"]);
        let bare: Config = json("c", b"{}").unwrap();
        bare.check_platform().unwrap();
        assert_eq!(bare.runtime(), ImageConfig::default());
        let arm: Config = json("c", br#"{"architecture":"arm64","os":"linux"}"#).unwrap();
        assert!(arm.check_platform().unwrap_err().to_string().contains("linux/arm64"));
    }
}
