//! The terminal user interface: `banger tui`.
//!
//! An event-driven view of one state. [`model`] is the state, [`update`] a pure function that
//! changes it and returns effects, [`view`] a pure function that draws it; [`app`] has the
//! terminal, the client of the daemon and the effects. Keys, help and hints come from one table,
//! [`keys::BINDINGS`].

pub mod app;
pub mod keys;
pub mod model;
pub mod text;
pub mod theme;
pub mod update;
pub mod view;
mod words;

pub use app::{Options, run};
pub use theme::Background;
