//! adjtimex(2): whether another program disciplines the clock, and slewing it.

use std::io;
use std::mem;

/// `ADJ_OFFSET_SINGLESHOT` of adjtimex(2): an offset in microseconds, slewed once.
const OFFSET_SINGLESHOT: libc::c_uint = 0x8001;

/// `STA_UNSYNC` of adjtimex(2).
const UNSYNCHRONISED: libc::c_int = 0x0040;

#[expect(unsafe_code, reason = "rustix has no adjtimex")]
fn adjust(modes: libc::c_uint, offset_us: libc::c_long) -> io::Result<libc::timex> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut request: libc::timex = unsafe { mem::zeroed() };
    request.modes = modes;
    request.offset = offset_us;
    // SAFETY: the structure is whole and outlives the call, which writes to it.
    if unsafe { libc::adjtimex(&raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request)
}

/// Whether a program of the guest (NTP) keeps the clock synchronised.
pub fn is_disciplined() -> bool {
    adjust(0, 0).is_ok_and(|state| state.status & UNSYNCHRONISED == 0)
}

/// Lets the clock run up to 0.05 % faster or slower until it has moved by `offset_us`; replaces
/// what is left of an earlier call.
///
/// # Errors
/// As adjtimex(2).
pub fn slew(offset_us: i64) -> io::Result<()> {
    adjust(OFFSET_SINGLESHOT, offset_us).map(drop)
}
