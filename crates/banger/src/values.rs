//! Values on the command line, parsed by the daemon's rules.

use std::time::Duration;

use banger_api::container_ref::is_image_reference;
use banger_api::filter::{BadFilter, VmFilter};
use banger_api::images::is_ref_name;
use banger_api::labels::{self, BadLabel, LabelKey, Labels};
use banger_api::limits::{self, VmDefaults};
use banger_api::names::BadName;
use banger_api::publish::{BadPublish, PortForward};
use banger_api::set::Unpublish;
use banger_api::size::{MIB, human_size, parse_size};
use banger_api::vm::{CreateVm, MAX_GRACE_MS};
use banger_api::{ApiError, ErrorCode, VmName};
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use crate::commands::vm::action;
use crate::sync_options::SyncOptions;

/// The largest number of lines of `--tail`.
const MAX_TAIL: u32 = 100_000;

/// Specification of a VM, shared by `run` and `vm create`.
#[derive(Debug, Clone, Args)]
pub struct Machine {
    /// Name of the VM [default: two words, such as brisk-otter]
    #[arg(long, value_parser = name, allow_hyphen_values = true, help_heading = "Machine")]
    pub name: Option<String>,
    /// Image of the root disk: a name or id, or an image of a registry
    #[arg(long, value_parser = image, help_heading = "Machine")]
    pub image: Option<String>,
    /// Kernel to boot, or `image` for the one in the image
    #[arg(long, value_parser = reference, help_heading = "Machine")]
    pub kernel: Option<String>,
    /// Virtual CPUs
    #[arg(
        long, value_name = "N", value_parser = vcpus, allow_hyphen_values = true,
        help_heading = "Machine"
    )]
    pub vcpus: Option<u32>,
    /// Memory, such as 2G
    #[arg(
        long, value_name = "SIZE", value_parser = memory_mib, allow_hyphen_values = true,
        help_heading = "Machine"
    )]
    pub memory: Option<u64>,
    /// Size of the root disk; takes space only as it is filled
    #[arg(
        long, value_name = "SIZE", value_parser = root_disk, allow_hyphen_values = true,
        help_heading = "Machine"
    )]
    pub disk_size: Option<u64>,
    /// Size of the work disk, mounted at /root; takes space only as it is filled
    #[arg(
        long, value_name = "SIZE", value_parser = work_disk, allow_hyphen_values = true,
        help_heading = "Machine"
    )]
    pub work_size: Option<u64>,
    /// Access to outside networks
    #[arg(
        long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on",
        hide_possible_values = true, help_heading = "Machine"
    )]
    pub nat: Option<Switch>,
    /// Publish a port of the machine on a port of this host, such as 8080:80; repeatable
    ///
    /// It listens on 127.0.0.1 unless another address of this host is given: 0.0.0.0 for all of
    /// them, IPv6 in brackets.
    #[arg(
        short, long, value_name = "[ADDR:]HOST:GUEST", value_parser = published,
        allow_hyphen_values = true, help_heading = "Machine"
    )]
    pub publish: Vec<PortForward>,
    /// Start it again when banger's daemon starts, such as after a restart of the host
    ///
    /// Not if it was stopped before: by a command, or by its guest.
    #[arg(long, help_heading = "Machine")]
    pub autostart: bool,
    /// Attach a label, such as team=web or urgent; repeatable
    ///
    /// At most 64. A key has at most 128 letters, digits, dots, underscores, slashes and hyphens, a
    /// value at most 256 characters. `banger vm list --filter label=KEY` selects by it.
    #[arg(
        short, long, value_name = "KEY[=VALUE]", value_parser = label, allow_hyphen_values = true,
        help_heading = "Machine"
    )]
    pub label: Vec<(LabelKey, String)>,
    /// Live folders.
    #[command(flatten)]
    pub sync: SyncOptions,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Machine {
    /// Creates the request.
    ///
    /// # Errors
    /// Too many labels.
    pub fn request(&self) -> Result<CreateVm, ApiError> {
        Ok(CreateVm {
            name: self.name.clone(),
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory,
            root_bytes: self.disk_size,
            work_bytes: self.work_size,
            nat: self.nat.map(|switch| switch == Switch::On),
            publish: self.publish.clone(),
            autostart: self.autostart,
            labels: labelled(&self.label)?,
            sync: self.sync.folders(),
            ..CreateVm::default()
        })
    }
}

/// The labels of a command line.
///
/// # Errors
/// Too many.
pub fn labelled(labels: &[(LabelKey, String)]) -> Result<Labels, ApiError> {
    let labels = Labels::of(labels.iter().cloned());
    labels.map_err(|bad| ApiError::new(ErrorCode::BadRequest, bad.to_string()))
}

