//! Warnings about names that are left out.

/// Names that were left out: their number and the first.
#[derive(Default)]
pub struct LeftOut(u64, String);

impl LeftOut {
    /// Adds a name.
    pub fn add(&mut self, path: &[u8]) {
        if self.0 == 0 {
            let text = String::from_utf8_lossy(path);
            self.1 = text.chars().filter(|c| !c.is_control()).take(100).collect();
        }
        self.0 += 1;
    }

    /// The warning; `what` says what was left out.
    pub fn line(&self, what: &str) -> Option<String> {
        match self.0 {
            0 => None,
            1 => Some(format!("{what}: `{}`", self.1)),
            count => Some(format!("{what}: `{}` and {} more", self.1, count - 1)),
        }
    }
}
