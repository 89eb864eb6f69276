//! Choosing drivers: a pure function of what was probed and what was asked for.

use crate::plan::Chosen;

/// A driver that could be used, best first, or the reason why it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: &'static str,
    /// `Ok(why it is good)` or `Err(why it cannot be used)`.
    pub verdict: Result<String, String>,
}

/// No driver can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} can be used here: {}", .reasons.join("; "))]
pub struct NoDriver {
    what: &'static str,
    reasons: Vec<String>,
}

/// Takes the first usable candidate, or the one that was asked for by name.
///
/// # Errors
/// Nothing usable, or what was asked for is not; with the reason for each.
pub fn choose(
    what: &'static str,
    wanted: Option<&str>,
    candidates: &[Candidate],
) -> Result<Chosen, NoDriver> {
    let mut passed_over = Vec::new();
    for candidate in candidates {
        if wanted.is_some_and(|name| name != candidate.name) {
            continue;
        }
        match &candidate.verdict {
            Ok(good) => {
                let mut why = match wanted {
                    Some(_) => String::from("asked for in the configuration"),
                    None => good.clone(),
                };
                if !passed_over.is_empty() {
                    why = format!("{why} ({})", passed_over.join("; "));
                }
                return Ok(Chosen { name: candidate.name.into(), why });
            }
            Err(bad) => passed_over.push(format!("not {}: {bad}", candidate.name)),
        }
    }
    if passed_over.is_empty() {
        let known: Vec<&str> = candidates.iter().map(|candidate| candidate.name).collect();
        let wanted = wanted.unwrap_or("auto");
        passed_over.push(format!("`{wanted}` is not one of {}", known.join(", ")));
    }
    Err(NoDriver { what, reasons: passed_over })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        vec![
            Candidate { name: "firecracker", verdict: Err("KVM does not work here".into()) },
            Candidate { name: "qemu", verdict: Ok("works without KVM".into()) },
            Candidate { name: "other", verdict: Ok("works too".into()) },
        ]
    }

    #[test]
    fn the_first_usable_wins_and_says_what_was_passed_over() {
        let chosen = choose("VMM", None, &candidates()).unwrap();
        assert_eq!(chosen.name, "qemu");
        assert_eq!(chosen.why, "works without KVM (not firecracker: KVM does not work here)");
    }

    #[test]
    fn what_was_asked_for_is_taken_or_refused() {
        assert_eq!(choose("VMM", Some("other"), &candidates()).unwrap().name, "other");
        let error = choose("VMM", Some("firecracker"), &candidates()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no VMM can be used here: not firecracker: KVM does not work here"
        );
        let error = choose("VMM", Some("xen"), &candidates()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no VMM can be used here: `xen` is not one of firecracker, qemu, other"
        );
    }
}
