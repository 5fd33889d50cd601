//! The bundled order system: an example of a system that fails well, and the test bed of the harness.
