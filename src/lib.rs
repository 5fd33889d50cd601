//! `chaos`: does a distributed system keep its promises while parts of it fail under load?

pub mod toxiproxy;
