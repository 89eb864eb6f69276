//! Value types of the configuration. File and environment use the same parsers.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use banger_api::container_ref::is_image_reference;
use banger_api::excerpt;
use banger_api::limits;
use banger_api::size::{MIB, parse_size};
use banger_image::trust::Requirement;
use ipnet::Ipv4Net;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use tracing_subscriber::filter::LevelFilter;

/// Deserialises a TOML string through `FromStr`.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Deserialises a TOML integer through `FromStr`.
struct NumberVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for NumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! deserialize {
    ($visitor:ident, $method:ident: $($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.$method($visitor(std::marker::PhantomData))
            }
        }
    )+};
}

deserialize!(TextVisitor, deserialize_str: Level, Signature, Vmm, Storage, NetworkDriver,
    AbsolutePath, FileMode, GuestFile, HostFile, ImageName, WebListen, InterfaceName, Subnet,
    MemorySize, DiskSize);
deserialize!(NumberVisitor, deserialize_i64: Vcpus);

fn one_of(text: &str, words: &'static [&'static str]) -> Result<&'static str, String> {
    words
        .iter()
        .find(|word| **word == text)
        .copied()
        .ok_or_else(|| format!("`{}` is not one of {}", excerpt(text), words.join(", ")))
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $words:expr, $default:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(&'static str);

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                one_of(text, &$words).map(Self)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
    };
}

words!(
    /// A level of the log.
    Level, ["error", "warn", "info", "debug", "trace"], "info"
);
words!(
    /// A VMM.
    Vmm, ["auto", "firecracker", "qemu"], "auto"
);
words!(
    /// A kind of storage.
    Storage, ["auto", "reflink", "dm-snapshot", "overlay", "copy"], "auto"
);

words!(
    /// A kind of network.
    NetworkDriver, ["auto", "bridge", "user"], "auto"
);

words!(
    /// What is demanded of an image's signature.
    Signature, ["required", "off"], "off"
);

impl Signature {
    /// As the verification takes it.
    pub fn requirement(self) -> Requirement {
        if self.0 == "required" { Requirement::Required } else { Requirement::Off }
    }
}

impl Level {
    /// The filter for tracing.
    pub fn filter(self) -> LevelFilter {
        match self.0 {
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => LevelFilter::INFO,
        }
    }
}

impl Vmm {
    /// The selected driver; `None` = the best available.
    pub fn wanted(self) -> Option<String> {
        (self.0 != "auto").then(|| self.0.to_owned())
    }
}

impl Storage {
    /// The selected driver; `None` = the best available.
    pub fn wanted(self) -> Option<String> {
        (self.0 != "auto").then(|| self.0.to_owned())
    }
}

impl NetworkDriver {
    /// The requested one; `None` = the best.
    pub fn wanted(self) -> Option<String> {
        (self.0 != "auto").then(|| self.0.to_owned())
    }
}