/// A label, `KEY` or `KEY=VALUE`.
pub fn label(text: &str) -> Result<(LabelKey, String), String> {
    labels::parse(text).map_err(label_problem)
}

/// The key of a label.
pub fn label_key(text: &str) -> Result<LabelKey, String> {
    text.parse().map_err(label_problem)
}

/// clap shows the argument.
fn label_problem(bad: BadLabel) -> String {
    match bad {
        BadLabel::Key { problem, .. } => format!("as a key, {problem}"),
        bad => bad.to_string(),
    }
}

/// A condition for VMs.
pub fn filter(text: &str) -> Result<VmFilter, String> {
    text.parse().map_err(|bad: BadFilter| bad.to_string())
}

fn name(text: &str) -> Result<String, String> {
    vm_name(text).map(String::from)
}

/// The name of a VM.
pub fn vm_name(text: &str) -> Result<VmName, String> {
    text.parse().map_err(|bad: BadName| bad.to_string())
}

/// The name or id of an image, or an image of a registry.
pub fn image(text: &str) -> Result<String, String> {
    if is_image_reference(text) {
        return Ok(text.to_owned());
    }
    Err("a name has a-z, 0-9, dots, underscores and hyphens; an image of a registry is \
         [HOST/]REPOSITORY[:TAG|@DIGEST]"
        .to_owned())
}

/// The name or id of an image or kernel.
pub fn reference(text: &str) -> Result<String, String> {
    if is_ref_name(text) {
        return Ok(text.to_owned());
    }
    Err("a name has a-z, 0-9, dots, underscores and hyphens, and begins with a letter or digit"
        .to_owned())
}

/// A port to publish.
pub fn published(text: &str) -> Result<PortForward, String> {
    text.parse().map_err(|bad: BadPublish| match bad {
        // clap shows the value.
        BadPublish::Text { problem, .. } => problem.to_owned(),
        bad => bad.to_string(),
    })
}

/// A number of vCPUs.
pub fn vcpus(text: &str) -> Result<u32, String> {
    // A number that does not fit is out of the limits too.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = if digits { text.parse().unwrap_or(u32::MAX) } else { not_a_count(text)? };
    limits::check_vcpus(count).map(|()| count).map_err(|error| error.to_string())
}

fn not_a_count(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(_) => Err(format!("{text} vCPUs: a VM has 1 to {}", limits::MAX_VCPUS)),
        Err(_) => Err("it is not a whole number".to_owned()),
    }
}

/// Memory, as MiB.
pub fn memory_mib(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    if bytes % MIB != 0 {
        return Err("memory is given in whole MiB".to_owned());
    }
    limits::check_memory_mib(bytes / MIB).map(|()| bytes / MIB).map_err(|error| error.to_string())
}

/// The size of a root disk, as bytes.
pub fn root_disk(text: &str) -> Result<u64, String> {
    disk("root disk", text)
}

/// The size of a work disk, as bytes.
pub fn work_disk(text: &str) -> Result<u64, String> {
    disk("work disk", text)
}

fn disk(what: &'static str, text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    limits::check_disk(what, bytes).map(|()| bytes).map_err(|error| error.to_string())
}

/// An age in seconds, such as `30m`, `24h` or `7d`.
pub fn age_s(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and a unit, such as 30m, 24h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let count = text.strip_suffix(unit).unwrap_or_default();
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: Option<u64> = count.parse().ok();
    count.and_then(|count| count.checked_mul(seconds)).ok_or_else(|| "it is too large".to_owned())
}

/// A point in time: an age such as 10m, or a time of RFC 3339.
pub fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = || "write an age, such as 10m, or a time, such as 2026-01-31T12:00:00Z".to_owned();
    let age_s = age_s(text).map_err(|_| wrong())?;
    let seconds = i64::try_from(age_s).map_err(|_| wrong())?;
    let then = Timestamp::now().as_second().checked_sub(seconds).ok_or_else(wrong)?;
    Timestamp::from_second(then).map_err(|_| wrong())
}

/// Time between two samples: 100 ms to one hour.
pub fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and a unit, such as 500ms, 2s or 1m".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    if count.is_empty() {
        return Err(wrong());
    }
    // A number that does not fit is out of the limits too.
    let ms = count.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit_ms);
    if !(100..=3_600_000).contains(&ms) {
        return Err("it must be 100ms to 1h".to_owned());
    }
    Ok(Duration::from_millis(ms))
}

/// A number of lines at the end of a log.
pub fn lines(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a whole number of lines".to_owned());
    }
    let count = text.parse().ok().filter(|count| *count <= MAX_TAIL);
    count.ok_or_else(|| format!("the maximum is {MAX_TAIL} lines"))
}

/// A TCP port.
pub fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
}

