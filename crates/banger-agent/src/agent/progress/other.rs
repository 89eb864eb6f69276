//! An unknown init, whose progress cannot be read. Its boot counts as over when it stops creating
//! processes, since a first command often needs what the init sets up.

use std::time::{Duration, Instant};

use banger_agent_proto::boot::BootState;

use super::{LOOK, Outcome, processes};

/// Number of consecutive checks without a new process: half a second.
const AT_REST: u32 = 5;

/// Time limit.
const LONGEST: Duration = Duration::from_secs(10);

pub fn wait() -> Outcome {
    let deadline = Instant::now() + LONGEST;
    let mut rest = Rest { made: None, looks: 0 };
    while !rest.look(processes::made()) && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    let program = processes::command_of(1);
    let program = program.split(' ').next().unwrap_or_default();
    Outcome {
        state: BootState::Unknown,
        source: format!("`{program}` does not say when it has booted"),
        failed: Vec::new(),
    }
}

struct Rest {
    made: Option<u64>,
    looks: u32,
}

impl Rest {
    fn look(&mut self, made: Option<u64>) -> bool {
        self.looks = if made == self.made { self.looks + 1 } else { 0 };
        self.made = made;
        self.looks >= AT_REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_a_while_without_new_processes() {
        let mut rest = Rest { made: None, looks: 0 };
        let made = [10, 10, 11, 11, 11, 11, 11, 11];
        let looks: Vec<bool> = made.iter().map(|made| rest.look(Some(*made))).collect();
        assert_eq!(looks.iter().position(|done| *done), Some(7));
    }
}
