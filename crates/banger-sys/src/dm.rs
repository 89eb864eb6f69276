//! Device-mapper: its ioctls (linux/dm-ioctl.h, Documentation/admin-guide/device-mapper).
//!
//! Devices are addressed by name. The functions neither wait for udev nor need a device node:
//! tables refer to devices by number, and callers create nodes where they need them.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// The control device. Opening it loads the kernel module.
const CONTROL: &str = "/dev/mapper/control";
/// Maximum length of a name in bytes: `DM_NAME_LEN` minus the final zero.
pub const MAX_NAME: usize = 127;
/// Bytes of a sector, the unit of all lengths.
pub const SECTOR: u64 = 512;

/// `sizeof(struct dm_ioctl)`, followed by the offsets of its fields.
const HEADER: usize = 312;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const OPEN_COUNT: usize = 24;
const FLAGS: usize = 28;
const DEV: usize = 40;
const NAME: usize = 48;

/// `sizeof(struct dm_target_spec)`, followed by the offsets of its fields.
const SPEC: usize = 40;
const SPEC_LENGTH: usize = 8;
const SPEC_NEXT: usize = 20;
const SPEC_TYPE: usize = 24;

const READONLY: u32 = 1;
const STATUS_TABLE: u32 = 1 << 4;
const ACTIVE_PRESENT: u32 = 1 << 5;
const BUFFER_FULL: u32 = 1 << 8;

/// Initial and maximum size of the answer buffer in bytes.
const ANSWER: usize = 16 << 10;
const MAX_ANSWER: usize = 16 << 20;

/// Request number.
#[derive(Clone, Copy)]
enum Request {
    Version = 0,
    ListDevices = 2,
    DevCreate = 3,
    DevRemove = 4,
    DevSuspend = 6,
    DevStatus = 7,
    TableLoad = 9,
    TableStatus = 12,
    TargetVersion = 17,
}

/// The device number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A target of a table: one range of sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// First sector.
    pub start: u64,
    /// Number of sectors.
    pub length: u64,
    /// Target type, at most 15 bytes: `linear`, `zero`, `snapshot`.
    pub kind: String,
    /// Parameters of the target type.
    pub arguments: String,
}

/// Access mode of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// Status of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The device number.
    pub number: DeviceNumber,
    /// Whether the device has an active table.
    pub live: bool,
    /// Number of open references.
    pub open_count: u32,
}

/// The driver's version.
///
/// # Errors
/// open(2) of the control device, ioctl(2).
pub fn version() -> io::Result<[u32; 3]> {
    let answer = request_ioctl(Request::Version, &message(None, 0, &[])?)?;
    Ok([u32_at(&answer, 0), u32_at(&answer, 4), u32_at(&answer, 8)])
}

/// Creates a device without a table: DM_DEV_CREATE.
///
/// # Errors
/// open(2), ioctl(2): `EBUSY` if the name is in use.
pub fn create(name: &str) -> io::Result<DeviceNumber> {
    Ok(status_of(&request_ioctl(Request::DevCreate, &message(Some(name), 0, &[])?)?).number)
}

/// Loads a table, which becomes active at the next [`resume`]: DM_TABLE_LOAD.
///
/// # Errors
/// open(2), ioctl(2): `EINVAL` if the kernel does not support a target type or rejects its
/// parameters, `ENXIO` if there is no such device.
pub fn load(name: &str, table: &[Target], access: Access) -> io::Result<()> {
    let flags = if access == Access::Read { READONLY } else { 0 };
    let mut request = message(Some(name), flags, &specs(table)?)?;
    let count = u32::try_from(table.len()).unwrap_or(u32::MAX);
    request[TARGET_COUNT..][..4].copy_from_slice(&count.to_ne_bytes());
    request_ioctl(Request::TableLoad, &request)?;
    Ok(())
}

/// Activates the loaded table: DM_DEV_SUSPEND without DM_SUSPEND_FLAG.
///
/// # Errors
/// open(2), ioctl(2).
pub fn resume(name: &str) -> io::Result<()> {
    request_ioctl(Request::DevSuspend, &message(Some(name), 0, &[])?)?;
    Ok(())
}

