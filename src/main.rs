//! The `tinyfind` program.

fn main() {}