macro_rules! checked_text {
    (
        $(#[$doc:meta])*
        $name:ident($inner:ty), |$text:ident| $parse:expr, |$value:ident| $show:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl FromStr for $name {
            type Err = String;
            fn from_str($text: &str) -> Result<Self, String> {
                $parse.map(Self)
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $value = &self.0;
                write!(f, "{}", $show)
            }
        }
    };
}

checked_text!(
    /// An absolute path on the host.
    AbsolutePath(PathBuf),
    |text| if text.starts_with('/') && !text.contains('\0') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("`{}` is not an absolute path", excerpt(text)))
    },
    |path| path.display()
);
checked_text!(
    /// A path in a guest, below `/root`: folders outside belong to the image.
    GuestFile(String),
    |text| if super::file::is_below_root(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is not a path below /root, such as /root/.npmrc", excerpt(text)))
    },
    |path| path
);
checked_text!(
    /// Permission bits of a file, without set-id bits.
    FileMode(u32),
    |text| match u32::from_str_radix(text, 8) {
        Ok(mode @ ..=0o777) if (3..=4).contains(&text.len()) && !text.starts_with('+') => Ok(mode),
        _ => Err(format!("`{}` is not a mode such as \"0600\"", excerpt(text))),
    },
    |mode| format!("{mode:04o}")
);
checked_text!(
    /// A path on the host, absolute or below the user's home.
    HostFile(String),
    |text| if (text.starts_with('/') || text.starts_with("~/")) && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is neither an absolute path nor one below ~/", excerpt(text)))
    },
    |path| path
);
checked_text!(
    /// Name of an image.
    ImageName(String),
    |text| if is_image_reference(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is not a name for an image", excerpt(text)))
    },
    |name| name
);
checked_text!(
    /// Address and port of the web page, which has no encryption.
    WebListen(SocketAddr),
    |text| match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(format!("`{}` is not an address of the loopback interface", excerpt(text))),
        Err(_) => Err(format!("`{}` is not an address and port", excerpt(text))),
    },
    |address| address
);
checked_text!(
    /// Name of a network interface, at most 15 characters (IFNAMSIZ in netdevice(7)).
    InterfaceName(String),
    |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let special = matches!(text, "." | "..");
        if (1..=15).contains(&text.len()) && text.bytes().all(good) && !special {
            Ok(text.to_owned())
        } else {
            Err(format!("`{}` is not a name for a network interface", excerpt(text)))
        }
    },
    |name| name
);
checked_text!(
    /// An IPv4 subnet with addresses for a bridge and a VM.
    Subnet(Ipv4Net),
    |text| {
        let network = text.parse::<Ipv4Net>().ok();
        let network = network.filter(|network| (8..=29).contains(&network.prefix_len()));
        network.ok_or_else(|| format!("`{}` is not a subnet such as 172.16.0.0/16", excerpt(text)))
    },
    |network| network.to_string()
);
impl Subnet {
    /// The subnet.
    pub fn network(&self) -> Ipv4Net {
        self.0
    }
}
checked_text!(
    /// Memory of a VM in bytes, a whole number of MiB.
    MemorySize(u64),
    |text| parse_size(text).map_err(|bad| bad.to_string()).and_then(|bytes| {
        limits::check_memory_mib(bytes / MIB).map_err(|bad| bad.to_string())?;
        Ok(bytes)
    }),
    |bytes| exact_size(*bytes)
);
checked_text!(
    /// Virtual size of a disk in bytes.
    DiskSize(u64),
    |text| parse_size(text).map_err(|bad| bad.to_string()).and_then(|bytes| {
        limits::check_disk("disk", bytes).map_err(|bad| bad.to_string())?;
        Ok(bytes)
    }),
    |bytes| exact_size(*bytes)
);
checked_text!(
    /// vCPUs of a VM.
    Vcpus(u32),
    |text| {
        let number = text.parse().map_err(|_| format!("`{}` is not a number", excerpt(text)))?;
        limits::check_vcpus(number).map(|()| number).map_err(|bad| bad.to_string())
    },
    |number| number
);

impl MemorySize {
    /// In MiB.
    pub fn mib(&self) -> u64 {
        self.0 / MIB
    }
}

/// A size in human notation that parses to the same number.
fn exact_size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fitting = units.iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift);
    fitting.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// An integer within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const LEAST: u32, const MOST: u32>(pub u32);

impl<const LEAST: u32, const MOST: u32> FromStr for Number<LEAST, MOST> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse::<u32>().ok().filter(|number| (LEAST..=MOST).contains(number));
        number.map(Self).ok_or_else(|| {
            format!("`{}` is not a whole number from {LEAST} to {MOST}", excerpt(text))
        })
    }
}

impl<const LEAST: u32, const MOST: u32> Display for Number<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Number<0, 65_535> {
    /// As a port.
    pub fn port(self) -> u16 {
        // Within the range of a port.
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Number<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(NumberVisitor(std::marker::PhantomData))
    }
}

/// Absolute paths: a list in the file, separated by `:` in a variable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct PathList(pub Vec<AbsolutePath>);

impl PathList {
    /// The paths.
    pub fn paths(self) -> Vec<PathBuf> {
        self.0.into_iter().map(|path| path.0).collect()
    }
}

impl FromStr for PathList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(':').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Display for PathList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.0.iter().map(AbsolutePath::to_string).collect();
        f.write_str(&paths.join(":"))
    }
}

/// A boolean: `true` and `false` in the file, also `on` and `off` in a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct OnOff(pub bool);

impl FromStr for OnOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "true" | "on" => Ok(Self(true)),
            "false" | "off" => Ok(Self(false)),
            other => Err(format!("`{}` is not one of true, false, on, off", excerpt(other))),
        }
    }
}

impl Display for OnOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
