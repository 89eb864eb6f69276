//! random(4): adding entropy that counts, and asking the generator to use it at once.

use std::fs::File;
use std::io;

use rustix::ioctl::{self, NoArg, Setter, opcode};

/// Most bytes taken at once, as the protocol promises.
pub const MAX_BYTES: usize = 512;

/// `struct rand_pool_info` of `linux/random.h` with room for [`MAX_BYTES`].
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; MAX_BYTES],
}

/// Mixes up to [`MAX_BYTES`] of `bytes` into the kernel's pool, credits them in full (they come
/// from the host's own generator) and reseeds.
///
/// # Errors
/// As open(2) and ioctl(2) on `/dev/random`.
#[expect(unsafe_code, reason = "ioctls that rustix does not wrap")]
pub fn add(bytes: &[u8]) -> io::Result<()> {
    // The opcode is defined over the two-int header, not over the whole structure.
    const ADD_ENTROPY: ioctl::Opcode = opcode::write::<[libc::c_int; 2]>(b'R', 3);
    const RESEED: ioctl::Opcode = opcode::none(b'R', 7);
    let taken = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let mut info = PoolInfo { entropy_bits: 0, size_bytes: 0, bytes: [0; MAX_BYTES] };
    for (slot, byte) in info.bytes.iter_mut().zip(taken) {
        *slot = *byte;
    }
    info.entropy_bits = taken.len() as libc::c_int * 8;
    info.size_bytes = taken.len() as libc::c_int;
    let device = File::options().write(true).open("/dev/random")?;
    // SAFETY: the kernel reads the header and `size_bytes` bytes after it, all inside `PoolInfo`,
    // which `Setter` keeps alive.
    unsafe { ioctl::ioctl(&device, Setter::<ADD_ENTROPY, PoolInfo>::new(info)) }?;
    // SAFETY: the request takes no argument.
    unsafe { ioctl::ioctl(&device, NoArg::<RESEED>::new()) }?;
    Ok(())
}
