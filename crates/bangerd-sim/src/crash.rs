//! Crash points: the daemon aborts at a named step, so that tests can check the next daemon's
//! recovery.
//!
//! `BANGER_ABORT_AT=start.shim.before` aborts when that point is first reached,
//! `BANGER_ABORT_AT=start.shim.before@3` when it is reached for the third time. Without it the
//! points have no effect.
//!
//! `BANGER_POINTS_LOG=FILE` appends the name of each reached point to a file, one per line.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banger_api::{ApiError, ErrorCode};
use banger_engine::drivers::CrashPoints;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Name of the variable.
pub const VARIABLE: &str = "BANGER_ABORT_AT";

/// Name of the variable with the log of reached points.
pub const LOG_VARIABLE: &str = "BANGER_POINTS_LOG";

/// The crash points of the environment.
///
/// # Errors
/// Those of [`points`]; the log cannot be opened.
pub fn from_environment() -> Result<CrashPoints, ApiError> {
    let abort = points(std::env::var(VARIABLE).ok().as_deref())?;
    let Some(path) = std::env::var_os(LOG_VARIABLE) else { return Ok(abort) };
    let log = File::options().append(true).create(true).open(&path).map_err(|error| {
        let text = format!("cannot open `{}` of `{LOG_VARIABLE}`", path.display());
        ApiError::new(ErrorCode::BadRequest, text).caused_by(&error)
    })?;
    Ok(Arc::new(move |point| {
        // One write(2) for each line, so that lines of several threads do not mix.
        if let Err(error) = (&log).write_all(format!("{point}\n").as_bytes()) {
            tracing::error!(%error, "cannot log a crash point");
        }
        abort(point);
    }))
}

/// The crash points for a value of [`VARIABLE`].
///
/// # Errors
/// The text after `@` is not a number above zero.
pub fn points(value: Option<&str>) -> Result<CrashPoints, ApiError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(Arc::new(|_| ()));
    };
    let (name, hit) = match value.split_once('@') {
        None => (value, 1),
        Some((name, hit)) => match hit.parse::<u64>() {
            Ok(hit) if hit > 0 => (name, hit),
            _ => {
                let text = format!("`{VARIABLE}` is `{value}`: `{hit}` is not a number of hits");
                return Err(ApiError::new(ErrorCode::BadRequest, text));
            }
        },
    };
    // A requested abort needs no core file (core(5)); if it cannot be disabled, the file is
    // harmless.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    let name = name.to_owned();
    let left = AtomicU64::new(hit);
    Ok(Arc::new(move |point| {
        if point == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::error!(point, "abort, as configured");
            std::process::abort();
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        assert!(points(None).is_ok() && points(Some("")).is_ok());
        for bad in ["a@", "a@0", "a@x", "a@-1"] {
            assert!(points(Some(bad)).is_err(), "{bad}");
        }
        // Other points and earlier hits are ignored.
        let third = points(Some("a@3")).unwrap();
        third("b");
        third("a");
        third("a");
    }
}
