//! ice: a distributed compiler for C and C++.

pub mod args;
pub mod cli;
pub mod client;
pub mod compress;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod dictionary;
pub mod discover;
pub mod frame;
pub mod id;
pub mod include;
pub mod key;
pub mod masquerade;
pub mod message;
pub mod sandbox;
pub mod scheduler;
pub mod signal;
pub mod status;
pub mod submitter;
pub mod sys;
pub mod toolchain;
pub mod worker;
