//! stub
pub mod draw;
pub mod render;
pub mod wire;
