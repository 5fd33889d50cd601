//! The command line: parse, dispatch, print the error, exit.

fn main() {}
