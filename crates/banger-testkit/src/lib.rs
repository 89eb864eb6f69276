//! Placeholder: filled by the first issue.
