//! `ice monitor`: what the cluster does, as a person can see it.
//!
//! The scheduler's news ([`crate::news`]) change a [`model`]; [`views`] draw it into cells as [`ui`]
//! says, which hears keys and mouse. All of that is pure: a screen is a function of the news, the
//! keys and the time, and `tests/monitor.rs` keeps such screens. Around it, [`watch`] has the
//! connection, [`term`] the terminal, and [`json`] writes the same news for programs. [`demo`] makes
//! news up, and [`run`] joins what is wanted.

pub mod demo;
pub mod history;
pub mod job;
pub mod json;
pub mod model;
pub mod node;
pub mod run;
pub mod term;
pub mod text;
pub mod theme;
pub mod ui;
pub mod views;
pub mod watch;
