//! Parses, dispatches, prints the error, sets the exit code. Must never: decide anything.

fn main() {}
