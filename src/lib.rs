//! Does a distributed system keep its promises while parts of it fail under load?
//!
//! One pipeline: what the user wrote → what will happen → what did happen → was it good? →
//! telling people. Each step is a module that knows only the ones before it.

pub mod cli;
pub mod diagnostic;
pub mod evidence;
pub mod exit;
pub mod keeper;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod terminal;
pub mod verdict;