/// Published ports to remove.
pub fn unpublished(text: &str) -> Result<Unpublish, String> {
    text.parse().map_err(str::to_owned)
}

/// A grace period in seconds, as milliseconds.
pub fn grace_ms(text: &str) -> Result<u64, String> {
    let seconds: u64 =
        text.parse().map_err(|_| "it is not a whole number of seconds".to_owned())?;
    let ms = seconds.saturating_mul(1000);
    if ms > MAX_GRACE_MS {
        return Err(format!("the maximum is {} seconds", MAX_GRACE_MS / 1000));
    }
    Ok(ms)
}

/// Adds the defaults of a new VM, if known, and of a stop to the help.
pub fn with_defaults(command: clap::Command, defaults: Option<&VmDefaults>) -> clap::Command {
    let show = |command: clap::Command| {
        let Some(defaults) = defaults else { return command };
        let add = |argument: clap::Arg, value: String| {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            argument.help(format!("{help} [default: {value}]"))
        };
        let memory = human_size(defaults.memory_mib.saturating_mul(MIB));
        command
            .mut_arg("image", |a| add(a, defaults.image.clone()))
            .mut_arg("kernel", |a| add(a, defaults.kernel.clone()))
            .mut_arg("vcpus", |a| add(a, defaults.vcpus.to_string()))
            .mut_arg("memory", |a| add(a, memory))
            .mut_arg("disk_size", |a| add(a, human_size(defaults.root_bytes)))
            .mut_arg("work_size", |a| add(a, human_size(defaults.work_bytes)))
            .mut_arg("nat", |a| add(a, if defaults.nat { "on" } else { "off" }.into()))
    };
    let grace = |command: clap::Command| command.mut_arg("timeout", action::grace_help);
    let all = |command: clap::Command| {
        command
            .mut_subcommand("run", show)
            .mut_subcommand("create", show)
            .mut_subcommand("stop", grace)
            .mut_subcommand("restart", grace)
    };
    all(command).mut_subcommand("vm", all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_are_held_to_their_limits() {
        assert_eq!(vcpus("2"), Ok(2));
        for text in ["0", "-1", "33", "99999999999999999999", "4294967297"] {
            assert!(vcpus(text).unwrap_err().ends_with("a VM has 1 to 32"), "{text}");
        }
        for text in ["", "two", "1.5", "0x2"] {
            assert_eq!(vcpus(text).unwrap_err(), "it is not a whole number", "{text}");
        }
        assert_eq!(memory_mib("2G"), Ok(2048));
        for text in ["0", "0M", "-1G", "64M", "999T", "2097153K", "99999999999999999999G", "1"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
        assert_eq!(root_disk("8GiB"), Ok(8 << 30));
        for text in ["0", "1M", "-8G", "17T", ""] {
            assert!(root_disk(text).is_err() && work_disk(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_interval_has_a_unit_and_limits() {
        for (text, ms) in [("100ms", 100), ("2s", 2000), ("1m", 60_000), ("1h", 3_600_000)] {
            assert_eq!(interval(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "1", "ms", "-1s", "1.5s", "1 s", "1d", "é"] {
            assert!(interval(text).unwrap_err().starts_with("write a number"), "{text}");
        }
        for text in ["0s", "99ms", "61m", "2h", "99999999999999999999s"] {
            assert_eq!(interval(text).unwrap_err(), "it must be 100ms to 1h", "{text}");
        }
    }

    #[test]
    fn numbers_of_lines_and_ports_are_held_to_their_limits() {
        assert_eq!((lines("0"), lines("100000")), (Ok(0), Ok(100_000)));
        assert_eq!((port("1"), port("65535")), (Ok(1), Ok(65535)));
        for text in ["100001", "99999999999999999999"] {
            assert_eq!(lines(text).unwrap_err(), "the maximum is 100000 lines");
        }
        for text in ["", "-1", "x", "1.5", "+1", "\u{661}"] {
            assert_eq!(lines(text).unwrap_err(), "it is not a whole number of lines", "{text}");
            assert!(text == "+1" || port(text).is_err(), "{text}");
        }
        assert!(port("0").is_err() && port("65536").is_err());
    }

    #[test]
    fn a_grace_period_is_whole_seconds() {
        assert_eq!(grace_ms("0"), Ok(0));
        assert_eq!(grace_ms("86400"), Ok(MAX_GRACE_MS));
        for text in ["86401", "-1", "1.5", "", "18446744073709551615"] {
            assert!(grace_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_ages_or_timestamps() {
        let noon = since("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(noon.as_second(), 1_769_860_800);
        assert!((Timestamp::now().as_second() - since("10m").unwrap().as_second() - 600).abs() < 5);
        for text in ["", "x", "-1m", "99999999999999999999d", "9999999999999w", "2026-01-31"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
