//! Does a distributed system keep its promises while parts of it fail under load?
//!
//! One pipeline, a module a room:
//! [`scenario`] (what the user wrote) → [`plan`] (what will happen) → [`run`] (making it happen) →
//! [`evidence`] (what did happen) → [`verdict`] (was it good?) → [`report`] (telling people).
//! Each knows only those before it. Effects live in [`run`], in the worker ([`load`]), in the proxy
//! ([`toxiproxy`]) and in the parent of all processes ([`keeper`]); the rest are functions of their
//! arguments.

mod bell;
pub mod cli;
pub mod diagnostic;
pub mod display;
pub mod evidence;
pub mod exit;
pub mod keeper;
pub mod load;
pub mod plan;
pub mod report;
pub mod run;
pub mod scenario;
pub mod terminal;
pub mod toxiproxy;
pub mod verdict;