/// The status of a device; `None` if there is none: DM_DEV_STATUS.
///
/// # Errors
/// open(2), ioctl(2).
pub fn status(name: &str) -> io::Result<Option<Status>> {
    match request_ioctl(Request::DevStatus, &message(Some(name), 0, &[])?) {
        Ok(answer) => Ok(Some(status_of(&answer))),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The active table; empty if there is none: DM_TABLE_STATUS.
///
/// # Errors
/// open(2), ioctl(2).
pub fn table(name: &str) -> io::Result<Vec<Target>> {
    let answer = request_ioctl(Request::TableStatus, &message(Some(name), STATUS_TABLE, &[])?)?;
    parse_specs(&answer)
}

/// The active targets, with the state of each in place of its parameters, such as `Invalid` of a
/// snapshot: DM_TABLE_STATUS without DM_STATUS_TABLE_FLAG.
///
/// # Errors
/// open(2), ioctl(2).
pub fn states(name: &str) -> io::Result<Vec<Target>> {
    parse_specs(&request_ioctl(Request::TableStatus, &message(Some(name), 0, &[])?)?)
}

/// Removes a device: DM_DEV_REMOVE. Succeeds if there is no such device.
///
/// # Errors
/// open(2), ioctl(2): `EBUSY` while the device is open.
pub fn remove(name: &str) -> io::Result<()> {
    match request_ioctl(Request::DevRemove, &message(Some(name), 0, &[])?) {
        Err(error) if error.raw_os_error() != Some(libc::ENXIO) => Err(error),
        _ => Ok(()),
    }
}

/// Names of all devices: DM_LIST_DEVICES.
///
/// # Errors
/// open(2), ioctl(2).
pub fn list() -> io::Result<Vec<String>> {
    parse_names(&request_ioctl(Request::ListDevices, &message(None, 0, &[])?)?)
}

/// Checks that the kernel has a target type, and loads its module: DM_GET_TARGET_VERSION. A driver
/// older than 4.41.0 (Linux 5.4) does not know the request, and then only the driver is checked.
///
/// # Errors
/// open(2): `ENOENT` or `ENODEV` without device-mapper, as a node may be there without a driver.
/// ioctl(2): `EINVAL` if there is no such target type.
pub fn check_target(kind: &str) -> io::Result<()> {
    match request_ioctl(Request::TargetVersion, &message(Some(kind), 0, &[])?) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => version().map(drop),
        other => other.map(drop),
    }
}

fn message(name: Option<&str>, flags: u32, data: &[u8]) -> io::Result<Vec<u8>> {
    let name = name.unwrap_or_default().as_bytes();
    if name.len() > MAX_NAME || name.contains(&0) || name.contains(&b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device-mapper name"));
    }
    let mut bytes = vec![0; HEADER];
    // Version 4.0.0 introduced these requests.
    bytes[..4].copy_from_slice(&4_u32.to_ne_bytes());
    bytes[DATA_START..][..4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
    bytes[FLAGS..][..4].copy_from_slice(&flags.to_ne_bytes());
    bytes[NAME..][..name.len()].copy_from_slice(name);
    bytes.extend_from_slice(data);
    Ok(bytes)
}

/// Sends a request, with a larger answer buffer each time the answer does not fit.
#[expect(unsafe_code, reason = "an ioctl of the driver")]
fn request_ioctl(request: Request, message: &[u8]) -> io::Result<Vec<u8>> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let mut size = ANSWER.max(message.len());
    loop {
        let mut bytes = message.to_vec();
        bytes.resize(size, 0);
        let length = u32::try_from(size).unwrap_or(u32::MAX);
        bytes[DATA_SIZE..][..4].copy_from_slice(&length.to_ne_bytes());
        // _IOWR(0xfd, request, struct dm_ioctl)
        let code = (3 << 30) | ((HEADER as libc::c_ulong) << 16) | (0xfd << 8);
        let code = code | request as libc::c_ulong;
        // SAFETY: the driver reads and writes at most `data_size` bytes at the pointer, which is
        // the length of `bytes`, and does not keep the pointer.
        let done = unsafe { libc::ioctl(control.as_raw_fd(), code as _, bytes.as_mut_ptr()) };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
        if u32_at(&bytes, FLAGS) & BUFFER_FULL == 0 {
            return Ok(bytes);
        }
        if size >= MAX_ANSWER {
            return Err(io::Error::other("the answer of device-mapper is too long"));
        }
        size *= 4;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map_or(0, |four| u32::from_ne_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map_or(0, |eight| u64::from_ne_bytes(*eight))
}

/// The zero-terminated text at this offset.
fn text_at(bytes: &[u8], at: usize) -> String {
    let text = bytes.get(at..).unwrap_or_default().split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

fn status_of(answer: &[u8]) -> Status {
    let device = u64_at(answer, DEV);
    Status {
        number: DeviceNumber { major: rustix::fs::major(device), minor: rustix::fs::minor(device) },
        live: u32_at(answer, FLAGS) & ACTIVE_PRESENT != 0,
        open_count: u32_at(answer, OPEN_COUNT),
    }
}

/// Encodes a table for DM_TABLE_LOAD: `next` of each target is relative to that target.
fn specs(table: &[Target]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for target in table {
        let kind = target.kind.as_bytes();
        if kind.len() > 15 || kind.contains(&0) || target.arguments.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a target type"));
        }
        let length = (SPEC + target.arguments.len() + 1).next_multiple_of(8);
        let mut spec = vec![0; length];
        spec[..8].copy_from_slice(&target.start.to_ne_bytes());
        spec[SPEC_LENGTH..][..8].copy_from_slice(&target.length.to_ne_bytes());
        let next = u32::try_from(length).unwrap_or(u32::MAX);
        spec[SPEC_NEXT..][..4].copy_from_slice(&next.to_ne_bytes());
        spec[SPEC_TYPE..][..kind.len()].copy_from_slice(kind);
        spec[SPEC..][..target.arguments.len()].copy_from_slice(target.arguments.as_bytes());
        bytes.extend(spec);
    }
    Ok(bytes)
}

/// Decodes a table of DM_TABLE_STATUS: `next` is relative to the start of the data.
fn parse_specs(answer: &[u8]) -> io::Result<Vec<Target>> {
    let data = data(answer)?;
    let mut targets = Vec::new();
    let mut at = 0;
    for _ in 0..u32_at(answer, TARGET_COUNT) {
        let spec = data.get(at..).filter(|spec| spec.len() > SPEC).ok_or_else(malformed)?;
        targets.push(Target {
            start: u64_at(spec, 0),
            length: u64_at(spec, SPEC_LENGTH),
            kind: text_at(&spec[..SPEC], SPEC_TYPE),
            arguments: text_at(spec, SPEC).trim_end().to_owned(),
        });
        at = u32_at(spec, SPEC_NEXT) as usize;
    }
    Ok(targets)
}

/// `struct dm_name_list`: `next` is relative to the entry, zero ends the list, and device zero in
/// the first entry means an empty list.
fn parse_names(answer: &[u8]) -> io::Result<Vec<String>> {
    const ENTRY_NEXT: usize = 8;
    const ENTRY_NAME: usize = 12;
    let mut rest = data(answer)?;
    let mut names = Vec::new();
    while rest.len() > ENTRY_NAME && u64_at(rest, 0) != 0 {
        names.push(text_at(rest, ENTRY_NAME));
        match u32_at(rest, ENTRY_NEXT) as usize {
            0 => break,
            next => rest = rest.get(next..).ok_or_else(malformed)?,
        }
    }
    Ok(names)
}

fn data(answer: &[u8]) -> io::Result<&[u8]> {
    let answer = Some(answer).filter(|answer| answer.len() >= HEADER).ok_or_else(malformed)?;
    answer.get(u32_at(answer, DATA_START) as usize..).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer of device-mapper is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(start: u64, length: u64, kind: &str, arguments: &str) -> Target {
        Target { start, length, kind: kind.into(), arguments: arguments.into() }
    }

    #[test]
    fn a_table_is_encoded_for_dm_table_load() {
        let table = [target(0, 2048, "linear", "7:3 0"), target(2048, 100, "zero", "")];
        let bytes = specs(&table).unwrap();
        assert_eq!(bytes.len(), 48 + 48);
        assert_eq!(u32_at(&bytes, SPEC_NEXT), 48);
        assert_eq!(text_at(&bytes, SPEC), "7:3 0");
        assert_eq!(u64_at(&bytes, 48), 2048);
        assert!(specs(&[target(0, 1, "sixteen-letters!", "")]).is_err());
    }

    #[test]
    fn a_table_is_decoded_and_a_malformed_one_refused() {
        let table = [target(0, 2048, "linear", "7:3 0"), target(2048, 100, "zero", "")];
        let mut answer = message(Some("x"), 0, &specs(&table).unwrap()).unwrap();
        answer[TARGET_COUNT..][..4].copy_from_slice(&2_u32.to_ne_bytes());
        assert_eq!(parse_specs(&answer).unwrap(), table);
        // One target points out of the answer, one is truncated.
        let mut bad = answer.clone();
        bad[HEADER + SPEC_NEXT..][..4].copy_from_slice(&9000_u32.to_ne_bytes());
        assert!(parse_specs(&bad).is_err());
        assert!(parse_specs(&answer[..HEADER + 50]).is_err());
        assert!(parse_specs(&answer[..10]).is_err());
    }

    #[test]
    fn names_are_decoded_and_a_malformed_list_refused() {
        let mut data = vec![0; 48];
        data[..8].copy_from_slice(&0xfd00_u64.to_ne_bytes());
        data[8..12].copy_from_slice(&24_u32.to_ne_bytes());
        data[12..15].copy_from_slice(b"one");
        data[24..32].copy_from_slice(&0xfd01_u64.to_ne_bytes());
        data[36..39].copy_from_slice(b"two");
        let answer = message(None, 0, &data).unwrap();
        assert_eq!(parse_names(&answer).unwrap(), ["one", "two"]);
        assert!(parse_names(&message(None, 0, &[0; 16]).unwrap()).unwrap().is_empty());
        data[8..12].copy_from_slice(&4096_u32.to_ne_bytes());
        assert!(parse_names(&message(None, 0, &data).unwrap()).is_err());
    }

    #[test]
    fn a_name_is_checked() {
        for bad in ["a/b", "a\0b", &"x".repeat(128)] {
            assert!(message(Some(bad), 0, &[]).is_err(), "{bad}");
        }
    }
}
